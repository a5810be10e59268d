"""Contrasts between models over seeds, and the order of numbers.

Trained models differ between seeds, and there are few of those: a contrast therefore shows its lowest and highest seed,
and takes a side only where all seeds do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Contrast:
    """A difference averaged over seeds, its extreme seeds, and the size below which it is taken for noise."""

    value: float
    lowest: float
    highest: float
    noise: float = 0.0
    seeds: int = 1

    @property
    def direction(self) -> int:
        """1 or -1 where every seed has that sign and the mean exceeds the noise, else 0 (undecided)."""
        if abs(self.value) <= self.noise:
            return 0
        return int(self.lowest > 0) - int(self.highest < 0)


def contrast(by_seed: Sequence[float], *, noise: float = 0.0) -> Contrast:
    """The contrast whose values, one for each seed, are given."""
    return Contrast(float(np.mean(by_seed)), float(np.min(by_seed)), float(np.max(by_seed)), noise, len(by_seed))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of paired numbers; None where one side is constant or empty, which has no ranks."""
    if min(len(set(first)), len(set(second))) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)
