"""Each target holds on the synthetic models and fails when its score is moved past the bound."""

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.findings.premises import check_premises


def test_scores_are_means_over_seeds_with_mean_intervals(tables, grid):
    reference = check_premises(tables.projection, grid).scores["reference"]["harmfulness"]

    assert reference.value == pytest.approx(1.5 + 0.005 / 3)
    assert reference.ci_low == pytest.approx(reference.value - 0.1)
    assert reference.ci_high == pytest.approx(reference.value + 0.2)
    assert reference.n == 128


def test_all_hold_at_first(tables, grid):
    found = check_premises(tables.projection, grid)

    assert [premise.holds for premise in found.targets] == [True] * 7
    assert [(one.between, one.fractions, one.needed, one.holds) for one in found.graded] == [(5, 5, 3, True)] * 6


@pytest.mark.parametrize(
    ("number", "checkpoint", "metric", "amount"),
    [
        (0, "base", "harmfulness", -1.51),
        (1, "reference", "harmfulness", 0.51),
        (2, "base", "utility", 0.11),
        (3, "useful", "utility", -0.26),
        (4, "harmful", "harmfulness", -1.51),
        (5, "contaminated", "utility", -0.21),
        (6, "contaminated", "harmfulness", -1.51),
    ],
)
def test_a_moved_score_fails_its_target(shifted, grid, number, checkpoint, metric, amount):
    where = {"task": checkpoint, "metric": metric, "scheme": "none"}
    barely = check_premises(shifted("projection", "value", amount * 0.9, **where).projection, grid)
    failed = check_premises(shifted("projection", "value", amount, **where).projection, grid)

    assert barely.targets[number].holds
    assert [premise.holds for premise in failed.targets] == [index != number for index in range(7)]


def test_a_bound_reached_exactly_holds(shifted, grid):
    where = {"task": "useful", "metric": "utility", "scheme": "none"}
    found = check_premises(shifted("projection", "value", 0.15 - 0.4, **where).projection, grid)

    assert found.targets[3].holds


def test_a_sweep_stuck_at_the_end_is_not_graded(shifted, grid):
    where = {"task": "useful", "scheme": "parallel", "basis": "top_k"}
    stuck = check_premises(shifted("projection", "value", 0.3, **where).projection, grid).graded

    assert (stuck[0].between, stuck[0].holds) == (1, False)  # 0.24 + 0.3 alone lies below 0.60
    assert all(one.holds for one in stuck[1:])


def test_an_unscored_checkpoint_is_an_error(tables, grid):
    table = tables.projection[(tables.projection.task != "useful") | (tables.projection.metric != "harmfulness")]
    with pytest.raises(UserError, match="harmfulness of the checkpoint useful"):
        check_premises(table, grid)
