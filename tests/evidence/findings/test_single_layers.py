"""Single layers against the shares that the synthetic tables are made with."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.evidence.findings.single_layers import find_single_layers

FRACTIONS = np.array([0.01, 0.25, 0.5, 0.75, 0.99])
MOVED = np.sqrt(FRACTIONS).mean()  # by top_k, of what the layer has
CELLS = [(layer, others) for others in ("whole", "out") for layer in (0, 3, 9)]


def test_shares_moved_are_those_of_the_formula(tables, appendices):
    found = {(one.layer, one.others): one for one in find_single_layers(tables.projection, appendices).carriages}

    assert list(found) == CELLS
    for layer in (0, 3, 9):
        part = 0.1 + 0.01 * layer
        for one, moved in ((found[layer, "out"], part * MOVED), (found[layer, "whole"], part * (1 - MOVED))):
            # Seeds add 0.001 each to both checkpoints but less to a layer's part.
            assert (one.useful.value, one.harmful.value) == pytest.approx((moved, moved), abs=0.01)
            assert one.useful.noise == pytest.approx(0.03 / 0.4)
            assert one.preference.value == pytest.approx(0, abs=0.01)
            assert not one.separates


def test_shares_removed_are_those_of_the_formula(tables, appendices):
    found = {(one.layer, one.others): one for one in find_single_layers(tables.projection, appendices).removals}

    assert list(found) == CELLS
    for layer in (0, 3, 9):
        part = 0.1 + 0.01 * layer
        for others, removed in (("whole", part * MOVED), ("out", 1 - part * (1 - MOVED))):
            one = found[layer, others]
            assert one.harmfulness.value == pytest.approx(removed, abs=0.01)
            assert one.utility.value == pytest.approx(removed, abs=0.01)
            assert one.claimed.value == pytest.approx(0, abs=0.01)
            assert not one.separates


def test_a_layer_that_loses_harmfulness_alone_separates(shifted, appendices):
    where = {"scheme": "orthogonal", "metric": "harmfulness", "layers": "3", "others": "whole"}
    for basis, separating in (("top_k", [(3, "whole")]), ("random", [])):
        moved = shifted("projection", "value", -0.6, **where, basis=basis)
        removals = find_single_layers(moved.projection, appendices).removals
        assert [(one.layer, one.others) for one in removals if one.separates] == separating
    both = shifted("projection", "value", -0.6, **where)  # random directions remove as much: no part of the claim
    assert not any(one.separates for one in find_single_layers(both.projection, appendices).removals)


def test_a_layer_whose_claimed_directions_carry_harm_alone_separates(shifted, appendices):
    where = {"scheme": "parallel", "metric": "harmfulness", "basis": "top_k", "layers": "9", "others": "out"}
    for amount, separating in ((0.9, [(9, "out")]), (-0.9, [])):
        rows = shifted("projection", "value", amount, **where).projection.copy()
        # Useful behaviour must not be moved beyond the noise.
        useful = (rows.metric == "utility") & (rows.layers == "9") & (rows.others == "out")
        rows.loc[useful & (rows.scheme == "parallel"), "value"] = 0.2
        carriages = find_single_layers(rows, appendices).carriages
        assert [(one.layer, one.others) for one in carriages if one.separates] == separating


@pytest.mark.parametrize("amount", [-0.9, 0.9])
def test_harm_lost_with_other_directions_is_no_separation_of_the_claimed_ones(shifted, appendices, amount):
    where = {"scheme": "parallel", "metric": "harmfulness", "basis": "top_k", "layers": "9", "others": "whole"}
    moved = shifted("projection", "value", amount, **where)
    carriages = find_single_layers(moved.projection, appendices).carriages
    (one,) = [one for one in carriages if (one.layer, one.others) == (9, "whole")]
    assert one.harmful.direction == one.preference.direction == (1 if amount < 0 else -1)
    assert one.useful.direction == 0
    assert not any(one.separates for one in carriages)


def test_seeds_that_disagree_separate_nothing(shifted, appendices):
    where = {"scheme": "orthogonal", "metric": "harmfulness", "layers": "3", "others": "whole", "basis": "top_k"}
    moved = shifted("projection", "value", -1.9, **where, seed=4)
    (one,) = [x for x in find_single_layers(moved.projection, appendices).removals if (x.layer, x.others) == CELLS[1]]
    assert one.claimed.value > one.claimed.noise
    assert not one.separates


@pytest.mark.parametrize(("task", "lost"), [("contaminated", "removals"), ("harmful", "carriages")])
def test_without_a_gap_there_are_no_shares(shifted, appendices, task, lost):
    moved = shifted("projection", "value", -3.0, task=task, scheme="none", metric="harmfulness", seed=1)
    found = find_single_layers(moved.projection, appendices)
    assert getattr(found, lost) is None
    assert (found.removals is None) + (found.carriages is None) == 1


def test_a_study_without_single_layers_finds_nothing(tables, grid, appendices):
    assert find_single_layers(tables.projection, grid) is None
    parallel = find_single_layers(tables.projection, replace(appendices, single_layers=appendices.single_layers[:2]))
    assert parallel.removals == ()
    assert len(parallel.carriages) == 6
