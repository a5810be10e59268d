import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from safety_spaces.errors import UserError
from safety_spaces.evidence.crossed import Scores
from safety_spaces.evidence.doses import curve_at, equivalent_dose, monotone, selectivity

WIDE = np.array([-0.5, -0.2, 0.0, 0.3, 0.7, 1.0, 1.5])
CURVE = np.array([1.0, 2.0, 2.0, 2.0, 3.0, 4.0, 5.0])
SEEDS, QUESTIONS, REQUESTS = 3, 29, 23


def test_monotone_is_isotonic_regression():
    scores = np.random.default_rng(0).normal(np.linspace(0, 1, 11), 0.5, (3, 4, 11))
    scores[0, 0, 2:5] = scores[0, 0, 2]
    twin = [[IsotonicRegression().fit_transform(np.arange(11), row) for row in seed] for seed in scores]
    np.testing.assert_allclose(monotone(scores), twin, atol=1e-12)


@pytest.mark.parametrize(
    ("value", "dose", "flagged"),
    [
        pytest.param(0.9, -0.5, True, id="below the curve"),
        pytest.param(1.0, -0.5, False, id="its end is on the curve"),
        pytest.param(1.5, -0.35, False, id="within a step"),
        pytest.param(2.0, 0.05, True, id="on the plateau from -0.2 to 0.3"),
        pytest.param(2.25, 0.4, False, id="above the plateau"),
        pytest.param(4.0, 1.0, False, id="at a node"),
        pytest.param(5.0, 1.5, False, id="its other end"),
        pytest.param(5.1, 1.5, True, id="above the curve"),
    ],
)
def test_dose_of_a_value(value, dose, flagged):
    # A lower curve beside it: every curve has its own values.
    found, flags = equivalent_dose(np.stack([CURVE, CURVE - 1]), WIDE, np.array([[value], [value - 1]]))
    np.testing.assert_allclose(found, [[dose], [dose]], atol=1e-12)
    assert flags.tolist() == [[flagged], [flagged]]


def test_curve_is_read_where_numpy_reads_it():
    doses = np.array([-0.9, -0.5, 0.1, 0.69, 1.0, 1.6])
    twin = np.interp(doses, WIDE, CURVE)
    np.testing.assert_allclose(curve_at(np.stack([CURVE, 2 * CURVE]), WIDE, np.stack([doses] * 2)), [twin, 2 * twin])


def rising(prompts, shape, generator, *, linear):
    """Scores along WIDE that rise for every seed and prompt, so that they rise in every resample."""
    slope = generator.uniform(0.5, 2.0, (SEEDS, 1, prompts))
    doses = WIDE if linear else np.exp(shape * WIDE)
    return generator.normal(size=(SEEDS, 1, prompts)) + slope * doses[:, None]


def cells_at(curve, doses):
    """Cells whose every prompt lies on its own curve at a dose."""
    read = np.apply_along_axis(lambda scores: np.interp(doses, WIDE, scores), 1, curve)
    return np.concatenate([curve, read], 1)


def made(utility_doses, harm_doses, *, linear=False, utility_map=(0, 1), harm_map=(0, 1), resamples=50):
    generator = np.random.default_rng(1)
    utility = cells_at(rising(QUESTIONS, 1.3, generator, linear=linear), utility_doses)
    harm = cells_at(rising(REQUESTS, -0.8, generator, linear=linear) * (1 if linear else -1), harm_doses)
    return selectivity(
        Scores(utility_map[0] + utility_map[1] * utility, tuple(f"q{i}" for i in range(QUESTIONS))),
        Scores(harm_map[0] + harm_map[1] * harm, tuple(f"d{i % 7}" for i in range(REQUESTS))),
        range(len(WIDE)),
        WIDE.tolist(),
        resamples=resamples,
        seed=0,
    )


def test_uniform_scaling_has_no_selectivity_whatever_the_scales():
    doses = made([-0.3, 0.13, 0.5, 0.99], [-0.3, 0.13, 0.5, 0.99], utility_map=(3, 0.2), harm_map=(-1, 40))
    cells = doses.of(range(11))
    np.testing.assert_allclose(cells.by_seed, 0, atol=1e-9)
    np.testing.assert_allclose(sum(part.resampled for part in cells.parts), 0, atol=1e-9)
    np.testing.assert_allclose(doses.harm_at_equal_utility(range(11)).by_seed, 0, atol=1e-9)
    np.testing.assert_allclose(doses.utility_at_equal_harm(range(11)).by_seed, 0, atol=1e-9)
    assert not cells.clamped.any()


def test_selectivity_is_the_difference_of_the_doses_and_contrasts_subtract():
    doses = made([0.8, 0.6, 0.5], [0.2, 0.5, 0.9])
    cells, contrast = doses.of([7, 8, 9]), doses.contrast([7, 9], [8, 8])
    np.testing.assert_allclose(cells.by_seed, [[0.6, 0.1, -0.4]] * SEEDS, atol=1e-9)
    np.testing.assert_allclose(doses.selectivity[:, 7:], cells.by_seed)
    np.testing.assert_allclose(contrast.by_seed, [[0.5, -0.5]] * SEEDS, atol=1e-9)
    assert [(part.clusters, part.prompts) for part in contrast.parts] == [(QUESTIONS, QUESTIONS), (7, REQUESTS)]
    np.testing.assert_allclose(sum(part.resampled for part in contrast.parts), [[[0.5, -0.5]] * SEEDS] * 50, atol=1e-9)


def test_affine_maps_of_the_scores_change_nothing():
    doses = made([0.8, 0.5], [0.2, 1.2], linear=True)
    mapped = made([0.8, 0.5], [0.2, 1.2], linear=True, utility_map=(-2, 0.3), harm_map=(7, 90))
    for side, other in ((doses.utility, mapped.utility), (doses.harm, mapped.harm)):
        np.testing.assert_allclose(side.sample.resampled, other.sample.resampled, atol=1e-9)
        np.testing.assert_array_equal(side.flagged, other.flagged)
    for name in ("harm_at_equal_utility", "utility_at_equal_harm"):
        ours, theirs = getattr(doses, name)([7, 8]), getattr(mapped, name)([7, 8])
        np.testing.assert_allclose(ours.parts[0].resampled, theirs.parts[0].resampled, atol=1e-9)


def test_on_straight_lines_the_secondaries_are_the_selectivity():
    doses = made([0.8, 0.5], [0.2, 1.2], linear=True)
    for effects in (doses.harm_at_equal_utility([7, 8]), doses.utility_at_equal_harm([7, 8])):
        np.testing.assert_allclose(effects.by_seed, doses.selectivity[:, 7:], atol=1e-9)
        np.testing.assert_allclose(effects.parts[0].resampled[3], effects.by_seed, atol=1e-9)


@pytest.mark.parametrize(("alphas", "often"), [((0.0, 0.5, 1.0), True), ((0.0, 0.5, 1.0, 1.5), False)])
def test_a_cell_at_the_end_is_clamped_unless_the_curve_reaches_further(alphas, often):
    """By utility in one cell, by harmfulness in the other: either is enough."""
    generator, prompts = np.random.default_rng(2), tuple(map(str, range(200)))
    scores = [
        Scores(generator.normal(np.array([*alphas, *ends])[:, None], 0.3, (1, len(alphas) + 2, 200)), prompts)
        for ends in ((1.0, 0.4), (0.4, 1.0))
    ]
    doses = selectivity(*scores, range(len(alphas)), alphas, resamples=400, seed=0)
    effects = doses.contrast([len(alphas), len(alphas) + 1], [1, 1])
    assert (effects.clamped > 0.2).all() == often
    assert (effects.clamped < 0.01).all() != often


@pytest.mark.parametrize("alphas", [(0.0, 0.5), (0.0, 1.0, 0.5), (0.1, 0.5, 1.0), (0.0, 0.5, 0.9)])
def test_bad_doses_are_named(alphas):
    scores = Scores(np.zeros((1, 3, 4)), ("a", "b", "c", "d"))
    with pytest.raises(UserError, match="a curve needs one rising dose a cell"):
        selectivity(scores, scores, range(3), alphas, resamples=5, seed=0)
