from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy import stats

from safety_spaces.errors import UserError
from safety_spaces.evidence.crossed import Effects, Sample, Scores, Spread, contrasts, resample, spread

SEEDS, CELLS, PROMPTS, RESAMPLES = 4, 3, 17, 60
CLUSTERS = tuple(f"deed {min(i % 7, 4)}" for i in range(PROMPTS))


def of_resamples(resampled, clusters, prompts):
    return Sample(resampled[0], resampled, clusters, prompts)


def scores(generator=None, *, seeds=SEEDS, cells=CELLS):
    generator = generator or np.random.default_rng(0)
    return Scores(generator.normal(size=(seeds, cells, PROMPTS)), CLUSTERS)


def test_resample_repeats_whole_clusters():
    """The twin writes out every resample: the prompts of the drawn clusters, repeated, and their mean."""
    given = scores()
    given.values[1, 2, 3] = given.values[0, 0, :2] = np.nan
    means = resample(given, resamples=RESAMPLES, seed=5, name="harm")
    np.testing.assert_allclose(means.observed, np.nanmean(given.values, -1))
    names = sorted(set(CLUSTERS))
    members = [[i for i, cluster in enumerate(CLUSTERS) if cluster == name] for name in names]
    drawn = [[members[c] for c in each] for each in combinations_with_replacement(range(len(names)), len(names))]
    possible = [np.nanmean(given.values[..., np.concatenate(each)], -1).round(9).tobytes() for each in drawn]
    found = {each.round(9).tobytes() for each in means.resampled}
    assert len(found) > 20
    assert found <= set(possible)


def test_resamples_are_shared_by_seeds_and_cells_and_differ_between_metrics():
    values = np.broadcast_to(scores().values[:1, :1], (SEEDS, CELLS, PROMPTS)).copy()
    means = resample(Scores(values, CLUSTERS), resamples=RESAMPLES, seed=0, name="harm")
    np.testing.assert_allclose(means.resampled, np.broadcast_to(means.resampled[:, :1, :1], means.resampled.shape))
    assert np.ptp(means.resampled[:, 0, 0]) > 0.1
    for seed, name in ((1, "harm"), (0, "utility")):
        other = resample(Scores(values, CLUSTERS), resamples=RESAMPLES, seed=seed, name=name)
        assert not np.allclose(other.resampled, means.resampled)


def test_resample_says_what_it_lacks():
    values = np.ones((1, 2, 3))
    with pytest.raises(UserError, match="needs two clusters"):
        resample(Scores(values, ("a", "a", "a")), resamples=5, seed=0, name="harm")
    values[0, 1] = np.nan
    with pytest.raises(UserError, match="no parsed score of harm"):
        resample(Scores(values, ("a", "b", "c")), resamples=5, seed=0, name="harm")


@pytest.mark.parametrize("clusters", [6, 40])
def test_bootstrap_variance_is_that_of_a_mean_of_clusters(clusters):
    values = np.random.default_rng(1).normal(size=(1, 1, clusters))
    means = resample(
        Scores(np.repeat(values, 3, -1), tuple(f"c{i // 3}" for i in range(3 * clusters))),
        resamples=20_000,
        seed=0,
        name="h",
    )
    estimate = spread(contrasts(means, [[1.0]]))
    np.testing.assert_allclose(estimate.error**2, values.var(ddof=1) / clusters, rtol=0.04)
    assert estimate.degrees.tolist() == [clusters - 1]


def test_without_prompts_it_is_students_interval_over_seeds():
    by_seed = np.random.default_rng(2).normal(size=(6, 3))
    low, high = spread(Effects(by_seed)).interval(0.9)
    for k in range(3):
        twin = stats.ttest_1samp(by_seed[:, k], 0).confidence_interval(0.9)
        np.testing.assert_allclose((low[k], high[k]), twin)


def crossed_effects(generator, *, seeds, clusters=30, between=0.0, shared=0.0, own=0.0):
    """Means over clusters of an effect, their seeds, clusters and interaction normal with these deviations."""
    effect = generator.normal(0, between, (seeds, 1)) + generator.normal(0, shared, (1, clusters))
    values = (effect + generator.normal(0, own, (seeds, clusters)))[:, None]
    names = tuple(map(str, range(clusters)))
    return contrasts(
        resample(Scores(values, names), resamples=200, seed=int(generator.integers(2**31)), name="h"), [[1.0]]
    )


@pytest.mark.parametrize(
    ("between", "shared", "own"), [(0.1, 0.6, 0.3), (0.0, 0.0, 1.5), (0.3, 0.2, 0.2), (0.0, 1.0, 0.0)]
)
def test_parts_add_up_to_the_true_variance(between, shared, own):
    generator = np.random.default_rng(3)
    seeds, clusters = 7, 30
    studies = [
        spread(crossed_effects(generator, seeds=seeds, between=between, shared=shared, own=own)) for _ in range(400)
    ]
    found = {name: np.mean([getattr(each, name) for each in studies]) for name in ("between", "shared", "own")}
    true = {"between": between**2, "shared": shared**2 / clusters, "own": own**2 / clusters}
    # Estimates below 0 are cut off: where all is the seeds' own error, some of it looks like the rest.
    lean = {"between": 0.25 * true["own"], "shared": 0.15 * true["own"] / seeds, "own": 0.0}
    variance = true["between"] / seeds + true["shared"] + true["own"] / seeds
    for name, value in true.items():
        assert abs(found[name] - value) < 0.15 * value + 0.1 * variance + lean[name], name
    stated = np.mean([each.error**2 for each in studies])
    # The floor leans upwards where seeds or prompts alone make the variance.
    assert 0.95 * variance < stated < (1.15 if between or shared else 1.4) * variance
    if not (between or shared):
        return
    predicted = np.mean([each.predicted_error(0, seeds=14, times_prompts=3.0) ** 2 for each in studies])
    wanted = true["between"] / 14 + true["shared"] / 3 + true["own"] / 42
    assert 0.9 * wanted < predicted < 1.3 * wanted


def test_predicted_error_divides_each_part_by_what_averages_it():
    one = np.ones(1)
    estimate = Spread(0 * one, np.eye(1), one, between=4.0 * one, shared=0.6 * one, own=6.0 * one)
    assert estimate.predicted_error(0, seeds=5, times_prompts=3.0) ** 2 == pytest.approx(4 / 5 + 0.6 / 3 + 6 / 15)


def test_variance_is_not_below_seeds_nor_prompts_alone():
    generator = np.random.default_rng(4)
    resampled = generator.normal(size=(300, 6, 2)) * [1, 3]
    # The seeds' own errors cancel in the second effect: what they are said to add to the mean is not in it.
    resampled[..., 1] -= resampled[..., 1].mean(1, keepdims=True)
    effects = Effects(generator.normal(size=(6, 2)) * [0.01, 1], (of_resamples(resampled, 9, 20),))
    boot = resampled.mean(1).var(0, ddof=1) * 9 / 8
    wanted = [boot[0], effects.by_seed[:, 1].var(ddof=1) / 6]
    np.testing.assert_allclose(spread(effects).error ** 2, wanted, rtol=1e-3)


def test_degrees_of_freedom_are_not_below_those_of_the_weakest_part():
    """All is the seeds' own error, which both variances hold and the sum does once: the rule alone would say 3.1."""
    resampled = np.random.default_rng(9).normal(size=(4000, 6, 1))
    by_seed = np.array([[-1.0], [1.0]] * 3) * np.sqrt(5 / 6 * 9 / 8)
    assert spread(Effects(by_seed, (of_resamples(resampled, 9, 20),))).degrees.tolist() == [5]


def test_two_metrics_join_by_satterthwaite():
    generator = np.random.default_rng(5)
    parts = (
        of_resamples(generator.normal(0, 1, (500, 1, 1)), 9, 20),
        of_resamples(generator.normal(0, 2, (500, 1, 1)), 31, 50),
    )
    estimate = spread(Effects(np.zeros((1, 1)), parts))
    first, second = (part.resampled.var(ddof=1) * n / (n - 1) for part, n in zip(parts, (9, 31), strict=True))
    np.testing.assert_allclose(estimate.error**2, first + second)
    np.testing.assert_allclose(estimate.degrees, (first + second) ** 2 / (first**2 / 8 + second**2 / 30))


def test_few_seeds_are_given_and_prompts_alone_are_random():
    generator = np.random.default_rng(6)
    part = of_resamples(generator.normal(size=(500, 4, 2)), 11, 20)
    effects = Effects(100 * generator.normal(size=(4, 2)), (part,))
    estimate = spread(effects)
    assert effects.given_seeds
    np.testing.assert_allclose(estimate.error**2, part.resampled.mean(1).var(0, ddof=1) * 11 / 10)
    assert not Effects(np.zeros((5, 2)), (of_resamples(np.zeros((3, 5, 2)), 11, 20),)).given_seeds
    assert np.isnan(spread(Effects(np.zeros((1, 2)))).error).all()


@pytest.mark.parametrize(("correlation", "independent"), [(1.0, 1), (0.0, 4)])
def test_critical_values_lie_between_one_effect_and_sidak(correlation, independent):
    generator = np.random.default_rng(7)
    common = generator.normal(size=(6000, 1))
    by_seed = correlation * common + (1 - correlation) * generator.normal(size=(6000, 4))
    critical = spread(Effects(by_seed)).critical(0.95, simultaneous=True)
    np.testing.assert_allclose(critical, stats.norm.isf((1 - 0.95 ** (1 / independent)) / 2), atol=0.03)
    np.testing.assert_allclose(spread(Effects(by_seed)).critical(0.95), stats.norm.isf(0.025), atol=0.001)


def test_the_mean_is_one_more_effect():
    generator = np.random.default_rng(8)
    part = of_resamples(generator.normal(size=(30, 5, 3)), 9, 20)
    effects = Effects(generator.normal(size=(5, 3)), (part,), np.array([0.0, 0.2, 0.1])).with_mean()
    np.testing.assert_allclose(effects.by_seed[:, 3], effects.by_seed[:, :3].mean(1))
    np.testing.assert_allclose(effects.parts[0].resampled[..., 3], part.resampled.mean(-1))
    assert effects.clamped.tolist() == [0.0, 0.2, 0.1, 0.2]
