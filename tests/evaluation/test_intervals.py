"""Intervals against textbook formulas and by simulated coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from safety_spaces.errors import UserError
from safety_spaces.evaluation.intervals import mean_interval, proportion_interval


@given(n=st.integers(1, 2000), share=st.floats(0, 1))
def test_proportion_interval_is_wilsons(n, share):
    successes = round(share * n)
    textbook = stats.binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")

    estimate = proportion_interval(successes, n)

    assert (estimate.value, estimate.n) == (successes / n, n)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((textbook.low, textbook.high), abs=1e-12)


def test_mean_interval_is_students():
    values = [1.0, 2.0, 2.0, 3.0, 5.0, 1.0, 4.0]
    half_width = 2.446911851 * np.std(values, ddof=1) / np.sqrt(7)  # t of 6 degrees of freedom, from a printed table

    estimate = mean_interval(values, low=-9.0, high=9.0)

    assert estimate.value == pytest.approx(18 / 7)
    assert (estimate.ci_low, estimate.ci_high) == pytest.approx((18 / 7 - half_width, 18 / 7 + half_width))


def test_mean_interval_stays_on_the_scale():
    estimate = mean_interval([1, 1, 1, 2], low=1.0, high=5.0)

    assert estimate.ci_low == 1
    assert estimate.ci_low <= estimate.value < estimate.ci_high < 5


@given(value=st.floats(1, 5), n=st.integers(1, 500))
def test_equal_values_leave_room_for_doubt(value, n):
    estimate = mean_interval([value] * n, low=1.0, high=5.0)
    wilson = stats.norm.ppf(0.975)
    share = (value - 1) / 4
    root = wilson * np.sqrt(share * (1 - share) / n + wilson**2 / (4 * n * n))
    middle = share + wilson**2 / (2 * n)

    assert estimate.ci_high - estimate.ci_low > 0.005
    assert estimate.ci_low == pytest.approx(max(1, 1 + 4 * (middle - root) / (1 + wilson**2 / n)), abs=1e-9)
    assert estimate.ci_high == pytest.approx(min(5, 1 + 4 * (middle + root) / (1 + wilson**2 / n)), abs=1e-9)


@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_proportion_interval_covers(share):
    successes = np.random.default_rng(3).binomial(128, share, size=2000)
    estimates = [proportion_interval(int(count), 128) for count in successes]
    covered = np.mean([one.ci_low <= share <= one.ci_high for one in estimates])

    assert 0.93 <= covered <= 0.98  # 95 % nominal; three standard errors of the simulation are 1.5 %


def test_mean_interval_covers():
    shares = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    truth = float(shares @ np.arange(1, 6))
    draws = np.random.default_rng(5).choice(np.arange(1.0, 6.0), p=shares, size=(2000, 60))
    estimates = [mean_interval(row, low=1.0, high=5.0) for row in draws.tolist()]
    covered = np.mean([one.ci_low <= truth <= one.ci_high for one in estimates])

    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_impossible_proportions_are_refused(successes, n):
    with pytest.raises(UserError, match=f"got {successes} of {n}; score some prompts"):
        proportion_interval(successes, n)


def test_no_scores_are_refused():
    with pytest.raises(UserError, match="at least one score, got none"):
        mean_interval([], low=1.0, high=5.0)


@pytest.mark.parametrize("stray", [0.5, 6.0, float("nan")])
def test_scores_off_the_scale_are_refused(stray):
    with pytest.raises(UserError, match=r"should lie in \[1, 5\]"):
        mean_interval([2.0, stray], low=1.0, high=5.0)
