"""Whether the judges of a study agree: each scores the same saved responses, and no model answers again."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import open_judge, spent
from safety_spaces.evidence.agreement import agreement
from safety_spaces.evidence.tables import JUDGE_AGREEMENT
from safety_spaces.experiments.answers import answer_facts, has_answers, read_answers
from safety_spaces.experiments.cells import Score
from safety_spaces.experiments.cells import scores as scores_of
from safety_spaces.experiments.command import Command, record
from safety_spaces.models.roles import Roles
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage, write_table
from safety_spaces.store import Layout, one_at_a_time
from safety_spaces.study import Judge, Study

TABLE = "judge_agreement"
HARMFULNESS = "evaluation.harmfulness."


def compare_judges(roles: Roles, texts: Texts, *, device: str | None) -> list[Path]:
    """Score each different saved response with every judge and write judge_agreement.csv; return its path.

    Raises UserError when the study names one judge only, no response is saved, a judge fails, or the table was edited
    by hand.
    """
    study, layout = roles.study, texts.layout
    places = _places(study, layout)
    if not processes().is_first:
        return []
    command = Command(study, layout, device)
    with Stage() as stage:
        judges = {
            label: open_judge(judge, place, layout, device=device, threads=study.threads)
            for label, (place, judge) in places.items()
        }
        saved = _saved(command)
        groups = list(_different_pairs(command, saved))
        if not groups:
            raise UserError(
                f"{layout.runs / study.name}: expected saved responses to harmful prompts, found none; "
                f"run python scripts/projection.py {layout.study_file}"
            )
        scores: dict[str, list[float | None]] = {label: [] for label in judges}
        rounds = list(itertools.product(judges, groups))
        for label, pairs in progress(rounds, desc="judged", note=lambda: spent(dict(places.values()), layout)):
            scores[label] += judges[label].score(pairs)
    rows = [
        {"study": study.name, "first": first, "second": second, **asdict(agreement(scores[first], scores[second]))}
        for first, second in itertools.combinations(scores, 2)
    ]
    path = layout.results_folder / f"{TABLE}.csv"
    sources = {answer_facts(command, seed, score.answers)["sources"] for seed, score in saved}
    with one_at_a_time(layout.lock):
        record(command, TABLE, stage, sources=sources | {layout.sources})
        write_table(path, JUDGE_AGREEMENT, rows)
    return [path]


def _places(study: Study, layout: Layout) -> dict[str, tuple[str, Judge]]:
    """Place and settings of the judges of harmfulness by name, or by name and place where two have the same name."""
    assert study.evaluation is not None
    places = [place for place in study.evaluation.judges_by_place if place.startswith(HARMFULNESS)]
    every = {place: study.evaluation.judges_by_place[place] for place in places}
    names = [judge.name for judge in every.values()]
    if len(names) < 2:
        raise UserError(
            f"{layout.study_file}: expected two judges or more, got {names[0]} alone; add "
            "another: evaluation: {harmfulness: {compared_judges: [{kind: keywords}]}}"
        )
    labels = [
        judge.name if names.count(judge.name) == 1 else f"{judge.name} ({place.removeprefix(HARMFULNESS)})"
        for place, judge in every.items()
    ]
    return dict(zip(labels, every.items(), strict=True))


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
