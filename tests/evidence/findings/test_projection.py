"""Findings of experiment 2 against numbers worked out from the formulas of the synthetic tables."""

from math import hypot

import numpy as np
import pytest

from safety_spaces.evidence.findings.projection import find_energy, find_orthogonal, find_parallel

USEFUL = ("useful", "parallel", "utility")
FRACTIONS = np.array([0.01, 0.25, 0.5, 0.75, 0.99])


def test_energy_at_the_middle_fraction(tables, grid):
    found = find_energy(tables.energy, grid, task="harmful")

    assert found.fraction == 0.5
    assert found.kept["top_k"] == pytest.approx(0.51 + 0.005 / 3)
    assert found.kept["random"] == pytest.approx(0.5 + 0.005 / 3 - 0.0005)
    assert found.expected == pytest.approx({"random_k": 0.495, "random": 0.495})
    assert found.largest_gap == pytest.approx(0.02 * 0.75 + 0.0005, abs=1e-3)
    assert found.uniform


@pytest.mark.parametrize("amount", [0.06, -0.09])
def test_energy_off_the_line_is_not_uniform(shifted, grid, amount):
    moved = shifted("energy", "energy_kept", amount, task="harmful", basis="top_k", fraction=0.25, tensor="all")
    found = find_energy(moved.energy, grid, task="harmful")

    assert not found.uniform
    assert np.sign(found.largest_gap) == np.sign(amount)
    assert find_energy(moved.energy, grid, task="useful").uniform


def test_parallel_advantage(tables, grid):
    found = find_parallel(tables.projection, grid, line=USEFUL)
    advantage = 0.4 * (np.sqrt(FRACTIONS) - FRACTIONS).mean() + 0.001  # draws 0 and 1 cost random 0.001

    assert found.gap == pytest.approx(0.4)
    assert found.advantage.value == pytest.approx(advantage, abs=1e-6)
    assert found.advantage.lowest == pytest.approx(advantage, abs=1e-6)
    assert found.advantage.noise == pytest.approx(0.03)  # intervals reach from -0.02 to +0.04
    assert found.share == pytest.approx(advantage / 0.4, abs=1e-5)
    assert found.advantage.direction == 1


def test_parallel_extremes_are_those_of_seeds(shifted, grid):
    moved = shifted("projection", "value", -0.2, task="useful", basis="top_k", metric="utility", seed=1)
    found = find_parallel(moved.projection, grid, line=USEFUL)

    assert found.advantage.highest - found.advantage.lowest == pytest.approx(0.2, abs=1e-6)
    assert found.advantage.direction == 0


def test_a_gap_that_is_none_has_no_share(shifted, grid):
    moved = shifted("projection", "value", -0.4, task="useful", scheme="none", metric="utility")

    assert find_parallel(moved.projection, grid, line=USEFUL).share is None


def test_orthogonal_shares_are_those_of_the_formula(tables, grid):
    found = find_orthogonal(tables.projection, grid)
    removed = {(row.basis, row.fraction): row for row in found.removed}

    for fraction in grid.fractions:
        assert removed["top_k", fraction].utility == pytest.approx(fraction**0.5, abs=1e-4)
        assert removed["top_k", fraction].harmfulness == pytest.approx(fraction**0.5, abs=1e-4)
        assert removed["random", fraction].utility == pytest.approx(fraction + 0.001 / 0.3, abs=1e-4)
    assert found.selectivity["top_k"].direction == 0
    assert found.excess.noise == pytest.approx(hypot(0.03 / 0.3, 0.15 / 2.0))


def test_harmfulness_removed_by_top_k_alone_is_selective(shifted, grid):
    moved = shifted("projection", "value", -0.6, scheme="orthogonal", basis="top_k", metric="harmfulness")
    found = find_orthogonal(moved.projection, grid)

    assert found.selectivity["top_k"].value == pytest.approx(0.3, abs=1e-4)
    assert found.selectivity["random"].direction == 0
    assert (found.selectivity["top_k"].direction, found.excess.direction) == (1, 1)


def test_without_a_gap_in_every_seed_there_are_no_shares(shifted, grid):
    moved = shifted("projection", "value", -2.5, task="contaminated", scheme="none", metric="harmfulness", seed=4)
    found = find_orthogonal(moved.projection, grid)

    assert found.gaps["harmfulness"].lowest == pytest.approx(-0.5)
    assert (found.removed, found.selectivity, found.excess) == (None, None, None)
