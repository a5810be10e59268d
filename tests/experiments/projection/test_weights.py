"""What a cell keeps of an update, against dense projections; and the same bytes whatever was made before it."""

import itertools
import json
import random
from dataclasses import replace

import pytest
import torch

from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.energies import Subspaces
from safety_spaces.experiments.projection.weights import KeptParts, along
from safety_spaces.geometry import Subspace, Updates
from safety_spaces.models.checkpoints import as_matrix
from safety_spaces.models.roles import Roles
from safety_spaces.store import Layout
from safety_spaces.study import load_study
from safety_spaces.tensors import layer
from tests.geometry.dense import projector
from tests.models.folders import BIAS, NORM, QUERY, save, weights

ROLES, FRACTIONS, BASES = ("base", "reference", "useful", "harmful"), [0.1, 0.5, 0.9], ("top_k", "random_k", "random")
CELLS = [
    Cell(5, task, scheme, basis, rho, draw)
    for task, basis in itertools.product(ROLES[2:], BASES)
    for draw in ([0] if basis == "top_k" else [0, 1])
    for rho, scheme in itertools.product(FRACTIONS, ("parallel", "orthogonal"))
]


@pytest.fixture
def opened(tmp_path):
    """The subspaces of a study of four folders, with some settings of its projection changed."""
    for seed, role in enumerate(ROLES):
        save(tmp_path / role, weights(seed), config={})

    def open_with(**changes):
        projection = {"bases": BASES, "fractions": FRACTIONS, "energy_draws": 2, "scored": [], **changes}
        content = {
            "name": "weights", "model": "small", "seeds": [5], "threads": 1,
            "roles": {role: {"path": str(tmp_path / role)} for role in ROLES},
            "projection": projection, "update_spaces": None, "activation_spaces": None, "evaluation": None,
        }  # fmt: skip
        (tmp_path / "study.yaml").write_text(json.dumps(content))
        roles = Roles(load_study(tmp_path / "study.yaml"), Layout(tmp_path / "results", tmp_path / "runs", "weights"))
        return Subspaces(roles, 5, ROLES[2:], device=torch.device("cpu"), keep_factors=True)

    return open_with


def kept(parts, cell):
    return {name: part.clone() for name, part in parts.of(cell)}


def dense_part(subspaces, cell, name):
    updates = subspaces.updates
    bases, D = subspaces.bases(name), updates.of(cell.task, name)
    (k,) = bases.counts([cell.fraction])
    U = bases.subspace(cell.basis, k=k, draw=cell.draw).directions(0, k)
    inside = projector(U, k) @ D.double()
    return updates.restored(name, inside if cell.scheme == "parallel" else D.double() - inside)


@pytest.mark.parametrize("side", ["left", "right", "residual"])
def test_the_part_kept_is_the_dense_projection(opened, side):
    subspaces = opened(side=side)
    parts = KeptParts(subspaces)
    for cell in CELLS:
        found = kept(parts, cell)
        assert tuple(found) == subspaces.updates.names
        for name, part in found.items():
            assert part.shape == subspaces.updates.reference.shape(name)
            torch.testing.assert_close(part.double(), dense_part(subspaces, cell, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("limit", [2**30, 2000, 0])
@pytest.mark.parametrize("order", ["as they come", "fractions descending", "shuffled"])
def test_a_cell_has_the_same_bytes_whatever_was_made_before_it(opened, limit, order):
    subspaces = opened()
    cells = {
        "as they come": CELLS,
        "fractions descending": CELLS[::-1],
        "shuffled": random.Random(0).sample(CELLS, len(CELLS)),
    }[order]
    parts = KeptParts(subspaces, limit=limit)
    for cell in cells:
        alone, found = kept(KeptParts(subspaces, limit=0), cell), kept(parts, cell)
        assert all(torch.equal(found[name], part) for name, part in alone.items()), cell


@pytest.mark.parametrize(("limit", "reads", "products"), [(2**30, 1, 3), (0, 6, 12)])
def test_cells_that_follow_one_another_share_what_fits(opened, monkeypatch, limit, reads, products):
    """Of three fractions under two schemes: one read and three steps of the sum, or each cell from the start."""
    parts, read, added = KeptParts(opened(), limit=limit), [], []
    plain, add_part = Updates.plain, Subspace.add_part
    monkeypatch.setattr(Updates, "plain", lambda *given: read.append(given[1:]) or plain(*given))
    monkeypatch.setattr(Subspace, "add_part", lambda *given: added.append(given[1].shape) or add_part(*given))
    for cell in CELLS[:6]:
        assert (cell.task, cell.basis) == ("useful", "top_k")
        kept(parts, cell)
    assert read.count(("useful", QUERY)) == reads
    assert added.count(torch.Size([14, 10])) == products


def test_no_more_is_remembered_than_the_limit(opened):
    parts, limit = KeptParts(opened(), limit=2000), 2000
    for cell in CELLS[:8]:
        kept(parts, cell)
        held = [values for one in parts._sums.values() for values in (one.D, one.parallel)]
        assert 0 < sum(values.nbytes for values in held) <= limit


@pytest.mark.parametrize("others", ["whole", "out"])
def test_the_update_outside_a_layer_is_whole_or_out(opened, others):
    subspaces = opened()
    for cell in (Cell(5, "useful", "orthogonal", "top_k", rho, 0, 0, others) for rho in FRACTIONS):
        found = kept(KeptParts(subspaces), cell)
        inside = [name for name in subspaces.updates.names if layer(name) == 0]
        assert set(found) == set(subspaces.updates.names if others == "whole" else inside)
        for name, part in found.items():
            D = subspaces.updates.restored(name, subspaces.updates.of("useful", name))
            expected = dense_part(subspaces, cell, name) if name in inside else D.double()
            torch.testing.assert_close(part.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("vectors", "share"), [("keep", 1), ("drop", 0)])
def test_vectors_are_kept_or_dropped_by_policy_under_both_schemes(opened, vectors, share):
    subspaces = opened(vectors=vectors)
    for cell in CELLS[:6]:
        found = kept(KeptParts(subspaces), cell)
        for name in (NORM, BIAS):
            assert torch.equal(as_matrix(found[name]), share * subspaces.updates.of("useful", name))
        torch.testing.assert_close(found[QUERY].double(), dense_part(subspaces, cell, QUERY), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", ["left", "residual"])
def test_matched_keeps_along_each_update_what_the_claim_keeps_along_it(opened, side):
    subspaces = opened(side=side)
    updates, parts = subspaces.updates, KeptParts(subspaces)
    for claim in (cell for cell in CELLS if cell.basis == "top_k"):
        matched = kept(parts, replace(claim, basis="matched", draw=None))
        of_claim = kept(parts, claim)
        for name, part in matched.items():
            D = updates.restored(name, updates.of(claim.task, name)).double()
            inside = (of_claim[name].double() * D).sum()
            torch.testing.assert_close((part.double() * D).sum(), inside, rtol=1e-4, atol=1e-7)
            # Nothing of it points elsewhere: a multiple of D with a = E_t, or 1 - E_t.
            energy = of_claim[name].double().square().sum() / D.square().sum()
            torch.testing.assert_close(part.double(), energy * D, rtol=0, atol=1e-5)


def test_an_update_that_is_zero_has_no_dose():
    zero, kept_part = torch.zeros(5, 3), torch.ones(5, 3)
    assert torch.equal(along(kept_part, zero), zero)


def test_scaled_is_the_whole_update_at_a_dose_vectors_included(opened):
    subspaces = opened(vectors="drop")
    found = kept(KeptParts(subspaces), Cell(5, "useful", basis="scaled", dose=0.3))
    for name, part in found.items():
        D = subspaces.updates.restored(name, subspaces.updates.of("useful", name))
        torch.testing.assert_close(part, 0.3 * D)


def test_a_random_subspace_is_a_scaling_in_expectation(opened):
    """The mean over draws of what lies outside tends to (1 - k/M) D, which is why scaling is a control."""
    subspaces, number = opened(), 1500
    D, bases = subspaces.updates.of("useful", QUERY), subspaces.bases(QUERY)
    k, M = 3, len(D)
    outside = [D - bases.subspace("random", k=k, draw=draw).project(D) for draw in range(number)]
    mean, error = torch.stack(outside).mean(0), torch.stack(outside).std(0) / number**0.5
    apart = ((mean - (1 - k / M) * D) / error).abs()
    assert (apart < 4.5).all()
    # Another dose is told from it.
    assert ((mean - (1 - (k + 1) / M) * D) / error).abs().max() > 10
