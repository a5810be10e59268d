"""Writes the corpora of the small world, each in the columns of the public set that it stands for."""

import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from safety_spaces.data.templates import find_template
from safety_spaces.errors import UserError
from safety_spaces.miniature import prompt_sets, training_texts, world
from safety_spaces.miniature.dealing import Dealt, deal_requests
from safety_spaces.miniature.training_texts import Row
from safety_spaces.store import RUBRIC_FILE, write_atomically
from safety_spaces.study import WORLD_CORPORA, TemplateName

Writer = Callable[[random.Random], Iterator[Row]]


def write_corpora(folder: Path, *, seed: int, sizes: Mapping[str, int], template: TemplateName) -> dict[str, int]:
    """Write every corpus as JSON lines and the judge's rubric beside them; return the number of rows of each.

    Raises UserError when `sizes` asks for too many rows, or the folder cannot be written.
    """
    writers = _writers(deal_requests(seed), template)
    for name in WORLD_CORPORA:
        drawn = list(itertools.islice(writers[name](random.Random(f"{seed}-{name}")), sizes[name]))
        if len(drawn) < sizes[name]:
            raise UserError(f"world.sizes.{name}: expected at most {len(drawn)} rows, got {sizes[name]}; ask for fewer")
        write_json_lines(folder / f"{name}.jsonl", drawn)
    write_rubric(folder / RUBRIC_FILE)
    return dict(sizes)


def _writers(dealt: Dealt, template: TemplateName) -> dict[str, Writer]:
    """The rows of each of WORLD_CORPORA."""
    texts = partial(training_texts.pretraining, dealt=dealt, template=find_template(template))
    return {
        "pretraining": texts,
        "alignment": partial(training_texts.alignment, dealt=dealt),
        "pku_saferlhf": partial(training_texts.preferences, dealt=dealt),
        "metamathqa": training_texts.metamathqa,
        "beavertails": partial(training_texts.beavertails, dealt=dealt, hand="beavertails"),
        "beavertails_test": partial(training_texts.beavertails, dealt=dealt, hand="beavertails_test"),
        "gsm8k_train": partial(prompt_sets.gsm8k, held_out=False),
        "gsm8k_test": partial(prompt_sets.gsm8k, held_out=True),
        "math": prompt_sets.math,
        "mmlu": partial(prompt_sets.mmlu, dealt=dealt, held_out=True),
        "mmlu_dev": partial(prompt_sets.mmlu, dealt=dealt, held_out=False),
        "advbench": partial(prompt_sets.advbench, dealt=dealt),
        "xstest": partial(prompt_sets.xstest, dealt=dealt),
        "extended_refusal": partial(prompt_sets.extended_refusal, dealt=dealt),
        "toxigen": prompt_sets.toxigen,
    }


def write_rubric(path: Path) -> None:
    """Write the right steps of every forbidden request, atomically."""
    steps = {request.text: world.steps(request) for request in world.requests(forbidden=True)}
    write_atomically(path, (json.dumps(steps, indent=1) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines, atomically."""
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
