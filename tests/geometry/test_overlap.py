from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_spaces.geometry import Bases, Subspace, factor, mso_curve, update_cosine, update_overlaps
from tests.geometry import dense
from tests.geometry.dense import gaussian

ETAS = (0.01, *(tenths / 10 for tenths in range(1, 10)), 0.99)


@pytest.mark.parametrize(("n_V", "n_W"), [(9, 31), (40, 7), (33, 35)])
def test_mso_equals_the_paper_word_for_word(n_V, n_W):
    V = gaussian(17, n_V)
    W = gaussian(17, n_W, seed=1) + 2 * V[:, :1]
    for eta, result in mso_curve(factor(V), factor(W), ETAS).items():
        k_V, k_W, mso, chance = dense.overlap(V, W, eta)
        assert (result.k_first, result.k_second, result.dimension) == (k_V, k_W, 17)
        assert result.mso == pytest.approx(mso, rel=1e-4)
        assert result.mso_chance == chance


@settings(deadline=None, max_examples=30)
@given(d=st.integers(2, 25), n=st.integers(1, 30), m=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_mso_is_bounded_and_symmetric(d, n, m, seed):
    first, second = factor(gaussian(d, n, seed=seed)), factor(gaussian(d, m, seed=seed + 1))
    forth, back = (list(mso_curve(*pair, ETAS).values()) for pair in ((first, second), (second, first)))
    for one, other in zip(forth, back, strict=True):
        assert -1e-6 <= one.mso <= 1 + 1e-5
        assert one.mso == pytest.approx(other.mso, rel=1e-4, abs=1e-7)
        assert one.mso_chance == other.mso_chance
    assert all(low.k_first <= high.k_first for low, high in pairwise(forth))


def test_mso_is_one_on_itself_and_nested_and_zero_on_orthogonal_spans():
    Q = Subspace(factor(gaussian(19, 12)).U)
    assert Q.first(5).overlap(Q.first(5)).mso == pytest.approx(1, rel=1e-5)
    assert Q.first(3).overlap(Q.first(8)).mso == pytest.approx(1, rel=1e-5)
    assert Q.first(4).overlap(Subspace(Q.directions(4, 11))).mso == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shape", [(19, 43), (43, 19), (29, 29)])
def test_an_update_overlaps_with_itself_at_every_eta(shape):
    for result in mso_curve(factor(gaussian(*shape)), factor(gaussian(*shape)), ETAS).values():
        assert result.mso == pytest.approx(1, rel=1e-5)


def test_every_eta_of_a_curve_is_the_overlap_of_its_leading_modes():
    first, second = factor(gaussian(19, 12)), factor(gaussian(19, 7, seed=1))
    for eta, found in mso_curve(first, second, (0.9, 0.1, 0.5)).items():
        alone = first.leading(first.modes(eta)).overlap(second.leading(second.modes(eta)))
        assert (found.k_first, found.k_second, found.mso_chance) == (alone.k_first, alone.k_second, alone.mso_chance)
        assert found.mso == pytest.approx(alone.mso, rel=1e-6)


def test_mso_knows_spans_not_bases():
    Q, W = factor(gaussian(19, 5)).U, factor(gaussian(19, 7, seed=1)).U
    rotated = Q @ torch.linalg.qr(gaussian(5, 5, seed=2))[0]
    assert Subspace(rotated).overlap(Subspace(W)).mso == pytest.approx(Subspace(Q).overlap(Subspace(W)).mso, rel=1e-4)


@pytest.mark.parametrize(("d", "k_V", "k_W"), [(30, 4, 11), (13, 9, 2), (70, 8, 8)])
@pytest.mark.parametrize("seed", [0, 5])
def test_random_spans_overlap_by_chance(d, k_V, k_W, seed):
    """Equation 11, within four standard errors."""

    def random(k, draw, name):
        return Bases(name, (d, 1), torch.zeros(d, 0), seed=seed).subspace("random", k=k, draw=draw)

    draws = 600
    found = torch.tensor([random(k_V, draw, "V").overlap(random(k_W, draw, "W")).mso for draw in range(draws)])
    assert float(found.mean()) == pytest.approx(max(k_V, k_W) / d, abs=4 * float(found.std()) / draws**0.5)


def test_zero_update_has_no_modes_and_there_is_no_overlap_to_speak_of():
    nothing, something = factor(torch.zeros(9, 4)), factor(gaussian(9, 6))
    for pair in ((nothing, something), (something, nothing), (nothing, nothing)):
        assert all((one.mso, one.mso_chance) == (None, None) for one in mso_curve(*pair, ETAS).values())
    assert mso_curve(nothing, something, [0.5])[0.5].k_first == 0


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
    ((_, _, cosine, curve),) = update_overlaps({"a": V.to(first), "b": W.to(second)}, [("a", "b")], [0.5])
    *_, mso, _ = dense.overlap(V, W, 0.5)
    assert curve[0.5].mso == pytest.approx(mso, rel=1e-4)
    assert cosine == pytest.approx(float((V.double() * W.double()).sum() / V.double().norm() / W.double().norm()))
