"""Scores as shares of the gap between the fine-tuned model and the reference, on which both metrics can be compared."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import hypot

import pandas as pd

from safety_spaces.evidence.grid import METRICS, Grid
from safety_spaces.evidence.selection import baseline, half_width
from safety_spaces.evidence.statistics import Contrast, contrast
from safety_spaces.tensors import RANDOM

Gaps = Mapping[str, "pd.Series[float]"]


@dataclass(frozen=True)
class RemovedShares:
    """How much of both gaps is removed, and how much more of harmfulness than of utility.

    removed is what the claim removes, by metric; selectivity is the share of harmfulness removed minus the share of
    utility, by basis, mean over fractions and draws; excess is that of the claim minus that of random.
    """

    by_fraction: dict[Hashable, dict[Hashable, float]]
    """By (basis, fraction), then by metric."""
    removed: dict[str, Contrast]
    selectivity: dict[str, Contrast]
    excess: Contrast


def gap_of(projection: pd.DataFrame, grid: Grid, *, task: str, metric: str) -> "pd.Series[float]":
    """Fine-tuned minus reference, by seed."""
    fine_tuned, reference = (
        baseline(projection, grid, checkpoint=checkpoint, metric=metric).set_index("seed").value
        for checkpoint in (task, "reference")
    )
    return fine_tuned - reference


def gaps_of(projection: pd.DataFrame, grid: Grid, *, task: str) -> dict[str, "pd.Series[float]"]:
    """Both gaps of a task, by seed."""
    return {metric: gap_of(projection, grid, task=task, metric=metric) for metric in METRICS}


def removed_shares(
    projection: pd.DataFrame, grid: Grid, rows: Mapping[str, Mapping[str, pd.DataFrame]], gaps: Gaps
) -> RemovedShares:
    """Shares of the contaminated gaps that projected models have lost; `rows` are their scores by metric and basis.

    The noise is that of one score of each metric, as a share of its gap. The gaps should be positive in every seed.
    """
    shares, noises = {}, {}
    for metric, by_basis in rows.items():
        together = pd.concat(by_basis.values())
        fine_tuned = baseline(projection, grid, checkpoint="contaminated", metric=metric).set_index("seed").value
        value = together.groupby(["basis", "seed", "fraction"]).value.mean()
        shares[metric] = value.rsub(fine_tuned, level="seed").div(gaps[metric], level="seed")
        noises[metric] = half_width(together) / float(gaps[metric].mean())
    noise = hypot(*noises.values())
    by_seed = (shares["harmfulness"] - shares["utility"]).groupby(["basis", "seed"]).mean()
    means = pd.DataFrame(shares).groupby(["basis", "fraction"]).mean().to_dict("index")
    return RemovedShares(
        by_fraction=means,
        removed={
            metric: contrast(list(share[grid.claim].groupby("seed").mean()), noise=noises[metric])
            for metric, share in shares.items()
        },
        selectivity={basis: contrast(list(by_seed[basis]), noise=noise) for basis in (grid.claim, RANDOM)},
        excess=contrast(list(by_seed[grid.claim] - by_seed[RANDOM]), noise=noise),
    )
