"""What the overlaps of updates showed (Section 5): how far above chance each pair is, and which pair is closest.

Overlaps are compared as MSO minus chance, averaged over the energy levels. If safety had a subspace of its own, the
harmful and the reference update would share it and so overlap the most.
"""

from dataclasses import dataclass

import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.overlaps import depth_of, layer_overlap, shown_layers
from safety_spaces.evidence.statistics import Contrast, contrast

SAFETY_PAIR = frozenset({"harmful", "reference"})
"""The two updates that a safety subspace would bring together."""


@dataclass(frozen=True)
class PairOverlap:
    """Two updates at one percentile layer: MSO minus chance, and their signed cosine (MSO is blind to sign)."""

    pair: str
    percentiles: tuple[float, ...]
    layer: int
    excess: Contrast
    cosine: float


@dataclass(frozen=True)
class UpdateFinding:
    """Overlaps at all percentile layers, and the pair that is closest on their mean, in how many of the seeds.

    One pair alone is closest to nothing: strongest is None.
    """

    overlaps: tuple[PairOverlap, ...]
    strongest: str | None
    agreeing_seeds: int
    seeds: int

    @property
    def all_above_chance(self) -> bool:
        """Whether every pair is above chance at every percentile layer, in every seed."""
        return all(overlap.excess.direction > 0 for overlap in self.overlaps)


@dataclass(frozen=True)
class LayerwiseFinding:
    """The closest pair at every layer, and at which layers that is harmful and reference (Appendix G)."""

    closest: tuple[str, ...]
    """By layer, on the mean over seeds."""
    harmful_reference: tuple[int, ...]
    """Layers at which it is harmful and reference in every seed."""
    in_some_seeds: tuple[int, ...]
    """Further layers at which it is harmful and reference in some seeds only."""
    seeds: int

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.closest)


def find_update_overlap(update_spaces: pd.DataFrame, grid: Grid) -> UpdateFinding:
    """Overlap of the pairs of updates at the percentile layers, each layer once; one that is untouched is left out.

    Raises:
        UserError: a row is missing, or no update touches all of these layers' pairs.
    """
    overlaps, excesses = [], []
    for layer, percentiles in shown_layers(update_spaces, grid).items():
        rows = layer_overlap(update_spaces, grid, layer=layer)
        excess, cosines = excess_of(rows), rows.groupby("pair").cosine.mean()
        touched = [pair for pair in grid.update_pairs if excess[pair].notna().all()]
        overlaps += [
            PairOverlap(pair, percentiles, layer, contrast(list(excess[pair])), float(cosines[pair]))
            for pair in touched
        ]
        excesses += [excess] if len(touched) == len(grid.update_pairs) else []
    if not excesses:
        raise UserError("update_spaces.csv: at the percentile layers an update is zero; name others in update_spaces")
    mean = sum(excesses[1:], start=excesses[0]) / len(excesses)
    strongest = str(mean.mean().idxmax())
    agreeing = int((mean.idxmax(axis=1) == strongest).sum())
    return UpdateFinding(tuple(overlaps), strongest if len(grid.update_pairs) > 1 else None, agreeing, len(mean))


def find_layerwise(update_spaces: pd.DataFrame, grid: Grid) -> LayerwiseFinding | None:
    """The closest pair of updates at every layer that all touch; None where harmful and reference are not compared.

    None too where they are compared alone.
    """
    if len(grid.update_pairs) < 2 or not any(set(pair.split("-")) == SAFETY_PAIR for pair in grid.update_pairs):
        return None
    closest, always, sometimes = [], [], []
    for layer in range(depth_of(update_spaces, "update_spaces.csv")):
        excess = excess_of(layer_overlap(update_spaces, grid, layer=layer))
        if excess.isna().any(axis=None):
            continue
        closest.append(str(excess.mean().idxmax()))
        of_seeds = [set(str(pair).split("-")) == SAFETY_PAIR for pair in excess.idxmax(axis=1)]
        if all(of_seeds):
            always.append(layer)
        elif any(of_seeds):
            sometimes.append(layer)
    if not closest:
        raise UserError("update_spaces.csv: at every layer an update is zero; compare others")
    return LayerwiseFinding(tuple(closest), tuple(always), tuple(sometimes), len(grid.seeds))


def excess_of(rows: pd.DataFrame) -> pd.DataFrame:
    """MSO minus chance, mean over energy levels: one row per seed, one column per pair."""
    return rows.assign(excess=rows.mso - rows.mso_chance).groupby(["seed", "pair"]).excess.mean().unstack("pair")
