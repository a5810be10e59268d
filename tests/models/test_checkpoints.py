import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.geometry import factor
from safety_spaces.models.checkpoints import as_matrix, check_differs, check_same_tensors, fitted, update
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.tensors import HEAD
from tests.geometry.dense import gaussian
from tests.models.folders import EMBEDDING, NORM, QUERY, is_mapped, opened, save, weights
from tests.models.models import FAMILIES, linked, tiny_model


def save_sharded(folder: Path, tensors):
    folder.mkdir()
    weight_map = {}
    for number, (name, values) in enumerate(tensors.items()):
        shard = f"model-{number}.safetensors"
        save_file({name: values}, folder / shard)
        weight_map[name] = shard
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("write", [save, save_sharded])
def test_every_tensor_reads_back(tmp_path, write):
    tensors = weights()
    checkpoint = open_checkpoint(write(tmp_path / "model", tensors))
    assert checkpoint.names == tuple(sorted(tensors))
    for name, values in tensors.items():
        assert checkpoint.shape(name) == tuple(values.shape)
        assert torch.equal(checkpoint.tensor(name), values)


@pytest.mark.parametrize(
    ("stored", "read"),
    [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)],
)
def test_reads_float32_or_better(tmp_path, stored, read):
    tensors = weights(dtype=stored)
    values = open_checkpoint(save(tmp_path / "model", tensors)).tensor(QUERY)
    assert values.dtype == read
    assert torch.equal(values, tensors[QUERY].to(read))


def test_integer_buffers_are_not_listed(tmp_path):
    folder = save(tmp_path / "model", weights() | {"model.position_ids": torch.arange(3)})
    assert open_checkpoint(folder).names == tuple(sorted(weights()))


@pytest.mark.parametrize("stored_head", [False, True])
def test_tied_head_counts_once_or_twice(tmp_path, stored_head):
    tensors = weights()
    if stored_head:
        tensors["lm_head.weight"] = tensors[EMBEDDING].clone()
    folder = save(tmp_path / "model", tensors, {"tie_word_embeddings": True})
    assert "lm_head.weight" not in open_checkpoint(folder).names
    twice = open_checkpoint(folder, tied="twice")
    assert len(twice.names) == len(tensors | {"lm_head.weight": None})
    assert twice.shape("lm_head.weight") == (29, 10)
    assert torch.equal(twice.tensor("lm_head.weight"), tensors[EMBEDDING])


STORED = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@pytest.mark.parametrize("first", STORED)
@pytest.mark.parametrize("second", STORED)
@pytest.mark.parametrize("at_once", [1, 35, 2**22])
def test_update_is_second_minus_first_in_float32_or_better(tmp_path, monkeypatch, first, second, at_once):
    """In parts of a row, of three rows, and whole."""
    monkeypatch.setattr("safety_spaces.models.checkpoints.SUBTRACTED_AT_ONCE", at_once)
    stored = weights(1, first), weights(2, second)
    before, after = (opened(tmp_path / folder, tensors) for folder, tensors in zip("ab", stored, strict=True))
    precision = torch.float64 if torch.float64 in (first, second) else torch.float32
    for name in before.names:
        # In bfloat16 the difference would be rounded.
        subtracted, minuend = (as_matrix(tensors[name].to(precision)) for tensors in stored)
        assert torch.equal(update(before, after, name), minuend - subtracted)
        assert update(before, after, name).dtype == precision
    assert update(before, after, NORM).shape == (10, 1)


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (2, 3, 4)])
def test_update_of_any_number_of_axes(tmp_path, shape):
    before, after = (opened(tmp_path / folder, {"x": torch.full(shape, v)}) for folder, v in (("a", 1.0), ("b", 4.0)))
    found = update(before, after, "x")
    assert torch.equal(found, as_matrix(torch.full(shape, 3.0)))


@pytest.mark.parametrize("damaged", ["first", "second"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", STORED)
def test_update_names_the_folder_that_is_not_finite(tmp_path, damaged, bad, dtype):
    stored = {"first": weights(1, dtype), "second": weights(2, dtype)}
    stored[damaged][QUERY][2, 3] = bad
    first, second = (opened(tmp_path / folder, tensors) for folder, tensors in stored.items())
    assert update(first, second, NORM).isfinite().all()
    with pytest.raises(UserError, match=f"{damaged}: expected finite weights, tensor {QUERY} holds NaN or infinity"):
        update(first, second, QUERY)


def test_update_that_overflows_is_an_error(tmp_path):
    first, second = (
        opened(tmp_path / folder, {"x": torch.full((3,), value)}) for folder, value in (("a", -3e38), ("b", 3e38))
    )
    with pytest.raises(UserError, match="b: expected finite weights, tensor x"):
        update(first, second, "x")


def test_an_infinity_in_both_files_is_an_error(tmp_path):
    tensors = {"x": torch.tensor([1.0, float("inf")])}
    first, second = (opened(tmp_path / folder, tensors) for folder in "ab")
    with pytest.raises(UserError, match="a: expected finite weights, tensor x"):
        update(first, second, "x")


def test_tensors_are_mapped_as_stored(tmp_path):
    """Only what is used is read: the file is part of the process's memory, not a copy of it."""
    checkpoint = opened(tmp_path / "model", weights(dtype=torch.bfloat16))
    values = checkpoint.mapped(QUERY)
    assert values.dtype == torch.bfloat16
    assert is_mapped(tmp_path / "model" / "model.safetensors")
    assert torch.equal(values, weights(dtype=torch.bfloat16)[QUERY])


@pytest.mark.parametrize("kept", [0, 2**24])
def test_a_file_that_is_written_again_is_read_again(tmp_path, monkeypatch, kept):
    """Small files stay mapped: what is written to a tensor, or another file in its place, is not seen by the next."""
    monkeypatch.setattr("safety_spaces.models.checkpoints.KEPT_OPEN", kept)
    folder = save(tmp_path / "model", weights())
    checkpoint = open_checkpoint(folder)
    checkpoint.tensor(QUERY).zero_()
    assert torch.equal(checkpoint.tensor(QUERY), weights()[QUERY])
    save_file(weights(1), folder / "written.safetensors")
    (folder / "written.safetensors").replace(folder / "model.safetensors")
    assert torch.equal(checkpoint.tensor(QUERY), weights(1)[QUERY])


def test_as_matrix_keeps_order():
    values = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(as_matrix(values), values.reshape(2, 12))
    assert torch.equal(as_matrix(values[0]), values[0])
    assert as_matrix(values[0, 0]).shape == (4, 1)
    assert as_matrix(values[0, 0, 0]).shape == (1, 1)


def test_same_tensors_pass_and_equal_weights_do_not(tmp_path):
    base = open_checkpoint(save(tmp_path / "base", weights()))
    changed = weights()
    changed[NORM][4] += 1
    reference = open_checkpoint(save(tmp_path / "reference", changed))
    check_same_tensors(base, reference)
    check_differs(base, reference)
    with pytest.raises(UserError, match=r"expected weights that differ from .*, all are equal"):
        check_differs(base, open_checkpoint(save(tmp_path / "copy", weights())))


def test_missing_tensors_are_named_on_either_side(tmp_path):
    many = weights() | {f"model.layers.{number}.mlp.up_proj.weight": torch.ones(2, 3) for number in range(5)}
    first, second = open_checkpoint(save(tmp_path / "a", weights())), open_checkpoint(save(tmp_path / "b", many))
    message = r"a: expected the tensors of .*b, model.layers.0.mlp.up_proj.weight, .* and 2 more missing"
    for pair in ((first, second), (second, first)):
        with pytest.raises(UserError, match=message):
            check_same_tensors(*pair)


def test_differing_shapes_are_named(tmp_path):
    first = open_checkpoint(save(tmp_path / "a", weights()))
    second = open_checkpoint(save(tmp_path / "b", weights() | {QUERY: torch.ones(9, 10)}))
    with pytest.raises(UserError, match=r"q_proj.weight differ \(\(9, 10\) against \(14, 10\)\)"):
        check_same_tensors(first, second)


def test_missing_folder_and_missing_weights(tmp_path):
    with pytest.raises(UserError, match="expected a checkpoint, found none; correct its path"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected a checkpoint, found an empty folder"):
        open_checkpoint(tmp_path)


def test_missing_shard(tmp_path):
    folder = save_sharded(tmp_path / "model", weights())
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"found no model-1.safetensors; copy it too"):
        open_checkpoint(folder)


@pytest.mark.parametrize("length", [0, 5, 60, -4])
def test_half_written_file(tmp_path, length):
    path = save(tmp_path / "model", weights()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match="half-written or unreadable") as caught:
        open_checkpoint(path.parent)
    assert "\n" not in str(caught.value)


def test_file_cut_after_it_was_listed(tmp_path):
    path = save(tmp_path / "model", weights()) / "model.safetensors"
    checkpoint = open_checkpoint(path.parent)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="half-written"):
        checkpoint.tensor(QUERY)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_half_written_config(tmp_path, text):
    folder = save(tmp_path / "model", weights())
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"found config.json, which is no JSON object"):
        open_checkpoint(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, bad):
    tensors = weights()
    tensors[QUERY][2, 3] = bad
    checkpoint = open_checkpoint(save(tmp_path / "model", tensors))
    assert checkpoint.tensor(NORM).isfinite().all()
    with pytest.raises(UserError, match=f"tensor {QUERY} holds NaN or infinity"):
        checkpoint.tensor(QUERY)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("write", [save, save_sharded])
@pytest.mark.parametrize("with_head", ["first", "second"])
def test_a_tied_head_that_one_folder_alone_stores_is_no_difference(tmp_path, dtype, write, with_head):
    folders = {}
    for seed, role in enumerate(("first", "second")):
        tensors = weights(seed, dtype)
        if role == with_head:
            # Where no model is known, config.json alone says what it computes with.
            tensors[HEAD] = torch.ones(29, 10, dtype=dtype)
        folders[role] = write(tmp_path / role, tensors)
        (folders[role] / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    for tied in ("once", "twice"):
        first, second = (open_checkpoint(folder, tied=tied) for folder in folders.values())
        check_same_tensors(first, second)
        assert (HEAD in first.names) is (tied == "twice")
    change = weights(1, dtype)[EMBEDDING].float() - weights(0, dtype)[EMBEDDING].float()
    assert torch.equal(update(first, second, HEAD), change)


def test_a_tied_and_an_untied_model_are_not_compared(tmp_path):
    tied = open_checkpoint(save(tmp_path / "tied", weights(), {"tie_word_embeddings": True}))
    embedding = weights()[EMBEDDING]
    untied = open_checkpoint(save(tmp_path / "untied", weights() | {HEAD: embedding.clone()}))
    message = (
        r"/tied: expected an output head of its own as in .*/untied, it is tied to the embedding; save both models"
    )
    for pair in ((tied, untied), (untied, tied)):
        with pytest.raises(UserError, match=message):
            check_same_tensors(*pair)


@pytest.fixture
def grown(tmp_path):
    """Two checkpoints of 29 and of 31 tokens, the head untied."""
    short = weights(0) | {HEAD: gaussian(29, 10, seed=7)}
    tall = weights(1) | {HEAD: gaussian(31, 10, seed=8), EMBEDDING: gaussian(31, 10, seed=9)}
    return [(opened(tmp_path / name, tensors), tensors) for name, tensors in (("short", short), ("tall", tall))]


@pytest.mark.parametrize("at_once", [1, 35, 2**22])
@pytest.mark.parametrize("name", [EMBEDDING, HEAD, QUERY])
def test_shared_rows_of_two_vocabularies_are_compared(monkeypatch, grown, at_once, name):
    monkeypatch.setattr("safety_spaces.models.checkpoints.SUBTRACTED_AT_ONCE", at_once)
    (short, first), (tall, second) = grown
    check_same_tensors(short, tall)
    check_same_tensors(tall, short)
    expected = second[name][: len(first[name])] - first[name]
    assert torch.equal(update(short, tall, name), expected)
    assert torch.equal(update(tall, short, name), -expected)


def test_a_checkpoint_is_fitted_to_the_vocabulary_of_another(grown):
    (short, first), (tall, second) = grown
    for name in (EMBEDDING, HEAD):
        assert torch.equal(fitted(tall, short, name), second[name][:29])
        assert torch.equal(fitted(short, tall, name), torch.cat([first[name], second[name][29:]]))
    assert torch.equal(fitted(short, tall, NORM), first[NORM])
    assert torch.equal(tall.tensor(EMBEDDING), second[EMBEDDING])


def test_new_rows_alone_are_no_difference(tmp_path):
    first = opened(tmp_path / "first", weights())
    second = opened(tmp_path / "second", weights() | {EMBEDDING: torch.cat([weights()[EMBEDDING], torch.ones(2, 10)])})
    with pytest.raises(UserError, match=r"second: expected weights that differ from .*first, all are equal"):
        check_differs(first, second)


@pytest.mark.parametrize(
    ("name", "shape"), [(QUERY, (15, 10)), (EMBEDDING, (29, 9)), (EMBEDDING, (31, 9)), (NORM, (9,))]
)
def test_other_shapes_are_an_error_of_every_comparison(tmp_path, name, shape):
    first = opened(tmp_path / "first", weights())
    second = opened(tmp_path / "second", weights() | {name: torch.ones(shape)})
    for compared in (
        check_same_tensors,
        lambda *both: update(*both, name),
        lambda *both: fitted(*reversed(both), name),
    ):
        with pytest.raises(UserError, match=r"second: expected the shapes of .*first, .* differ"):
            compared(first, second)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [False, True])
def test_models_as_transformers_saves_them(tmp_path, family, tied):
    """Sharded, in bfloat16, with the biases of Qwen2 and without."""
    states = []
    for seed in (0, 1):
        model = tiny_model(family, tied=tied, seed=seed).bfloat16()
        model.save_pretrained(tmp_path / str(seed), max_shard_size="2KB")
        states.append({name: values.float() for name, values in model.state_dict().items()})
    assert len(list((tmp_path / "0").glob("*.safetensors"))) > 2
    linked(tmp_path / "snapshot", tmp_path / "1")
    first, second, snapshot = (open_checkpoint(tmp_path / name) for name in ("0", "1", "snapshot"))
    check_same_tensors(first, second)
    assert set(first.names) == set(states[0]) - ({HEAD} if tied else set())
    assert any(name.endswith("q_proj.bias") for name in first.names) is (family == "qwen2")
    for name in first.names:
        D = as_matrix(states[1][name].double() - states[0][name].double())
        assert torch.equal(update(first, second, name), D.float())
        assert torch.equal(update(first, snapshot, name), D.float())
        found = factor(update(first, second, name))
        assert found.rank == torch.linalg.matrix_rank(D, rtol=1e-6)
        torch.testing.assert_close((found.U @ (found.U.t() @ D.float())).double(), D, rtol=1e-4, atol=1e-5)
