"""Intervals for the two scores, contrasts between models over seeds, and the order of numbers.

A score is a mean over evaluation prompts, so it carries an interval over prompts: Wilson's for accuracy,
(p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), and Student's for the mean judge score,
m +- t s/sqrt(n). Trained models differ between seeds as well, and there are few of those: a contrast therefore shows
its lowest and highest seed, and takes a side only where all seeds do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from safety_spaces.errors import UserError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval over n prompts."""

    value: float
    ci_low: float
    ci_high: float
    n: int


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


def proportion_interval(successes: int, n: int) -> Estimate:
    """Wilson's 95 % interval for successes out of n; UserError unless 0 <= successes <= n and n > 0."""
    if n <= 0 or not 0 <= successes <= n:
        raise UserError(f"an accuracy needs 0 <= successes <= n and n > 0, got {successes} of {n}; score some prompts")
    return _wilson(successes / n, n)


def mean_interval(values: Sequence[float | int], *, low: float, high: float) -> Estimate:
    """Student's 95 % interval for the mean of scores on the scale [low, high], clipped to the scale.

    Equal values (one value among them) have no spread to estimate, and a width of zero would claim certainty: there
    the interval is Wilson's for the mean rescaled to [0, 1]. UserError for no values or a value off the scale.
    """
    if len(values) == 0:
        raise UserError("a mean needs at least one score, got none; score some prompts")
    scores = np.asarray(values, dtype=np.float64)
    if not np.all((scores >= low) & (scores <= high)):
        raise UserError(f"scores should lie in [{low:g}, {high:g}], got {scores.min():g} to {scores.max():g}")
    n, mean = len(scores), float(scores.mean())
    if np.ptp(scores) == 0:
        share = _wilson((scores[0] - low) / (high - low), n)
        return Estimate(mean, low + (high - low) * share.ci_low, low + (high - low) * share.ci_high, n)
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * scores.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, max(low, mean - half_width), min(high, mean + half_width), n)


def contrast(by_seed: Sequence[float], *, noise: float = 0.0) -> Contrast:
    """The contrast whose values, one for each seed, are given."""
    return Contrast(float(np.mean(by_seed)), float(np.min(by_seed)), float(np.max(by_seed)), noise, len(by_seed))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of paired numbers; None where one side is constant or empty, which has no ranks."""
    if min(len(set(first)), len(set(second))) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)


def _wilson(share: float, n: int) -> Estimate:
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))) / (1 + z**2 / n)
    # At the ends of the scale the bound is the end itself, which subtraction misses by a rounding error.
    return Estimate(share, centre - half_width if share > 0 else 0.0, centre + half_width if share < 1 else 1.0, n)
