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
NORMAL_DRAWS = 50_000


@dataclass(frozen=True)
class Scores:
    """The scores of one metric: seeds x cells x prompts, NaN where unparsed, and the cluster of every prompt."""

    values: Float[np.ndarray, "S C P"]
    clusters: tuple[str, ...]


@dataclass(frozen=True)
class Means:
    """Mean scores over prompts, as observed and in every resample of the clusters."""

    observed: Float[np.ndarray, "S C"]
    resampled: Float[np.ndarray, "R S C"]
    clusters: int
    prompts: int


@dataclass(frozen=True)
class Part:
    """What one metric's prompts add to the uncertainty: the effects in every resample of its clusters."""

    resampled: Float[np.ndarray, "R S K"]
    clusters: int
    prompts: int


@dataclass(frozen=True)
class Effects:
    """K effects in each of S seeds, the independent parts of their resamples, and the share clamped or flat.

    An effect without prompts (an energy, an overlap) has no parts.
    """

    by_seed: Float[np.ndarray, "S K"]
    parts: tuple[Part, ...] = ()
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
        weights = np.vstack([np.eye(self.by_seed.shape[1]), np.full(self.by_seed.shape[1], 1 / self.by_seed.shape[1])])
        parts = tuple(replace(part, resampled=part.resampled @ weights.T) for part in self.parts)
        clamped = None if self.clamped is None else np.append(self.clamped, self.clamped.max())
        return Effects(self.by_seed @ weights.T, parts, clamped)


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


def resample(scores: Scores, *, resamples: int, seed: int, name: str) -> Means:
    """Return the mean scores, observed and in resamples of whole clusters, the same for all seeds and cells.

    The draws depend on seed and name alone: give every metric its own name. Raises UserError for fewer than two
    clusters, or a cell without a parsed score.
    """
    names, cluster = np.unique(np.asarray(scores.clusters), return_inverse=True)
    if len(names) < 2:
        raise UserError(
            f"resampling {name} needs two clusters of prompts or more, got {len(names)}; score more prompts"
        )
    parsed = np.isfinite(scores.values)
    membership = np.eye(len(names))[cluster]
    sums, counts = np.where(parsed, scores.values, 0.0) @ membership, parsed.astype(np.float64) @ membership
    if not counts.sum(-1).all():
        raise UserError(f"a cell has no parsed score of {name}; see n_unparsed in its table")
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    chosen = generator.integers(len(names), size=(resamples, len(names))) + len(names) * np.arange(resamples)[:, None]
    times = np.bincount(chosen.ravel(), minlength=resamples * len(names)).reshape(resamples, -1).astype(np.float64)
    means = np.tensordot(times, sums, (1, 2)) / np.tensordot(times, counts, (1, 2))
    return Means(sums.sum(-1) / counts.sum(-1), means, len(names), len(cluster))


def contrasts(means: Means, weights: Sequence[Sequence[float]] | Float[np.ndarray, "K C"]) -> Effects:
    """Return K linear contrasts of the cells: effect k is the sum over cells of weights[k] times the mean score."""
    rows = np.asarray(weights, dtype=np.float64)
    return Effects(means.observed @ rows.T, (Part(means.resampled @ rows.T, means.clusters, means.prompts),))


def spread(effects: Effects) -> Spread:
    """Return means over seeds with their covariance: over seeds and prompts, or prompts alone where seeds are few.

    One seed of an effect without prompts has no variance to estimate: its covariance is NaN.
    """
    seeds = effects.seeds
    prompts = [_prompt_covariance(part) for part in effects.parts]
    boot = sum((np.diag(each) for each in prompts), np.zeros(effects.by_seed.shape[1]))
    if effects.given_seeds:
        own, between = np.zeros_like(boot), np.zeros_like(boot)
        total, over_seeds, variance = sum(prompts, np.zeros((len(boot), len(boot)))), [], boot
    else:
        own = sum((_own_variance(part) for part in effects.parts), np.zeros_like(boot))
        over_seeds = [
            np.atleast_2d(np.cov(effects.by_seed.T)) / seeds if seeds > 1 else np.full((len(boot),) * 2, np.nan)
        ]
        total = sum(prompts, over_seeds[0])
        seed_variance = np.diag(over_seeds[0])
        variance = np.maximum(seed_variance + boot - own / seeds, np.maximum(seed_variance, boot))
        between = np.maximum(seed_variance * seeds - own, 0.0)
    terms = [
        *zip(prompts, [part.clusters - 1 for part in effects.parts], strict=True),
        *((each, seeds - 1) for each in over_seeds),
    ]
    shared = np.maximum(boot - own / seeds, 0.0)
    covariance = _with_diagonal(total, variance)
    return Spread(effects.by_seed.mean(0), covariance, _satterthwaite(variance, terms), between, shared, own)


def _prompt_covariance(part: Part) -> Float[np.ndarray, "K K"]:
    of_mean = part.resampled.mean(1)
    return np.atleast_2d(np.cov(of_mean.T)) * part.clusters / (part.clusters - 1)


def _own_variance(part: Part) -> Float[np.ndarray, "K"]:
    if part.resampled.shape[1] < 2:
        return np.zeros(part.resampled.shape[2])
    deviations = part.resampled - part.resampled.mean(0)
    return np.asarray(deviations.var(1, ddof=1).mean(0) * part.clusters / (part.clusters - 1))


def _satterthwaite(
    variance: Float[np.ndarray, "K"], terms: Sequence[tuple[Float[np.ndarray, "K K"], int]]
) -> Float[np.ndarray, "K"]:
    squares = sum((np.diag(term) ** 2 / degrees for term, degrees in terms if degrees > 0), np.zeros_like(variance))
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = np.where(squares > 0, variance**2 / squares, np.inf)
    # What is subtracted from the variance can push the rule below its weakest term, which is the least there is.
    return np.maximum(degrees, min((degrees for _, degrees in terms), default=1))


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
