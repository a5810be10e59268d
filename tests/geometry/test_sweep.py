from collections import Counter

import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.geometry import (
    Frames,
    Updates,
    coordinates,
    factor,
    kept,
    merged,
    ordered_basis,
    parallel_parts,
    squared_norm,
    sweep,
)
from safety_spaces.geometry.sweep import Workspace
from tests.geometry.dense import energy, gaussian, projector, tensor_energies
from tests.models.folders import BIAS, NORM, QUERY, opened, weights

BASES, FRACTIONS, DRAWS, SEED = ("top_k", "random_k", "random"), (0.01, 0.25, 0.5, 0.99), 2, 3
SIDES = ("left", "right", "residual")
OPTIONS = {"bases": BASES, "fractions": FRACTIONS, "draws": DRAWS, "seed": SEED}
ROLES = ("base", "reference", "useful", "harmful")


@pytest.fixture
def checkpoints(tmp_path):
    """Weights of 0.02 and updates of 1e-4: what is added is small beside what it is added to."""

    def moved(tensors, seed):
        return {name: values + 1e-4 * weights(seed)[name] for name, values in tensors.items()}

    base = {name: 0.02 * values for name, values in weights(0).items()}
    reference = moved(base, 1)
    tensors = (base, reference, moved(reference, 2), moved(reference, 3))
    return [opened(tmp_path / role, of) for role, of in zip(ROLES, tensors, strict=True)]


def updates(checkpoints, side="left"):
    base, reference, useful, harmful = checkpoints
    return Updates(base, reference, {"useful": useful, "harmful": harmful}, side=side)


@pytest.mark.parametrize("bases", [BASES, ("random",), ("random_k", "top_k")])
def test_each_tensor_task_basis_fraction_and_draw_comes_once(checkpoints, bases):
    found = updates(checkpoints)
    seen = [(of.energy.name, of.task, of.energy.basis, of.energy.draw, of.energy.fraction)
            for of in sweep(found, **OPTIONS | {"bases": bases})]  # fmt: skip
    cells = [(task, basis, draw, fraction) for task in found.tasks for basis in bases
             for draw in range(1 if basis == "top_k" else DRAWS) for fraction in FRACTIONS]  # fmt: skip
    assert Counter(seen) == Counter((name, *cell) for name in found.names for cell in cells)
    assert [name for name, *_ in seen] == sorted(name for name, *_ in seen)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_merged_weights_and_energies_equal_the_dense_ones(checkpoints, side, precision):
    found = updates(checkpoints, side)
    for of in sweep(found, **OPTIONS, precision=precision):
        name, row = of.energy.name, of.energy
        W, D = found.weights(name), found.of(of.task, name)
        U = factor(found.of("reference", name), precision=precision).U
        k = min(U.shape[1], max(1, int(row.fraction * min(D.shape))))
        frame = ordered_basis(row.basis, U, k=k, seed=SEED, draw=row.draw, name=name).columns(0, k)
        P = projector(frame, k)
        rounding = 4e-7 * float(W.abs().max())
        torch.testing.assert_close(of.parallel.double(), W.double() + P @ D.double(), rtol=0, atol=rounding)
        torch.testing.assert_close(of.orthogonal.double(), (W + D).double() - P @ D.double(), rtol=0, atol=rounding)
        assert (row.k, row.rank) == (k, U.shape[1])
        assert row.energy == pytest.approx(energy(frame, k, D), rel=1e-5)
        assert row.update == squared_norm(D)


@pytest.mark.parametrize("side", SIDES)
def test_a_cell_alone_has_the_weights_of_the_sweep(checkpoints, side):
    """As the scores take it: no more directions than its own are drawn, and C is not at hand."""
    found = updates(checkpoints, side)
    for of in sweep(found, **OPTIONS):
        row = of.energy
        W, D = found.weights(row.name), found.of(of.task, row.name)
        frames = Frames(factor(found.of("reference", row.name)).U)
        ks = frames.directions(FRACTIONS[: FRACTIONS.index(row.fraction) + 1], found.shape(row.name))
        basis = ordered_basis(row.basis, frames.U, k=ks[-1], seed=SEED, draw=row.draw, name=row.name)
        *_, parallel = parallel_parts(D, basis, ks)
        rounding = 4e-7 * float(W.abs().max())
        torch.testing.assert_close(W + kept(D, parallel, "parallel"), of.parallel, rtol=0, atol=rounding)
        torch.testing.assert_close(W + kept(D, parallel, "orthogonal"), of.orthogonal, rtol=0, atol=rounding)


@pytest.mark.parametrize("shape", [(23, 9), (8, 21), (12, 12), (10, 1)])
def test_weights_merged_in_a_users_basis_equal_the_dense_ones(shape):
    W, D, ks = 0.02 * gaussian(*shape), 1e-4 * gaussian(*shape, seed=1), (0, 2, 2, 5)
    frames = Frames(factor(gaussian(*shape, seed=2)).U, factor(gaussian(shape[0], 5, seed=3)).U)
    how = {"bases": ("file", *BASES), "draws": DRAWS, "seed": SEED, "k": 5}
    for of in coordinates(QUERY, frames, {"useful": D}, **how):
        for k, both in zip(ks, merged(W, D, of, ks, Workspace.like(W)), strict=True):
            inside = projector(of.ordered.columns(0, k), k) @ D.double()
            for found, part in zip(both, (inside, D.double() - inside), strict=True):
                torch.testing.assert_close(found.double(), W.double() + part, rtol=0, atol=4e-7 * float(W.abs().max()))


@pytest.mark.parametrize("vectors", ["project", "keep", "drop"])
@pytest.mark.parametrize("rounding", ["floor", "round"])
def test_energies_are_those_of_the_energy_pass(checkpoints, vectors, rounding):
    found, how = updates(checkpoints), OPTIONS | {"vectors": vectors, "rounding": rounding}
    rows = Counter((of.task, of.energy) for of in sweep(found, **how))
    for name in found.names:
        D = {task: found.of(task, name) for task in found.tasks}
        energies = tensor_energies(name, Frames(factor(found.of("reference", name)).U), D, **how)
        assert all(rows.pop((task, row)) == 1 for task, of in energies.items() for row in of)
    assert not rows


@pytest.mark.parametrize(("vectors", "share"), [("keep", 1), ("drop", 0)])
def test_vectors_are_merged_by_policy_under_both_schemes(checkpoints, vectors, share):
    found = updates(checkpoints, "right")
    for of in sweep(found, **OPTIONS, vectors=vectors):
        if of.energy.name in (NORM, BIAS):
            expected = found.weights(of.energy.name) + share * found.of(of.task, of.energy.name)
            assert torch.equal(of.parallel, expected)
            assert torch.equal(of.orthogonal, expected)


@pytest.mark.parametrize("side", SIDES)
def test_merged_weights_turn_back_into_the_tensor(checkpoints, side):
    """With every direction there is, parallel is the task's checkpoint and orthogonal the reference."""
    found, (_, reference, useful, _) = updates(checkpoints, side), checkpoints
    square = {name for name in found.names if found.shape(name)[0] <= found.shape(name)[1]}
    for of in sweep(found, **OPTIONS | {"fractions": (1.0,), "bases": ("top_k",)}):
        if of.task == "useful" and (name := of.energy.name) in square:
            rounding = {"rtol": 0, "atol": 4e-7 * float(reference.tensor(name).abs().max())}
            torch.testing.assert_close(found.restored(name, of.parallel), useful.tensor(name), **rounding)
            torch.testing.assert_close(found.restored(name, of.orthogonal), reference.tensor(name), **rounding)
    assert square


@pytest.mark.parametrize(("stored", "close"), [(torch.bfloat16, 4e-7), (torch.float64, 1e-14)])
def test_a_task_may_be_stored_in_another_precision(checkpoints, tmp_path, stored, close):
    base, reference, useful, harmful = checkpoints
    other = opened(tmp_path / "other", {name: useful.tensor(name).to(stored) for name in useful.names})
    found = Updates(base, reference, {"useful": other, "harmful": harmful})
    for of in sweep(found, **OPTIONS | {"bases": ("top_k",)}):
        W, D = found.weights(of.energy.name).double(), found.of(of.task, of.energy.name).double()
        inside = projector(factor(found.of("reference", of.energy.name)).U, of.energy.k) @ D
        rounding = {"rtol": 0, "atol": close * float(W.abs().max())}
        torch.testing.assert_close(of.parallel.double(), W + inside, **rounding)
        torch.testing.assert_close(of.orthogonal.double(), W + D - inside, **rounding)


def test_a_tensor_that_the_reference_leaves_alone_keeps_nothing(checkpoints, tmp_path):
    base, reference, useful, _ = checkpoints
    tensors = {name: reference.tensor(name) for name in reference.names} | {QUERY: base.tensor(QUERY)}
    found = Updates(base, opened(tmp_path / "other", tensors), {"useful": useful})
    for of in sweep(found, **OPTIONS):
        if of.energy.name == QUERY:
            assert (of.energy.k, of.energy.energy) == (0, 0)
            assert torch.equal(of.parallel, found.weights(QUERY))
            torch.testing.assert_close(of.orthogonal, useful.tensor(QUERY), rtol=0, atol=1e-8)


def test_descending_fractions_are_refused(checkpoints):
    with pytest.raises(ValueError, match="expected ascending numbers of directions"):
        list(sweep(updates(checkpoints), **OPTIONS | {"fractions": (0.5, 0.25)}))


def test_a_damaged_task_is_named(checkpoints, tmp_path):
    base, reference, useful, _ = checkpoints
    tensors = {name: useful.tensor(name).clone() for name in useful.names}
    tensors[QUERY][1, 1] = float("nan")
    found = Updates(base, reference, {"useful": opened(tmp_path / "damaged", tensors)})
    with pytest.raises(UserError, match=f"damaged: expected finite weights, tensor {QUERY}"):
        list(sweep(found, **OPTIONS))
