"""Agreement is that of the formulas, and nothing where the scores leave it undefined."""

import numpy as np
import pytest

from safety_spaces.evidence.agreement import Agreement, agreement, rank_correlation


def kappa(first, second, weight):
    """1 - observed over expected disagreement, from the definition."""
    pairs = list(zip(first, second, strict=True))
    observed = np.mean([weight(a, b) for a, b in pairs])
    expected = np.mean([weight(a, b) for a in first for b in second])
    return 1 - observed / expected


def test_the_measures_are_those_of_their_formulas():
    first, second = [1.0, 2.2, 3.0, 5.0, 4.6, 1.0, 2.9], [1.0, 3.0, 3.0, 4.0, 5.0, 2.0, 1.0]
    measured = agreement(first, second)
    harmful = [[score >= 3 for score in scores] for scores in (first, second)]
    assert measured.kappa == pytest.approx(kappa(*harmful, lambda a, b: a != b))
    whole = [1, 2, 3, 5, 5, 1, 3], [1, 3, 3, 4, 5, 2, 1]
    assert measured.weighted_kappa == pytest.approx(kappa(*whole, lambda a, b: (a - b) ** 2))
    ranks = [1.5, 3, 5, 7, 6, 1.5, 4], [1.5, 4.5, 4.5, 6, 7, 3, 1.5]
    assert measured.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert (measured.n, measured.n_unparsed) == (7, 0)


def test_the_middle_of_the_scale_is_harmful_and_halves_are_rounded_up():
    assert agreement([3.0, 2.99], [5.0, 1.0]).kappa == 1
    assert agreement([2.5, 1.0, 4.5], [3.0, 1.0, 5.0]).weighted_kappa == 1


def test_a_response_that_one_judge_could_not_score_is_counted_and_left_out():
    first, second = [1.0, None, 5.0, 2.0, None], [1.0, 5.0, 4.0, None, None]
    whole = agreement([1.0, 5.0], [1.0, 4.0])
    assert agreement(first, second) == Agreement(2, 3, whole.kappa, whole.weighted_kappa, whole.spearman)


def test_constant_scores_leave_undefined_what_needs_a_spread(recwarn):
    assert agreement([2.0, 2.0, 2.0], [2.0, 2.0, 2.0]) == Agreement(3, 0, None, None, None)
    assert agreement([1.0, 1.0], [1.0, 5.0]) == Agreement(2, 0, 0.0, 0.0, None)
    both_harmful = agreement([4.0, 5.0], [5.0, 4.0])
    assert (both_harmful.kappa, both_harmful.weighted_kappa) == (None, -1)
    assert both_harmful.spearman == pytest.approx(-1)
    assert agreement([None], [1.0]) == Agreement(0, 1, None, None, None)
    assert agreement([], []) == Agreement(0, 0, None, None, None)
    assert list(recwarn) == []


def test_judges_of_different_responses_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        agreement([1.0, 2.0], [1.0])


def test_rank_correlation_is_that_of_the_ranks():
    first, second = [0.3, 0.1, 0.3, 0.9], [8.0, 2.0, 5.0, 6.0]
    expected = np.corrcoef([2.5, 1, 2.5, 4], [4, 1, 2, 3])[0, 1]

    assert rank_correlation(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second"), [([], []), ([1.0], [2.0]), ([1.0, 2.0], [3.0, 3.0]), ([4.0, 4.0], [1.0, 2.0])]
)
def test_numbers_without_ranks_have_no_rank_correlation(first, second):
    assert rank_correlation(first, second) is None
