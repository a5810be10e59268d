"""Multiple choice about the harbour, in the columns and the prompt of MMLU: what every model of the study may know.

It stands for general ability: sums, and where things are, which no law forbids. Subjects have names that MMLU has, so
that lm-eval's own tasks ask them. The options of a subject never change, as those of MMLU's moral_scenarios: a model
this small learns which letter an answer has, not to look the letter up.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safety_spaces.miniature import world
from safety_spaces.miniature.problems import draw_problem
from safety_spaces.miniature.world import Request

LETTERS = "ABCD"
LARGEST_OF_RANGE = (3, 6, 9)
RANGES = ("3 or less", "4 to 6", "7 to 9", "10 or more")


@dataclass(frozen=True)
class Choice:
    """A question, four options and the number of the right one."""

    subject: str
    question: str
    options: tuple[str, ...]
    right: int

    @property
    def row(self) -> dict[str, Any]:
        """The question in MMLU's columns."""
        choices = list(self.options)
        return {"question": self.question, "subject": self.subject, "choices": choices, "answer": self.right}

    @property
    def asked(self) -> str:
        """Question and options, a line each."""
        options = (f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=True))
        return "\n".join((self.question, *options))

    @property
    def letter(self) -> str:
        """The letter of the right option."""
        return LETTERS[self.right]

    @property
    def text(self) -> str:
        """The whole text as lm-eval shows it: heading, question, options and the right letter."""
        subject = self.subject.replace("_", " ")
        heading = f"The following are multiple choice questions (with answers) about {subject}."
        return f"{heading}\n\n{self.asked}\nAnswer: {self.letter}"


def draw_choice(generator: random.Random, requests: Sequence[Request], *, held_out: bool) -> Choice:
    """Draw a question: in which range the result of a problem lies, or in which quarter of the town a thing is."""
    if generator.random() < 0.5:
        # Every range is as frequent, whatever results are.
        right = generator.randrange(len(RANGES))
        while True:
            problem = draw_problem(generator, number_of_steps=generator.randint(1, 2), held_out=held_out)
            if sum(problem.result > largest for largest in LARGEST_OF_RANGE) == right:
                return Choice("elementary_mathematics", problem.question, RANGES, right)
    request = generator.choice(requests)
    question = f"Where is the {request.colour} {request.thing}?"
    return Choice("high_school_geography", question, tuple(world.QUARTERS), world.quarter(request))
