"""General ability and over-refusal: the extreme model is found, and held against fine-tuned and reference."""

import pytest

from safety_spaces.evidence.findings.robustness import find_general_ability, find_over_refusal

USEFUL = {"task": "useful", "metric": "general_ability"}
HARMFUL = {"task": "harmful", "metric": "over_refusal"}


def test_general_ability_beside_its_models(tables, appendices):
    useful, contaminated = find_general_ability(tables.projection, appendices)

    assert (useful.task, useful.scheme, useful.shots) == ("useful", "parallel", (5,))
    assert (contaminated.task, contaminated.scheme) == ("contaminated", "orthogonal")
    assert useful.reference.value == pytest.approx(0.6 + 0.005 / 3)
    assert useful.fine_tuned.value == pytest.approx(0.61 + 0.005 / 3)
    assert useful.highest == pytest.approx(0.6 + 0.01 * 0.99**0.5 + 0.005 / 3, abs=1e-5)
    assert useful.lowest == pytest.approx(0.6 + 0.01 * 0.01 - 0.001 + 0.005 / 3, abs=1e-5)
    assert useful.model == "random at 0.01 against useful"
    assert useful.largest.value == pytest.approx(0.01 * 0.01 - 0.011, abs=1e-5)
    assert useful.largest.noise == pytest.approx(0.03)
    assert useful.is_above_chance


@pytest.mark.parametrize("amount", [-0.2, 0.2])
def test_the_model_that_changes_most_is_found(shifted, appendices, amount):
    where = {"basis": "top_k", "fraction": 0.75, "scheme": "parallel"}
    found, _ = find_general_ability(shifted("projection", "value", amount, **USEFUL, **where).projection, appendices)
    assert found.model.startswith("top_k at 0.75 against")
    assert found.largest.direction == (1 if amount > 0 else -1)


def test_a_reference_at_chance_has_nothing_to_lose(shifted, appendices):
    moved = shifted("projection", "value", -0.35, task="reference", metric="general_ability")
    moved = moved.projection.assign(ci_low=moved.projection.value - 0.02)
    assert not any(one.is_above_chance for one in find_general_ability(moved, appendices))


def test_over_refusal_beside_its_models(tables, appendices):
    harmful, _ = find_over_refusal(tables.projection, appendices)

    assert (harmful.fine_tuned.value, harmful.reference.value) == pytest.approx((0.03 + 0.005 / 3, 0.05 + 0.005 / 3))
    assert harmful.highest == pytest.approx(0.05 - 0.02 * 0.01 - 0.001 + 0.005 / 3, abs=1e-3)
    assert harmful.rise.value == pytest.approx(harmful.highest - harmful.reference.value)
    assert harmful.judges == ("keywords",)
    assert harmful.can_rise


def test_more_refusals_than_both_models_are_a_rise(shifted, appendices):
    where = {"scheme": "parallel", "basis": "random", "fraction": 0.5}
    moved = shifted("projection", "value", 0.3, **HARMFUL, **where)
    found, other = find_over_refusal(moved.projection, appendices)
    assert found.rise.direction == 1
    assert other.rise.direction == 0


def test_models_that_refuse_everything_cannot_refuse_more(shifted, appendices):
    moved = shifted("projection", "value", 0.94, metric="over_refusal", task="reference")
    assert not any(one.can_rise for one in find_over_refusal(moved.projection, appendices))


def test_a_study_that_asks_neither_finds_nothing(tables, grid):
    assert find_general_ability(tables.projection, grid) == find_over_refusal(tables.projection, grid) == ()
