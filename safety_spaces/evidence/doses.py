"""The dose of uniform scaling that equals a cell, by its utility and by its harmfulness (design, section 10).

    doses = selectivity(utility, harm, curve, alphas, resamples=2000, seed=0)
    effects = doses.contrast(claim, matched).with_mean()     # indices of cells at rho 0.25, 0.5, 0.75
    verdict = decide(effects, fractions=(0.25, 0.5, 0.75, None), margin=0.15, premises=True)
    cells = spread(doses.of([3, 4, 5]))                      # selectivity of single cells, with intervals

`utility` and `harm` are `Scores` whose cells come in one order; `curve` are the indices of the cells of `scaled`, the
reference (alpha 0) and the task (alpha 1) among them, in the order of `alphas`, which may reach beyond 0 and 1. Cells
of the curve may be asked for like any other.

For one seed and metric m the mean scores along alpha are made monotone, c; alpha_m(cell) is where c, interpolated
linearly, has the cell's mean. selectivity = alpha_u - alpha_h. A cell at 0 or 1 falls beyond a curve that ends there in
half of the resamples: it is flagged, as it says no more than "at the end", and wants a curve that reaches further.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from safety_spaces.errors import UserError
from safety_spaces.evidence.crossed import Effects, Sample, Scores, resample

# Of the height of a curve, and of the scores: what rounding may do to equal scores.
ROUNDING = (1e-9, 1e-12)


@dataclass(frozen=True)
class Doses:
    """The equivalent doses of every cell, one row a seed, then the same in every resample.

    harm_at_equal_utility: how much less harm than scaling at the cell's utility, over the gap between reference and
    task; utility_at_equal_harm: how much more utility than scaling at the cell's harmfulness. NaN where a gap is 0.
    """

    utility: "Side"
    harm: "Side"

    @property
    def selectivity(self) -> Float[np.ndarray, "S C"]:
        """alpha_u - alpha_h of every seed and cell."""
        return np.asarray(self.utility.dose - self.harm.dose)

    def of(self, cells: Sequence[int]) -> Effects:
        """Return the selectivity of cells as effects over seeds and prompts."""
        return self._effects(np.eye(self.utility.dose.shape[1])[list(cells)])

    def contrast(self, first: Sequence[int], second: Sequence[int]) -> Effects:
        """Return the selectivity of each cell of `first` less that of its partner in `second`."""
        cells = np.eye(self.utility.dose.shape[1])
        return self._effects(cells[list(first)] - cells[list(second)])

    def harm_at_equal_utility(self, cells: Sequence[int]) -> Effects:
        """Return (h_scaled(alpha_u) - h) / gap of cells: above 0, less harm than scaling that keeps as much utility."""
        return _secondary(self.harm, self.utility, cells, sign=1)

    def utility_at_equal_harm(self, cells: Sequence[int]) -> Effects:
        """Return (u - u_scaled(alpha_h)) / gap of cells: above 0, more utility than scaling with as much harm."""
        return _secondary(self.utility, self.harm, cells, sign=-1)

    def _effects(self, weights: Float[np.ndarray, "K C"]) -> Effects:
        parts = self.utility.sample.mapped(weights), self.harm.sample.mapped(-weights)
        used = (weights != 0).T.astype(np.float64)
        flagged = (self.utility.flagged | self.harm.flagged).astype(np.float64) @ used > 0
        return Effects(self.selectivity @ weights.T, parts, flagged.mean((0, 1)))


@dataclass(frozen=True)
class Side:
    """One metric: mean scores of the cells, monotone curves over seeds, equivalent doses and their flags."""

    means: Sample
    sample: Sample
    alphas: Float[np.ndarray, "A"]
    curve: Float[np.ndarray, "S A"]
    resampled_curve: Float[np.ndarray, "R S A"]
    flagged: Bool[np.ndarray, "R S C"]

    @property
    def dose(self) -> Float[np.ndarray, "S C"]:
        """The equivalent doses as observed."""
        return self.sample.observed


def selectivity(
    utility: Scores, harm: Scores, curve: Sequence[int], alphas: Sequence[float | int], *, resamples: int, seed: int
) -> Doses:
    """Return the equivalent doses of all cells by utility and by harmfulness, observed and resampled.

    Raises UserError for alphas that do not rise, that leave out 0 or 1, or that are not one for each cell of the curve.
    """
    if len(curve) != len(alphas) or np.any(np.diff(alphas) <= 0) or not {0.0, 1.0} <= set(alphas):
        raise UserError(
            f"a curve needs one rising dose a cell, 0 and 1 among them, got {list(alphas)} for {len(curve)}"
        )
    sides = (
        _side(resample(scores, resamples=resamples, seed=seed, name=name), curve, np.asarray(alphas, dtype=np.float64))
        for scores, name in ((utility, "utility"), (harm, "harm"))
    )
    return Doses(*sides)


def monotone(scores: Float[np.ndarray, "*n A"]) -> Float[np.ndarray, "*n A"]:
    """Return the isotonic (non-decreasing) least-squares fit along the last axis, weights equal.

    fit_i = max over j <= i of min over k >= i of the mean of scores_j .. scores_k.
    """
    length = scores.shape[-1]
    sums = np.concatenate([np.zeros_like(scores[..., :1]), np.cumsum(scores, -1)], -1)
    fit = np.full(scores.shape, -np.inf)
    for first in range(length):
        ends = np.arange(first, length)
        means = (sums[..., ends + 1] - sums[..., first : first + 1]) / (ends - first + 1)
        least_beyond = np.minimum.accumulate(means[..., ::-1], -1)[..., ::-1]
        fit[..., first:] = np.maximum(fit[..., first:], least_beyond)
    return fit


def equivalent_dose(
    curve: Float[np.ndarray, "*n A"], alphas: Float[np.ndarray, "A"], values: Float[np.ndarray, "*n C"]
) -> tuple[Float[np.ndarray, "*n C"], Bool[np.ndarray, "*n C"]]:
    """Return the doses at which a monotone curve has the values, and whether each is clamped or on a plateau.

    A step of the curve is passed in full by a value above it, in proportion by one within it, and by half where it is
    flat at the value: the dose is the sum of what is passed, so a plateau gives its midpoint.
    """
    heights = (curve[..., -1] - curve[..., 0], np.abs(curve).max(-1))
    near = (ROUNDING[0] * heights[0] + ROUNDING[1] * heights[1])[..., None]
    dose = np.full(values.shape, float(alphas[0]))
    flagged = (values < curve[..., :1] - near) | (values > curve[..., -1:] + near)
    for step, width in enumerate(np.diff(alphas)):
        low, rise = curve[..., step, None], curve[..., step + 1, None] - curve[..., step, None]
        flat = rise <= near
        above = values - low
        passed = np.clip(above / np.where(flat, 1.0, rise), 0.0, 1.0)
        dose += width * np.where(flat, np.where(np.abs(above) <= near, 0.5, above > 0), passed)
        flagged |= flat & (np.abs(above) <= near)
    return dose, flagged


def curve_at(
    curve: Float[np.ndarray, "*n A"], alphas: Float[np.ndarray, "A"], doses: Float[np.ndarray, "*n C"]
) -> Float[np.ndarray, "*n C"]:
    """Return the values of a curve at doses, interpolated linearly, its ends beyond them."""
    values = np.broadcast_to(curve[..., :1], doses.shape).copy()
    for step, (start, width) in enumerate(zip(alphas, np.diff(alphas), strict=False)):
        rise = curve[..., step + 1, None] - curve[..., step, None]
        values += rise * np.clip((doses - start) / width, 0.0, 1.0)
    return values


def _side(means: Sample, curve: Sequence[int], alphas: Float[np.ndarray, "A"]) -> Side:
    fitted, resampled = (monotone(each[..., list(curve)]) for each in (means.observed, means.resampled))
    dose, _ = equivalent_dose(fitted, alphas, means.observed)
    resampled_dose, flagged = equivalent_dose(resampled, alphas, means.resampled)
    sample = replace(means, observed=dose, resampled=resampled_dose)
    return Side(means, sample, alphas, fitted, resampled, flagged)


def _secondary(outcome: Side, held: Side, cells: Sequence[int], *, sign: int) -> Effects:
    """sign (curve of `outcome` at the dose by `held`, less the outcome) / gap; one part, as it mixes both metrics."""
    chosen = list(cells)
    observed, resampled = (
        sign * (curve_at(curve, outcome.alphas, dose[..., chosen]) - mean[..., chosen]) / _gap(curve, outcome.alphas)
        for curve, dose, mean in (
            (outcome.curve, held.dose, outcome.means.observed),
            (outcome.resampled_curve, held.sample.resampled, outcome.means.resampled),
        )
    )
    fewer = min(outcome.means, held.means, key=lambda means: means.clusters)
    sample = replace(fewer, observed=observed, resampled=resampled)
    return Effects(observed, (sample,), held.flagged[..., chosen].mean((0, 1)))


def _gap(curve: Float[np.ndarray, "*n A"], alphas: Float[np.ndarray, "A"]) -> Float[np.ndarray, "*n 1"]:
    gap = curve[..., alphas == 1.0] - curve[..., alphas == 0.0]
    return np.where(gap > 0, gap, np.nan)
