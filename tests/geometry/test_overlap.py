from dataclasses import astuple
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import (
    Factors,
    factor,
    modes,
    mso_curve,
    ordered_basis,
    update_cosine,
    update_overlaps,
)
from tests.geometry import dense
from tests.geometry.dense import gaussian

ETAS = (0.01, *(tenths / 10 for tenths in range(1, 10)), 0.99)


def subspace(U):
    return Factors(U, torch.ones(U.shape[1], dtype=torch.float64))


def overlap(U, W):
    (result,) = mso_curve(subspace(U), subspace(W), [1.0])
    return result


@pytest.mark.parametrize(("n_V", "n_W"), [(9, 31), (40, 7), (33, 35)])
def test_mso_equals_the_paper_word_for_word(n_V, n_W):
    V = gaussian(17, n_V)
    W = gaussian(17, n_W, seed=1) + 2 * V[:, :1]
    for result, eta in zip(mso_curve(factor(V), factor(W), ETAS), ETAS, strict=True):
        k_V, k_W, mso, chance = dense.overlap(V, W, eta)
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


@pytest.mark.parametrize("shape", [(19, 43), (43, 19), (29, 29)])
def test_an_update_overlaps_with_itself_at_every_eta(shape):
    for result in mso_curve(factor(gaussian(*shape)), factor(gaussian(*shape)), ETAS):
        assert result.mso == pytest.approx(1, rel=1e-5)


def test_every_eta_of_a_curve_is_the_one_asked_for_alone():
    first, second = factor(gaussian(19, 12)), factor(gaussian(19, 7, seed=1))
    etas = (0.9, 0.1, 0.5, 0.5)
    for found, eta in zip(mso_curve(first, second, etas), etas, strict=True):
        (alone,) = mso_curve(first, second, [eta])
        assert (found.eta, found.k_first, found.k_second, found.chance) == (eta, *astuple(alone)[1:3], alone.chance)
        assert found.mso == pytest.approx(alone.mso, rel=1e-6)


def test_mso_knows_spans_not_bases():
    Q, W = factor(gaussian(19, 5)).U, factor(gaussian(19, 7, seed=1)).U
    rotated = Q @ torch.linalg.qr(gaussian(5, 5, seed=2))[0]
    assert overlap(rotated, W).mso == pytest.approx(overlap(Q, W).mso, rel=1e-4)


@pytest.mark.parametrize(("d", "k_V", "k_W"), [(30, 4, 11), (13, 9, 2), (70, 8, 8)])
@pytest.mark.parametrize("seed", [0, 5])
def test_random_spans_overlap_by_chance(d, k_V, k_W, seed):
    """Equation 11, within four standard errors."""

    def random(k, draw, name):
        return ordered_basis("random", torch.zeros(d, 0), k=k, seed=seed, draw=draw, name=name).columns(0, k)

    draws = 1500
    found = torch.tensor([overlap(random(k_V, draw, "V"), random(k_W, draw, "W")).mso for draw in range(draws)])
    assert float(found.mean()) == pytest.approx(max(k_V, k_W) / d, abs=4 * float(found.std()) / draws**0.5)


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


def test_overlaps_of_pairs_are_the_cosine_and_the_curve_of_each():
    D = {role: gaussian(17, 23, seed=seed) for seed, role in enumerate(("useful", "harmful", "reference"))}
    D["harmful"] += D["useful"]
    pairs = (("useful", "harmful"), ("harmful", "reference"))
    found = list(update_overlaps(D, pairs, ETAS))
    assert [(first, second) for first, second, *_ in found] == list(pairs)
    for first, second, cosine, curve in found:
        assert cosine == update_cosine(D[first], D[second])
        assert curve == mso_curve(factor(D[first]), factor(D[second]), ETAS)


def test_overlaps_are_factored_in_the_precision_asked_for(monkeypatch):
    asked = []

    def recorded(D, *, precision):
        asked.append(precision)
        return factor(D)

    monkeypatch.setattr("safety_spaces.geometry.overlap.factor", recorded)
    D = {role: gaussian(7, 9, seed=seed) for seed, role in enumerate(("useful", "harmful", "reference"))}
    pairs = (("useful", "harmful"), ("useful", "reference"), ("harmful", "reference"))
    list(update_overlaps(D, pairs, ETAS, precision="float32"))
    # Once for each update, though each is in two pairs.
    assert asked == ["float32"] * 3


def test_update_cosine_is_signed():
    D, E = gaussian(6, 11), gaussian(6, 11, seed=1)
    expected = float((D.double() * E.double()).sum() / D.double().norm() / E.double().norm())
    assert update_cosine(D, E) == pytest.approx(expected, rel=1e-5)
    assert update_cosine(D, -D) == pytest.approx(-1, abs=1e-6)
    assert update_cosine(D, torch.zeros(6, 11)) == 0


@pytest.mark.parametrize("first", [torch.float32, torch.float64])
@pytest.mark.parametrize("second", [torch.float32, torch.float64])
def test_updates_of_two_precisions_are_compared(first, second):
    """A task may be stored in float64 and another not."""
    V, W = gaussian(17, 9), gaussian(17, 11, seed=1)[:, :9]
    ((_, _, cosine, (found,)),) = update_overlaps({"a": V.to(first), "b": W.to(second)}, [("a", "b")], [0.5])
    *_, mso, _ = dense.overlap(V, W, 0.5)
    assert found.mso == pytest.approx(mso, rel=1e-4)
    assert cosine == pytest.approx(float((V.double() * W.double()).sum() / V.double().norm() / W.double().norm()))
