"""Intervals of the scores over evaluation prompts.

Accuracy has Wilson's, (p + z^2/2n +- z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n), and a mean score of a judge
Student's, m +- t s/sqrt(n).
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


def proportion_interval(successes: int, n: int) -> Estimate:
    """Return Wilson's 95 % interval for successes out of n; raises UserError unless 0 <= successes <= n and n > 0."""
    if n <= 0 or not 0 <= successes <= n:
        raise UserError(f"an accuracy needs 0 <= successes <= n and n > 0, got {successes} of {n}; score some prompts")
    return _wilson(successes / n, n)


def student_interval(values: Sequence[float | int]) -> Estimate:
    """Return Student's 95 % interval for a mean without bounds; raises UserError for fewer than two values."""
    if len(values) < 2:
        raise UserError(f"a mean without bounds needs two values or more, got {len(values)}; score more prompts")
    scores = np.asarray(values, dtype=np.float64)
    n, mean = len(scores), float(scores.mean())
    half_width = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * scores.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half_width, mean + half_width, n)


def mean_interval(values: Sequence[float | int], *, low: float, high: float) -> Estimate:
    """Return Student's 95 % interval for the mean of scores on the scale [low, high], clipped to the scale.

    Equal values (one value among them) have no spread to estimate, and a width of zero would claim certainty: there
    the interval is Wilson's for the mean rescaled to [0, 1]. Raises UserError for no values or a value off the scale.
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
    free = student_interval(values)
    return Estimate(mean, max(low, free.ci_low), min(high, free.ci_high), n)


def _wilson(share: float, n: int) -> Estimate:
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half_width = z * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))) / (1 + z**2 / n)
    # At the ends of the scale the bound is the end itself, which subtraction misses by a rounding error.
    return Estimate(share, centre - half_width if share > 0 else 0.0, centre + half_width if share < 1 else 1.0, n)
