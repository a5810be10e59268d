import gc
import threading
import time
import weakref

import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.geometry import Updates, factor
from safety_spaces.geometry.updates import read_ahead
from safety_spaces.models.checkpoints import as_matrix
from safety_spaces.tensors import HEAD
from tests.geometry.dense import gaussian, svd
from tests.models.folders import BIAS, DOWN, EMBEDDING, NORM, QUERY, SHAPES, opened, weights

ROLES = ("base", "reference", "useful", "harmful")
CPU, ELSEWHERE = torch.device("cpu"), torch.device("meta")
"""A device that is not the CPU is read ahead for; meta needs no hardware."""
SIDES = ("left", "right", "residual")
TURNED = {"left": set(), "right": {EMBEDDING, QUERY, DOWN}, "residual": {EMBEDDING, QUERY}}


@pytest.fixture
def checkpoints(tmp_path):
    return {role: opened(tmp_path / role, weights(seed)) for seed, role in enumerate(ROLES)}


def updates(checkpoints, **options):
    tasks = {role: checkpoints[role] for role in ROLES[2:]}
    return Updates(checkpoints["base"], checkpoints["reference"], tasks, **options)


@pytest.mark.parametrize("side", SIDES)
def test_updates_are_of_the_base_and_of_the_reference_with_the_projected_side_on_the_left(checkpoints, side):
    found = updates(checkpoints, side=side)
    base, reference, useful, _ = (weights(seed) for seed in range(4))
    assert found.names == tuple(sorted(SHAPES))
    for name in found.names:
        turn = torch.t if name in TURNED[side] else torch.clone
        assert torch.equal(found.of("reference", name), turn(as_matrix(reference[name] - base[name])))
        assert torch.equal(found.of("useful", name), turn(as_matrix(useful[name] - reference[name])))
        assert torch.equal(found.plain("useful", name), as_matrix(useful[name] - reference[name]))
        assert found.shape(name) == found.of("useful", name).shape
        assert torch.equal(found.restored(name, found.of("useful", name)), useful[name] - reference[name])


@pytest.mark.parametrize("side", SIDES)
def test_a_vector_of_any_name_has_one_side(tmp_path, side):
    name = "model.layers.0.linear_attn.A_log"
    first, second = (opened(tmp_path / folder, {name: torch.full((6,), v)}) for folder, v in (("a", 1.0), ("b", 2.0)))
    found = Updates(first, second, {}, side=side)
    assert found.shape(name) == found.of("reference", name).shape == (6, 1)


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
@pytest.mark.parametrize("names", [(QUERY, NORM, DOWN), (NORM,), ()])
def test_each_reads_the_roles_of_every_name_in_order(checkpoints, device, names):
    found = updates(checkpoints, side="right", device=device)
    read = [(name, dict(D)) for name, D in found.each(iter(names), iter(("harmful", "reference")))]
    assert [name for name, _ in read] == list(names)
    for name, D in read:
        assert list(D) == ["harmful", "reference"]
        for role, of in D.items():
            assert of.device.type == device.type
            assert of.shape == found.shape(name)
            assert device != CPU or torch.equal(of, found.of(role, name))


def test_an_update_that_is_taken_out_is_not_kept_in_memory(checkpoints):
    """The largest tensor of a model should be there once less while the others are projected."""
    read = updates(checkpoints).each((QUERY, DOWN), ROLES[1:])
    for _, D in read:
        taken = weakref.ref(D.pop("reference"))
        gc.collect()
        assert taken() is None


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_read_ahead_keeps_the_order(device, count):
    def read(number):
        time.sleep(0.002 * (number % 3))
        return number**2

    assert list(read_ahead(range(count), read, device)) == [(number, number**2) for number in range(count)]


@pytest.mark.parametrize(("device", "ahead"), [(CPU, 0), (ELSEWHERE, 1)])
def test_one_name_is_read_ahead_at_most(device, ahead):
    begun = []
    for number, _ in read_ahead(range(6), begun.append, device):
        # Time enough for whatever has been asked for.
        time.sleep(0.02)
        assert begun == list(range(min(6, number + 1 + ahead)))


@pytest.mark.parametrize(("device", "same"), [(CPU, True), (ELSEWHERE, False)])
def test_another_thread_reads_for_another_device(device, same):
    ((_, thread),) = read_ahead(["x"], lambda _: threading.get_ident(), device)
    assert (thread == threading.get_ident()) is same


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
@pytest.mark.parametrize("bad", [0, 2, 4])
def test_an_error_comes_through_in_its_turn(device, bad):
    def read(number):
        if number == bad:
            raise UserError(f"tensor {number}")
        return number

    seen = []
    with pytest.raises(UserError, match=f"tensor {bad}"):
        seen.extend(number for number, _ in read_ahead(range(5), read, device))
    assert seen == list(range(bad))


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
def test_a_reader_that_stops_early_leaves_no_thread(device):
    before = threading.active_count()
    read = read_ahead(range(5), lambda number: number, device)
    next(read)
    read.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("device", [CPU, ELSEWHERE])
def test_a_damaged_tensor_is_named_when_its_turn_comes(tmp_path, device):
    damaged = weights(2)
    damaged[QUERY][0, 0] = float("nan")
    opens = {"base": weights(0), "reference": weights(1), "useful": damaged}
    base, reference, useful = (opened(tmp_path / role, tensors) for role, tensors in opens.items())
    read = Updates(base, reference, {"useful": useful}, device=device).each((NORM, QUERY), ("useful",))
    assert next(read)[0] == NORM
    with pytest.raises(UserError, match=f"useful: expected finite weights, tensor {QUERY}"):
        next(read)


@pytest.mark.parametrize("role", ["base", "useful"])
def test_checkpoints_of_other_tensors_are_refused(checkpoints, tmp_path, role):
    other = opened(tmp_path / "other", {name: values for name, values in weights(9).items() if name != BIAS})
    with pytest.raises(UserError, match=f"other: expected the tensors of .*reference, {BIAS} missing"):
        updates(checkpoints | {role: other})


def test_a_reference_that_equals_its_base_is_refused(checkpoints):
    with pytest.raises(UserError, match="expected weights that differ from"):
        updates(checkpoints | {"reference": checkpoints["base"]})


ROWS = {"base": 29, "reference": 31, "useful": 37, "harmful": 27}


@pytest.fixture
def vocabularies(tmp_path):
    """Folders with a head, of 29 tokens in the base, 31 in the reference, 37 and 27 in the tasks."""
    stored = {
        role: weights(seed)
        | {name: gaussian(ROWS[role], 10, seed=50 + 2 * seed + n) for n, name in enumerate((EMBEDDING, HEAD))}
        for seed, role in enumerate(ROLES)
    }
    return stored, {role: opened(tmp_path / role, tensors) for role, tensors in stored.items()}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [EMBEDDING, HEAD])
def test_rows_that_base_and_reference_share_are_compared(vocabularies, side, name):
    stored, opened_folders = vocabularies
    found = updates(opened_folders, side=side)
    base, reference, useful, harmful = (stored[role][name] for role in ROLES)
    expected = {
        "reference": reference[:29] - base,
        "useful": useful[:29] - reference[:29],
        "harmful": torch.cat([harmful - reference[:27], torch.zeros(2, 10)]),
    }
    turn = torch.clone if side == "left" else torch.t
    assert found.shape(name) == turn(expected["useful"]).shape
    for role, D in expected.items():
        assert torch.equal(found.of(role, name), turn(D))
        assert torch.equal(found.restored(name, found.of(role, name)), torch.cat([D, torch.zeros(2, 10)]))
    assert torch.equal(found.of("useful", QUERY), updates(opened_folders, side=side).of("useful", QUERY))
    assert found.restored(QUERY, found.of("useful", QUERY)).shape == (14, 10)


def test_a_base_of_more_tokens_leaves_the_reference_whole(vocabularies):
    stored, opened_folders = vocabularies
    found = updates(opened_folders | {"base": opened_folders["useful"]})
    assert found.shape(EMBEDDING) == (31, 10)
    changed = stored["useful"][EMBEDDING][:31] - stored["reference"][EMBEDDING]
    assert torch.equal(found.restored(EMBEDDING, found.of("useful", EMBEDDING)), changed)


def test_other_vocabularies_are_told_of_once(vocabularies, caplog):
    _, opened_folders = vocabularies
    for _ in range(2):
        updates(opened_folders)
    (said,) = caplog.messages
    sizes = ", ".join(f"{ROWS[role]} in {opened_folders[role].folder}" for role in ("reference", "base", *ROLES[2:]))
    assert said == (
        f"warning: the number of tokens differs, shared rows alone are compared: rows of {HEAD} are {sizes}"
    )


def test_nothing_is_told_of_equal_vocabularies(checkpoints, caplog):
    updates(checkpoints)
    assert not caplog.messages


def test_right_projection_is_by_right_singular_vectors(checkpoints):
    found, k = updates(checkpoints, side="right"), 3
    D, task = (weights(seed)[QUERY] - weights(seed - 1)[QUERY] for seed in (1, 2))
    inside = factor(found.of("reference", QUERY)).leading(k).project(found.of("useful", QUERY))
    V = svd(D.T)[0][:, :k]
    torch.testing.assert_close(found.restored(QUERY, inside).double(), task.double() @ V @ V.T, rtol=0, atol=1e-5)
