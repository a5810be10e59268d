from decimal import ROUND_FLOOR, Decimal
from math import sqrt

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Generator

from safety_spaces.geometry import Bases, factor
from safety_spaces.geometry.bases import directions, haar_frame
from tests.geometry.dense import deviation, gaussian, low_rank

BASES = ("top_k", "file", "random_k", "random")
NAME = "model.layers.0.mlp.up_proj.weight"


def frame(M, k, seed=0):
    return haar_frame(M, k, Generator().manual_seed(seed))


def columns(basis, U, *, k=None, draw=0, seed=3, name=NAME):
    """All directions of a basis, in order."""
    bases = Bases(name, (len(U), 1), U, own=U, seed=seed)
    return bases.subspace(basis, k=U.shape[1] if k is None else k, draw=draw).directions()


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


@pytest.mark.parametrize(
    ("size", "limit", "coincide"),
    # A vector has one direction whatever the reference: its shape, not its rank, makes all fractions one.
    [(100, 8, True), (100, 50, True), (100, 51, False), (100, 99, False), (1, 1, False)],
)
def test_low_rank_makes_fractions_coincide(size, limit, coincide):
    bases = Bases(NAME, (size, 120), torch.zeros(size, limit))
    assert bases.has_coinciding((0.01, 0.25, 0.5, 0.75)) is coincide


def test_rounding_tells_fractions_of_a_low_rank_apart():
    bases = Bases(NAME, (6, 8), torch.zeros(6, 1))
    assert not bases.has_coinciding((0.1, 0.25))
    assert bases.has_coinciding((0.1, 0.25), rounding="round")


def test_fractions_are_of_the_rank_or_of_a_users_columns():
    U, own = factor(low_rank(13, 11, 6)).U, factor(gaussian(13, 8, seed=5)).U
    plain, users = Bases(NAME, (13, 11), U), Bases(NAME, (13, 11), U, own)
    assert plain.counts((0.01, 0.25, 0.5, 0.75)) == [1, 2, 5, 6]
    assert plain.counts((0.25,), rounding="round") == [3]
    assert users.counts((0.01, 0.25, 0.5, 1.0)) == [1, 2, 4, 8]
    assert [users.rank(basis) for basis in ("file", "top_k", "random")] == [8, 6, 6]


def test_a_users_basis_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected the columns of a user's own basis, got none"):
        Bases(NAME, (5, 4), gaussian(5, 3)).subspace("file", k=2)


def test_random_k_shares_the_frame_of_top_k():
    bases = Bases(NAME, (13, 11), factor(gaussian(13, 11)).U)
    assert bases.subspace("random_k", k=3, draw=2).frame is bases.subspace("top_k", k=3).frame is bases.U


@pytest.mark.parametrize("k", [0, 3])
def test_no_more_random_directions_are_drawn_than_asked_for(k):
    assert columns("random", gaussian(23, 9), k=k).shape == (23, k)


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
    counts = torch.stack([columns("random_k", torch.eye(r), seed=0, draw=draw) for draw in range(draws)]).sum(0)
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
    draws = 2500
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
