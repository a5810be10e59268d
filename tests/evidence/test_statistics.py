"""The order of numbers and contrasts over seeds."""

import numpy as np
import pytest

from safety_spaces.evidence.statistics import Contrast, contrast, rank_correlation


def test_rank_correlation_is_that_of_the_ranks():
    first, second = [0.3, 0.1, 0.3, 0.9], [8.0, 2.0, 5.0, 6.0]
    expected = np.corrcoef([2.5, 1, 2.5, 4], [4, 1, 2, 3])[0, 1]

    assert rank_correlation(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [3.0, 3.0]), ([4.0, 4.0], [1.0, 2.0])]
)
def test_numbers_without_ranks_have_no_rank_correlation(first, second):
    assert rank_correlation(first, second) is None


def test_contrast_is_the_mean_and_the_extremes():
    assert contrast([0.25, 0.5, 0.0], noise=0.1) == Contrast(0.25, 0.0, 0.5, 0.1, 3)


@pytest.mark.parametrize(
    ("by_seed", "noise", "direction"),
    [([0.2, 0.3], 0.1, 1), ([-0.2, -0.3], 0.1, -1), ([0.2, -0.01], 0.0, 0), ([0.2, 0.3], 0.25, 0), ([0.0], 0.0, 0)],
)
def test_a_contrast_takes_a_side_only_beyond_noise_and_in_every_seed(by_seed, noise, direction):
    assert contrast(by_seed, noise=noise).direction == direction
