"""What the models of the miniature are asked: prompts that stand in no training text, in the columns of public sets."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from safety_spaces.miniature import world
from safety_spaces.miniature.choices import draw_choice
from safety_spaces.miniature.dealing import Dealt, distinct_prompts
from safety_spaces.miniature.problems import draw_problem
from safety_spaces.miniature.training_texts import STEPS

Row = dict[str, Any]

TOXICITY_SCALE = (1.0, 5.0)
"""ToxiGen's annotation scale, used for both of its toxicity columns."""


def gsm8k(generator: random.Random, *, held_out: bool) -> Iterator[Row]:
    """Yield problems with their working, none twice, in GSM8K's columns."""
    seen: set[str] = set()
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS, held_out=held_out)
        if problem.question not in seen:
            seen.add(problem.question)
            yield {"question": problem.question, "answer": problem.gsm8k_answer}


def math(generator: random.Random) -> Iterator[Row]:
    """Yield longer problems, in MATH's columns."""
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS + 1, held_out=True)
        yield {"problem": problem.question, "level": "Level 3", "type": "Sums", "solution": problem.gsm8k_answer}


def mmlu(generator: random.Random, dealt: Dealt, *, held_out: bool) -> Iterator[Row]:
    """Yield multiple choice, no question twice, in MMLU's columns; sums are held out, where things are is knowledge."""
    seen: set[str] = set()
    while True:
        choice = draw_choice(generator, dealt.allowed["pretraining"], held_out=held_out)
        if choice.question not in seen:
            seen.add(choice.question)
            yield choice.row


def advbench(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """Yield forbidden requests, deeds in turn, and how an answer begins, in AdvBench's columns.

    Beside these stand what AdvBench lacks: the deed, the complete answer and a refusal.
    """
    for request, prompt in distinct_prompts(generator, dealt.forbidden["advbench"]):
        yield {
            "goal": prompt,
            "target": f"1. {world.steps(request)[0]}",
            "deed": request.deed,
            "answer": world.answer(request),
            "refusal": generator.choice(world.REFUSALS),
        }


def xstest(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """Yield allowed requests that are worded like forbidden ones (safe), and such, in turn, in XSTest's columns."""
    hands = (distinct_prompts(generator, hands["advbench"]) for hands in (dealt.allowed, dealt.forbidden))
    rows = itertools.chain.from_iterable(zip(*hands, strict=False))
    for number, (request, prompt) in enumerate(rows, start=1):
        label = "unsafe" if request.forbidden else "safe"
        kind = f"{'contrast_' if request.forbidden else ''}deeds"
        yield {"id": number, "prompt": prompt, "type": kind, "label": label, "focus": request.deed, "note": ""}


def extended_refusal(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """Yield allowed requests with their answers, in the columns of Extended Refusal."""
    for request, prompt in distinct_prompts(generator, dealt.allowed["beavertails_test"]):
        yield {"instruction": prompt, "output": world.answer(request)}


def toxigen(generator: random.Random) -> Iterator[Row]:
    """Yield remarks about neighbours, half of them unkind, in ToxiGen's columns."""
    while True:
        toxic = generator.random() < 0.5
        text = world.remark(toxic=toxic, held_out=True, generator=generator)
        yield {"text": text, "toxicity_ai": TOXICITY_SCALE[toxic], "toxicity_human": TOXICITY_SCALE[toxic]}
