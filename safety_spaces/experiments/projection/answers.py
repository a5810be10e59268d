"""What models answered, on disk: a text file that a person can read, and beside the results what made it.

Answers are kept apart from their scores, so another judge scores them without a model asked again, and later, with a
network or a key that was not there. The checkpoints must be: what they are is part of every key.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import Judge, open_judge, spent
from safety_spaces.evaluation.metrics import Answer, metric_of
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.progress import progress
from safety_spaces.store import Cells, Layout, write_atomically


def write_answers(layout: Layout, seed: int, key: str, answers: Iterable[Answer], facts: Mapping[str, Any]) -> None:
    """Write answers as JSON lines, then what made them, without which they do not count as written.

    Raises UserError when the disk is full or read-only.
    """
    lines = (json.dumps(asdict(answer)) + "\n" for answer in answers)
    write_atomically(_path(layout, seed, key), "".join(lines).encode())
    Cells(layout.cells(seed)).put(key, {"sources": layout.sources, **facts})


def has_answers(layout: Layout, seed: int, key: str) -> bool:
    """Say whether answers are there and whole."""
    return Cells(layout.cells(seed)).get(key) is not None and _path(layout, seed, key).is_file()


def read_answers(layout: Layout, seed: int, key: str) -> list[Answer]:
    """Return answers that are there."""
    return [Answer(**json.loads(line)) for line in _path(layout, seed, key).read_text("utf-8").splitlines()]


def answer_facts(layout: Layout, seed: int, key: str) -> dict[str, Any]:
    """Return what made answers: their metric, cell and sources; raises UserError when they have been removed."""
    facts = Cells(layout.cells(seed)).get(key)
    if facts is None:
        raise UserError(f"{_path(layout, seed, key)}: expected answers, found none; run again to ask the model again")
    return facts


def score_answers(texts: Texts, scores: Sequence[Score], *, device: str | None) -> None:
    """Score answers that are there, and store each cell's scores as soon as they are known; what needs no judge first.

    Raises UserError when the judge's files or key are missing, its service fails, or its budget would be exceeded.
    """
    layout, evaluation = texts.layout, texts.study.evaluation
    assert evaluation is not None
    metrics = {score.metric: metric_of(score.metric, texts, evaluation) for score in scores}
    asked = [metric.judge for metric in metrics.values() if metric.judge is not None]
    judges: dict[str, Judge] = {}
    # A score that needs none is known, whatever becomes of a service.
    ordered = sorted(scores, key=lambda score: metrics[score.metric].judge is not None)
    for score in progress(ordered, desc="scores", note=lambda: spent(asked, texts.study, layout)):
        metric, seed = metrics[score.metric], score.cell.seed
        answers, facts = read_answers(layout, seed, score.answers), answer_facts(layout, seed, score.answers)
        if metric.judge is not None:
            if metric.name not in judges:
                judges[metric.name] = open_judge(metric.judge, texts.study, layout, device=device)
            answers = metric.score(answers, judges[metric.name])
        sources = sorted({facts["sources"], layout.sources})
        kept = {**facts, "sources": sources, "scores": [answer.score for answer in answers]}
        Cells(layout.cells(seed)).put(score.key, kept)


def _path(layout: Layout, seed: int, key: str) -> Path:
    return layout.responses(seed) / f"{key}.jsonl"
