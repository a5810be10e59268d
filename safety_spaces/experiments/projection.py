"""Experiments 1 and 2: task updates projected onto subspaces of the reference update (paper, Sections 3 and 4).

What is already done is decided here, before torch is imported; what is missing is measured by `sweep`.
"""

import itertools
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from safety_spaces.evaluation.metrics import metric_of
from safety_spaces.evidence.tables import ENERGY, PROJECTION
from safety_spaces.experiments.answers import has_answers, is_judged, score_answers
from safety_spaces.experiments.cells import Cell, Score, belongs_to_first_seed, energy_key, scores
from safety_spaces.experiments.checks import check_asked
from safety_spaces.experiments.command import Command, is_recorded, record
from safety_spaces.experiments.workers import Group, Job, do_jobs
from safety_spaces.processes import all_found, processes
from safety_spaces.record import Stage, write_table
from safety_spaces.store import Cells, one_at_a_time, writing
from safety_spaces.study import Metric
from safety_spaces.tensors import layer_total

logger = logging.getLogger(__name__)

Energies = Mapping[tuple[int, str], dict[str, Any]]
Results = Mapping[Score, dict[str, Any]]

ALL_LAYERS = "all"
MATCHED = "fraction"
"""A control is matched to the claim at equal fraction, hence at equal k."""


def project(command: Command) -> list[Path]:
    """Measure energies, score cells, write energy.csv and projection.csv; return the files written.

    With `--geometry-only` the models are not scored, and energy.csv alone is written. Otherwise the factorised updates
    are removed at the end, unless they are to be kept.

    Raises:
        UserError: a checkpoint is missing or unlike the others, a table was edited by hand, or the disk is full.
    """
    if not command.geometry_only:
        check_asked(command.texts)
    with Stage() as stage:
        measured = _measure(command, stage)
        scored = not command.geometry_only and _score(command, stage)
    energies, results = _energies(command), {} if command.geometry_only else _results(command)
    if energies is None or results is None:
        return []
    with one_at_a_time(command.layout.lock):
        name = "geometry" if command.geometry_only else "projection"
        if scored or measured or not is_recorded(command, name):
            sources = {source for result in (*energies.values(), *results.values()) for source in result["sources"]}
            record(command, name, stage, sources=sources)
        return _write_tables(command, energies, results)


def _write_tables(command: Command, energies: Energies, results: Results) -> list[Path]:
    for (seed, task), energy in energies.items():
        logger.info("seed %d: cosine of %s and reference update %.3f", seed, task, energy["cosine_task_reference"])
    written = [command.layout.results_folder / "energy.csv"]
    write_table(written[0], ENERGY, _energy_rows(command, energies))
    if not command.geometry_only:
        written.append(command.layout.results_folder / "projection.csv")
        write_table(written[1], PROJECTION, _projection_rows(command, energies, results))
        _remove_factors(command)
    return written


def _measure(command: Command, stage: Stage) -> bool:
    """Measure the energies that are missing; say whether any was."""
    missing = {
        seed: [
            task
            for task in command.study.tasks
            if Cells(command.layout.cells(seed)).get(energy_key(command, seed, task)) is None
        ]
        for seed in command.study.seeds
    }
    jobs = [
        Job(f"energies, seed {seed}", partial(_measure_seed, command, seed, tasks))
        for seed, tasks in missing.items()
        if tasks
    ]
    do_jobs(command, jobs, desc="energies", stage=stage)
    return bool(jobs)


def _measure_seed(command: Command, seed: int, tasks: Sequence[str]) -> None:
    from safety_spaces.experiments.energies import measure_energies

    done = Cells(command.layout.cells(seed))
    for task, energies in (measure_energies(command, seed, tasks) or {}).items():
        done.put(energy_key(command, seed, task), {"sources": [command.layout.sources], **energies})


def _score(command: Command, stage: Stage) -> bool:
    """Score the cells that are missing, of several processes each its share; say whether any was.

    All answers come before the first score: who judges may be elsewhere, and later.
    """
    missing = {seed: _missing(command, seed) for seed in command.study.seeds}
    jobs = [job for seed, found in missing.items() for job in _answer_jobs(command, seed, found)]
    do_jobs(command, jobs, desc="answers", stage=stage)
    # What needs no judge first: it is known, whatever becomes of a service.
    for judged in (False, True):
        for seed, found in missing.items():
            score_answers(command, seed, [score for score in found if is_judged(command, score) is judged])
    return any(missing.values())


def _answer_jobs(command: Command, seed: int, missing: Sequence[Score]) -> list[Job]:
    """One job for each model whose answers are missing."""
    unanswered = [score for score in missing if not has_answers(command, seed, score.answers)]
    if not unanswered:
        return []
    from safety_spaces.experiments.sweep import answer_cell, open_session

    tasks = sorted({score.cell.task for score in unanswered} - {"base", "reference"})
    metrics = sorted({score.metric for score in unanswered})
    group = Group(f"seed {seed}", partial(open_session, command, seed, tasks, metrics))
    cells = [list(found) for _, found in itertools.groupby(unanswered, key=lambda score: score.cell)]
    return [Job(_said(cell[0].cell), partial(answer_cell, command, cell), group, steps=len(cell)) for cell in cells]


def _said(cell: Cell) -> str:
    return ", ".join(f"{key} {value}" for key, value in asdict(cell).items() if value is not None)


def _missing(command: Command, seed: int) -> list[Score]:
    """Return the scores of this process that are missing; what all seeds share belongs to the first."""
    every = scores(command, seed)
    share = set(processes().share(list(dict.fromkeys(score.cell for score in every))))
    share = {cell for cell in share if not belongs_to_first_seed(command.study, cell)}
    return [score for score in every if score.cell in share and find_result(command, score) is None]


def find_result(command: Command, score: Score) -> dict[str, Any] | None:
    """Return a result from any seed's folder: the base has one key for all seeds."""
    seeds = dict.fromkeys((score.cell.seed, *command.study.seeds))
    results = (Cells(command.layout.cells(seed)).get(score.key) for seed in seeds)
    return next((result for result in results if result is not None), None)


def _energy_rows(command: Command, energies: Energies) -> Iterable[dict[str, Any]]:
    for (seed, task), measured in energies.items():
        for row in measured["rows"]:
            yield {"study": command.study.name, "task": task, "seed": seed, "replicate": 0, **row}


def _energies(command: Command) -> Energies | None:
    return all_found(
        {
            (seed, task): Cells(command.layout.cells(seed)).get(energy_key(command, seed, task))
            for seed in command.study.seeds
            for task in command.study.tasks
        }
    )


def _results(command: Command) -> Results | None:
    return all_found(
        {score: find_result(command, score) for seed in command.study.seeds for score in scores(command, seed)}
    )


def _remove_factors(command: Command) -> None:
    """Remove what only an unfinished sweep reads again; it may be as large as a checkpoint."""
    for folder in map(command.layout.factors, command.study.seeds):
        if folder.exists() and not command.keep_factors:
            with writing(folder):
                shutil.rmtree(folder)


def _projection_rows(command: Command, energies: Energies, results: Results) -> Iterable[dict[str, Any]]:
    measured = {
        (*one, row["basis"], row["fraction"], row["draw"], row["tensor"]): (row["energy_kept"], row["update_norm"])
        for one, energy in energies.items()
        for row in energy["rows"]
    }
    for score, result in results.items():
        cell = score.cell
        is_task = cell.task in command.study.tasks
        yield {
            **_cell_columns(command, cell),
            "energy_kept": None if cell.is_baseline else _energy_kept(measured, cell),
            "realised_energy": result["realised_energy"],
            "realised_cosine": result["realised_cosine"],
            "cosine_task_reference": energies[cell.seed, cell.task]["cosine_task_reference"] if is_task else None,
            **_metric_columns(command, score.metric, result["scores"]),
            "others": cell.others,
        }


def _energy_kept(measured: Mapping[tuple[Any, ...], tuple[float | None, float]], cell: Cell) -> float | None:
    """Energy that a projected model keeps of the whole update, where it projects one layer alone too (equation 7)."""
    place = (cell.seed, cell.task, cell.basis, cell.fraction, cell.draw)
    _, whole = measured[*place, "all"]
    inside, norm = measured[*place, "all" if cell.layer is None else layer_total(cell.layer)]
    if not whole:
        return None
    share = (norm / whole) ** 2
    # A layer that no training touched has nothing to keep.
    parallel = share * (inside or 0)
    kept = parallel if cell.scheme == "parallel" else share - parallel
    return kept + (1 - share if cell.others == "whole" else 0)


def _cell_columns(command: Command, cell: Cell) -> dict[str, Any]:
    study = command.study
    return {
        "study": study.name,
        "model": study.model,
        "reference_kind": study.reference_kind,
        "precision": study.training.precision,
        "task": cell.task,
        "scheme": cell.scheme,
        "basis": cell.basis,
        "fraction": cell.fraction,
        "layers": ALL_LAYERS if cell.layer is None else cell.layer,
        "seed": cell.seed,
        "replicate": cell.replicate,
        "draw": cell.draw,
        "matching": None if cell.is_baseline else MATCHED,
    }


def _metric_columns(command: Command, name: Metric, answers: list[float | None]) -> dict[str, Any]:
    assert command.study.evaluation is not None
    metric = metric_of(name, command.texts, command.study.evaluation)
    parsed = [answer for answer in answers if answer is not None]
    none: dict[str, Any] = {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    return {
        "metric": name,
        "judge": None if metric.judge is None else metric.judge.name,
        "shots": metric.shots,
        # A model none of whose replies could be read has no mean, and the other rows do not wait for one.
        **(none if answers and not parsed else asdict(metric.estimate(parsed))),
        "n_unparsed": len(answers) - len(parsed),
    }
