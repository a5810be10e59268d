"""Findings of experiment 3 against numbers worked out from the formulas of the synthetic tables."""

from dataclasses import replace

import pytest

from safety_spaces.evidence.findings.overlap import find_layerwise, find_update_overlap

ETA = (0.01 + 0.3 + 0.6 + 0.99) / 4


def test_update_overlaps_are_above_chance_by_the_formula(tables, grid):
    found = find_update_overlap(tables.update_spaces, grid)
    one = next(one for one in found.overlaps if (one.pair, one.layer) == ("useful-reference", 8))

    assert len(found.overlaps) == 6
    assert one.percentiles == (0.85,)
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


def test_no_layer_has_harmful_and_reference_as_the_closest_pair(tables, grid):
    found = find_layerwise(tables.update_spaces, grid)

    assert found.closest == ("useful-harmful",) * 10
    assert (found.layers, found.harmful_reference, found.in_some_seeds) == (10, (), ())


def test_layers_with_harmful_and_reference_closest_are_named_and_split_by_seeds(tables, shifted, grid):
    where = {"pair": "harmful-reference"}
    moved = shifted("update_spaces", "mso", 0.5, **where, layer=3)
    moved = replace(moved, update_spaces=moved.update_spaces.copy())
    rows = moved.update_spaces
    rows.loc[(rows.pair == "harmful-reference") & (rows.layer == 6) & (rows.seed == 4), "mso"] += 0.5
    found = find_layerwise(rows, grid)

    assert (found.harmful_reference, found.in_some_seeds) == ((3,), (6,))
    assert found.closest[3] == "harmful-reference"
    assert find_layerwise(tables.update_spaces, replace(grid, update_pairs=("useful-harmful",))) is None
