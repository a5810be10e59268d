"""A new model has the shape that the study says and weights that its seed alone decides."""

import random

import pytest
import torch
from safetensors import safe_open

from safety_spaces.experiments.plan.sizes import architecture_shapes
from safety_spaces.training.architecture import new_model
from tests.pico_model import pico_architecture

SHAPES = {
    "tied": {},
    "untied": {"tied": False},
    "qwen2": {"family": "qwen2"},
    "wide": {"hidden": 24, "heads": 6, "key_value_heads": 3, "intermediate": 40, "layers": 3, "vocabulary": 331},
}


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_plan_knows_the_tensors_of_the_model(tokenizer, tmp_path, changes):
    shape = pico_architecture(tokenizer, **changes)
    model = new_model(shape, tokenizer, seed=0)
    expected = architecture_shapes(shape)
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == expected
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {name: tuple(weight.shape) for name, weight in stored.items()} == expected
    assert ("lm_head.weight" in stored) == (not shape.tied)
    assert {weight.dtype for weight in stored.values()} == {torch.float32}


def test_the_shape_is_that_of_the_study(tokenizer):
    shape = pico_architecture(tokenizer, tied=False)
    model = new_model(shape, tokenizer, seed=0)
    sizes = {name.split("layers.1.")[-1]: tuple(weight.shape) for name, weight in model.named_parameters()}
    head = shape.hidden // shape.heads
    assert sizes["model.embed_tokens.weight"] == sizes["lm_head.weight"] == (shape.vocabulary, shape.hidden)
    assert sizes["self_attn.q_proj.weight"] == (shape.heads * head, shape.hidden)
    assert sizes["self_attn.k_proj.weight"] == (shape.key_value_heads * head, shape.hidden)
    assert sizes["mlp.down_proj.weight"] == (shape.hidden, shape.intermediate)
    assert model.config.num_hidden_layers == shape.layers
    assert model.config.max_position_embeddings == shape.positions
    assert model.config.bos_token_id is None
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id


def weights(tokenizer, seed):
    return torch.cat([w.flatten() for w in new_model(pico_architecture(tokenizer), tokenizer, seed=seed).parameters()])


def test_weights_depend_on_the_seed_alone(tokenizer):
    first = weights(tokenizer, 3)
    torch.manual_seed(99)
    random.seed(99)
    torch.randn(7)
    assert torch.equal(weights(tokenizer, 3), first)
    assert not torch.equal(weights(tokenizer, 4), first)
