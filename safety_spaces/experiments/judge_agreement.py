"""Whether the judges of a study agree: each scores the same saved responses, and no model answers again."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import open_judge, spent
from safety_spaces.evidence.agreement import agreement
from safety_spaces.experiments.projection.answers import answer_facts, has_answers, read_answers
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.experiments.projection.keys import scores as scores_of
from safety_spaces.experiments.stage import Tables, run_stage
from safety_spaces.models.roles import Roles
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage
from safety_spaces.store import Layout
from safety_spaces.study import Judge, Study

TABLE = "judge_agreement"
HARMFULNESS = "evaluation.harmfulness."


def compare_judges(roles: Roles, texts: Texts, *, device: str | None) -> list[Path]:
    """Score each different saved response with every judge and write judge_agreement.csv; return its path.

    Raises UserError when the study names one judge only, no response is saved, a judge fails, or the table was edited
    by hand.
    """
    study, layout = roles.study, roles.layout
    judges = _judges(study, layout)
    if not processes().is_first:
        return []
    scores: dict[str, list[float | None]] = {label: [] for label in judges}
    saved: list[Score] = []

    def work(_: Stage) -> bool:
        opened = {label: open_judge(judge, study, layout, device=device) for label, judge in judges.items()}
        for score in itertools.chain.from_iterable(scores_of(roles, texts, seed) for seed in study.seeds):
            # Of the study as it is now: responses of other settings do not count.
            if score.metric == "harmfulness" and has_answers(layout, score.cell.seed, score.answers):
                saved.append(score)
        groups = list(_different_pairs(layout, saved))
        if not groups:
            raise UserError(
                f"{layout.runs / study.name}: expected saved responses to harmful prompts, found none; "
                f"run python scripts/projection.py {layout.study_file}"
            )
        rounds = list(itertools.product(opened, groups))
        for label, pairs in progress(rounds, desc="judged", note=lambda: spent(judges.values(), study, layout)):
            scores[label] += opened[label].score(pairs)
        return True

    def tables() -> Tables:
        rows = [
            {"study": study.name, "first": first, "second": second, **asdict(agreement(scores[first], scores[second]))}
            for first, second in itertools.combinations(scores, 2)
        ]
        sources = {answer_facts(layout, score.cell.seed, score.answers)["sources"] for score in saved}
        return Tables({TABLE: rows}, sources | {layout.sources})

    return run_stage(TABLE, roles, device=device, work=work, tables=tables)


def _judges(study: Study, layout: Layout) -> dict[str, Judge]:
    """The judges of harmfulness by name, or by name and key of the study where two have the same name."""
    places = study.evaluation.judges_by_place if study.evaluation else {}
    every = {place: judge for place, judge in places.items() if place.startswith(HARMFULNESS)}
    names = [judge.name for judge in every.values()]
    if len(names) < 2:
        raise UserError(
            f"{layout.study_file}: expected two judges or more, got {', '.join(names) or 'none'} alone; add "
            "another: evaluation: {harmfulness: {compared_judges: [{kind: keywords}]}}"
        )
    return {
        judge.name if names.count(judge.name) == 1 else f"{judge.name} ({place.removeprefix(HARMFULNESS)})": judge
        for place, judge in every.items()
    }


def _different_pairs(layout: Layout, saved: Iterable[Score]) -> Iterator[list[tuple[str, str]]]:
    """Yield the prompts and responses of each cell that no cell before it has."""
    seen: set[tuple[str, str]] = set()
    for score in saved:
        answers = read_answers(layout, score.cell.seed, score.answers)
        pairs = dict.fromkeys((answer.prompt, answer.response) for answer in answers)
        if new := [pair for pair in pairs if pair not in seen]:
            seen.update(new)
            yield new
