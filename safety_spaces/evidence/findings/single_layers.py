"""What projecting one layer alone showed (Appendix I): does safety part from learning in any layer?

All shares are of the whole gap between fine-tuned and reference, in every layer alike. With the other layers whole a
model stays near the fine-tuned one, and what one layer moves is little; with the others out it stays near the
reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import pandas as pd

from safety_spaces.evidence.findings.shares import gap_of, gaps_of, removed_shares
from safety_spaces.evidence.grid import ORTHOGONAL, PARALLEL, Grid, Line, SingleLayers
from safety_spaces.evidence.selection import baseline, half_width, scores
from safety_spaces.evidence.statistics import Contrast, contrast
from safety_spaces.tensors import RANDOM


@dataclass(frozen=True)
class LayerRemoval:
    """One layer under orthogonal projection: shares of both gaps that the model has lost, and how selectively.

    claimed and random are the share of harmfulness minus that of utility for the claim and for random directions,
    excess the one minus the other.
    """

    layer: int
    others: str
    utility: Contrast
    harmfulness: Contrast
    claimed: Contrast
    random: Contrast
    excess: Contrast

    @property
    def separates(self) -> bool:
        """Whether removal is selective, and more so than that of random directions."""
        return self.claimed.direction > 0 and self.excess.direction > 0


@dataclass(frozen=True)
class LayerCarriage:
    """One layer under parallel projection, which keeps its claimed directions: shares of the gaps that this moves.

    With the others out that is what the claimed directions add to the reference. With the others whole it is what the
    fine-tuned model loses with the layer's other directions, so a positive share is carried by those and not by the
    claimed ones. preference is harmful minus useful.
    """

    layer: int
    others: str
    useful: Contrast
    harmful: Contrast
    preference: Contrast

    @property
    def separates(self) -> bool:
        """Whether the claimed directions add harmful behaviour, useful behaviour not demonstrably, and less of it.

        Never with the others whole, which tells of the layer's other directions.
        """
        adds_harm = self.others == "out" and self.harmful.direction > 0
        return adds_harm and self.useful.direction <= 0 and self.preference.direction > 0


@dataclass(frozen=True)
class SingleLayerFinding:
    """All layers that were projected alone; empty where the study has no such lines.

    None where fine-tuning did not raise the metrics in every seed: there is no gap to take shares of.
    """

    removals: tuple[LayerRemoval, ...] | None
    carriages: tuple[LayerCarriage, ...] | None


def find_single_layers(projection: pd.DataFrame, grid: Grid) -> SingleLayerFinding | None:
    """Every layer that is projected alone, for both readings of the others; None where the study has none."""
    if not grid.single_layers:
        return None
    return SingleLayerFinding(_removals(projection, grid), _carriages(projection, grid))


def _removals(projection: pd.DataFrame, grid: Grid) -> tuple[LayerRemoval, ...] | None:
    if not (common := _common(grid.single_layers, ORTHOGONAL)):
        return ()
    gaps = gaps_of(projection, grid, task="contaminated")
    if min(float(gap.min()) for gap in gaps.values()) <= 0:
        return None
    found = []
    for layer, others in common:
        rows = {
            line[2]: {
                basis: scores(projection, grid, line=line, basis=basis, layer=layer, others=others)
                for basis in (grid.claim, RANDOM)
            }
            for line in ORTHOGONAL
        }
        shares = removed_shares(projection, grid, rows, gaps)
        found.append(
            LayerRemoval(
                layer,
                others,
                **shares.removed,
                claimed=shares.selectivity[grid.claim],
                random=shares.selectivity[RANDOM],
                excess=shares.excess,
            )
        )
    return tuple(found)


def _carriages(projection: pd.DataFrame, grid: Grid) -> tuple[LayerCarriage, ...] | None:
    if not (common := _common(grid.single_layers, PARALLEL)):
        return ()
    gaps = {line: gap_of(projection, grid, task=line[0], metric=line[2]) for line in PARALLEL}
    if min(float(gap.min()) for gap in gaps.values()) <= 0:
        return None
    found = []
    for layer, others in common:
        moved, noises = [], []
        for line, gap in gaps.items():
            task, _, metric = line
            rows = scores(projection, grid, line=line, basis=grid.claim, layer=layer, others=others)
            start = baseline(projection, grid, checkpoint=task if others == "whole" else "reference", metric=metric)
            difference = rows.groupby("seed").value.mean() - start.set_index("seed").value
            moved.append((-difference if others == "whole" else difference) / gap)
            noises.append(half_width(rows) / float(gap.mean()))
        useful, harmful = moved
        found.append(
            LayerCarriage(
                layer,
                others,
                useful=contrast(list(useful), noise=noises[0]),
                harmful=contrast(list(harmful), noise=noises[1]),
                preference=contrast(list(harmful - useful), noise=hypot(*noises)),
            )
        )
    return tuple(found)


def _common(lines: Sequence[SingleLayers], wanted: Sequence[Line]) -> list[tuple[int, str]]:
    """The (layer, others) that all wanted lines have."""
    cells: list[set[tuple[int, str]]] = [
        {
            (layer, others)
            for line in lines
            if (line.task, line.scheme, line.metric) == one
            for layer in line.layers
            for others in line.others
        }
        for one in wanted
    ]
    return sorted(set.intersection(*cells), key=lambda cell: (cell[1] != "whole", cell[0]))
