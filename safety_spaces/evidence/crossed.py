"""Effects over seeds and prompts, which are crossed: every seed answers the same prompts (design, section 10).

    means = resample(Scores(values, clusters), resamples=2000, seed=0, name="utility")
    effects = contrasts(means, [[0, 1, -1]])          # rows of weights over cells
    estimate = spread(effects)
    low, high = estimate.interval(0.95)

The estimate of one seed is its own effect, plus an error that all seeds share because they share the prompts, plus one
of its own. s^2 over seeds holds the first and the third, a bootstrap over clusters the second and the third / S:

    V = s^2/S + V_boot - V_interaction/S,   not below either of the first two.

Resampling c clusters understates a variance by (c - 1)/c, which is mended. Utility and harmfulness are asked with
different prompts, so an effect has independent parts, each with the degrees of freedom of its own clusters, and
Satterthwaite's rule joins them with those of the seeds.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from jaxtyping import Float
from scipy import stats

from safety_spaces.errors import UserError

# Below this number of seeds nothing is said about a recipe: the intervals speak of the checkpoints at hand.
FEWEST_SEEDS = 5
NORMAL_DRAWS = 20_000


@dataclass(frozen=True)
class Scores:
    """The scores of one metric: seeds x cells x prompts, NaN where unparsed, and the cluster of every prompt."""

    values: Float[np.ndarray, "S C P"]
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """K numbers of every seed from one metric's prompts, as observed and in every resample of the clusters."""

    observed: Float[np.ndarray, "S K"]
    resampled: Float[np.ndarray, "R S K"]
    clusters: int
    prompts: int

    def mapped(self, weights: Float[np.ndarray, "J K"]) -> "Sample":
        """Return J linear combinations of the numbers."""
        return replace(self, observed=self.observed @ weights.T, resampled=self.resampled @ weights.T)


@dataclass(frozen=True)
class Effects:
    """K effects in each of S seeds, the independent parts of their resamples, and the share clamped or flat.

    An effect without prompts (an energy, an overlap) has no parts.
    """

    by_seed: Float[np.ndarray, "S K"]
    parts: tuple[Sample, ...] = ()
    clamped: Float[np.ndarray, "K"] | None = None

    @property
    def seeds(self) -> int:
        """The number of seeds."""
        return len(self.by_seed)

    @property
    def given_seeds(self) -> bool:
        """Whether the seeds are too few to stand for a recipe, so that prompts alone are taken for random."""
        return self.seeds < FEWEST_SEEDS and bool(self.parts)

    def with_mean(self) -> "Effects":
        """Return the same effects and their mean as one more, which is clamped as often as the worst of them."""
        number = self.by_seed.shape[1]
        weights = np.vstack([np.eye(number), np.full(number, 1 / number)])
        clamped = None if self.clamped is None else np.append(self.clamped, self.clamped.max())
        return Effects(self.by_seed @ weights.T, tuple(part.mapped(weights) for part in self.parts), clamped)


@dataclass(frozen=True)
class Spread:
    """The means over seeds, their covariance and degrees of freedom, and what the variance is made of.

    between: variance of one seed's effect; shared: of the error that all seeds share; own: of a seed's own error. Of
    an effect of few seeds (given_seeds) the prompts' variance alone is known, as `shared`.
    """

    value: Float[np.ndarray, "K"]
    covariance: Float[np.ndarray, "K K"]
    degrees: Float[np.ndarray, "K"]
    between: Float[np.ndarray, "K"]
    shared: Float[np.ndarray, "K"]
    own: Float[np.ndarray, "K"]

    @property
    def error(self) -> Float[np.ndarray, "K"]:
        """The standard errors."""
        return np.sqrt(np.diag(self.covariance))

    def critical(self, level: float, *, simultaneous: bool = False) -> Float[np.ndarray, "K"]:
        """Return the critical values of |t| of every effect, or of the largest |t| among them, at a level."""
        tail = (1 - level) / 2
        if simultaneous and len(self.value) > 1:
            tail = _family_tail(level, self.covariance, self.error)
        return np.asarray(stats.t.ppf(1 - tail, self.degrees), dtype=np.float64)

    def interval(
        self, level: float, *, simultaneous: bool = False
    ) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
        """Return the lower and upper bounds at a level, which hold one by one or all together."""
        half_width = self.critical(level, simultaneous=simultaneous) * self.error
        return self.value - half_width, self.value + half_width

    def predicted_error(self, row: int, *, seeds: int, times_prompts: float) -> float:
        """Return the standard error that so many seeds and so many times the prompts (and clusters) would have."""
        variance = (self.between[row] + self.own[row] / times_prompts) / seeds + self.shared[row] / times_prompts
        return float(np.sqrt(variance))


def resample(scores: Scores, *, resamples: int, seed: int, name: str) -> Sample:
    """Return the mean scores, observed and in resamples of whole clusters, the same for all seeds and cells.

    The draws depend on seed and name alone: give every metric its own name. Raises UserError for fewer than two
    clusters, or a cell without a parsed score.
    """
    order = np.argsort(scores.clusters, kind="stable")
    starts = np.unique(np.asarray(scores.clusters)[order], return_index=True)[1]
    if len(starts) < 2:
        raise UserError(
            f"resampling {name} needs two clusters of prompts or more, got {len(starts)}; score more prompts"
        )
    values = scores.values[..., order]
    parsed = np.isfinite(values)
    sums, counts = (
        np.add.reduceat(each, starts, axis=-1) for each in (np.where(parsed, values, 0.0), parsed.astype(np.float64))
    )
    if not counts.sum(-1).all():
        raise UserError(f"a cell has no parsed score of {name}; see n_unparsed in its table")
    if parsed.all():
        counts = counts[:1, :1]
    generator, size = np.random.default_rng([seed, zlib.crc32(name.encode())]), (resamples, len(starts))
    chosen = generator.integers(len(starts), size=size) + len(starts) * np.arange(resamples)[:, None]
    times = np.bincount(chosen.ravel(), minlength=chosen.size).reshape(size).astype(np.float64)
    with np.errstate(invalid="ignore"):
        means = np.tensordot(times, sums, (1, 2)) / np.tensordot(times, counts, (1, 2))
    return Sample(sums.sum(-1) / counts.sum(-1), means, len(starts), len(order))


def contrasts(means: Sample, weights: Sequence[Sequence[float]] | Float[np.ndarray, "K C"]) -> Effects:
    """Return K linear contrasts of the cells: effect k is the sum over cells of weights[k] times the mean score."""
    sample = means.mapped(np.asarray(weights, dtype=np.float64))
    return Effects(sample.observed, (sample,))


def spread(effects: Effects) -> Spread:
    """Return means over seeds with their covariance: over seeds and prompts, or prompts alone where seeds are few.

    One seed of an effect without prompts has no variance to estimate: its covariance is NaN.
    """
    seeds, zero = effects.seeds, np.zeros(effects.by_seed.shape[1])
    terms = [(_prompt_covariance(part), part.clusters - 1) for part in effects.parts]
    boot, over_seeds, own = sum((np.diag(each) for each, _ in terms), zero), np.diag(zero), zero
    if not effects.given_seeds:
        over_seeds = np.atleast_2d(np.cov(effects.by_seed.T)) / seeds if seeds > 1 else np.full_like(over_seeds, np.nan)
        own = sum((_own_variance(part) for part in effects.parts), zero)
        terms.append((over_seeds, seeds - 1))
    total = sum((each for each, _ in terms), np.diag(zero))
    variance = np.maximum(np.diag(total) - own / seeds, np.maximum(np.diag(over_seeds), boot))
    return Spread(
        value=effects.by_seed.mean(0),
        covariance=_with_diagonal(total, variance),
        degrees=_satterthwaite(variance, terms),
        between=np.maximum(np.diag(over_seeds) * seeds - own, 0.0),
        shared=np.maximum(boot - own / seeds, 0.0),
        own=own,
    )


def _prompt_covariance(part: Sample) -> Float[np.ndarray, "K K"]:
    return np.atleast_2d(np.cov(part.resampled.mean(1).T)) * part.clusters / (part.clusters - 1)


def _own_variance(part: Sample) -> Float[np.ndarray, "K"]:
    deviations = part.resampled - part.resampled.mean(0)
    return np.asarray(deviations.var(1, ddof=1).mean(0) * part.clusters / (part.clusters - 1))


def _satterthwaite(
    variance: Float[np.ndarray, "K"], terms: Sequence[tuple[Float[np.ndarray, "K K"], int]]
) -> Float[np.ndarray, "K"]:
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = np.sum([np.diag(term) ** 2 / np.float64(degrees) for term, degrees in terms], 0)
        joint = np.where(squares > 0, variance**2 / squares, np.inf)
    # What is subtracted from the variance can push the rule below its weakest term, which is the least there is.
    return np.maximum(joint, min(degrees for _, degrees in terms))


def _with_diagonal(total: Float[np.ndarray, "K K"], variance: Float[np.ndarray, "K"]) -> Float[np.ndarray, "K K"]:
    """The correlations of a sum of covariances, which stay those of some distribution, with these variances."""
    scale = np.sqrt(np.divide(variance, np.diag(total), out=np.ones_like(variance), where=np.diag(total) > 0))
    return np.asarray(total * np.outer(scale, scale))


def _family_tail(level: float, covariance: Float[np.ndarray, "K K"], error: Float[np.ndarray, "K"]) -> float:
    """The tail that each |t| may have so that the largest of correlated normal values stays within at the level."""
    if not np.all(np.isfinite(error)) or not np.any(error > 0):
        return (1 - level) / 2 / len(error)
    varying = error > 0
    correlation = covariance[np.ix_(varying, varying)] / np.outer(error[varying], error[varying])
    values, vectors = np.linalg.eigh(correlation)
    draws = _normal(len(values)) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return float(stats.norm.sf(np.quantile(np.abs(draws).max(1), level)))


@cache
def _normal(effects: int) -> Float[np.ndarray, "N K"]:
    return np.random.default_rng(effects).standard_normal((NORMAL_DRAWS, effects))
