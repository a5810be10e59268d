"""What models answered, on disk: a text file that a person can read, and beside the results what made it.

Answers are kept apart from their scores, so another judge scores them without a model asked again, and later, with a
network or a key that was not there. The checkpoints must be: what they are is part of every key.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics.harmfulness import Answer, Judge, judge_responses
from safety_spaces.evaluation.metrics.over_refusal import refusals
from safety_spaces.experiments.cells import Score
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.judges import find_judge, spent
from safety_spaces.progress import progress
from safety_spaces.store import Cells, write_atomically
from safety_spaces.study import Metric


def write_answers(command: Command, seed: int, key: str, answers: Iterable[Answer], facts: Mapping[str, Any]) -> None:
    """Write answers as JSON lines, then what made them, without which they do not count as written.

    Raises:
        UserError: the disk is full or read-only.
    """
    lines = (json.dumps(asdict(answer)) + "\n" for answer in answers)
    write_atomically(_path(command, seed, key), "".join(lines).encode())
    Cells(command.layout.cells(seed)).put(key, {"sources": command.layout.sources, **facts})


def has_answers(command: Command, seed: int, key: str) -> bool:
    """Say whether answers are there and whole."""
    return Cells(command.layout.cells(seed)).get(key) is not None and _path(command, seed, key).is_file()


def score_answers(command: Command, seed: int, missing: Sequence[Score]) -> None:
    """Score answers that are there, and store each cell's scores as soon as they are known.

    Raises:
        UserError: the judge's files or key are missing, its service fails, or its budget would be exceeded.
    """
    done = Cells(command.layout.cells(seed))
    judge = functools.cache(functools.partial(_metric_judge, command))
    asked = [command.study.evaluation.judge_of(metric) for metric in {score.metric for score in missing}]
    for score in progress(missing, desc=f"scores, seed {seed}", note=lambda: spent(command, asked)):
        answers = read_answers(command, seed, score.answers)
        if is_judged(command, score):
            judged = refusals if score.metric == "over_refusal" else judge_responses
            answers = judged(judge(score.metric), [a.prompt for a in answers], [a.response for a in answers])
        facts = answer_facts(command, seed, score.answers)
        sources = sorted({facts["sources"], command.layout.sources})
        done.put(score.key, {**facts, "sources": sources, "scores": [answer.score for answer in answers]})


def is_judged(command: Command, score: Score) -> bool:
    """Say whether a judge scores these answers."""
    return command.study.evaluation.judge_of(score.metric) is not None


def _metric_judge(command: Command, metric: Metric) -> Judge:
    settings = command.study.evaluation.judge_of(metric)
    assert settings is not None
    return find_judge(command, settings)


def read_answers(command: Command, seed: int, key: str) -> list[Answer]:
    """Return answers that are there."""
    return [Answer(**json.loads(line)) for line in _path(command, seed, key).read_text("utf-8").splitlines()]


def answer_facts(command: Command, seed: int, key: str) -> dict[str, Any]:
    """Return what made answers that are there: their metric, cell and sources.

    Raises:
        UserError: they have been removed.
    """
    facts = Cells(command.layout.cells(seed)).get(key)
    if facts is None:
        raise UserError(f"{_path(command, seed, key)}: expected answers, found none; run again to ask the model again")
    return facts


def _path(command: Command, seed: int, key: str) -> Path:
    return command.layout.responses(seed) / f"{key}.jsonl"
