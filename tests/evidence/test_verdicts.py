import numpy as np
import pytest

from safety_spaces.evidence.crossed import Effects, Sample, spread
from safety_spaces.evidence.verdicts import above, decide, within

FRACTIONS = (0.25, 0.5, 0.75, None)
SEEDS = 9


def effects_of(values, error, *, seeds=SEEDS, clamped=None):
    """Effects without prompts that have exactly these means over seeds, and this standard error each."""
    noise = np.random.default_rng(0).normal(size=(seeds, len(values)))
    noise = np.linalg.qr(noise - noise.mean(0))[0] * np.sqrt(seeds * (seeds - 1))
    return Effects(np.asarray(values) + error * noise, (), None if clamped is None else np.asarray(clamped))


def verdict(values, error, *, premises=True, fractions=FRACTIONS, **options):
    return decide(effects_of(values, error, **options), fractions=fractions, margin=0.15, premises=premises)


def test_effects_have_the_error_that_the_tests_ask_for():
    estimate = spread(effects_of([0.1, 0.2, 0.3, 0.2], 0.04))
    np.testing.assert_allclose(estimate.value, [0.1, 0.2, 0.3, 0.2])
    np.testing.assert_allclose(estimate.covariance, 0.04**2 * np.eye(4), atol=1e-12)


# With 9 seeds and 4 effects the critical |t| is about 3.2, and 1.86 for the 90 % interval.
@pytest.mark.parametrize(
    ("values", "error", "word", "fraction"),
    [
        ([0.0, 0.35, 0.0, 0.1], 0.05, "separable", 0.5),
        ([0.0, 0.29, 0.0, 0.1], 0.05, "selective", 0.5),
        ([0.0, 0.0, 0.0, 0.18], 0.05, "selective", None),
        ([0.0, 0.14, 0.0, 0.05], 0.05, "undecided", None),
        ([0.0, -0.14, 0.0, -0.05], 0.05, "undecided", None),
        ([-0.18, 0.0, 0.0, -0.05], 0.05, "worse", 0.25),
        ([-0.18, 0.0, 0.18, 0.0], 0.05, "selective", 0.75),
        ([0.05, -0.01, 0.0, 0.01], 0.05, "equivalent", 0.25),
        ([0.05, -0.07, 0.0, 0.01], 0.05, "undecided", None),
        ([0.05, 0.0, 0.06, 0.03], 0.05, "undecided", None),
        ([0.06, 0.0, 0.0, 0.02], 0.01, "selective", 0.25),
    ],
)
def test_words_in_their_order(values, error, word, fraction):
    found = verdict(values, error)
    assert (found.word, found.fraction) == (word, fraction)
    assert found.low < found.effect < found.high
    assert found.about == "this recipe"
    assert bool(found.would_decide) == (word == "undecided")
    failed = verdict(values, error, premises=False)
    assert (failed.word, failed.fraction) == ("nothing to separate", None)


def test_an_interval_is_the_one_that_the_word_was_read_from():
    assert verdict([0.0, 0.0, 0.0, 0.0], 0.05).high == pytest.approx(0.05 * 1.8595, rel=1e-3)
    assert verdict([0.5, 0.0, 0.0, 0.2], 0.05).low == pytest.approx(0.5 - 0.05 * 3.2, abs=0.01)
    assert verdict([0.5], 0.05, fractions=(None,)).low == pytest.approx(0.5 - 0.05 * 2.306, rel=1e-3)


def test_what_is_clamped_decides_nothing_and_no_equivalence_is_had_without_it():
    clamped = [0.0, 0.051, 0.05, 0.051]
    found = verdict([0.0, 0.9, 0.0, 0.3], 0.05, clamped=clamped)
    assert (found.word, found.would_decide) == ("undecided", "a curve without an end or a flat stretch there")
    assert verdict([0.0, -0.9, 0.0, -0.3], 0.05, clamped=clamped).word == "undecided"
    assert verdict([0.0, 0.0, 0.0, 0.0], 0.01, clamped=clamped).word == "undecided"
    found = verdict([0.0, 0.9, 0.4, 0.3], 0.05, clamped=clamped)
    assert (found.word, found.fraction) == ("separable", 0.75)


def of_prompts(seeds, *, error=0.05, between=0.0, own=0.0, value=0.0, prompts=60):
    """One effect whose common error over prompts, own error of a seed, and spread over seeds are these."""
    generator = np.random.default_rng(1)
    common = generator.normal(size=(4000, 1, 1))
    alone = generator.normal(size=(4000, seeds, 1))
    resampled = error * common / common.std() + own * alone
    part = Sample(resampled[0], resampled, 500, prompts)
    noise = generator.normal(size=(seeds, 1))
    noise = (noise - noise.mean()) / noise.std(ddof=1) if seeds > 1 else 0 * noise
    return Effects(value + np.hypot(between, own) * noise, (part,))


@pytest.mark.parametrize("seeds", [1, 4])
def test_few_seeds_speak_of_these_checkpoints(seeds):
    found = decide(of_prompts(seeds, value=0.4, between=5.0), fractions=(0.5,), margin=0.15, premises=True)
    assert (found.word, found.about) == ("separable", "these checkpoints")


@pytest.mark.parametrize("seeds", [1, 4])
def test_few_seeds_without_prompts_decide_nothing(seeds):
    found = decide(Effects(np.full((seeds, 1), 9.0)), fractions=(None,), margin=0.15, premises=True)
    assert (found.word, found.would_decide) == ("undecided", "5 seeds")


def test_recipe_is_named_by_who_knows_it():
    found = decide(effects_of([0.0], 0.1), fractions=(None,), margin=0.15, premises=True, recipe="given this base")
    assert found.about == "given this base"


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        # The standard error has to come down to 0.15 / (1.96 + 1.28) = 0.046, or 0.040 with 7 degrees of freedom.
        (of_prompts(1, error=0.09, value=0.1), "240 prompts"),
        (of_prompts(8, error=0.001, value=0.1, between=0.2), "26 seeds"),
        (of_prompts(8, error=0.08, between=0.2), "46 seeds with 340 prompts"),
        (of_prompts(8, error=0.2), "1,200 prompts"),
        (of_prompts(8, error=0.08, between=0.03, value=0.1), "210 prompts"),
        (of_prompts(8, error=0.03, own=0.2, value=0.1), "49 seeds, or 240 prompts"),
        (of_prompts(8, error=5.0), ""),
    ],
)
def test_what_would_decide(effects, words):
    found = decide(effects, fractions=(0.5,), margin=0.15, premises=True)
    assert found.word == "undecided"
    assert found.would_decide == words


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        # Critical |t| 3.17 for four effects, 2.31 for one, 1.86 for the 90 % interval; 1.40 more for 90 % power.
        pytest.param(
            [0.1, 0.0, 0.0, 0.03], [0.05, 0.02, 0.02, 0.02], "21 seeds", id="the margin, where least is known"
        ),
        pytest.param([0.0, -0.095, 0.06, 0.03], 0.03, "19 seeds", id="an estimate from 0"),
        pytest.param([0.077], 0.04, "29 seeds", id="an estimate from the margin"),
    ],
)
def test_what_would_decide_is_the_nearest_aim(values, error, words):
    found = verdict(values, error, fractions=FRACTIONS[-len(values) :])
    assert (found.word, found.would_decide) == ("undecided", words)


def test_effect_called_detectable_is_found_nine_times_in_ten():
    generator = np.random.default_rng(2)
    by_seed = generator.normal(0, 0.3, (1200, SEEDS, 1))
    found = decide(Effects(by_seed[0]), fractions=(None,), margin=0.15, premises=True)
    size = found.minimum_detectable / spread(Effects(by_seed[0])).error[0] * 0.1
    verdicts = [decide(Effects(size + each), fractions=(None,), margin=0.15, premises=True) for each in by_seed]
    assert np.mean([each.word in ("selective", "separable") for each in verdicts]) == pytest.approx(0.9, abs=0.025)


def test_premises_are_read_from_intervals():
    effects = effects_of([0.2], 0.05)
    assert above(effects, bound=0.08).holds
    assert not above(effects, bound=0.09).holds
    assert within(effects, margin=0.3).holds
    assert not within(effects, margin=0.29).holds
    assert not within(effects_of([-0.2], 0.05), margin=0.29).holds
    assert within(effects, margin=0.3).high == pytest.approx(0.2 + 0.05 * 1.8595, rel=1e-3)
