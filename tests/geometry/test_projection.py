from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import (
    coefficients,
    cosine,
    energy_curve,
    factor,
    inner,
    kept,
    ordered_basis,
    parallel_parts,
    squared_norm,
    update_cosine,
)
from tests.geometry.dense import deviation, energy, gaussian, low_rank, projector

BASES = ("top_k", "file", "random_k", "random")
STREAM = {"seed": 1, "draw": 0, "name": "model.layers.2.mlp.up_proj.weight"}
SHAPES = {"tall": (23, 9, 9), "wide": (8, 21, 8), "square": (12, 12, 12), "low rank": (19, 11, 4), "vector": (10, 1, 1)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def reference_and_task(request):
    M, N, r = request.param
    return factor(low_rank(M, N, r)).U, gaussian(M, N, seed=2)


def ordered(basis, U):
    return ordered_basis(basis, U, k=U.shape[1], **STREAM)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("given_C", [False, True])
def test_parallel_and_orthogonal_parts_equal_the_dense_projector(reference_and_task, basis, given_C):
    U, D = reference_and_task
    found, task = ordered(basis, U), D.double()
    C = coefficients(found.frame, D) if given_C else None
    ks = sorted({0, 1, 1 + U.shape[1] // 2, U.shape[1]})
    for k, parallel in zip(ks, parallel_parts(D, found, ks, C=C), strict=True):
        P = projector(found.columns(0, U.shape[1]), k)
        torch.testing.assert_close(parallel.double(), P @ task, rtol=0, atol=1e-5)
        orthogonal = kept(D, parallel, "orthogonal")
        torch.testing.assert_close(orthogonal.double(), (torch.eye(len(P)) - P) @ task, rtol=0, atol=1e-5)
        torch.testing.assert_close(kept(D, parallel, "parallel") + orthogonal, D, rtol=0, atol=1e-6)
        assert squared_norm(parallel) + squared_norm(orthogonal) == pytest.approx(squared_norm(D), rel=1e-5)
        assert inner(parallel, orthogonal) == pytest.approx(0, abs=1e-5 * squared_norm(D))


@pytest.mark.parametrize("vectors", ["project", "keep", "drop"])
def test_parallel_parts_are_added_onto_a_tensor(reference_and_task, vectors):
    U, D = reference_and_task
    ks, W = [0, *range(U.shape[1] + 1)], gaussian(*D.shape, seed=7)
    alone = [part.clone() for part in parallel_parts(D, ordered("top_k", U), ks, vectors=vectors)]
    onto = W.clone()
    for part, total in zip(alone, parallel_parts(D, ordered("top_k", U), ks, onto=onto, vectors=vectors), strict=True):
        assert total.data_ptr() == onto.data_ptr()
        torch.testing.assert_close(total, W + part, rtol=0, atol=2e-6)


def test_the_same_ks_give_the_same_bytes_as_a_prefix_of_them():
    U, D = factor(gaussian(9, 7)).U, gaussian(9, 7, seed=1)
    longer = [part.clone() for part in parallel_parts(D, ordered("random_k", U), [2, 2, 5, 6])]
    for count in (1, 2, 3):
        *_, last = parallel_parts(D, ordered("random_k", U), [2, 2, 5, 6][:count])
        assert torch.equal(last, longer[count - 1])


def test_descending_ks_are_refused():
    with pytest.raises(ValueError, match="expected ascending numbers of directions"):
        list(parallel_parts(gaussian(5, 3), ordered("top_k", gaussian(5, 3)), [2, 1]))


@pytest.mark.parametrize("basis", BASES)
def test_energy_curve_equals_the_dense_energies(reference_and_task, basis):
    U, D = reference_and_task
    found = ordered(basis, U)
    frame = found.columns(0, U.shape[1])
    curve = energy_curve(coefficients(frame, D))
    assert curve.dtype == torch.float64
    assert curve.tolist() == pytest.approx([energy(frame, k, D) for k in range(U.shape[1] + 1)], rel=1e-5)
    assert curve[0] == 0
    assert (curve.diff() >= 0).all()
    assert curve[-1] <= squared_norm(D) * (1 + 1e-5)


@settings(deadline=None, max_examples=40)
@given(
    M=st.integers(1, 40),
    N=st.integers(1, 40),
    share=st.floats(0, 1),
    basis=st.sampled_from(BASES),
    seed=st.integers(0, 2**31),
)
def test_projectors_of_any_basis_are_projectors(M, N, share, basis, seed):
    U = factor(gaussian(M, N, seed=seed)).U
    k = round(share * U.shape[1])
    P = projector(ordered_basis(basis, U, k=k, seed=seed, draw=1, name="x").columns(0, k), k)
    assert deviation(U) < 1e-5
    torch.testing.assert_close(P, P.T)
    # Small square frames are made of badly conditioned Gaussian matrices, but orthonormal all the same.
    torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-4)
    assert float(P.trace()) == pytest.approx(k, abs=1e-3)


def test_root_of_energy_kept_is_the_cosine_with_the_parallel_part(reference_and_task):
    U, D = reference_and_task
    for k, parallel in enumerate(parallel_parts(D, ordered("top_k", U), range(1, U.shape[1] + 1)), start=1):
        energy_kept = float(energy_curve(coefficients(U, D))[k]) / squared_norm(D)
        assert update_cosine(D, parallel) == pytest.approx(sqrt(energy_kept), rel=1e-5)


@pytest.mark.parametrize(("vectors", "share"), [("keep", 1), ("drop", 0)])
def test_vectors_are_kept_or_dropped_by_policy_under_both_schemes(vectors, share):
    U, D = factor(gaussian(8, 1)).U, gaussian(8, 1, seed=1)
    for part in parallel_parts(D, ordered("random", U), [1, 1], vectors=vectors):
        assert torch.equal(part, share * D)
        assert torch.equal(kept(D, part, "orthogonal", vectors=vectors), share * D)
    matrix, U = gaussian(8, 3, seed=1), factor(gaussian(8, 3)).U
    by_policy, plainly = (parallel_parts(matrix, ordered("top_k", U), [1, 2], vectors=v) for v in (vectors, "project"))
    for part, plain in zip(by_policy, plainly, strict=True):
        assert torch.equal(part, plain)
        assert torch.equal(kept(matrix, part, "orthogonal", vectors=vectors), matrix - part)


@pytest.mark.parametrize("shape", [(3, 70001), (70001, 3), (1, 1)])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_norms_and_inner_products_equal_the_dense_ones(shape, scale):
    D, E = scale * (gaussian(*shape) + 1), scale * gaussian(*shape, seed=1)
    for one, other in ((D, E), (D.T, E.T)):
        assert squared_norm(one) == pytest.approx(float(D.double().square().sum()), rel=1e-5)
        dense = float((D.double() * E.double()).sum())
        assert inner(one, other) == pytest.approx(dense, rel=1e-5, abs=1e-6 * scale**2 * D.numel())


def test_cosine_is_signed_and_guarded():
    assert cosine(-6.0, 4.0, 9.0) == -1
    assert cosine(0.0, 0.0, 9.0) == 0
    assert cosine(1e-200, 1e-200, 1e-200) == pytest.approx(1)
