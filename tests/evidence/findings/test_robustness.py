"""General ability and over-refusal: the extreme model is found, and held against fine-tuned and reference."""

from dataclasses import replace

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
    assert useful.model == "random at 0.01"
    assert useful.models == 15
    assert useful.excursion.value == pytest.approx(0.01 * 0.01 - 0.001, abs=1e-5)
    assert useful.size == pytest.approx(-useful.excursion.value)
    assert useful.excursion.noise == pytest.approx(0.03)
    assert useful.is_above_chance


@pytest.mark.parametrize("amount", [-0.2, 0.2])
def test_the_model_that_changes_most_is_found(shifted, appendices, amount):
    where = {"basis": "top_k", "fraction": 0.75, "scheme": "parallel"}
    found, _ = find_general_ability(shifted("projection", "value", amount, **USEFUL, **where).projection, appendices)
    assert found.model == "top_k at 0.75"
    assert found.excursion.direction == (1 if amount > 0 else -1)
    end = 0.61 if amount > 0 else 0.6
    assert found.excursion.value == pytest.approx(0.6 + 0.01 * 0.75**0.5 + amount - end, abs=1e-5)


@pytest.mark.parametrize("amount", [-0.3, 0.3])
def test_what_fine_tuning_did_is_no_excursion(shifted, appendices, amount):
    moved = shifted("projection", "value", amount, task="useful", scheme="none", metric="general_ability")
    found, _ = find_general_ability(moved.projection, appendices)
    assert abs(found.fine_tuned.value - found.reference.value) > 0.25
    assert found.size < 0.012


def test_excursions_are_by_seed_and_do_not_cancel(shifted, appendices):
    where = {"basis": "top_k", "fraction": 0.5, "scheme": "parallel"}
    moved = shifted("projection", "value", 0.3, **USEFUL, **where, seed=0)
    rows = moved.projection.copy()
    cell = (rows.metric == "general_ability") & (rows.basis == "top_k") & (rows.fraction == 0.5) & (rows.seed == 1)
    rows.loc[cell & (rows.scheme == "parallel"), "value"] -= 0.3
    found, _ = find_general_ability(replace(moved, projection=rows).projection, appendices)
    above, below = 0.3 - 0.01 * (1 - 0.5**0.5), -0.3 + 0.01 * 0.5**0.5
    assert found.model == "top_k at 0.5"
    assert (found.excursion.lowest, found.excursion.highest) == pytest.approx((below, above))
    assert found.excursion.direction == 0
    assert found.size == pytest.approx((above - below) / 3)


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
