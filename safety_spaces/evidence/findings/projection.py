"""What projecting the updates showed (Sections 3 and 4): energies, the claim against random, what removal removes.

The claim is top_k, the leading directions of the reference update, or a user's own file.

Contrasts are taken within a seed, averaged over fractions and draws, and held against the half-width of one score's
95 % interval: a cautious measure of noise, since a contrast averages several scores of the same prompts.
"""

from dataclasses import dataclass

import pandas as pd

from safety_spaces.evidence.findings.shares import gap_of, gaps_of, removed_shares
from safety_spaces.evidence.grid import METRICS, Grid, Line
from safety_spaces.evidence.selection import energies, half_width, scores
from safety_spaces.evidence.statistics import Contrast, contrast
from safety_spaces.tensors import FIXED_BASES, RANDOM

UNIFORM_TOLERANCE = 0.05  # what passes for "consistent across all three" in the paper's figures


@dataclass(frozen=True)
class EnergyFinding:
    """Energy kept of an update at the middle fraction, by basis, and the largest gap of claim to random at any."""

    task: str
    claim: str
    fraction: float
    kept: dict[str, float]
    expected: dict[str, float]
    largest_gap: float

    @property
    def uniform(self) -> bool:
        """Whether the claim keeps what random keeps, at every fraction."""
        return abs(self.largest_gap) <= UNIFORM_TOLERANCE


@dataclass(frozen=True)
class ParallelFinding:
    """How much more of the metric the claim delivers than random, in its units and as a share of the gap."""

    task: str
    claim: str
    metric: str
    gap: float
    advantage: Contrast

    @property
    def share(self) -> float | None:
        """The advantage as a share of fine-tuned minus reference; None where fine-tuning did not raise the metric."""
        return self.advantage.value / self.gap if self.gap > 0 else None


@dataclass(frozen=True)
class Removed:
    """Shares of the fine-tuned-minus-reference gap that orthogonal projection removed at one fraction."""

    basis: str
    fraction: float
    utility: float
    harmfulness: float


@dataclass(frozen=True)
class OrthogonalFinding:
    """Harmfulness removed from contaminated beside the utility it cost.

    selectivity is the share of harmfulness removed minus the share of utility, by basis; excess is that of the claim
    minus that of random. Where a seed's fine-tuning did not raise both metrics shares mean nothing: the three are None.
    """

    claim: str
    gaps: dict[str, Contrast]
    removed: tuple[Removed, ...] | None
    selectivity: dict[str, Contrast] | None
    excess: Contrast | None


def find_energy(energy: pd.DataFrame, grid: Grid, *, task: str) -> EnergyFinding:
    """Energies of one task, means over seeds and draws."""
    rows = {basis: energies(energy, grid, task=task, basis=basis) for basis in grid.bases}
    middle = grid.fractions[len(grid.fractions) // 2]
    at_middle = {basis: part[part.fraction == middle] for basis, part in rows.items()}
    claimed, random = (
        energies(energy, grid, task=task, basis=basis).groupby("fraction").energy_kept.mean()
        for basis in (grid.claim, RANDOM)
    )
    return EnergyFinding(
        task=task,
        claim=grid.claim,
        fraction=middle,
        kept={basis: float(part.energy_kept.mean()) for basis, part in at_middle.items()},
        expected={
            basis: float(part.energy_expected.mean()) for basis, part in at_middle.items() if basis not in FIXED_BASES
        },
        largest_gap=max((claimed - random).tolist(), key=abs),
    )


def find_parallel(projection: pd.DataFrame, grid: Grid, *, line: Line) -> ParallelFinding:
    """The claim against random under parallel projection, mean over fractions, of one (task, scheme, metric)."""
    task, _, metric = line
    rows = [scores(projection, grid, line=line, basis=basis) for basis in (grid.claim, RANDOM)]
    claimed, random = (part.groupby("seed").value.mean() for part in rows)
    gap = float(gap_of(projection, grid, task=task, metric=metric).mean())
    advantage = contrast(list(claimed - random), noise=half_width(pd.concat(rows)))
    return ParallelFinding(task, grid.claim, metric, gap, advantage)


def find_orthogonal(projection: pd.DataFrame, grid: Grid) -> OrthogonalFinding:
    """Shares of the contaminated gap removed by the claim and by random; means over seeds and draws."""
    gaps = gaps_of(projection, grid, task="contaminated")
    summary = {metric: contrast(list(gap)) for metric, gap in gaps.items()}
    if min(gap.lowest for gap in summary.values()) <= 0:
        return OrthogonalFinding(grid.claim, summary, None, None, None)
    rows = {
        metric: {
            basis: scores(projection, grid, line=("contaminated", "orthogonal", metric), basis=basis)
            for basis in (grid.claim, RANDOM)
        }
        for metric in METRICS
    }
    shares = removed_shares(projection, grid, rows, gaps)
    means = shares.by_fraction
    return OrthogonalFinding(
        claim=grid.claim,
        gaps=summary,
        removed=tuple(
            Removed(basis, fraction, *(float(means[basis, fraction][metric]) for metric in METRICS))
            for basis in (grid.claim, RANDOM)
            for fraction in grid.fractions
        ),
        selectivity=shares.selectivity,
        excess=shares.excess,
    )
