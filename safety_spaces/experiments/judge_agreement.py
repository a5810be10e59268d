"""Whether the judges of a study agree: each scores the same saved responses, and no model answers again."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.evidence.agreement import agreement
from safety_spaces.evidence.tables import JUDGE_AGREEMENT
from safety_spaces.experiments.answers import answer_facts, has_answers, read_answers
from safety_spaces.experiments.cells import Score
from safety_spaces.experiments.cells import scores as scores_of
from safety_spaces.experiments.command import Command, record
from safety_spaces.experiments.judges import find_judge, spent
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage, write_table
from safety_spaces.store import one_at_a_time
from safety_spaces.study import Judge as JudgeSettings

TABLE = "judge_agreement"


def compare_judges(command: Command) -> list[Path]:
    """Score each different saved response with every judge and write judge_agreement.csv; return its path.

    Raises:
        UserError: the study names one judge only, no response is saved, a judge fails, or the table was edited by hand.
    """
    judges = _judges(command)
    if not processes().is_first:
        return []
    with Stage() as stage:
        found = {label: find_judge(command, settings) for label, settings in judges.items()}
        saved = _saved(command)
        groups = list(_different_pairs(command, saved))
        if not groups:
            raise UserError(
                f"{command.layout.runs / command.study.name}: expected saved responses to harmful prompts, found none; "
                f"run python scripts/projection.py {command.layout.study_file}"
            )
        scores: dict[str, list[float | None]] = {label: [] for label in found}
        rounds = list(itertools.product(found, groups))
        for label, pairs in progress(rounds, desc="judged", note=lambda: spent(command, judges.values())):
            scores[label] += found[label].score(pairs)
    path = command.layout.results_folder / f"{TABLE}.csv"
    sources = {answer_facts(command, seed, score.answers)["sources"] for seed, score in saved}
    with one_at_a_time(command.layout.lock):
        record(command, TABLE, stage, sources=sources | {command.layout.sources})
        write_table(path, JUDGE_AGREEMENT, _rows(command, scores))
    return [path]


def _judges(command: Command) -> dict[str, JudgeSettings]:
    """The judges of the study by name, or by name and key of the study where two have the same name."""
    harmfulness = command.study.evaluation.harmfulness
    every = {"judge": harmfulness.judge}
    every |= {f"compared_judges.{number}": judge for number, judge in enumerate(harmfulness.compared_judges)}
    if len(every) < 2:
        raise UserError(
            f"{command.layout.study_file}: expected two judges or more, got {harmfulness.judge.name} alone; add "
            "another: evaluation: {harmfulness: {compared_judges: [{kind: keywords}]}}"
        )
    names = [judge.name for judge in every.values()]
    return {
        judge.name if names.count(judge.name) == 1 else f"{judge.name} ({key})": judge for key, judge in every.items()
    }


def _saved(command: Command) -> list[tuple[int, Score]]:
    """The judged scores of the study as it is now whose answers are there; those of other settings do not count."""
    return [
        (seed, score)
        for seed in command.study.seeds
        for score in scores_of(command, seed)
        if score.metric == "harmfulness" and has_answers(command, seed, score.answers)
    ]


def _different_pairs(command: Command, saved: Iterable[tuple[int, Score]]) -> Iterator[list[tuple[str, str]]]:
    """Yield the prompts and responses of each cell that no cell before it has."""
    seen: set[tuple[str, str]] = set()
    for seed, score in saved:
        answers = ((answer.prompt, answer.response) for answer in read_answers(command, seed, score.answers))
        if pairs := [pair for pair in dict.fromkeys(answers) if pair not in seen]:
            seen.update(pairs)
            yield pairs


def _rows(command: Command, scores: dict[str, list[float | None]]) -> Iterator[dict[str, Any]]:
    for first, second in itertools.combinations(scores, 2):
        measured = agreement(scores[first], scores[second])
        yield {"study": command.study.name, "first": first, "second": second, **asdict(measured)}
