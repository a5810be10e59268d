from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import (
    Factors,
    Moments,
    factor,
    modes,
    moment_factors,
    mso_curve,
    ordered_basis,
    second_moment,
)

ETAS = (0.01, *(tenths / 10 for tenths in range(1, 10)), 0.99)


def gaussian(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def subspace(U):
    return Factors(U, torch.ones(U.shape[1], dtype=torch.float64))


def overlap(U, W):
    (result,) = mso_curve(subspace(U), subspace(W), [1.0])
    return result


def dense_mso(V, W, eta):
    """Equations 8 to 11 word for word, in float64."""
    spans = []
    for X in (V.double(), W.double()):
        left, sigma, _ = torch.linalg.svd(X, full_matrices=False)
        k = next(k for k in range(1, len(sigma) + 1) if sigma[:k].square().sum() >= eta * X.square().sum())
        spans.append(left[:, :k])
    Q_V, Q_W = spans
    k_V, k_W = Q_V.shape[1], Q_W.shape[1]
    return k_V, k_W, float((Q_V.T @ Q_W).square().sum()) / min(k_V, k_W), max(k_V, k_W) / len(V)


@pytest.mark.parametrize(("n_V", "n_W"), [(9, 31), (40, 7), (33, 35)])
def test_mso_equals_the_paper_word_for_word(n_V, n_W):
    V = gaussian(17, n_V)
    W = gaussian(17, n_W, seed=1) + 2 * V[:, :1]
    for result, eta in zip(mso_curve(factor(V), factor(W), ETAS), ETAS, strict=True):
        k_V, k_W, mso, chance = dense_mso(V, W, eta)
        assert (result.eta, result.k_first, result.k_second, result.dimension) == (eta, k_V, k_W, 17)
        assert result.mso == pytest.approx(mso, rel=1e-4)
        assert result.chance == chance


@settings(deadline=None, max_examples=30)
@given(d=st.integers(2, 25), n=st.integers(1, 30), m=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_mso_is_bounded_and_symmetric(d, n, m, seed):
    first, second = factor(gaussian(d, n, seed=seed)), factor(gaussian(d, m, seed=seed + 1))
    forth, back = mso_curve(first, second, ETAS), mso_curve(second, first, ETAS)
    for one, other in zip(forth, back, strict=True):
        assert -1e-6 <= one.mso <= 1 + 1e-5
        assert one.mso == pytest.approx(other.mso, rel=1e-4, abs=1e-7)
        assert one.chance == other.chance
    assert all(low.k_first <= high.k_first for low, high in pairwise(forth))


def test_mso_is_one_on_itself_and_nested_and_zero_on_orthogonal_spans():
    Q = factor(gaussian(19, 12)).U
    assert overlap(Q[:, :5], Q[:, :5]).mso == pytest.approx(1, rel=1e-5)
    assert overlap(Q[:, :3], Q[:, :8]).mso == pytest.approx(1, rel=1e-5)
    assert overlap(Q[:, :4], Q[:, 4:11]).mso == pytest.approx(0, abs=1e-6)


def test_mso_knows_spans_not_bases():
    Q, W = factor(gaussian(19, 5)).U, factor(gaussian(19, 7, seed=1)).U
    rotated = Q @ torch.linalg.qr(gaussian(5, 5, seed=2))[0]
    assert overlap(rotated, W).mso == pytest.approx(overlap(Q, W).mso, rel=1e-4)


def test_random_spans_overlap_by_chance():
    """Equation 11, within four standard errors."""
    d, k_V, k_W, draws = 30, 4, 11, 1500
    found = torch.tensor(
        [
            overlap(
                ordered_basis("random", torch.zeros(d, k_V), seed=0, draw=draw, name="V"),
                ordered_basis("random", torch.zeros(d, k_W), seed=0, draw=draw, name="W"),
            ).mso
            for draw in range(draws)
        ]
    )
    assert float(found.mean()) == pytest.approx(k_W / d, abs=4 * float(found.std()) / draws**0.5)


def test_zero_update_has_no_modes_and_no_overlap():
    nothing, something = factor(torch.zeros(9, 4)), factor(gaussian(9, 6))
    for pair in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert all((result.mso, result.chance) == (0, 0) for result in mso_curve(*pair, ETAS))
    assert mso_curve(nothing, something, [0.5])[0].k_first == 0


@given(percent=st.integers(1, 100))
def test_modes_of_equal_energy_are_counted_exactly(percent):
    assert modes(torch.ones(100), percent / 100, 100) == percent


def test_modes_stop_at_the_rank():
    assert modes(torch.tensor([4.0, 3.0, 2.0, 1.0]), 0.7, 4) == 2
    assert modes(torch.tensor([4.0, 3.0, 2.0, 1.0]), 1.0, 3) == 3
    assert modes(torch.tensor([4.0, 3.0]), 0.01, 2) == 1
    assert modes(torch.zeros(3), 0.5, 0) == 0


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
    for result, eta in zip(fast, ETAS, strict=True):
        k_V, k_W, mso, chance = dense_mso(first.T, second.T, eta)
        assert (result.k_first, result.k_second, result.chance) == (k_V, k_W, chance)
        assert result.mso == pytest.approx(mso, rel=1e-6)
