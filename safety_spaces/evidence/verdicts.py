"""What is decided about a claim, by one rule for all claims, and the premises that it stands on (design, section 10).

    premise = above(contrasts(means, [[1, -1]]), bound=0.0)        # or within(..., margin=...)
    verdict = decide(effects.with_mean(), fractions=(0.25, 0.5, 0.75, None), margin=0.15, premises=premise.holds)

In this order: *nothing to separate* (a premise fails), *separable* (some effect's lower bound above the margin),
*selective* (above 0), *worse* (an upper bound below 0), all by intervals that hold for all effects together, since any
one is enough; *equivalent* (every effect's 90 % interval within the margin: two one-sided tests, and all must pass, so
nothing is corrected); *undecided*. An effect that is clamped or flat in more than 5 % of resamples decides nothing, and
there is no equivalence without it.

Five seeds or more speak of the recipe. Fewer, of which no honest variance over recipes is to be had, speak of
"these checkpoints": their mean is held against other prompts of the same kind, not against another training.
What has no prompts either (an energy of three seeds) is undecided.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from safety_spaces.evidence.crossed import FEWEST_SEEDS, Effects, Spread, spread

CLAMPED_AT_MOST = 0.05
POWER = 0.9
# How many times as many seeds and prompts are worth a thought: 2 to this power.
MOST_DOUBLINGS = 5
ROUNDING = 1e-9
RECIPE, CHECKPOINTS = "this recipe", "these checkpoints"


@dataclass(frozen=True)
class Verdict:
    """A word and the effect it rests on, with the interval that the word was read from.

    That interval is the 90 % one for *equivalent*, else the one that holds for all effects together. fraction is None
    for the mean over fractions. minimum_detectable is the effect found with 90 % power at the critical value used;
    would_decide the sizes that may decide what is undecided, else "".
    """

    word: str
    effect: float
    low: float
    high: float
    fraction: float | None
    minimum_detectable: float
    would_decide: str
    about: str


@dataclass(frozen=True)
class Premise:
    """A number with its interval, what it was held against, and whether the interval passes."""

    value: float
    low: float
    high: float
    bound: float
    holds: bool


def decide(
    effects: Effects,
    *,
    fractions: Sequence[float | None],
    margin: float,
    premises: bool,
    confidence: float = 0.95,
    recipe: str = RECIPE,
) -> Verdict:
    """Return the verdict of effects, one a fraction (None: their mean), at a confidence.

    recipe is what five seeds speak of, such as "given this base".
    """
    estimate = spread(effects)
    word, row = _word(estimate, _usable(effects), margin, confidence)
    if not premises:
        word, row = "nothing to separate", len(estimate.value) - 1
    equal = word == "equivalent"
    low, high = estimate.interval(2 * confidence - 1 if equal else confidence, simultaneous=not equal)
    return Verdict(
        word=word,
        effect=float(estimate.value[row]),
        low=float(low[row]),
        high=float(high[row]),
        fraction=fractions[row],
        minimum_detectable=float((_factors(estimate, confidence)[0] * estimate.error)[row]),
        would_decide=_would_decide(effects, estimate, margin, confidence) if word == "undecided" else "",
        about=CHECKPOINTS if effects.given_seeds else recipe,
    )


def above(effects: Effects, *, bound: float, confidence: float = 0.95) -> Premise:
    """Return whether the interval of the only effect lies above a bound."""
    value, low, high = _only(spread(effects), confidence)
    return Premise(value, low, high, bound, low > bound)


def within(effects: Effects, *, margin: float, confidence: float = 0.95) -> Premise:
    """Return whether the 90 % interval (of a confidence of 95 %) of the only effect lies within +- a margin."""
    value, low, high = _only(spread(effects), 2 * confidence - 1)
    return Premise(value, low, high, margin, -margin < low and high < margin)


def _only(estimate: Spread, level: float) -> tuple[float, float, float]:
    low, high = estimate.interval(level)
    return float(estimate.value[0]), float(low[0]), float(high[0])


def _usable(effects: Effects) -> Bool[np.ndarray, "K"]:
    """Which effects decide anything."""
    enough = effects.seeds >= FEWEST_SEEDS or effects.given_seeds
    clamped = np.zeros(effects.by_seed.shape[1]) if effects.clamped is None else effects.clamped
    return (clamped <= CLAMPED_AT_MOST) & enough


def _word(estimate: Spread, usable: Bool[np.ndarray, "K"], margin: float, confidence: float) -> tuple[str, int]:
    """The word, premises granted, and the row it rests on: the last (the mean) for what is undecided."""
    low, high = estimate.interval(confidence, simultaneous=True)
    highest_low, lowest_high = np.where(usable, low, -np.inf), np.where(usable, high, np.inf)
    if highest_low.max() > 0:
        row = int(highest_low.argmax())
        return ("separable" if low[row] > margin else "selective"), row
    if lowest_high.min() < 0:
        return "worse", int(lowest_high.argmin())
    farthest = np.abs(estimate.interval(2 * confidence - 1)).max(0)
    if usable.all() and np.all(farthest < margin):
        return "equivalent", int(farthest.argmax())
    return "undecided", len(low) - 1


def _factors(estimate: Spread, confidence: float) -> tuple[Float[np.ndarray, "K"], Float[np.ndarray, "K"]]:
    """Standard errors between 0 and an effect found with 90 % power, and between the margin and one so shown equal."""
    beta = stats.t.ppf(POWER, estimate.degrees)
    equal = estimate.critical(2 * confidence - 1)
    return estimate.critical(confidence, simultaneous=True) + beta, equal + beta


def _aim(estimate: Spread, margin: float, confidence: float) -> tuple[int, float]:
    """The effect on which it hangs, and the standard error that it is to have.

    Until an effect of the margin would be found everywhere, that is the aim. After that it is the estimates as they
    are: one of them told from 0, or all of them from the margin, whichever is nearer.
    """
    found, equal = _factors(estimate, confidence)
    if not np.all(found * estimate.error <= margin):
        row = int(np.argmax(found * estimate.error))
        return row, float(margin / found[row])
    size = np.abs(estimate.value)
    from_zero, from_margin = size / found, (margin - size) / equal
    # No error at all leaves nothing undecided, so here it is above 0 wherever it counts.
    error = np.maximum(estimate.error, np.finfo(np.float64).tiny)
    any_row, every_row = int(np.argmax(from_zero / error)), int(np.argmin(from_margin / error))
    if from_zero[any_row] / error[any_row] > from_margin[every_row] / error[every_row]:
        return any_row, float(from_zero[any_row])
    return every_row, float(from_margin[every_row])


def _would_decide(effects: Effects, estimate: Spread, margin: float, confidence: float) -> str:
    """Seeds alone, prompts alone (in as many more clusters), or both, that bring the standard error down to its aim."""
    if effects.seeds < FEWEST_SEEDS and not effects.given_seeds:
        return f"{FEWEST_SEEDS} seeds"
    if not _usable(effects).all():
        return "a curve without an end or a flat stretch there"
    row, aim = _aim(estimate, margin, confidence)

    def fewest(sizes: Iterable[tuple[int, float]]) -> tuple[int, float] | None:
        return next((s for s in sizes if estimate.predicted_error(row, seeds=s[0], times_prompts=s[1]) <= aim), None)

    prompts = max((part.prompts for part in effects.parts), default=0)
    times = [2 ** (quarters / 4) for quarters in range(1, 4 * MOST_DOUBLINGS + 1)] if prompts else []
    seeds = range(effects.seeds + 1, effects.seeds * 2**MOST_DOUBLINGS + 1) if not effects.given_seeds else ()
    more_seeds, more_prompts = fewest((each, 1.0) for each in seeds), fewest((effects.seeds, each) for each in times)
    words = [f"{more_seeds[0]} seeds"] if more_seeds else []
    words += [f"{_two_digits(more_prompts[1] * prompts):,} prompts"] if more_prompts else []
    both = fewest((ceil(effects.seeds * each), each) for each in times) if seeds and not words else None
    return f"{both[0]} seeds with {_two_digits(both[1] * prompts):,} prompts" if both else ", or ".join(words)


def _two_digits(number: float) -> int:
    step = int(10 ** max(0, floor(log10(number)) - 1))
    return ceil(number / step - ROUNDING) * step
