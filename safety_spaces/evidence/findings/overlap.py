"""What the overlaps showed (Sections 5 and 6): how far above chance each pair is, and which pair is closest.

Overlaps are compared as MSO minus chance, averaged over the energy levels. If safety had a subspace of its own, the
harmful and the reference update, or two sets of harmful prompts, would share it and so overlap the most.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.evidence.selection import Grid, layer_overlap, percentile_layers, window_overlap
from safety_spaces.evidence.statistics import Contrast, contrast


@dataclass(frozen=True)
class PairOverlap:
    """Two updates at one percentile layer: MSO minus chance, and their signed cosine (MSO is blind to sign)."""

    pair: str
    percentile: float
    layer: int
    excess: Contrast
    cosine: float


@dataclass(frozen=True)
class UpdateFinding:
    """Overlaps at all percentile layers, and the pair that is closest on their mean, in how many of the seeds."""

    overlaps: tuple[PairOverlap, ...]
    strongest: str
    agreeing_seeds: int
    seeds: int

    @property
    def all_above_chance(self) -> bool:
        """Whether every pair is above chance at every percentile layer, in every seed."""
        return all(overlap.excess.direction > 0 for overlap in self.overlaps)


@dataclass(frozen=True)
class ActivationFinding:
    """Overlaps of one checkpoint's activations in the window: MSO minus chance by pair.

    harmful_preference is the weakest harmful-harmful pair minus the strongest useful-harmful pair: positive where
    harmful prompts resemble one another more than any of them resembles useful ones.
    """

    checkpoint: str
    centred: bool
    excess: dict[str, Contrast]
    harmful_preference: Contrast


def find_update_overlap(update_spaces: pd.DataFrame, grid: Grid) -> UpdateFinding:
    """Overlap of the three pairs of updates at the percentile layers."""
    overlaps, excesses = [], []
    for percentile, layer in percentile_layers(update_spaces, grid).items():
        rows = layer_overlap(update_spaces, grid, layer=layer)
        excesses.append(_excess(rows))
        cosines = rows.groupby("pair").cosine.mean()
        overlaps += [
            PairOverlap(pair, percentile, layer, contrast(list(excesses[-1][pair])), float(cosines[pair]))
            for pair in grid.update_pairs
        ]
    mean = sum(excesses[1:], start=excesses[0]) / len(excesses)
    strongest = str(mean.mean().idxmax())
    return UpdateFinding(tuple(overlaps), strongest, int((mean.idxmax(axis=1) == strongest).sum()), len(mean))


def find_activation_overlap(
    activation_spaces: pd.DataFrame, grid: Grid, *, checkpoint: str, centred: bool
) -> ActivationFinding:
    """Overlap of the prompt sets in the window of layers of one checkpoint.

    UserError unless the study has a pair of harmful sets and a pair of a useful and a harmful one.
    """
    excess = _excess(window_overlap(activation_spaces, grid, checkpoint=checkpoint, centred=centred))
    harmful = excess[_pairs(grid.activation_pairs, "harmful", "harmful")].min(axis=1)
    mixed = excess[_pairs(grid.activation_pairs, "useful", "harmful")].max(axis=1)
    return ActivationFinding(
        checkpoint=checkpoint,
        centred=centred,
        excess={pair: contrast(list(excess[pair])) for pair in grid.activation_pairs},
        harmful_preference=contrast(list(harmful - mixed)),
    )


def _excess(rows: pd.DataFrame) -> pd.DataFrame:
    """MSO minus chance, mean over energy levels: one row per seed, one column per pair."""
    return rows.assign(excess=rows.mso - rows.mso_chance).pivot_table(index="seed", columns="pair", values="excess")


def _pairs(pairs: Iterable[str], *kinds: str) -> list[str]:
    """The pairs whose two sets are of these kinds; harmful_1 is of the kind harmful."""
    chosen = [pair for pair in pairs if sorted(part.split("_")[0] for part in pair.split("-")) == sorted(kinds)]
    if not chosen:
        raise UserError(f"activation_spaces.sets: expected a {kinds[0]} and a {kinds[1]} set; name them in the study")
    return chosen
