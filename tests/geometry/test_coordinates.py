from collections import Counter

import pytest
import torch

from safety_spaces.geometry import Frames, coordinates, factor, ordered_basis
from tests.geometry.dense import deviation, energy, gaussian, low_rank

NAME = "model.layers.2.mlp.up_proj.weight"
BASES = ("file", "top_k", "random_k", "random")
SHAPES = {"tall": (23, 9), "wide": (8, 21), "vector": (10, 1)}


def given(shape, dtype=torch.float32):
    """Frames of a tensor and the updates of three tasks."""
    frames = Frames(factor(gaussian(*shape)).U, factor(gaussian(shape[0], 5, seed=9)).U)
    return frames, {task: gaussian(*shape, seed=i, dtype=dtype) for i, task in enumerate(("a", "b", "c"), start=1)}


def found(frames, updates, **options):
    return list(coordinates(NAME, frames, updates, **{"bases": BASES, "draws": 3, "seed": 4, "k": 5} | options))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bases", [BASES, ("random",), ("random_k", "top_k"), ("file",)])
def test_each_task_basis_and_draw_comes_once(shape, bases):
    seen = Counter((of.task, of.basis, of.draw) for of in found(*given(shape), bases=bases))
    draws = {"file": 1, "top_k": 1, "random_k": 3, "random": 3}
    assert seen == Counter((task, basis, draw) for task in "abc" for basis in bases for draw in range(draws[basis]))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coordinates_and_energies_equal_the_dense_ones(shape, dtype):
    frames, updates = given(shape, dtype)
    for of in found(frames, updates):
        D, n = updates[of.task], len(of.ordered)
        U = of.ordered.columns(0, n)
        assert deviation(U) < 1e-5
        assert of.C.dtype == dtype
        C = of.ordered.rows(of.C, 0, n)
        torch.testing.assert_close(C.double(), U.double().T @ D.double(), rtol=0, atol=1e-5)
        running = of.ordered.rows(of.energies[:, None], 0, n)[:, 0].cumsum(0)
        assert running.tolist() == pytest.approx([energy(U, k, D) for k in range(1, n + 1)], rel=1e-5)


def test_a_basis_is_the_one_of_seed_draw_and_name_whatever_else_is_asked_for():
    frames, updates = given((23, 9))
    for of in found(frames, updates):
        frame = frames.of(of.basis)
        alone = ordered_basis(of.basis, frame, k=5, seed=4, draw=of.draw, name=NAME)
        assert torch.equal(of.ordered.columns(0, 5), alone.columns(0, 5))
        (only,) = (one for one in found(frames, {of.task: updates[of.task]}, bases=[of.basis]) if one.draw == of.draw)
        assert torch.equal(only.C, of.C)


def test_controls_of_the_reference_share_its_frame_and_its_coordinates():
    frames, updates = given((23, 9))
    shared = [of for of in found(frames, updates) if of.task == "b" and of.basis in ("top_k", "random_k")]
    assert len(shared) == 4
    assert len({of.C.data_ptr() for of in shared}) == len({of.ordered.frame.data_ptr() for of in shared}) == 1


@pytest.mark.parametrize("k", [0, 3])
def test_no_more_random_directions_are_drawn_than_asked_for(k):
    assert {len(of.ordered) for of in found(*given((23, 9)), bases=["random"], k=k)} == {k}


def test_a_tensor_without_rank_has_empty_coordinates():
    frames = Frames(factor(torch.zeros(7, 5)).U, torch.zeros(7, 0))
    assert {of.C.shape for of in found(frames, {"a": gaussian(7, 5)}, k=0)} == {(0, 5)}


def test_fractions_are_of_the_rank_or_of_a_users_columns():
    U, own = factor(low_rank(13, 11, 6)).U, factor(gaussian(13, 8, seed=5)).U
    assert Frames(U).size((13, 11)) == (11, 6)
    assert Frames(U).directions((0.01, 0.25, 0.5, 0.75), (13, 11)) == [1, 2, 5, 6]
    assert Frames(U).directions((0.25,), (13, 11), rounding="round") == [3]
    assert Frames(U, own).size((13, 11)) == (8, 8)
    assert Frames(U, own).directions((0.01, 0.25, 0.5, 1.0), (13, 11)) == [1, 2, 4, 8]


def test_a_users_basis_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="expected the columns of a user's own basis, got none"):
        found(Frames(gaussian(5, 3)), {"a": gaussian(5, 4)}, bases=["file"])
