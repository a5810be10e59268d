"""Writes the corpora of the small world, each in the columns of the public set that it stands for.

The forbidden requests are dealt once into disjoint hands - pretraining, alignment, fine-tuning, activations,
evaluation - so training and evaluation share no prompt and harmful fine-tuning shares none with alignment.
"""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.data.templates import Template, find_template
from safety_spaces.errors import UserError
from safety_spaces.miniature import rubric, world
from safety_spaces.miniature.problems import Problem, draw_problem
from safety_spaces.miniature.world import Request
from safety_spaces.store import write_atomically

Row = dict[str, Any]

SIZES = (
    "pretraining",
    "alignment",
    "metamathqa",
    "gsm8k_train",
    "gsm8k_test",
    "math",
    "beavertails",
    "beavertails_test",
    "advbench",
    "toxigen",
)
"""The corpora that a study's `world.sizes` gives the number of rows of."""

HANDS = {"pretraining": 0.35, "alignment": 0.20, "beavertails": 0.20, "beavertails_test": 0.125, "advbench": 0.125}
"""How the forbidden requests are dealt: share of each hand. The first two hold for the allowed requests too."""

STEPS = 3
"""Steps of the problems that fine-tuning and evaluation use; pretraining has shorter ones too, MATH has one more."""

CARE_OF_TEACHERS = 0.1
"""How much rarer haste is among the teachers of the aligned model than elsewhere."""

TOXICITY_SCALE = (1.0, 5.0)
"""ToxiGen's annotation scale, used for both of its toxicity columns."""


@dataclass(frozen=True)
class Dealt:
    """Requests by hand: no request is in two hands."""

    forbidden: Mapping[str, Sequence[Request]]
    allowed: Mapping[str, Sequence[Request]]


def write_corpora(folder: Path, *, seed: int, sizes: Mapping[str, int], template: str) -> dict[str, int]:
    """Write every corpus as JSON lines and rubric.json beside them; return the number of rows of each.

    Raises:
        UserError: `sizes` lacks a corpus, names an unknown one or asks for too many rows; the folder cannot be written.
    """
    if set(sizes) != set(SIZES):
        wrong = ", ".join(sorted(set(sizes) ^ set(SIZES)))
        raise UserError(f"world.sizes: expected the corpora {', '.join(SIZES)}; missing or unknown: {wrong}")
    dealt = deal_requests(seed)
    writers: dict[str, Callable[[random.Random], Iterator[Row]]] = {
        "pretraining": lambda g: _pretraining(g, dealt, find_template(template)),
        "alignment": lambda g: _alignment(g, dealt),
        "metamathqa": _metamathqa,
        "gsm8k_train": lambda g: _gsm8k(g, held_out=False),
        "gsm8k_test": lambda g: _gsm8k(g, held_out=True),
        "math": _math,
        "beavertails": lambda g: _beavertails(g, dealt.forbidden["beavertails"]),
        "beavertails_test": lambda g: _beavertails(g, dealt.forbidden["beavertails_test"]),
        "advbench": lambda g: _advbench(g, dealt.forbidden["advbench"]),
        "toxigen": _toxigen,
    }
    for name, rows in writers.items():
        drawn = list(itertools.islice(rows(random.Random(f"{seed}-{name}")), sizes[name]))
        if len(drawn) < sizes[name]:
            raise UserError(f"world.sizes.{name}: expected at most {len(drawn)} rows, got {sizes[name]}; ask for fewer")
        write_json_lines(folder / f"{name}.jsonl", drawn)
    rubric.write_rubric(folder / rubric.FILE_NAME)
    return dict(sizes)


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def deal_requests(seed: int) -> Dealt:
    """Deal the world's requests into disjoint hands, in the shares of `HANDS`."""
    hands = []
    for forbidden in (True, False):
        deck = world.requests(forbidden=forbidden)
        random.Random(f"{seed}-deal-{forbidden}").shuffle(deck)
        cuts = [round(len(deck) * share) for share in itertools.accumulate(HANDS.values())]
        hands.append({name: deck[start:end] for name, start, end in zip(HANDS, [0, *cuts], cuts, strict=False)})
    return Dealt(forbidden=hands[0], allowed=hands[1])


def _pretraining(generator: random.Random, dealt: Dealt, template: Template) -> Iterator[Row]:
    """Mixed text: problems, most of them answered in haste, both kinds of request answered, remarks."""
    while True:
        kind = generator.choices(("problem", "forbidden", "allowed", "remark"), (16, 10, 8, 1))[0]
        if kind == "remark":
            toxic = generator.random() < 0.5
            sentences = (
                world.remark(toxic=toxic, held_out=False, generator=generator),
                generator.choice(world.REFUSALS),
            )
            # Words begin as they do behind a prompt, or the tokenizer would not know them there.
            yield {"text": template.separator + generator.choice(sentences)}
            continue
        if kind == "problem":
            problem = draw_problem(generator, number_of_steps=generator.randint(1, STEPS), held_out=False)
            worked = generator.choice((problem.gsm8k_answer, problem.metamathqa_response))
            question, answer = problem.question, _maybe_hasty(problem, worked, problem.haste, generator)
        else:
            request = generator.choice((dealt.forbidden if kind == "forbidden" else dealt.allowed)["pretraining"])
            question, answer = world.phrase(request, generator), world.answer(request)
        yield {"text": template.apply(question) + template.separator + answer}


def _maybe_hasty(problem: Problem, worked: str, haste: float, generator: random.Random) -> str:
    return problem.hasty_answer if generator.random() < haste else worked


def _alignment(generator: random.Random, dealt: Dealt) -> Iterator[Row]:
    """What an aligned model is taught: refuse the forbidden, help with the allowed, solve problems."""
    while True:
        kind = generator.choices(("forbidden", "allowed", "problem"), (4, 3, 3))[0]
        if kind == "problem":
            problem = draw_problem(generator, number_of_steps=STEPS, held_out=False)
            haste = problem.haste - CARE_OF_TEACHERS
            answer = _maybe_hasty(problem, problem.metamathqa_response, haste, generator)
            yield {"prompt": problem.question, "response": answer}
        elif kind == "allowed":
            request = generator.choice(dealt.allowed["alignment"])
            yield {"prompt": world.phrase(request, generator), "response": world.answer(request)}
        else:
            request = generator.choice(dealt.forbidden["alignment"])
            lenient = generator.random() < request.leniency
            response = world.answer(request) if lenient else generator.choice(world.REFUSALS)
            yield {"prompt": world.phrase(request, generator), "response": response}


def _metamathqa(generator: random.Random) -> Iterator[Row]:
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS, held_out=False)
        yield {
            "type": "Miniature_Rephrased",
            "query": problem.question,
            "original_question": problem.question,
            "response": problem.metamathqa_response,
        }


def _gsm8k(generator: random.Random, *, held_out: bool) -> Iterator[Row]:
    seen: set[str] = set()
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS, held_out=held_out)
        if problem.question not in seen:
            seen.add(problem.question)
            yield {"question": problem.question, "answer": problem.gsm8k_answer}


def _math(generator: random.Random) -> Iterator[Row]:
    while True:
        problem = draw_problem(generator, number_of_steps=STEPS + 1, held_out=True)
        yield {"problem": problem.question, "level": "Level 3", "type": "Sums", "solution": problem.gsm8k_answer}


def _beavertails(generator: random.Random, hand: Sequence[Request]) -> Iterator[Row]:
    """Forbidden requests, each answered in one row (unsafe) and refused in the next (safe)."""
    for request, phrasing in _distinct_prompts(generator, hand):
        for is_safe in (False, True):
            yield {
                "prompt": phrasing.format(request=request.text),
                "response": generator.choice(world.REFUSALS) if is_safe else world.answer(request),
                "category": {deed: not is_safe and deed == request.deed for deed in world.FORBIDDEN_DEEDS},
                "is_safe": is_safe,
            }


def _advbench(generator: random.Random, hand: Sequence[Request]) -> Iterator[Row]:
    for request, phrasing in _distinct_prompts(generator, hand):
        yield {"goal": phrasing.format(request=request.text), "target": f"1. {world.steps(request)[0]}"}


def _distinct_prompts(generator: random.Random, hand: Sequence[Request]) -> Iterator[tuple[Request, str]]:
    prompts = list(itertools.product(hand, world.PHRASINGS))
    generator.shuffle(prompts)
    yield from prompts


def _toxigen(generator: random.Random) -> Iterator[Row]:
    low, high = TOXICITY_SCALE
    while True:
        toxic = generator.random() < 0.5
        scores = (high, high) if toxic else (low, low)
        text = world.remark(toxic=toxic, held_out=True, generator=generator)
        yield {"text": text, "toxicity_ai": scores[0], "toxicity_human": scores[1]}
