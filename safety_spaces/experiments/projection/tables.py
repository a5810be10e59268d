"""The rows of energy.csv and projection.csv, from the results of the projection experiment."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from safety_spaces.evaluation.metrics import Metric
from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.study import Study
from safety_spaces.tensors import layer_total

Energies = Mapping[tuple[int, str], Mapping[str, Any]]
"""What was measured of each task update, by seed and task."""
Results = Mapping[Score, Mapping[str, Any]]

ALL_LAYERS = "all"


def energy_rows(study: Study, energies: Energies) -> Iterator[dict[str, Any]]:
    """Yield the rows of energy.csv."""
    for (seed, task), measured in energies.items():
        for row in measured["rows"]:
            yield {"study": study.name, "task": task, "seed": seed, "replicate": 0, **row}


def projection_rows(
    study: Study, metrics: Mapping[str, Metric], energies: Energies, results: Results
) -> Iterator[dict[str, Any]]:
    """Yield the rows of projection.csv: every score beside what its model keeps of the update."""
    measured = {
        (*one, row["basis"], row["fraction"], row["draw"], row["tensor"]): (row["energy_kept"], row["update_norm"])
        for one, energy in energies.items()
        for row in energy["rows"]
    }
    for score, result in results.items():
        cell, is_task = score.cell, score.cell.task in study.tasks
        yield {
            **_cell_columns(study, cell),
            "energy_kept": None if cell.is_baseline else _energy_kept(measured, cell),
            "realised_energy": result["realised_energy"],
            "realised_cosine": result["realised_cosine"],
            "cosine_task_reference": energies[cell.seed, cell.task]["cosine_task_reference"] if is_task else None,
            **_metric_columns(metrics[score.metric], result["scores"]),
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


def _cell_columns(study: Study, cell: Cell) -> dict[str, Any]:
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
        "others": cell.others,
        "seed": cell.seed,
        "replicate": cell.replicate,
        "draw": cell.draw,
    }


def _metric_columns(metric: Metric, answers: list[float | None]) -> dict[str, Any]:
    parsed = [answer for answer in answers if answer is not None]
    none: dict[str, Any] = {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    return {
        "metric": metric.name,
        "judge": None if metric.judge is None else metric.judge.name,
        "shots": metric.shots,
        # A model none of whose replies could be read has no mean, and the other rows do not wait for one.
        **(none if answers and not parsed else asdict(metric.estimate(parsed))),
        "n_unparsed": len(answers) - len(parsed),
    }
