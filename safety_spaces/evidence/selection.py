"""The scores and the energies that a figure or a finding speaks about, each complete or an error.

A model is projected in all layers at once, or in one layer alone; then `others` says whether the update of all other
tensors stayed whole or was left out.
"""

import pandas as pd

from safety_spaces.evidence.completeness import complete, where
from safety_spaces.evidence.grid import Grid, Line
from safety_spaces.tensors import FIXED_BASES, draws

VALUES = ("value", "ci_low", "ci_high", "n")


def scores(
    projection: pd.DataFrame,
    grid: Grid,
    *,
    line: Line,
    basis: str,
    layer: int | None = None,
    others: str = "",
    gaps: bool = False,
) -> pd.DataFrame:
    """Scores of the projected models of one (task, scheme, metric): one row per (seed, draw, fraction).

    Without a layer those of the models that are projected in all layers. With `gaps` a model that no judge could score
    has empty values; else it is an error.
    """
    task, scheme, metric = line
    layers = "all" if layer is None else str(layer)
    rows = where(projection, task=task, scheme=scheme, basis=basis, metric=metric, layers=layers, others=others)
    rows = _first_replicate(rows)
    alone = "" if layer is None else f", layer {layer}, others {others}"
    return complete(
        rows,
        f"projection.csv: {metric} of {task}, {scheme}, {basis}{alone}",
        {"seed": grid.seeds, "draw": draws(basis, grid.score_draws), "fraction": grid.fractions},
        values=() if gaps else VALUES,
    )


def baseline(projection: pd.DataFrame, grid: Grid, *, checkpoint: str, metric: str, gaps: bool = False) -> pd.DataFrame:
    """Scores of an unprojected checkpoint: one row per seed; base, which a study has once, has one row or as many."""
    rows = _first_replicate(where(projection, task=checkpoint, basis="none", metric=metric))
    if checkpoint == "base":
        rows = rows.assign(seed=rows.seed.fillna(grid.seeds[0]))
    seeds = sorted(set(rows.seed)) if checkpoint == "base" and len(rows) else grid.seeds
    name = f"projection.csv: {metric} of the checkpoint {checkpoint}"
    return complete(rows, name, {"seed": seeds}, values=() if gaps else VALUES)


def energies(
    energy: pd.DataFrame, grid: Grid, *, task: str, basis: str, layer: int | None = None, gaps: bool = False
) -> pd.DataFrame:
    """Energy kept over all tensors, or over those of one layer: one row per (seed, draw, fraction).

    No energy_expected where nothing is drawn. With `gaps` what no training touched is empty, else an error.
    """
    values = ("energy_kept",) if basis in FIXED_BASES else ("energy_kept", "energy_expected")
    rows = _first_replicate(where(energy, task=task, basis=basis, tensor="all" if layer is None else f"layer:{layer}"))
    return complete(
        rows,
        f"energy.csv: total of {task}, {basis}" + ("" if layer is None else f", layer {layer}"),
        {"seed": grid.seeds, "draw": draws(basis, grid.energy_draws), "fraction": grid.fractions},
        values=() if gaps else values,
    )


def _first_replicate(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(draw=rows.draw.fillna(0), replicate=rows.replicate.fillna(0))
    return rows[rows.replicate == 0]
