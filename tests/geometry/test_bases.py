from decimal import ROUND_FLOOR, Decimal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import (
    BASES,
    coinciding_fractions,
    directions,
    factor,
    ordered_basis,
    orient,
    project_from,
)
from safety_spaces.geometry.bases import RELATIVE_RANK_TOLERANCE, orthonormal

STREAM = {"seed": 3, "draw": 0, "name": "model.layers.0.mlp.up_proj.weight"}


def gaussian(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def low_rank(M, N, r, seed=0):
    return gaussian(M, r, seed=seed) @ gaussian(r, N, seed=seed + 1)


def orthonormality_error(U):
    return float((U.T @ U - torch.eye(U.shape[1])).abs().max()) if U.shape[1] else 0.0


MATRICES = {
    "tall": gaussian(37, 11),
    "very tall": gaussian(501, 3),
    "wide": gaussian(13, 41),
    "square": gaussian(17, 17),
    "tall of low rank": low_rank(37, 11, 4),
    "wide of low rank": low_rank(13, 41, 5),
    "vector": gaussian(19, 1),
    "transposed view": gaussian(23, 7).T,
}


@pytest.mark.parametrize("D", MATRICES.values(), ids=MATRICES)
def test_factor_equals_the_dense_svd(D):
    factors = factor(D)
    left, sigma, _ = torch.linalg.svd(D.double(), full_matrices=False)
    rank = int((sigma > RELATIVE_RANK_TOLERANCE * sigma[0]).sum())
    assert factors.rank == rank == torch.linalg.matrix_rank(D.double(), rtol=1e-6)
    torch.testing.assert_close(factors.sigma, sigma[:rank], rtol=1e-5, atol=1e-6)
    assert orthonormality_error(factors.U) < 1e-5
    for k in range(1, rank + 1):
        projector, dense = factors.U[:, :k] @ factors.U[:, :k].T, left[:, :k] @ left[:, :k].T
        torch.testing.assert_close(projector.double(), dense, rtol=0, atol=1e-4)


@pytest.mark.parametrize("D", MATRICES.values(), ids=MATRICES)
def test_projector_is_symmetric_idempotent_and_of_rank_k(D):
    U = factor(D).U.double()
    for k in range(1, U.shape[1] + 1):
        P = U[:, :k] @ U[:, :k].T
        torch.testing.assert_close(P, P.T)
        torch.testing.assert_close(P @ P, P, rtol=0, atol=1e-5)
        assert float(P.trace()) == pytest.approx(k, abs=1e-4)
    torch.testing.assert_close((P @ D.double()).float(), D, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 5), (5, 7), (6, 1)])
def test_zero_matrix_has_no_directions(shape):
    factors = factor(torch.zeros(shape))
    assert factors.rank == 0
    assert factors.U.shape == (shape[0], 0)
    for basis in BASES:
        assert ordered_basis(basis, factors.U, **STREAM).shape == (shape[0], 0)


@pytest.mark.parametrize("shape", [(150, 60), (60, 150), (97, 96)])
def test_float32_noise_of_the_svd_is_not_counted_as_rank(shape):
    assert factor(low_rank(*shape, 8) * 1e-4).rank == 8


@pytest.mark.parametrize("noise", [1e-7, 1e-2])
@pytest.mark.parametrize("shape", [(300, 80), (80, 300)])
def test_realistic_spectra_stay_orthonormal(shape, noise):
    """1e-7: a merged LoRA, where a squared-condition factorisation loses orthogonality; 1e-2: a trained update."""
    D = low_rank(*shape, 8) + noise * gaussian(*shape, seed=9)
    assert orthonormality_error(factor(D).U) < 1e-5


def test_lost_orthogonality_is_mended_in_order():
    U = factor(gaussian(29, 6)).U
    skewed = U.clone()
    skewed[:, 4] += 0.01 * U[:, 1]
    mended = orthonormal(skewed)
    torch.testing.assert_close(mended, U, rtol=0, atol=1e-5)
    assert orthonormal(U) is U


@given(
    percent=st.integers(1, 100),
    M=st.integers(1, 5000),
    N=st.integers(1, 5000),
    rank=st.integers(0, 5000),
)
def test_directions_are_exact_in_decimals(percent, M, N, rank):
    exact = int((Decimal(percent) / 100 * min(M, N)).to_integral_value(ROUND_FLOOR))
    assert directions(percent / 100, (M, N), rank) == min(rank, max(1, exact))


def test_directions_at_the_edges():
    assert directions(0.29, (100, 300), 100) == 29
    assert int(0.29 * 100) == 28  # what a float product would say
    assert directions(0.01, (30, 50), 30) == 1
    assert directions(1.0, (30, 50), 12) == 12
    assert directions(0.5, (30, 50), 0) == 0
    assert directions(0.25, (7, 9), 7) == 1
    assert directions(0.25, (7, 9), 7, rounding="round") == 2


def test_low_rank_makes_fractions_coincide():
    fractions = (0.01, 0.25, 0.5, 0.75)
    assert coinciding_fractions(fractions, (100, 200), 8) == (0.25, 0.5, 0.75)
    assert coinciding_fractions(fractions, (100, 200), 50) == (0.5, 0.75)
    assert coinciding_fractions(fractions, (100, 200), 99) == ()
    # A vector has one direction whatever the reference: its shape, not its rank, makes all fractions one.
    assert coinciding_fractions(fractions, (100, 1), 1) == ()


@pytest.mark.parametrize("basis", BASES)
def test_bases_are_orthonormal_and_reproducible(basis):
    U = factor(gaussian(31, 12)).U
    first = ordered_basis(basis, U, **STREAM)
    assert first.shape == U.shape
    assert orthonormality_error(first) < 1e-5
    assert torch.equal(first, ordered_basis(basis, U, **STREAM))


def test_top_k_is_the_reference():
    U = factor(gaussian(31, 12)).U
    assert torch.equal(ordered_basis("top_k", U, **STREAM), U)


def test_random_k_takes_every_singular_vector_once():
    U = factor(gaussian(31, 12)).U
    hits = (U.T @ ordered_basis("random_k", U, **STREAM)).abs().round()
    assert torch.equal(hits.sum(0), torch.ones(12))
    assert torch.equal(hits.sum(1), torch.ones(12))
    assert not torch.equal(hits, torch.eye(12))


@pytest.mark.parametrize("basis", ["random_k", "random"])
@pytest.mark.parametrize("change", [{"seed": 4}, {"draw": 1}, {"name": "lm_head.weight"}])
def test_another_seed_draw_or_name_is_another_basis(basis, change):
    U = factor(gaussian(31, 12)).U
    assert not torch.allclose(ordered_basis(basis, U, **STREAM), ordered_basis(basis, U, **STREAM | change))


@settings(deadline=None, max_examples=25)
@given(M=st.integers(1, 40), r=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_random_frames_of_any_shape_are_orthonormal(M, r, seed):
    frame = ordered_basis("random", torch.zeros(M, min(M, r)), seed=seed, draw=2, name="x")
    assert orthonormality_error(frame) < 1e-5


def test_random_frames_are_haar():
    """E[U U'] = k/M I; every entry has mean 0 (QR's own signs do not) and fourth moment 3 / (M (M + 2))."""
    M, k, draws = 9, 4, 3000
    frames = torch.stack(
        [ordered_basis("random", torch.zeros(M, k), seed=0, draw=draw, name="x") for draw in range(draws)]
    )
    projectors = frames @ frames.transpose(1, 2)
    torch.testing.assert_close(projectors.mean(0), k / M * torch.eye(M), rtol=0, atol=0.02)
    torch.testing.assert_close(frames.mean(0), torch.zeros(M, k), rtol=0, atol=5 * (1 / M / draws) ** 0.5)
    torch.testing.assert_close(frames.pow(4).mean(0), torch.full((M, k), 3 / (M * (M + 2))), rtol=0.2, atol=0)


def test_sides():
    assert project_from("left", "q_proj") == "left"
    assert project_from("right", "o_proj") == "right"
    assert {kind for kind in ("o_proj", "down_proj") if project_from("residual", kind) == "left"} == {
        "o_proj",
        "down_proj",
    }
    for kind in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head"):
        assert project_from("residual", kind) == "right"
    for side in ("left", "right", "residual"):
        assert project_from(side, "norm") == project_from(side, "bias") == "left"


def test_right_projection_is_by_right_singular_vectors():
    D, task, k = gaussian(14, 9), gaussian(14, 9, seed=1), 3
    U = factor(orient(D, "right")).U[:, :k]
    projected = orient(U @ (U.T @ orient(task, "right")), "right")
    V = torch.linalg.svd(D.double())[2][:k].T
    torch.testing.assert_close(projected.double(), task.double() @ V @ V.T, rtol=0, atol=1e-5)
    assert orient(D, "left") is D
