"""The rows of energy.csv and projection.csv, from the results of the projection experiment."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from safety_spaces.evaluation.metrics import Metric
from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.study import Study
from safety_spaces.tensors import MATCHED, layer_total

Energies = Mapping[tuple[int, str], Mapping[str, Any]]
"""What was measured of each task update, by seed and task."""


def energy_rows(study: Study, energies: Energies) -> Iterator[dict[str, Any]]:
    """Yield the rows of energy.csv."""
    for (seed, task), measured in energies.items():
        for row in measured["rows"]:
            yield {"study": study.name, "task": task, "seed": seed, "replicate": 0, **row}


def projection_rows(
    study: Study, metrics: Mapping[str, Metric], energies: Energies, results: Mapping[Score, Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of projection.csv: every score beside what its model keeps of the update."""
    measured = {
        (*one, row["basis"], row["fraction"], row["draw"], row["tensor"]): (row["energy_kept"], row["update_norm"])
        for one, energy in energies.items()
        for row in energy["rows"]
    }
    doses = {
        (*one, scheme, rho): kept
        for one, energy in energies.items()
        for rho, *both in energy["matched"]
        for scheme, kept in zip(("parallel", "orthogonal"), both, strict=True)
    }
    of_study = {
        "study": study.name,
        "model": study.model,
        "reference_kind": study.reference_kind,
        "precision": study.training.precision,
    }
    for score, result in results.items():
        cell, is_task = score.cell, score.cell.task in study.tasks
        yield {
            **of_study,
            **_cell_columns(cell),
            "energy_kept": _energy_kept(measured, doses, cell),
            "realised_energy": result["realised_energy"],
            "realised_cosine": result["realised_cosine"],
            "cosine_task_reference": energies[cell.seed, cell.task]["cosine_task_reference"] if is_task else None,
            **_metric_columns(metrics[score.metric], result["scores"]),
        }


def score_rows(metrics: Mapping[str, Metric], results: Mapping[Score, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of scores.parquet: the score of every prompt, and the cluster that the prompt belongs to."""
    clusters = {name: metrics[name].clusters() for name in dict.fromkeys(score.metric for score in results)}
    for score, result in results.items():
        cell = _cell_columns(score.cell)
        shared = {**cell, "layers": str(cell["layers"]), "others": cell["others"] or "", "metric": score.metric}
        for prompt, (cluster, value) in enumerate(zip(clusters[score.metric], result["scores"], strict=True)):
            yield {**shared, "prompt": prompt, "cluster": cluster, "value": value}


def _energy_kept(
    measured: Mapping[tuple[Any, ...], tuple[float | None, float]],
    doses: Mapping[tuple[Any, ...], float],
    cell: Cell,
) -> float | None:
    """Energy that a model keeps of the whole update, where it projects one layer alone too (equation 7)."""
    if cell.is_baseline:
        return None
    if cell.dose is not None:
        return cell.dose**2
    if cell.basis == MATCHED:
        return doses[cell.seed, cell.task, cell.scheme, cell.fraction]
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


def _cell_columns(cell: Cell) -> dict[str, Any]:
    columns = asdict(cell)
    layer = columns.pop("layer")
    return {**columns, "layers": "all" if layer is None else layer}


def _metric_columns(metric: Metric, answers: list[float | None]) -> dict[str, Any]:
    parsed = [answer for answer in answers if answer is not None]
    # A model none of whose replies could be read has no mean, and the other rows do not wait for one.
    is_unread = bool(answers) and not parsed
    none = {"value": None, "ci_low": None, "ci_high": None, "n": 0}
    return {
        "metric": metric.name,
        "judge": metric.judge_name,
        "shots": metric.shots,
        **(none if is_unread else asdict(metric.estimate(parsed))),
        "n_unparsed": len(answers) - len(parsed),
    }
