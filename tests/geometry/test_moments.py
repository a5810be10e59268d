from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.geometry import Moments, moment_factors, mso_curve, state_moments
from safety_spaces.geometry.moments import second_moment
from tests.geometry import dense
from tests.geometry.dense import gaussian

ETAS = (0.01, *(tenths / 10 for tenths in range(1, 10)), 0.99)


def states():
    return gaussian(47, 11) * torch.linspace(3, 0.1, 11) + 5 * gaussian(11, seed=1)


def test_moments_equal_the_dense_ones():
    X = states().double()
    moments = Moments.empty(11).update(states())
    assert moments.n == 47
    torch.testing.assert_close(moments.mean, X.mean(0))
    torch.testing.assert_close(moments.scatter, (X - X.mean(0)).T @ (X - X.mean(0)))
    torch.testing.assert_close(second_moment(moments, centred=False), X.T @ X)
    torch.testing.assert_close(second_moment(moments, centred=True), X.T.cov() * 46)


@given(cuts=st.lists(st.integers(0, 47), max_size=6).map(sorted))
def test_shards_and_batches_equal_one_pass(cuts):
    whole, batched, merged = Moments.empty(11).update(states()), Moments.empty(11), Moments.empty(11)
    for start, stop in pairwise([0, *cuts, 47]):
        batched = batched.update(states()[start:stop])
        merged = merged.merge(Moments.empty(11).update(states()[start:stop]))
    for found in (batched, merged):
        assert found.n == whole.n
        torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found.scatter, whole.scatter, rtol=1e-12, atol=1e-10)


def test_merging_is_stable_far_from_the_origin():
    """Where a sum of squares less n mean squared would lose every digit."""
    X = states().double()
    far = Moments.empty(11).update(X[:20] + 1e6).update(X[20:] + 1e6)
    torch.testing.assert_close(far.scatter, Moments.empty(11).update(X).scatter, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [5, 11, 47])
@pytest.mark.parametrize("centred", [False, True])
def test_moment_factors_equal_the_thin_svd_of_the_states(n, centred):
    X = states()[:n].double()
    factors = moment_factors(Moments.empty(11).update(X), centred=centred)
    matrix = (X - X.mean(0) if centred else X).T
    left, sigma, _ = torch.linalg.svd(matrix, full_matrices=False)
    rank = min(11, n - centred)
    assert factors.rank == rank
    torch.testing.assert_close(factors.sigma, sigma[:rank], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(factors.U @ factors.U.T, left[:, :rank] @ left[:, :rank].T, rtol=0, atol=1e-8)


def test_activation_mso_equals_the_mso_of_the_state_matrices():
    first, second = states(), gaussian(29, 11, seed=5) + 1
    fast = mso_curve(*(moment_factors(Moments.empty(11).update(X), centred=False) for X in (first, second)), ETAS)
    for eta, result in fast.items():
        k_V, k_W, mso, chance = dense.overlap(first.T, second.T, eta)
        assert (result.k_first, result.k_second, result.mso_chance) == (k_V, k_W, chance)
        assert result.mso == pytest.approx(mso, rel=1e-6)


@pytest.mark.parametrize(("spread", "rank"), [(1e-7, 0), (1e-3, 7)])
def test_centred_states_that_differ_by_rounding_alone_have_no_directions(spread, rank):
    X = (gaussian(11, seed=1) + spread * gaussian(8, 11, seed=2)).double()
    moments = Moments.empty(11).update(X)
    assert moment_factors(moments, centred=True).rank == rank
    assert moment_factors(moments, centred=False).rank == rank + 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("at_once", [1, 20, 47, 1024])
@pytest.mark.parametrize("index", [0, 2])
def test_moments_of_a_layer_are_read_in_shards(tmp_path, monkeypatch, at_once, index):
    monkeypatch.setattr("safety_spaces.geometry.moments.STATES_AT_ONCE", at_once)
    path = tmp_path / "useful.npy"
    np.save(path, torch.stack([states() + layer for layer in range(3)], dim=1).numpy())
    found, whole = state_moments(path, index), Moments.empty(11).update(states() + index)
    assert found.n == 47
    assert found.mean.dtype == found.scatter.dtype == torch.float64
    torch.testing.assert_close(found.mean, whole.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.scatter, whole.scatter, rtol=1e-12, atol=1e-10)


def test_no_states_have_no_directions(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 3, 11), dtype=np.float32))
    nothing = state_moments(tmp_path / "x.npy", 1)
    assert nothing.n == nothing.merge(nothing).n == 0
    assert moment_factors(nothing, centred=True).rank == 0
