"""The report of a study: measured and drawn again only when something that it says has changed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.metrics import Answer
from safety_spaces.evidence.claims import Evidence, gather, verdict_rows
from safety_spaces.evidence.paper import published
from safety_spaces.evidence.sections import Answers, Reply, Section, paper_section
from safety_spaces.evidence.selectivity import deciding_fractions, selectivity_rows
from safety_spaces.evidence.tables import COLUMNS, Tables, promised, read_scores, read_tables, table_file
from safety_spaces.experiments.projection.answers import has_answers, read_answers
from safety_spaces.experiments.projection.cells import Cell, cells
from safety_spaces.experiments.projection.keys import Score, scores_of
from safety_spaces.experiments.stage import Wanted
from safety_spaces.models.roles import Roles
from safety_spaces.paths import ROOT
from safety_spaces.record import check_unedited, read_record, update_record, write_table
from safety_spaces.store import digest, file_digests, one_at_a_time, reader_digest
from safety_spaces.study import OUTCOMES, Study
from safety_spaces.tensors import MATCHED

SHOWN = ("README.md", "report.html", "*.png", "*.pdf")


def report(roles: Roles, texts: Texts) -> list[Path]:
    """Write verdicts, README.md, report.html and figures into results/<study>/; return them, none if up to date.

    Raises UserError when no table is there, or one is edited by hand or has other columns.
    """
    study, layout = roles.study, roles.layout
    folder, names = layout.results_folder, promised(study)
    there = [name for name in names if (folder / table_file(name)).exists()]
    for name in there:
        check_unedited(folder, table_file(name))
    facts, shown = read_record(folder), [*_answers(roles, texts)]
    before = facts.pop("report", None)
    facts["tables"] = {name: known for name, known in facts.get("tables", {}).items() if name in map(table_file, there)}
    made = {"inputs": digest([facts, layout.sources, reader_digest(ROOT)]), "answers": digest([*map(repr, shown)])}
    # Without the runs the page keeps the answers that it has.
    known = {**made, "answers": before["answers"]} if before and not shown else made
    if before == {**known, "files": _written(folder)}:
        return []
    from safety_spaces.evidence.report import write_report

    tables = read_tables(folder, [name for name in there if name != "scores"])
    evidence = gather(study, tables, read_scores(folder) if "scores" in there else None)
    found = {
        "verdicts": [*verdict_rows(evidence)],
        "selectivity": [*selectivity_rows(study, evidence.doses)],
        "premises": [*evidence.premises.rows] if evidence.premises else [],
    }
    with one_at_a_time(layout.lock):
        for name, rows in found.items():
            write_table(folder / table_file(name), COLUMNS[name], rows)
    frames = {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in found.items()}
    written = write_report(
        study,
        tables,
        verdicts=frames["verdicts"],
        premises=frames["premises"],
        selectivity=frames["selectivity"],
        record=facts,
        folder=folder,
        sources_changed=any(stage["sources"] != [layout.sources] for stage in facts.get("stages", {}).values()),
        further=[*_beside_paper(study, tables), *_not_measured(evidence)],
        answers=shown,
        private=layout.runs / study.name,
    )
    with one_at_a_time(layout.lock):
        update_record(folder, {"report": {**made, "files": _written(folder)}})
    return [*(folder / table_file(name) for name in found), *written]


def _not_measured(evidence: Evidence) -> list[Section]:
    return [Section("Not measured", (evidence.lacking,))] if evidence.lacking else []


def _beside_paper(study: Study, tables: Tables) -> list[Section]:
    if tables.projection is None or study.evaluation is None:
        return []
    of_paper, judge = published(study.model, study.reference_kind), study.evaluation.harmfulness.judge
    return paper_section(of_paper, tables.projection, published_rubric=judge.published_rubric)


def _written(folder: Path) -> dict[str, str]:
    tables = [folder / table_file(name) for name in ("verdicts", "selectivity", "premises")]
    return file_digests([*tables, *(path for pattern in SHOWN for path in folder.glob(pattern))])


def _answers(roles: Roles, texts: Texts) -> Iterator[Answers]:
    """Yield some prompts of both outcomes with the answers of some models of the first seed, where runs are here."""
    study, layout = roles.study, roles.layout
    seed, number = study.seeds[0], study.evidence.answers
    shown = _shown(roles) if number and layout.cells(seed).is_dir() else {}
    every = [*scores_of(roles, texts, seed, list(shown))] if shown else []
    known = Wanted(roles, {score: (seed, score.key) for score in every})
    for metric in OUTCOMES:
        scores = [score for score in every if score.metric == metric]
        asked = [(shown[one.cell], *_replies(known, one)) for one in scores if has_answers(layout, seed, one.answers)]
        prompts = [answer.prompt for answer in asked[0][1]] if asked else []
        # Spread over all prompts, the same for every model.
        for place in range(0, len(prompts), max(1, len(prompts) // number))[:number]:
            replies = (Reply(name, of[place].response, scored[place]) for name, of, scored in asked)
            yield Answers(metric, prompts[place], tuple(replies))


def _replies(known: Wanted[Score], score: Score) -> tuple[list[Answer], Sequence[float | None]]:
    answers = read_answers(known.roles.layout, score.cell.seed, score.answers)
    result = known.find(score)
    return answers, [None] * len(answers) if result is None else result["scores"]


def _shown(roles: Roles) -> dict[Cell, str]:
    """The models whose answers stand side by side, and what they are called."""
    study = roles.study
    seed, rho, claim = study.seeds[0], deciding_fractions(study)[-1], study.projection.claim
    every = cells(study, seed)
    names = {Cell(seed, role): role for role in ("base", "reference", *study.projection.dosed_tasks)}
    for task in study.projection.dosed_tasks:
        for cell in every:
            if cell.task == task and cell.fraction == rho and cell.basis in (claim, MATCHED) and not cell.draw:
                names[cell] = f"{task}, {cell.scheme} {cell.basis} at {rho:g}"
    return {cell: name for cell, name in names.items() if cell in every and cell.layer is None}
