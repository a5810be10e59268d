from dataclasses import replace
from math import sqrt

import pytest
import torch

from safety_spaces.geometry import (
    TensorEnergy,
    coefficients,
    cosine,
    energy_curve,
    expected_energy,
    factor,
    inner,
    kept,
    ordered_basis,
    parallel_parts,
    squared_norm,
    tensor_energies,
    totals,
    update_cosine,
)

BASES = ("top_k", "random_k", "random")
NAME = "model.layers.2.mlp.up_proj.weight"
STREAM = {"seed": 1, "draw": 0, "name": NAME}
SHAPES = {"tall": (23, 9, 9), "wide": (8, 21, 8), "square": (12, 12, 12), "low rank": (19, 11, 4), "vector": (10, 1, 1)}


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def reference_and_task(request):
    M, N, r = request.param
    return factor(gaussian(M, r) @ gaussian(r, N, seed=1)).U, gaussian(M, N, seed=2)


def dense_projector(basis, k):
    return basis[:, :k].double() @ basis[:, :k].double().T


@pytest.mark.parametrize("basis", BASES)
def test_parallel_parts_equal_the_dense_projector(reference_and_task, basis):
    U, D = reference_and_task
    frame = ordered_basis(basis, U, **STREAM)
    ks = sorted({0, 1, 1 + U.shape[1] // 2, U.shape[1]})
    for k, parallel in zip(ks, parallel_parts(D, frame, ks), strict=True):
        P, task = dense_projector(frame, k), D.double()
        torch.testing.assert_close(parallel.double(), P @ task, rtol=0, atol=1e-5)
        orthogonal = kept(D, parallel, "orthogonal")
        torch.testing.assert_close(orthogonal.double(), (torch.eye(len(P)) - P) @ task, rtol=0, atol=1e-5)
        torch.testing.assert_close(kept(D, parallel, "parallel") + orthogonal, D, rtol=0, atol=1e-6)
        assert squared_norm(parallel) + squared_norm(orthogonal) == pytest.approx(squared_norm(D), rel=1e-5)
        assert inner(parallel, orthogonal) == pytest.approx(0, abs=1e-5 * squared_norm(D))


def test_yielded_parts_are_the_callers_own():
    U, D = factor(gaussian(9, 7)).U, gaussian(9, 7, seed=1)
    ks = [2, 2, 5]
    clean = [part.clone() for part in parallel_parts(D, U, ks)]
    for part, expected in zip(parallel_parts(D, U, ks), clean, strict=True):
        assert torch.equal(part, expected)
        part.zero_()


def test_descending_ks_are_refused():
    with pytest.raises(ValueError, match="expected ascending numbers of directions"):
        list(parallel_parts(gaussian(5, 3), gaussian(5, 3), [2, 1]))


@pytest.mark.parametrize("basis", BASES)
def test_energy_curve_equals_the_dense_energies(reference_and_task, basis):
    U, D = reference_and_task
    frame = ordered_basis(basis, U, **STREAM)
    curve = energy_curve(coefficients(frame, D))
    assert curve.dtype == torch.float64
    dense = [float((dense_projector(frame, k) @ D.double()).square().sum()) for k in range(U.shape[1] + 1)]
    assert curve.tolist() == pytest.approx(dense, rel=1e-5)
    assert curve[0] == 0
    assert (curve.diff() >= 0).all()
    assert curve[-1] <= squared_norm(D) * (1 + 1e-5)


def test_root_of_energy_kept_is_the_cosine_with_the_parallel_part(reference_and_task):
    U, D = reference_and_task
    for k, parallel in enumerate(parallel_parts(D, U, range(1, U.shape[1] + 1)), start=1):
        energy_kept = float(energy_curve(coefficients(U, D))[k]) / squared_norm(D)
        assert update_cosine(D, parallel) == pytest.approx(sqrt(energy_kept), rel=1e-5)


@pytest.mark.parametrize("basis", ["random", "random_k"])
def test_closed_forms_hold_in_the_mean(basis):
    M, N, r, k, draws = 20, 15, 6, 2, 2000
    U = factor(gaussian(M, r) @ gaussian(r, N, seed=1)).U
    D = gaussian(M, N, seed=2) + 3 * U[:, :1] @ gaussian(1, N, seed=3)
    energies = torch.tensor(
        [row.energy for row in tensor_energies(NAME, U, D, bases=[basis], fractions=[0.14], draws=draws, seed=0)]
    )
    expected = expected_energy(
        basis, k, (M, N), r, span_energy=squared_norm(coefficients(U, D)), update_energy=squared_norm(D)
    )
    assert float(energies.mean()) == pytest.approx(expected, abs=4 * float(energies.std()) / sqrt(draws))


def test_expected_energy_of_top_k_and_of_no_rank():
    assert expected_energy("top_k", 2, (5, 4), 3, span_energy=1.0, update_energy=2.0) is None
    assert expected_energy("random_k", 0, (5, 4), 0, span_energy=0.0, update_energy=2.0) == 0
    assert expected_energy("random", 2, (5, 4), 3, span_energy=1.0, update_energy=2.0) == pytest.approx(0.8)


def energies(U, D, **options):
    return tensor_energies(NAME, U, D, **{"bases": BASES, "fractions": (0.25, 0.5), "draws": 3, "seed": 1} | options)


def test_tensor_energies_equal_the_long_way(reference_and_task):
    U, D = reference_and_task
    rows = energies(U, D)
    assert len(rows) == (1 + 3 + 3) * 2
    for row in rows:
        frame = ordered_basis(row.basis, U, seed=1, draw=row.draw, name=NAME)
        dense = float((dense_projector(frame, row.k) @ D.double()).square().sum())
        assert row.energy == pytest.approx(dense, rel=1e-5)
        assert row.energy_kept == pytest.approx(dense / squared_norm(D), rel=1e-5)
        assert (row.layer, row.kind, row.rank, row.update) == (2, "up_proj", U.shape[1], squared_norm(D))
        assert (row.expected is None) == (row.basis == "top_k")


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
    assert all(torch.equal(part, share * D) for part in parallel_parts(D, U, [1, 1], vectors=vectors))
    matrix_U, matrix = factor(gaussian(8, 3)).U, gaussian(8, 3, seed=1)
    assert energies(matrix_U, matrix, vectors=vectors) == energies(matrix_U, matrix)


def test_totals_sum_energies_before_the_ratio():
    def row(name, kind, energy, update):
        return TensorEnergy(name, 0, kind, "random", 0.5, 0, 4, 2, energy, update, energy / 2)

    rows = [row("a", "q_proj", 1.0, 2.0), row("b", "q_proj", 3.0, 10.0), row("c", "embed_tokens", 8.0, 20.0)]
    found = {total.name: total for total in totals([*rows, replace(rows[0], draw=1)]) if total.draw == 0}
    assert set(found) == {"all", "all_but_embeddings", "kind:q_proj", "kind:embed_tokens"}
    assert found["all"].energy_kept == 12 / 32
    assert found["all"].energy_expected == 6 / 32
    assert (found["all"].rank, found["all"].k, found["all"].layer) == (12, 6, None)
    assert found["all_but_embeddings"].energy_kept == found["kind:q_proj"].energy_kept == 4 / 12
    assert found["kind:embed_tokens"].energy_kept == 8 / 20


def test_totals_of_top_k_expect_nothing_and_ignore_order():
    U, D = factor(gaussian(13, 6)).U, gaussian(13, 6, seed=1)
    rows = [
        replace(row, name=f"{number}", energy=row.energy * 10**number) for number in range(9) for row in energies(U, D)
    ]
    key = lambda total: (total.name, total.basis, total.fraction, total.draw)  # noqa: E731
    assert sorted(totals(rows), key=key) == sorted(totals(rows[::-1]), key=key)
    assert all((total.expected is None) == (total.basis == "top_k") for total in totals(rows))


def test_cosine_is_signed_and_guarded():
    assert cosine(-6.0, 4.0, 9.0) == -1
    assert cosine(0.0, 0.0, 9.0) == 0
    assert cosine(1e-200, 1e-200, 1e-200) == pytest.approx(1)
    D, E = gaussian(6, 11), gaussian(6, 11, seed=1)
    dense = float((D.double() * E.double()).sum() / D.double().norm() / E.double().norm())
    assert update_cosine(D, E) == pytest.approx(dense, rel=1e-5)
    assert update_cosine(D, -D) == pytest.approx(-1, abs=1e-6)
