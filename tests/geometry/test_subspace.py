from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import Bases, Subspace, factor, update_cosine
from safety_spaces.geometry.subspace import cosine, inner, row_energies, squared_norm
from tests.geometry.dense import deviation, energy, gaussian, low_rank, projector

BASES = ("top_k", "file", "random_k", "random")
SHAPES = {"tall": (23, 9, 9), "wide": (8, 21, 8), "square": (12, 12, 12), "low rank": (19, 11, 4), "vector": (10, 1, 1)}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def reference_and_task(request):
    M, N, r = request.param
    return factor(low_rank(M, N, r)).U, gaussian(M, N, seed=2)


def subspace(basis, U, k=None, **stream):
    """The first k directions of a basis, or as many as U has; a user's own are its last columns."""
    bases = Bases("model.layers.2.mlp.up_proj.weight", (len(U), 1), U, U.flip(1), seed=stream.get("seed", 1))
    k = U.shape[1] if k is None else k
    return bases.subspace(basis, k=k, draw=stream.get("draw", 0)).first(k)


@given(
    order=st.permutations(range(7)) | st.none(),
    k=st.integers(0, 7),
    cuts=st.lists(st.integers(0, 7), min_size=2, max_size=2),
)
def test_a_subspace_is_its_frame_rearranged(order, k, cuts):
    U, start, stop = gaussian(9, 7), *sorted(cuts)
    taken = slice(None) if order is None else torch.tensor(order)
    found = Subspace(U, None if order is None else taken)
    assert len(found) == 7
    assert len(found.first(k)) == k
    assert torch.equal(found.directions(start, stop), U[:, taken][:, start:stop])
    assert torch.equal(found.first(k).directions(), U[:, taken][:, :k])


@pytest.mark.parametrize("basis", BASES)
def test_the_parts_inside_and_outside_equal_the_dense_projector(reference_and_task, basis):
    U, D = reference_and_task
    for k in {0, 1, 1 + U.shape[1] // 2, U.shape[1]}:
        found = subspace(basis, U, k)
        P = projector(found.directions(), k)
        inside = found.project(D)
        outside = D - inside
        torch.testing.assert_close(inside.double(), P @ D.double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(outside.double(), (torch.eye(len(P)) - P) @ D.double(), rtol=0, atol=1e-5)
        torch.testing.assert_close(found.project(inside), inside, rtol=0, atol=1e-5)
        assert found.energy(D) == pytest.approx(energy(found.directions(), k, D), rel=1e-5)
        assert found.energy(D) + squared_norm(outside) == pytest.approx(squared_norm(D), rel=1e-5)
        assert inner(inside, outside) == pytest.approx(0, abs=1e-5 * squared_norm(D))
        assert update_cosine(D, inside) == pytest.approx(sqrt(found.energy(D) / squared_norm(D)), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_part_grows_with_its_directions(reference_and_task, basis, dtype):
    U, D = reference_and_task
    found, total, done = subspace(basis, U), torch.zeros_like(D, dtype=dtype), 0
    for k in sorted({0, 1, U.shape[1] // 2, U.shape[1]}):
        grown = found.add_part(total, D.to(dtype), done, k)
        assert grown is total
        torch.testing.assert_close(total, found.first(k).project(D.to(dtype)), rtol=0, atol=1e-5)
        done = k


@pytest.mark.parametrize("basis", BASES)
def test_running_energies_equal_the_dense_ones(reference_and_task, basis):
    U, D = reference_and_task
    found = subspace(basis, U)
    curve = found.running_energies(row_energies(found.frame.T @ D))
    assert curve == pytest.approx([energy(found.directions(), k, D) for k in range(U.shape[1] + 1)], rel=1e-5)
    assert curve == sorted(curve)
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
    P = projector(subspace(basis, U, k, seed=seed, draw=1).directions(), k)
    assert deviation(U) < 1e-5
    torch.testing.assert_close(P, P.T)
    # Small square frames are made of badly conditioned Gaussian matrices, but orthonormal all the same.
    torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-4)
    assert float(P.trace()) == pytest.approx(k, abs=1e-3)


@pytest.mark.parametrize("basis", ["random", "random_k"])
@pytest.mark.parametrize("seed", [0, 7])
def test_expected_energies_hold_in_the_mean(basis, seed):
    """Within four standard errors, of a task that lies in the span of the reference more than by chance."""
    k, draws, U = 2, 2000, factor(low_rank(20, 15, 6)).U
    D = gaussian(20, 15, seed=2) + 3 * U[:, :1] @ gaussian(1, 15, seed=3)
    spaces = [subspace(basis, U, k, seed=seed, draw=draw) for draw in range(draws)]
    found = torch.tensor([one.energy(D) for one in spaces])
    expected = spaces[0].expected_energy(D, within=Subspace(U) if basis == "random_k" else None)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * float(found.std()) / sqrt(draws))


def test_nothing_is_expected_of_no_directions():
    D, nothing = gaussian(5, 4), Subspace(torch.zeros(5, 0))
    assert nothing.energy(D) == nothing.expected_energy(D) == nothing.expected_energy(D, within=nothing) == 0


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
