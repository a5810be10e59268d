from decimal import ROUND_FLOOR, Decimal
from math import sqrt

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Generator

from safety_spaces.geometry import (
    OrderedBasis,
    coinciding_fractions,
    directions,
    factor,
    haar_frame,
    ordered_basis,
    orient,
)
from tests.geometry.dense import deviation, gaussian, svd

BASES = ("top_k", "file", "random_k", "random")
NAME = "model.layers.0.mlp.up_proj.weight"
STREAM = {"seed": 3, "draw": 0, "name": NAME}


def frame(M, k, seed=0):
    return haar_frame(M, k, Generator().manual_seed(seed))


def columns(basis, U, **stream):
    """All directions of a basis, in order."""
    ordered = ordered_basis(basis, U, **{"k": U.shape[1], **STREAM} | stream)
    return ordered.columns(0, len(ordered))


@given(percent=st.integers(1, 100), size=st.integers(1, 5000), limit=st.integers(0, 5000))
def test_directions_are_exact_in_decimals(percent, size, limit):
    exact = int((Decimal(percent) / 100 * size).to_integral_value(ROUND_FLOOR))
    assert directions(percent / 100, size, limit) == min(limit, max(1, exact))


def test_directions_at_the_edges():
    assert directions(0.29, 100, 100) == 29
    assert int(0.29 * 100) == 28  # what a float product would say
    assert directions(0.01, 30, 30) == 1
    assert directions(1.0, 30, 12) == 12
    assert directions(0.5, 30, 0) == 0
    assert directions(0.25, 7, 7) == 1
    assert directions(0.25, 7, 7, rounding="round") == 2


def test_low_rank_makes_fractions_coincide():
    fractions = (0.01, 0.25, 0.5, 0.75)
    assert coinciding_fractions(fractions, 100, 8) == (0.25, 0.5, 0.75)
    assert coinciding_fractions(fractions, 100, 50) == (0.5, 0.75)
    assert coinciding_fractions(fractions, 100, 99) == ()
    # A vector has one direction whatever the reference: its shape, not its rank, makes all fractions one.
    assert coinciding_fractions(fractions, 1, 1) == ()
    assert coinciding_fractions((0.1, 0.25), 6, 1) == ()
    assert coinciding_fractions((0.1, 0.25), 6, 1, rounding="round") == (0.1, 0.25)


@given(order=st.permutations(range(7)) | st.none(), cuts=st.lists(st.integers(0, 7), max_size=4).map(sorted))
def test_an_ordered_basis_is_its_frame_rearranged(order, cuts):
    U, C = gaussian(9, 7), gaussian(7, 5)
    taken = slice(None) if order is None else torch.tensor(order)
    ordered = OrderedBasis(U, None if order is None else taken)
    assert len(ordered) == 7
    for start, stop in zip([0, *cuts], [*cuts, 7], strict=True):
        assert torch.equal(ordered.columns(start, stop), U[:, taken][:, start:stop])
        assert torch.equal(ordered.rows(C, start, stop), C[taken][start:stop])


@pytest.mark.parametrize("basis", BASES)
def test_bases_are_orthonormal_and_reproducible(basis):
    U = factor(gaussian(31, 12)).U
    first = columns(basis, U)
    assert first.shape == U.shape
    assert deviation(first) < 1e-5
    torch.manual_seed(17)
    torch.randn(5)
    assert torch.equal(first, columns(basis, U))


@pytest.mark.parametrize("basis", BASES)
def test_bases_leave_the_global_generator_alone(basis):
    before = torch.get_rng_state()
    columns(basis, factor(gaussian(31, 12)).U)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("basis", ["top_k", "file"])
def test_given_columns_stand_as_they_are(basis):
    U = factor(gaussian(31, 12)).U
    assert torch.equal(columns(basis, U), U)
    assert torch.equal(columns(basis, U, draw=4, k=2), U)


def test_random_k_takes_every_singular_vector_once():
    U = factor(gaussian(31, 12)).U
    hits = (U.T @ columns("random_k", U)).abs().round()
    assert torch.equal(hits.sum(0), torch.ones(12))
    assert torch.equal(hits.sum(1), torch.ones(12))
    assert not torch.equal(hits, torch.eye(12))


def test_random_k_takes_each_vector_as_often():
    """Each of r in each place, within five standard errors."""
    r, draws = 5, 2000
    frames = [ordered_basis("random_k", torch.eye(r), k=r, seed=0, draw=draw, name=NAME) for draw in range(draws)]
    counts = torch.stack([ordered.columns(0, r) for ordered in frames]).sum(0)
    torch.testing.assert_close(counts, torch.full((r, r), draws / r), rtol=0, atol=5 * sqrt(draws / r * (1 - 1 / r)))


@pytest.mark.parametrize("basis", ["random_k", "random"])
@pytest.mark.parametrize("change", [{"seed": 4}, {"draw": 1}, {"name": "lm_head.weight"}])
def test_another_seed_draw_or_name_is_another_basis(basis, change):
    U = factor(gaussian(31, 12)).U
    assert not torch.allclose(columns(basis, U), columns(basis, U, **change))


@pytest.mark.parametrize("basis", BASES)
def test_no_directions_of_a_tensor_without_rank(basis):
    assert columns(basis, torch.zeros(7, 0)).shape == (7, 0)


def test_random_depends_on_no_direction_of_the_reference():
    assert torch.equal(columns("random", factor(gaussian(31, 12)).U), columns("random", torch.zeros(31, 12)))


@settings(deadline=None, max_examples=60)
@given(M=st.integers(1, 60), share=st.floats(0, 1), seed=st.integers(0, 2**31))
@example(M=4, share=0.5, seed=4375)
@example(M=6, share=0.5, seed=9459)
def test_haar_frames_of_any_shape_are_orthonormal(M, share, seed):
    k = round(share * M)
    found = frame(M, k, seed)
    assert found.shape == (M, k)
    assert deviation(found) < 1e-5


@pytest.mark.parametrize(("M", "k"), [(37, 11), (91, 20), (37, 30)])
def test_haar_frames_lie_in_memory_direction_by_direction(M, k):
    assert frame(M, k).T.is_contiguous()


@pytest.mark.parametrize(
    ("M", "k", "fewer"),
    # Products of 15, 21, 407, 1911 ... are no multiples of the sixteen numbers that torch draws at once.
    [(5, 3, 1), (7, 3, 2), (37, 11, 10), (39, 30, 17), (91, 49, 21), (91, 45, 44), (64, 32, 31), (211, 1, 0)],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_frame_of_fewer_columns_is_a_prefix(M, k, fewer, seed):
    torch.testing.assert_close(frame(M, k, seed)[:, :fewer], frame(M, fewer, seed), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("M", "k"), [(9, 3), (7, 6), (70, 2)], ids=["small", "nearly square", "tall"])
def test_random_frames_are_haar(M, k):
    """Moments of a Haar frame Q, and of Q turned by a fixed rotation, within five standard errors.

    E[QQ'] = k/M I; of every entry E[q] = 0 (QR's own signs do not), E[q^2] = 1/M, E[q^4] = 3 / (M (M + 2)); of entries
    of a row E[q1^2 q2^2] = 1 / (M (M + 2)); of entries in no common row or column (M + 1) / ((M - 1) M (M + 2)).
    """
    draws = 6000
    frames = torch.stack([columns("random", torch.zeros(M, k), draw=draw) for draw in range(draws)]).double()
    rotation = torch.linalg.qr(gaussian(M, M, seed=5, dtype=torch.float64))[0]
    for Q in (frames, rotation @ frames):
        close((Q @ Q.transpose(1, 2)), k / M * torch.eye(M, dtype=torch.float64))
        close(Q, 0)
        close(Q**2, 1 / M)
        close(Q**4, 3 / (M * (M + 2)))
        close(Q[:, :, 0] ** 2 * Q[:, :, 1] ** 2, 1 / (M * (M + 2)))
        close(Q[:, :-1, 0] ** 2 * Q[:, 1:, 1] ** 2, (M + 1) / ((M - 1) * M * (M + 2)))


def close(samples, expected):
    """Means over draws, five standard errors from what is expected at most."""
    error = (samples.mean(0) - expected).abs() / (samples.std(0) / sqrt(len(samples)) + 1e-9)
    assert float(error.max()) < 5


@pytest.mark.parametrize("device", [None, torch.device("cpu")])
def test_frames_are_made_on_the_device_from_numbers_of_the_cpu(device):
    assert torch.equal(haar_frame(21, 4, Generator().manual_seed(0), device=device), frame(21, 4))


def test_right_projection_is_by_right_singular_vectors():
    D, task, k = gaussian(14, 9), gaussian(14, 9, seed=1), 3
    U = factor(orient(D, "right")).U[:, :k]
    projected = orient(U @ (U.T @ orient(task, "right")), "right")
    V = svd(D.T)[0][:, :k]
    torch.testing.assert_close(projected.double(), task.double() @ V @ V.T, rtol=0, atol=1e-5)
    assert orient(D, "left") is D
