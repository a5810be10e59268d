import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.geometry import (
    as_matrix,
    check_differs,
    check_same_tensors,
    kind,
    layer,
    open_checkpoint,
    update,
)

EMBEDDING, QUERY, NORM = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"


def weights(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {EMBEDDING: (11, 5), QUERY: (7, 5), NORM: (5,)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def save(folder: Path, tensors, config=None):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


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
    assert len(twice.names) == 4
    assert twice.shape("lm_head.weight") == (11, 5)
    assert torch.equal(twice.tensor("lm_head.weight"), tensors[EMBEDDING])


def test_untied_head_is_its_own_tensor(tmp_path):
    tensors = weights() | {"lm_head.weight": torch.ones(11, 5)}
    checkpoint = open_checkpoint(save(tmp_path / "model", tensors, {"tie_word_embeddings": False}))
    assert torch.equal(checkpoint.tensor("lm_head.weight"), torch.ones(11, 5))


def test_update_is_second_minus_first(tmp_path):
    first, second = weights(1, torch.bfloat16), weights(2, torch.bfloat16)
    before, after = (open_checkpoint(save(tmp_path / name, values)) for name, values in (("a", first), ("b", second)))
    # The difference is taken in float32: in bfloat16 it would be rounded.
    assert torch.equal(update(before, after, QUERY), second[QUERY].float() - first[QUERY].float())
    assert update(before, after, NORM).shape == (5, 1)


def test_as_matrix_keeps_order():
    values = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(as_matrix(values), values.reshape(2, 12))
    assert torch.equal(as_matrix(values[0]), values[0])
    assert as_matrix(values[0, 0]).shape == (4, 1)
    assert as_matrix(values[0, 0, 0]).shape == (1, 1)


@pytest.mark.parametrize(
    ("name", "kind_of", "layer_of"),
    [
        ("model.embed_tokens.weight", "embed_tokens", None),
        ("lm_head.weight", "lm_head", None),
        ("model.norm.weight", "norm", None),
        ("model.layers.3.self_attn.q_proj.weight", "q_proj", 3),
        ("model.layers.12.self_attn.q_proj.bias", "bias", 12),
        ("model.layers.0.self_attn.k_norm.weight", "norm", 0),
        ("model.layers.7.post_attention_layernorm.weight", "norm", 7),
        ("model.layers.2.mlp.experts.5.down_proj.weight", "down_proj", 2),
        ("model.layers.4.linear_attn.A_log", "A_log", 4),
        ("weight", "weight", None),
    ],
)
def test_names_are_parsed(name, kind_of, layer_of):
    assert (kind(name), layer(name)) == (kind_of, layer_of)


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
    second = open_checkpoint(save(tmp_path / "b", weights() | {QUERY: torch.ones(9, 5)}))
    with pytest.raises(UserError, match=r"q_proj.weight differ \(\(9, 5\) against \(7, 5\)\)"):
        check_same_tensors(first, second)


def test_missing_folder_and_missing_weights(tmp_path):
    with pytest.raises(UserError, match="expected a checkpoint folder, found none"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected model.safetensors or .*, found neither"):
        open_checkpoint(tmp_path)


def test_missing_shard(tmp_path):
    folder = save_sharded(tmp_path / "model", weights())
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(UserError, match=r"expected the shard model-1.safetensors, found none"):
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
    with pytest.raises(UserError, match=r"config.json: half-written"):
        open_checkpoint(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path, bad):
    tensors = weights()
    tensors[QUERY][2, 3] = bad
    checkpoint = open_checkpoint(save(tmp_path / "model", tensors))
    assert checkpoint.tensor(NORM).isfinite().all()
    with pytest.raises(UserError, match=f"tensor {QUERY} holds NaN or infinity"):
        checkpoint.tensor(QUERY)
