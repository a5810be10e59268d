"""Findings of experiments 3 and 4 against numbers worked out from the formulas of the synthetic tables."""

from dataclasses import replace

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.findings.overlap import find_activation_overlap, find_update_overlap

ETA = (0.01 + 0.3 + 0.6 + 0.99) / 4


def test_update_overlaps_are_above_chance_by_the_formula(tables, grid):
    found = find_update_overlap(tables.update_spaces, grid)
    one = next(one for one in found.overlaps if (one.pair, one.layer) == ("useful-reference", 8))

    assert len(found.overlaps) == 6
    assert one.percentile == 0.85
    assert one.excess.value == pytest.approx(0.3 * ETA + 0.08 - 0.1 * ETA + 0.025 / 3)
    assert one.excess.highest - one.excess.lowest == pytest.approx(0.02)
    assert one.cosine == pytest.approx(0.0, abs=1e-12)
    assert (found.strongest, found.agreeing_seeds, found.seeds) == ("useful-harmful", 3, 3)
    assert found.all_above_chance


def test_signed_cosine_is_reported_by_pair(shifted, grid):
    moved = shifted("update_spaces", "cosine", -0.4, pair="harmful-reference", layer=7)
    cosines = {(one.pair, one.layer): one.cosine for one in find_update_overlap(moved.update_spaces, grid).overlaps}

    assert cosines["harmful-reference", 7] == pytest.approx(-0.4)
    assert cosines["harmful-reference", 8] == pytest.approx(0.0, abs=1e-12)


def test_the_closest_pair_changes_with_the_numbers(shifted, grid):
    once = shifted("update_spaces", "mso", 0.5, pair="harmful-reference", seed=1)
    found = find_update_overlap(once.update_spaces, grid)

    assert (found.strongest, found.agreeing_seeds) == ("harmful-reference", 1)


def test_a_pair_at_chance_in_one_seed_is_not_above_it(shifted, grid):
    moved = shifted("update_spaces", "mso", -0.3, pair="useful-reference", seed=4, layer=8)

    assert not find_update_overlap(moved.update_spaces, grid).all_above_chance


@pytest.mark.parametrize(("centred", "scale"), [(False, 1.0), (True, 0.5)])
def test_activation_overlap_by_the_formula(tables, grid, centred, scale):
    found = find_activation_overlap(tables.activation_spaces, grid, checkpoint="useful", centred=centred)
    excess = 0.35 * 0.5 * 1.1 * scale + 0.15 + 0.02 / 3 - 0.025 - 0.0075

    assert found.excess["harmful_1-harmful_2"].value == pytest.approx(excess)
    assert found.harmful_preference.value == pytest.approx((0.35 - 0.4) * 0.5 * 1.1 * scale)
    assert found.harmful_preference.direction == -1


def test_harmful_prompts_must_beat_the_strongest_mixed_pair(shifted, grid):
    where = {"pair": "harmful_1-harmful_2", "checkpoint": "reference"}
    for amount, direction in ((0.02, -1), (0.03, 1)):  # useful-harmful_1 is 0.025 ahead
        moved = shifted("activation_spaces", "mso", amount, **where)
        found = find_activation_overlap(moved.activation_spaces, grid, checkpoint="reference", centred=False)
        assert found.harmful_preference.direction == direction


def test_a_study_without_two_harmful_sets_is_refused(tables, grid):
    alone = replace(grid, activation_pairs=("useful-harmful_1",))
    with pytest.raises(UserError, match="expected a harmful and a harmful set"):
        find_activation_overlap(tables.activation_spaces, alone, checkpoint="useful", centred=False)
