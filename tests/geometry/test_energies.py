from dataclasses import replace

import pytest
import torch

from safety_spaces.geometry import Bases, Subspace, TensorEnergy, factor, tensor_energies, totals
from safety_spaces.geometry.subspace import squared_norm
from tests.geometry.dense import energy, gaussian, low_rank

BASES = ("top_k", "random_k", "random")
NAME = "model.layers.2.mlp.up_proj.weight"
SHAPES = {"tall": (23, 9, 9), "wide": (8, 21, 8), "square": (12, 12, 12), "low rank": (19, 11, 4), "vector": (10, 1, 1)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def reference_and_task(request):
    M, N, r = request.param
    return factor(low_rank(M, N, r)).U, gaussian(M, N, seed=2)


def energies(U, D, own=None, *, seed=1, **options):
    how = {"names": BASES, "fractions": (0.25, 0.5), "number_of_draws": 3} | options
    return tensor_energies(Bases(NAME, tuple(D.shape), U, own, seed), {"useful": D}, **how)["useful"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("names", [BASES, ("random",), ("random_k", "top_k")])
def test_tensor_energies_equal_the_long_way(reference_and_task, names, dtype):
    U, D = reference_and_task
    bases, D = Bases(NAME, tuple(D.shape), U, seed=1), D.to(dtype)
    rows = energies(U, D, names=names)
    draws = {"top_k": 1, "random_k": 3, "random": 3}
    cells = [(basis, draw, rho) for basis in names for draw in range(draws[basis]) for rho in (0.25, 0.5)]
    assert [(row.basis, row.draw, row.fraction) for row in rows] == cells
    for row in rows:
        subspace = bases.subspace(row.basis, k=row.k, draw=row.draw).first(row.k)
        dense = energy(subspace.directions(), row.k, D)
        assert row.k == min(U.shape[1], max(1, int(row.fraction * min(D.shape))))
        assert row.energy == pytest.approx(dense, rel=1e-5)
        assert row.energy_kept == pytest.approx(dense / squared_norm(D), rel=1e-5)
        assert (row.layer, row.kind, row.rank, row.update) == (2, "up_proj", U.shape[1], squared_norm(D))
        assert (row.expected is None) == (row.basis == "top_k")
        if row.expected is not None:
            within = Subspace(U) if row.basis == "random_k" else None
            assert row.expected == pytest.approx(subspace.expected_energy(D, within=within), rel=1e-5)


def test_tasks_of_one_call_equal_tasks_alone(reference_and_task):
    """Tasks may be stored in two precisions."""
    U, D = reference_and_task
    tasks = {"useful": D, "harmful": gaussian(*D.shape, seed=3).double()}
    bases = Bases(NAME, tuple(D.shape), U, factor(gaussian(len(D), 5, seed=9)).U, seed=1)
    how = {"names": ("file", *BASES), "fractions": (0.25, 0.9), "number_of_draws": 2}
    together = tensor_energies(bases, tasks, **how)
    assert together == {task: tensor_energies(bases, {task: D}, **how)[task] for task, D in tasks.items()}


def test_rounding_decides_the_number_of_directions():
    U, D = factor(gaussian(9, 7)).U, gaussian(9, 7, seed=1)
    found = [{row.k for row in energies(U, D, fractions=[0.25], rounding=rounding)} for rounding in ("floor", "round")]
    assert found == [{1}, {2}]


@pytest.mark.parametrize("columns", [1, 4, 7])
def test_controls_of_a_users_basis_have_as_many_directions(columns):
    M, N = 13, 8
    own, D = factor(gaussian(M, columns, seed=5)).U, gaussian(M, N, seed=2)
    rows = energies(factor(gaussian(M, N)).U, D, own, names=("file", *BASES), fractions=(0.5, 1.0), number_of_draws=2)
    assert len(rows) == (1 + 1 + 2 + 2) * 2
    for row in rows:
        # A share of the user's columns, not of the tensor's shape.
        assert row.k == (columns if row.fraction == 1 else max(1, columns // 2))
        assert row.rank == (columns if row.basis == "file" else 8)
        assert (row.expected is None) == (row.basis in ("file", "top_k"))
        if row.basis == "file":
            assert row.energy == pytest.approx(energy(own, row.k, D), rel=1e-5)
        if row.basis == "random":
            assert row.expected == pytest.approx(row.k / M * squared_norm(D))


def test_a_reference_of_lower_rank_has_fewer_directions_than_a_users_basis():
    own, D = factor(gaussian(13, 5, seed=5)).U, gaussian(13, 8, seed=2)
    rows = energies(factor(low_rank(13, 8, 2)).U, D, own, names=("file", *BASES), fractions=(1.0,), number_of_draws=1)
    assert {row.basis: row.k for row in rows} == {"file": 5, "top_k": 2, "random_k": 2, "random": 5}


def test_no_directions_in_a_users_basis_are_none_for_its_controls():
    U, D = factor(gaussian(13, 8)).U, gaussian(13, 8, seed=2)
    rows = energies(U, D, torch.zeros(13, 0), names=("file", *BASES))
    assert {(row.k, row.energy) for row in rows} == {(0, 0.0)}


def test_zero_reference_keeps_nothing_and_zero_task_has_no_ratio():
    D = gaussian(7, 5)
    assert {(row.k, row.energy_kept) for row in energies(factor(torch.zeros(7, 5)).U, D)} == {(0, 0.0)}
    still = energies(factor(D).U, torch.zeros(7, 5))
    assert {(row.energy, row.energy_kept, row.energy_expected) for row in still} == {(0.0, None, None)}


@pytest.mark.parametrize(("vectors", "share"), [("keep", 1), ("drop", 0)])
def test_vectors_are_kept_or_dropped_by_policy(vectors, share):
    U, D = factor(gaussian(8, 1)).U, gaussian(8, 1, seed=1)
    for row in energies(U, D, vectors=vectors):
        assert (row.k, row.energy_kept) == (share, share)
        assert row.energy_expected == (None if row.basis == "top_k" else share)
    matrix_U, matrix = factor(gaussian(8, 3)).U, gaussian(8, 3, seed=1)
    assert energies(matrix_U, matrix, vectors=vectors) == energies(matrix_U, matrix)


def row(name, kind, energy, update, layer=None):
    return TensorEnergy(name, layer, kind, "random", 0.5, 0, 4, 2, energy, update, energy / 2)


def test_totals_sum_energies_before_the_ratio():
    rows = [row("a", "q_proj", 1.0, 2.0), row("b", "q_proj", 3.0, 10.0), row("c", "embed_tokens", 8.0, 20.0)]
    found = {total.name: total for total in totals([*rows, replace(rows[0], draw=1)]) if total.draw == 0}
    assert set(found) == {"all", "all_but_embeddings", "kind:q_proj", "kind:embed_tokens"}
    assert found["all"].energy_kept == 12 / 32
    assert found["all"].energy_expected == 6 / 32
    assert (found["all"].rank, found["all"].k, found["all"].layer) == (12, 6, None)
    assert found["all_but_embeddings"].energy_kept == found["kind:q_proj"].energy_kept == 4 / 12
    assert found["kind:embed_tokens"].energy_kept == 8 / 20


def test_totals_of_a_layer_sum_its_own_tensors():
    rows = [
        row("a", "q_proj", 1.0, 2.0, layer=0), row("b", "down_proj", 3.0, 10.0, layer=0),
        row("c", "q_proj", 5.0, 7.0, layer=11), row("d", "norm", 0.5, 4.0, layer=11),
        row("e", "norm", 9.0, 10.0), row("f", "embed_tokens", 8.0, 20.0),
    ]  # fmt: skip
    found = {total.name: total for total in totals([*rows, replace(rows[0], draw=1)]) if total.draw == 0}
    layers = {name: total for name, total in found.items() if name.startswith("layer:")}
    assert set(layers) == {"layer:0", "layer:11"}
    assert (layers["layer:0"].energy_kept, layers["layer:0"].energy_expected) == (4 / 12, 2 / 12)
    assert layers["layer:11"].energy_kept == 5.5 / 11
    assert [(total.layer, total.kind, total.rank, total.k) for total in layers.values()] == [
        (0, "", 8, 4),
        (11, "", 8, 4),
    ]
    assert all(total.layer is None for name, total in found.items() if name not in layers)
    assert found["all"].update == sum(total.update for total in layers.values()) + 30


@pytest.mark.parametrize("vectors", ["project", "keep", "drop"])
def test_vectors_outside_the_projection_are_totalled_by_kind_alone(vectors):
    rows = [row("a", "q_proj", 1.0, 2.0, layer=3), row("b", "norm", 3.0, 6.0, layer=3)]
    found = {total.name: total for total in totals(rows, vectors=vectors)}
    assert found["kind:norm"].update == 6
    sums = {found[name].update for name in ("all", "all_but_embeddings", "layer:3")}
    assert sums == {8 if vectors == "project" else 2}


def test_totals_of_top_k_expect_nothing_and_ignore_order():
    U, D = factor(gaussian(13, 6)).U, gaussian(13, 6, seed=1)
    rows = [
        replace(row, name=f"{number}", energy=row.energy * 10**number) for number in range(9) for row in energies(U, D)
    ]
    key = lambda total: (total.name, total.basis, total.fraction, total.draw)  # noqa: E731
    assert sorted(totals(rows), key=key) == sorted(totals(rows[::-1]), key=key)
    assert all((total.expected is None) == (total.basis == "top_k") for total in totals(rows))
