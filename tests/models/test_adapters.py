"""A LoRA folder is its parent plus what PEFT adds; PEFT itself, in float64, is the twin."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from safety_spaces.errors import UserError, warn_once
from safety_spaces.geometry import Updates, factor
from safety_spaces.models.checkpoints import check_differs, update
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.tensors import HEAD
from tests.models.models import (
    ATTENTION,
    EMBEDDING,
    FAMILIES,
    add_adapter,
    linked,
    randomised,
    tiny_model,
    trained_adapter,
)

LINEAR = ["q_proj", "k_proj", "o_proj", "up_proj", "down_proj"]
CASES = {
    "plain": {"target_modules": LINEAR},
    "rank-stabilised": {"target_modules": LINEAR, "use_rslora": True},
    "patterns": {
        "target_modules": LINEAR,
        # A name, the end of one, an expression; one that starts a name and one that is none after a dot match nothing.
        "rank_pattern": {
            "model.layers.0.self_attn.q_proj": 4,
            "q_proj": 2,
            "proj": 1,
            "model.layers.1": 6,
            r"layers\.1\.mlp\..*": 5,
        },
        "alpha_pattern": {"down_proj": 11, "1.mlp.down_proj": 13, "_proj": 17},
    },
    "rank-stabilised patterns": {
        "target_modules": LINEAR,
        "use_rslora": True,
        "rank_pattern": {"k_proj": 2},
        "alpha_pattern": {"k_proj": 3},
    },
    "whole modules": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm", "k_proj"]},
    "embedding": {"target_modules": ["embed_tokens", "v_proj"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head"]},
    "whole embedding": {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
    "all biases": {"target_modules": ["q_proj", "o_proj"], "bias": "all"},
    "their biases": {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"},
}


def opened(trained):
    parent = open_checkpoint(trained.parent)
    return parent, open_checkpoint(trained.folder, parent=parent)


def assert_merged(adapter, trained):
    for name in adapter.names:
        expected = trained.merged[name]
        assert adapter.shape(name) == tuple(expected.shape)
        torch.testing.assert_close(adapter.tensor(name).double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("case", CASES)
def test_tensors_are_those_that_peft_merges(tmp_path, family, case):
    trained = trained_adapter(tmp_path, tiny_model(family), **CASES[case])
    parent, adapter = opened(trained)
    assert adapter.names == parent.names
    assert adapter.folder == trained.folder
    assert_merged(adapter, trained)


@pytest.mark.parametrize("case", ["plain", "embedding"])
def test_tensors_of_a_tied_model_are_those_that_peft_merges(tmp_path, case):
    trained = trained_adapter(tmp_path, tiny_model(tied=True), **CASES[case])
    parent, adapter = opened(trained)
    assert HEAD not in adapter.names
    assert adapter.names == parent.names
    assert_merged(adapter, trained)
    twice = open_checkpoint(trained.folder, parent=open_checkpoint(trained.parent, tied="twice"))
    assert twice.names == tuple(sorted((*parent.names, HEAD)))
    assert torch.equal(twice.tensor(HEAD), adapter.tensor(EMBEDDING))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("case", CASES)
def test_the_difference_to_the_parent_is_the_product_itself(tmp_path, dtype, case):
    """Weights a million times larger than the update would leave none of its digits in a difference."""
    model = tiny_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1e6 if dtype != torch.float16 else 1e3)
    trained = trained_adapter(tmp_path, model, dtype=dtype, **CASES[case])
    parent, adapter = opened(trained)
    products = [name for name in adapter.names if adapter.products(name)]
    assert products
    for name in products:
        added = trained.merged[name] - parent.tensor(name).double()
        torch.testing.assert_close(update(parent, adapter, name).double(), added, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(update(adapter, parent, name), -update(parent, adapter, name))
    for name in set(adapter.names) - set(products):
        expected = trained.merged[name] - parent.tensor(name).double()
        torch.testing.assert_close(update(parent, adapter, name).reshape(adapter.shape(name)).double(), expected)


def test_the_rank_of_the_difference_is_that_of_the_adapter(tmp_path):
    parent, adapter = opened(trained_adapter(tmp_path, tiny_model(), **CASES["patterns"]))
    ranks = {name: factor(update(parent, adapter, name)).rank for name in adapter.names if "weight" in name}
    layers = "model.layers.{}.{}.weight"
    changed = {
        layers.format(layer, module): rank
        for layer, module, rank in [
            (0, "self_attn.q_proj", 4),
            (1, "self_attn.q_proj", 2),
            (0, "self_attn.k_proj", 3),
            (1, "self_attn.k_proj", 3),
            (0, "self_attn.o_proj", 3),
            (1, "self_attn.o_proj", 3),
            (0, "mlp.up_proj", 3),
            (1, "mlp.up_proj", 5),
            (0, "mlp.down_proj", 3),
            (1, "mlp.down_proj", 5),
        ]
    }
    assert ranks == {name: changed.get(name, 0) for name in ranks}


def test_what_two_adapters_share_is_not_added_and_subtracted(tmp_path):
    """A task trained on the reference's adapter, and one beside it; no tensor of the parent is read."""
    first = trained_adapter(tmp_path, tiny_model(), **CASES["plain"])
    parent, reference = opened(first)
    for name, seed in (("beside", 8), ("above", 9)):
        add_adapter(tmp_path / name, tiny_model(), seed=seed, target_modules=["q_proj"], r=2)
    beside = open_checkpoint(tmp_path / "beside", parent=parent)
    above = open_checkpoint(tmp_path / "above", parent=reference)
    stored = {
        seed: load_file(tmp_path / name / "adapter_model.safetensors") for name, seed in (("beside", 8), ("above", 9))
    }
    key = f"base_model.model.{ATTENTION.removesuffix('.weight')}.lora_{{}}.weight"
    product = {seed: 5 / 2 * of[key.format("B")].double() @ of[key.format("A")].double() for seed, of in stored.items()}
    own = first.merged[ATTENTION] - parent.tensor(ATTENTION).double()
    torch.testing.assert_close(update(reference, above, ATTENTION).double(), product[9], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(update(reference, beside, ATTENTION).double(), product[8] - own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(update(parent, above, ATTENTION).double(), product[9] + own, rtol=1e-5, atol=1e-5)
    assert factor(update(reference, above, ATTENTION)).rank == 2
    found = Updates(parent, reference, {"useful": above})
    torch.testing.assert_close(found.of("useful", ATTENTION), update(reference, above, ATTENTION))


def test_a_whole_tensor_replaces_the_sum_of_its_parent(tmp_path):
    parent, reference = opened(trained_adapter(tmp_path, tiny_model(), **CASES["plain"]))
    add_adapter(tmp_path / "above", tiny_model(), seed=6, target_modules=["v_proj"], modules_to_save=["q_proj"])
    above = open_checkpoint(tmp_path / "above", parent=reference)
    key = f"base_model.model.{ATTENTION}"
    stored = load_file(tmp_path / "above" / "adapter_model.safetensors")[key]
    assert torch.equal(above.tensor(ATTENTION), stored)
    expected = stored.double() - reference.tensor(ATTENTION).double()
    torch.testing.assert_close(update(reference, above, ATTENTION).double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(update(parent, above, ATTENTION), stored - parent.tensor(ATTENTION))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_sum_is_float32_or_better_and_leaves_the_parent_as_it_is(tmp_path, dtype):
    trained = trained_adapter(tmp_path, tiny_model(), dtype=dtype, **CASES["plain"])
    parent, adapter = opened(trained)
    mapped, before = parent.mapped(ATTENTION), parent.tensor(ATTENTION).clone()
    assert adapter.mapped(ATTENTION).dtype == torch.promote_types(dtype, torch.float32)
    assert not torch.equal(adapter.tensor(ATTENTION), before)
    assert torch.equal(mapped.to(before), before)
    assert torch.equal(parent.tensor(ATTENTION), before)
    assert adapter.mapped("model.norm.weight").dtype == dtype


def test_an_embedding_saved_below_its_product_is_the_parent_s(tmp_path):
    """PEFT repeats it in the number format of the training: rounding is no part of the update."""
    model = tiny_model()
    model.save_pretrained(tmp_path / "parent")
    add_adapter(tmp_path / "adapter", model.bfloat16(), seed=1, target_modules=["embed_tokens"], r=3)
    parent = open_checkpoint(tmp_path / "parent")
    adapter = open_checkpoint(tmp_path / "adapter", parent=parent)
    assert factor(update(parent, adapter, EMBEDDING)).rank == 3


def test_weights_stored_as_inputs_by_outputs_get_the_product_transposed(tmp_path):
    model = randomised(
        GPT2LMHeadModel(GPT2Config(vocab_size=29, n_embd=12, n_layer=1, n_head=3, n_positions=7)), seed=3
    )
    trained = trained_adapter(tmp_path, model, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    _, adapter = opened(trained)
    assert adapter.products("transformer.h.0.attn.c_proj.weight")
    assert_merged(adapter, trained)


def test_new_tokens_are_rows_at_the_end(tmp_path, caplog):
    model = tiny_model(tied=True)
    model.save_pretrained(tmp_path / "parent")
    model.resize_token_embeddings(31, mean_resizing=False)
    grown = add_adapter(tmp_path / "adapter", model, seed=2, target_modules=["q_proj", "embed_tokens"])
    parent = open_checkpoint(tmp_path / "parent")
    adapter = open_checkpoint(tmp_path / "adapter", parent=parent)
    merged = grown.double().merge_and_unload().state_dict()[EMBEDDING]
    assert adapter.shape(EMBEDDING) == (31, 12)
    torch.testing.assert_close(adapter.tensor(EMBEDDING).double(), merged, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(
        update(parent, adapter, EMBEDDING).double(), merged[:29] - parent.tensor(EMBEDDING), rtol=1e-5, atol=1e-5
    )


def test_an_embedding_trained_beside_a_tied_head_is_said_to_change_both(tmp_path, caplog):
    trained = trained_adapter(tmp_path, tiny_model(tied=True), **CASES["embedding"])
    warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        opened(trained)
        opened(trained)
    (said,) = caplog.messages
    assert said.startswith(f"warning: {trained.folder} adds to the embedding, which is the output head too")


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
    ],
)
def test_tied_tensors_trained_as_one_change_once(tmp_path, config):
    """As the model ran in training; PEFT's own merge adds a product twice to a tied tensor."""
    model = tiny_model(tied=True)
    model.save_pretrained(tmp_path / "parent")
    add_adapter(tmp_path / "adapter", model, seed=4, ensure_weight_tying=True, **config)
    parent = open_checkpoint(tmp_path / "parent")
    adapter = open_checkpoint(tmp_path / "adapter", parent=parent)
    stored = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    table = "base_model.model.model.embed_tokens."
    if "modules_to_save" in config:
        expected = stored[f"{table}weight"]
    else:
        product = stored[f"{table}lora_embedding_B"].double() @ stored[f"{table}lora_embedding_A"].double()
        expected = parent.tensor(EMBEDDING) + 5 / 3 * product.t()
    assert adapter.names == parent.names
    torch.testing.assert_close(adapter.tensor(EMBEDDING).double(), expected.double(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["embed_tokens"], "modules_to_save": ["lm_head"]},
    ],
)
def test_a_head_that_leaves_its_tied_embedding_is_refused(tmp_path, config):
    trained = trained_adapter(tmp_path, tiny_model(tied=True), **config)
    with pytest.raises(UserError, match=rf"adapter: expected {HEAD} and {EMBEDDING} to change alike"):
        opened(trained)


def test_an_adapter_needs_its_parent(tmp_path):
    trained = trained_adapter(tmp_path, tiny_model(), **CASES["plain"])
    with pytest.raises(UserError, match=r"adapter: expected a model, found a LoRA folder; name the model or role"):
        open_checkpoint(trained.folder)


def test_a_parent_is_for_adapters_alone(tmp_path):
    parent = open_checkpoint(trained_adapter(tmp_path, tiny_model(), **CASES["plain"]).parent)
    assert open_checkpoint(parent.folder, parent=parent) == parent


def test_an_adapter_that_adds_nothing_is_no_update(tmp_path):
    model = tiny_model()
    trained = trained_adapter(tmp_path, model, **CASES["plain"])
    path = trained.folder / "adapter_model.safetensors"
    save_file({name: of * ("lora_A" in name) for name, of in load_file(path).items()}, path)
    with pytest.raises(UserError, match=r"adapter: expected weights that differ from .*parent, all are equal"):
        check_differs(*opened(trained))


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "use_dora is not supported"),
        ({"lora_bias": True}, "lora_bias is not supported"),
        ({"target_modules": [], "target_parameters": ["mlp.down_proj.weight"]}, "target_parameters is not supported"),
        ({"trainable_token_indices": [1, 4]}, "trainable_token_indices is not supported"),
        ({"layer_replication": [(0, 2), (0, 1)]}, "layer_replication is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa changes them"),
        ({"init_lora_weights": "olora"}, "init_lora_weights olora changes them"),
    ],
)
def test_what_peft_does_beyond_plain_lora_is_refused_by_name(tmp_path, config, named):
    trained = trained_adapter(tmp_path, tiny_model(), **{"target_modules": ["q_proj"], **config})
    with pytest.raises(UserError, match=f"adapter_config.json: expected .*{named}") as caught:
        opened(trained)
    assert "\n" not in str(caught.value)


@pytest.fixture
def trained(tmp_path):
    return trained_adapter(tmp_path, tiny_model(), target_modules=["q_proj", "down_proj"])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"peft_type": "LN_TUNING"}, "expected peft_type LORA, got LN_TUNING"),
        ({"peft_type": None}, "expected peft_type LORA, got None"),
        ({"use_something_new": {"a": 1}}, "use_something_new is not supported"),
        ({"r": None}, "expected a number as r, got None"),
        ({"lora_alpha": "5"}, "expected a number as lora_alpha, got 5"),
        ({"r": 4}, r"matrices A and B of rank 4 for .*, got A \(3, \d+\), B \(\d+, 3\)"),
        ({"rank_pattern": {"down_proj": 2}}, r"rank 2 for model.layers.\d.mlp.down_proj"),
    ],
)
def test_settings_that_do_not_fit_are_named(trained, changes, named):
    path = trained.folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=named):
        opened(trained)


DOWN = "base_model.model.model.layers.0.mlp.down_proj"
NOWHERE = "base_model.model.model.layers.9.mlp.down_proj"


@pytest.mark.parametrize(
    ("tensors", "named"),
    [
        ({f"{DOWN}.lora_magnitude_vector": torch.ones(12)}, f"{DOWN}.lora_magnitude_vector is neither"),
        ({f"{DOWN}.lora_B.bias": torch.ones(12)}, f"{DOWN}.lora_B.bias is neither"),
        ({f"{DOWN}.bias": torch.ones(12)}, f"{DOWN}.bias is neither"),
        ({"model.norm.weight": torch.ones(12)}, "tensors of the parent, model.norm.weight is neither"),
        ({f"{DOWN}.weight": torch.ones(12, 20, dtype=torch.int8)}, f"{DOWN}.weight is neither"),
        ({f"{DOWN}.lora_A.weight": None}, r"of rank 3 for model.layers.0.mlp.down_proj, .*, got B \(12, 3\)"),
        ({f"{DOWN}.lora_B.weight": None}, r"of rank 3 for model.layers.0.mlp.down_proj, .*, got A \(3, 20\)"),
        ({f"{DOWN}.lora_A.weight": torch.ones(3, 19)}, r"0.mlp.down_proj.weight, \(12, 20\), got \(12, 19\)"),
        ({f"{DOWN}.lora_A.weight": torch.ones(3, 20, 1, 1)}, r"of rank 3 for .*, got A \(3, 20, 1, 1\), B \(12, 3\)"),
        (
            {f"{NOWHERE}.lora_A.weight": torch.ones(3, 20), f"{NOWHERE}.lora_B.weight": torch.ones(12, 3)},
            r"shape of the parent's model.layers.9.mlp.down_proj.weight, None, got \(12, 20\)",
        ),
    ],
)
def test_tensors_without_a_place_are_named(trained, tensors, named):
    path = trained.folder / "adapter_model.safetensors"
    changed = load_file(path) | tensors
    save_file({name: of for name, of in changed.items() if of is not None}, path)
    with pytest.raises(UserError, match=named):
        opened(trained)


def test_an_adapter_without_safetensors_is_named(trained):
    (trained.folder / "adapter_model.safetensors").rename(trained.folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter: expected a checkpoint, found adapter_model.bin, a pickle"):
        opened(trained)


def test_an_adapter_beside_a_model_is_ambiguous(trained):
    (trained.folder / "model.safetensors").touch()
    with pytest.raises(UserError, match="adapter: expected a model or a LoRA folder, found both"):
        opened(trained)


def test_an_adapter_that_is_not_finite_is_named(trained):
    path = trained.folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors[f"{DOWN}.lora_A.weight"][1, 2] = float("nan")
    save_file(tensors, path)
    name = "model.layers.0.mlp.down_proj.weight"
    with pytest.raises(UserError, match=f"adapter: expected finite weights, tensor {name}"):
        update(*opened(trained), name)


def test_links_of_a_hub_s_cache_are_followed(trained, tmp_path):
    parent, adapter = opened(trained)
    snapshots = [tmp_path / "hub" / name for name in ("parent", "adapter")]
    for snapshot, source in zip(snapshots, (trained.parent, trained.folder), strict=True):
        snapshot.parent.mkdir(exist_ok=True)
        linked(snapshot, source)
    cached = open_checkpoint(snapshots[0])
    for name in parent.names:
        assert torch.equal(open_checkpoint(snapshots[1], parent=cached).tensor(name), adapter.tensor(name))
        assert not update(parent, cached, name).any()
