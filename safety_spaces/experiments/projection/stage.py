"""Experiments 1 and 2: task updates projected onto subspaces of the reference update (paper, Sections 3 and 4).

What is already done is decided here, before torch is imported.
"""

import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.metrics import every_metric
from safety_spaces.evidence.claims import CLAIMS
from safety_spaces.experiments.projection.answers import has_answers, score_answers
from safety_spaces.experiments.projection.cells import Cell, belongs_to_first_seed
from safety_spaces.experiments.projection.keys import Score, energy_key, scores
from safety_spaces.experiments.projection.tables import energy_rows, projection_rows, score_rows
from safety_spaces.experiments.stage import Tables, Wanted, run_stage
from safety_spaces.experiments.workers import Group, Job, do_jobs
from safety_spaces.models.roles import Roles
from safety_spaces.processes import processes
from safety_spaces.record import Stage, read_record, update_record
from safety_spaces.store import digest, one_at_a_time, writing
from safety_spaces.study import KEY_VARIABLE, Study

logger = logging.getLogger(__name__)


def project(
    roles: Roles, texts: Texts, *, device: str | None, geometry_only: bool = False, keep_factors: bool = False
) -> list[Path]:
    """Measure energies, score cells, write energy.csv and projection.csv; return the files written.

    With `geometry_only`, as in a study that asks no model, energy.csv alone is written. Otherwise the factorised
    updates are removed at the end, unless they are to be kept.

    Raises UserError when a checkpoint is missing or unlike the others, a table was edited by hand, or the disk is full.
    """
    study, layout = roles.study, roles.layout
    geometry_only = geometry_only or study.evaluation is None
    energies = wanted_energies(roles, study.seeds)
    results = wanted_scores(roles, texts, [] if geometry_only else study.seeds)
    if not geometry_only:
        _warn_of_missing_keys(study)
        _settle(results)

    def work(stage: Stage) -> bool:
        measure = partial(_measure, energies, device=device, is_scored=not geometry_only, keep_factors=keep_factors)
        by_seed = itertools.groupby(energies.missing(), key=lambda one: one[0])
        jobs = [Job(f"energies, seed {seed}", partial(measure, seed, list(found))) for seed, found in by_seed]
        measured = do_jobs(roles, jobs, device=device, desc="energies", stage=stage)
        return _score(texts, results, stage, device=device) or bool(measured)

    def tables() -> Tables | None:
        measured, scored = energies.found(), results.found()
        if measured is None or scored is None:
            return None
        for (seed, task), energy in measured.items():
            logger.info("seed %d: cosine of %s and reference update %.3f", seed, task, energy["cosine_task_reference"])
        sources = {source for result in (*measured.values(), *scored.values()) for source in result["sources"]}
        rows = {"energy": energy_rows(study, measured)}
        if study.evaluation is not None and not geometry_only:
            metrics = every_metric(texts, study.evaluation)
            rows["scores"] = score_rows(metrics, scored)
            rows["projection"] = projection_rows(study, metrics, measured, scored)
        return Tables(rows, sources)

    written = run_stage("geometry" if geometry_only else "projection", roles, device=device, work=work, tables=tables)
    if written and not geometry_only and not keep_factors:
        # What only an unfinished sweep reads again; it may be as large as a checkpoint.
        for folder in filter(Path.exists, map(layout.factors, study.seeds)):
            with writing(folder):
                shutil.rmtree(folder)
    return written


def wanted_energies(roles: Roles, seeds: Sequence[int]) -> Wanted[tuple[int, str]]:
    """Return the energies of some seeds, a result for each seed and task."""
    every = itertools.product(seeds, roles.study.tasks)
    return Wanted(roles, {(seed, task): (seed, energy_key(roles, seed, task)) for seed, task in every})


def wanted_scores(roles: Roles, texts: Texts, seeds: Sequence[int]) -> Wanted[Score]:
    """Return the scores of some seeds."""
    every = (score for seed in seeds for score in scores(roles, texts, seed))
    return Wanted(roles, {score: (score.cell.seed, score.key) for score in every})


def _settle(results: Wanted[Score]) -> None:
    """Write into run.json what the study decided about verdicts, and how many of its scores there were by then."""
    roles = results.roles
    settled = {
        "evidence": roles.study.evidence.model_dump(exclude={"answers"}),
        "claims": {claim.id: claim.statistic for claim in CLAIMS},
    }
    key, folder = digest(settled), roles.layout.results_folder
    with one_at_a_time(roles.layout.lock):
        if key not in read_record(folder).get("settled", {}):
            scores = len(results.keys) - len(results.missing())
            when = datetime.now(UTC).isoformat(timespec="seconds")
            update_record(folder, {"settled": {key: {**settled, "at": when, "scores_before": scores}}})


def _warn_of_missing_keys(study: Study) -> None:
    compared = study.evaluation.harmfulness.compared_judges if study.evaluation else ()
    keyless = any(judge.base_url is None for judge in study.services if judge not in compared)
    if keyless and not os.environ.get(KEY_VARIABLE) and processes().is_first:
        logger.warning("warning: no %s: answers will be generated, and not judged", KEY_VARIABLE)


def _measure(
    energies: Wanted[tuple[int, str]],
    seed: int,
    missing: Sequence[tuple[int, str]],
    *,
    device: str | None,
    is_scored: bool,
    keep_factors: bool,
) -> None:
    """Measure the energies of one seed that are missing."""
    from safety_spaces.experiments.projection.energies import measure_energies
    from safety_spaces.models.device import ready_device
    from safety_spaces.models.loading import open_role

    roles, keys = energies.roles, [energies.keys[one][1] for one in missing]
    ready = ready_device(device, threads=roles.study.threads)
    if is_scored:
        open_role(roles, "reference", seed).check_is_live()
    # Scoring reads the factors again.
    kept, tasks = keep_factors or is_scored, [task for _, task in missing]
    measured = measure_energies(roles, seed, tasks, keys=keys, device=ready, keep_factors=kept)
    for task, found in (measured or {}).items():
        energies.put((seed, task), {"sources": [roles.layout.sources], **found})


def _score(texts: Texts, results: Wanted[Score], stage: Stage, *, device: str | None) -> bool:
    """Score the cells that are missing, of several processes each its share; say whether any was.

    All answers come before the first score: who judges may be elsewhere, and later. What all seeds share belongs to the
    first.
    """
    roles = results.roles
    own = set(processes().share(list(dict.fromkeys(score.cell for score in results.keys))))
    own = {cell for cell in own if not belongs_to_first_seed(roles.study, cell)}
    missing = [score for score in results.missing() if score.cell in own]
    unanswered = [score for score in missing if not has_answers(roles.layout, score.cell.seed, score.answers)]
    by_seed = itertools.groupby(unanswered, key=lambda score: score.cell.seed)
    jobs = [job for seed, found in by_seed for job in _answer_jobs(roles, texts, seed, list(found), device)]
    do_jobs(roles, jobs, device=device, desc="answers", stage=stage)
    if missing:
        score_answers(texts, missing, device=device)
    return bool(missing)


def _answer_jobs(roles: Roles, texts: Texts, seed: int, unanswered: Sequence[Score], device: str | None) -> list[Job]:
    """Return one job for each model of a seed whose answers are missing."""
    from safety_spaces.experiments.projection.weights import answer_cell, open_session

    tasks = sorted({score.cell.task for score in unanswered} - {"base", "reference"})
    metrics = sorted({score.metric for score in unanswered})
    group = Group(f"seed {seed}", partial(open_session, roles, texts, seed, tasks, metrics, device))

    def near(cell: Cell) -> str:
        # Answered one after the other, since the next fraction adds to the last one's sum.
        return " ".join(map(str, cell.directions(roles.study.projection.claim)))

    cells = {cell: list(found) for cell, found in itertools.groupby(unanswered, key=lambda score: score.cell)}
    return [
        Job(_said(cell), partial(answer_cell, roles, cells[cell]), group, near=near(cell), steps=len(cells[cell]))
        for cell in sorted(cells, key=lambda cell: (not cell.is_baseline, near(cell), cell.fraction or 0))
    ]


def _said(cell: Cell) -> str:
    return ", ".join(f"{key} {value}" for key, value in asdict(cell).items() if value is not None)
