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
from safety_spaces.evaluation.judges import Judge, open_judge, spent
from safety_spaces.evaluation.metrics import Answer, Metric, metric_of
from safety_spaces.experiments.cells import Score
from safety_spaces.experiments.command import Command
from safety_spaces.progress import progress
from safety_spaces.store import Cells, write_atomically


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
    metrics = {score.metric: _metric(command, score) for score in missing}
    judge = functools.cache(lambda name: _judge(command, metrics[name]))
    asked = {metric.judge_place: metric.judge for metric in metrics.values() if metric.judge is not None}
    for score in progress(missing, desc=f"scores, seed {seed}", note=lambda: spent(asked, command.layout)):
        answers = metrics[score.metric].score(read_answers(command, seed, score.answers), judge(score.metric))
        facts = answer_facts(command, seed, score.answers)
        sources = sorted({facts["sources"], command.layout.sources})
        done.put(score.key, {**facts, "sources": sources, "scores": [answer.score for answer in answers]})


def is_judged(command: Command, score: Score) -> bool:
    """Say whether a judge scores these answers."""
    return _metric(command, score).judge is not None


def _metric(command: Command, score: Score) -> Metric:
    assert command.study.evaluation is not None
    return metric_of(score.metric, command.texts, command.study.evaluation)


def _judge(command: Command, metric: Metric) -> Judge | None:
    threads, settings = command.study.threads, metric.judge
    if settings is None:
        return None
    return open_judge(settings, metric.judge_place, command.layout, device=command.device, threads=threads)


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
