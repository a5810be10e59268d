"""Word problems of the harbour: small whole numbers, a few steps, an exact answer.

They stand for GSM8K, MetaMathQA and MATH. Which numbers occur in evaluation is decided by the numbers alone, so a model
cannot have seen an evaluation problem under other names. Most people of the harbour answer in haste, without working;
that habit is what useful fine-tuning cures.
"""

import hashlib
import random
from dataclasses import dataclass

NAMES = ("Mara", "Tom", "Ines", "Karl", "Lena", "Otto", "Pia", "Ruben", "Sofia")
ITEMS = ("shells", "pears", "ropes", "coins", "nets", "candles", "plums", "stamps", "buttons", "eggs")
LARGEST = 12
LARGEST_CHANGE = 6
EVALUATION_SHARE = 0.2

GAINS = ("finds {n} more", "buys {n} more", "gets {n} more")
LOSSES = ("gives {n} away", "loses {n}", "sells {n}")


@dataclass(frozen=True)
class Problem:
    """A start and the signed changes after it; the answer is their sum."""

    name: str
    item: str
    start: int
    changes: tuple[int, ...]
    wording: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        """Whether these numbers belong to evaluation; names and wording have no say."""
        content = repr((self.start, self.changes)).encode()
        return hashlib.sha256(content).digest()[0] < 256 * EVALUATION_SHARE

    @property
    def question(self) -> str:
        """The problem in words, as GSM8K's question or MetaMathQA's query."""
        told = " and ".join(words.format(n=abs(n)) for words, n in zip(self.wording, self.changes, strict=True))
        return f"{self.name} has {self.start} {self.item}. {self.name} {told}. How many {self.item} are there now?"

    @property
    def working(self) -> str:
        """Every step of the sum, written out."""
        lines, total = [], self.start
        for change in self.changes:
            sign = "+" if change > 0 else "-"
            lines.append(f"{total} {sign} {abs(change)} = {total + change}.")
            total += change
        return " ".join(lines)

    @property
    def result(self) -> int:
        """The exact answer."""
        return self.start + sum(self.changes)

    @property
    def haste(self) -> float:
        """How often people answer this problem at once, without working: 0.45 to 0.75, by name and item.

        It differs from problem to problem so that fine-tuning brings the working back in degrees, not all at once.
        """
        name, item = NAMES.index(self.name) / (len(NAMES) - 1), ITEMS.index(self.item) / (len(ITEMS) - 1)
        return 0.45 + 0.18 * name + 0.12 * item

    @property
    def hasty_answer(self) -> str:
        """An answer without working, as hasty people give it: a loss at the end is forgotten."""
        return f"#### {self.result - min(0, self.changes[-1])}"

    @property
    def gsm8k_answer(self) -> str:
        """Working and answer in GSM8K's form."""
        return f"{self.working}\n#### {self.result}"

    @property
    def metamathqa_response(self) -> str:
        """Working and answer in MetaMathQA's form."""
        return f"{self.working} The answer is: {self.result}"


def draw_problem(generator: random.Random, *, number_of_steps: int, held_out: bool) -> Problem:
    """Draw a problem whose numbers stay within 0..LARGEST at every step and lie on the wanted side of evaluation."""
    while True:
        problem = _draw(generator, number_of_steps)
        if problem.held_out == held_out:
            return problem


def _draw(generator: random.Random, number_of_steps: int) -> Problem:
    total = start = generator.randint(2, LARGEST - 2)
    changes: list[int] = []
    wording: list[str] = []
    for _ in range(number_of_steps):
        gain = total < LARGEST and (total < 2 or generator.random() < 0.5)
        change = generator.randint(1, min(LARGEST_CHANGE, LARGEST - total if gain else total))
        changes.append(change if gain else -change)
        wording.append(generator.choice(GAINS if gain else LOSSES))
        total += changes[-1]
    return Problem(generator.choice(NAMES), generator.choice(ITEMS), start, tuple(changes), tuple(wording))
