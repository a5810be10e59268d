"""Sizes said before there are weights are those that the weights then have."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_spaces.errors import UserError
from safety_spaces.experiments.plan.sizes import architecture_shapes, factor_size, parameters, stored_shapes
from safety_spaces.paths import ROOT
from safety_spaces.study import load_study
from safety_spaces.training.architecture import new_model
from tests.pico_model import pico_architecture, pico_tokenizer

PARAMETERS = {
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "llama-3.2-1b": 1_235_814_400,
    "llama-2-7b": 6_738_415_616,
}
"""What their makers say: 1.54, 3.09, 7.61, 1.23 and 6.74 billion."""


@pytest.mark.parametrize("changes", [{}, {"family": "qwen2", "tied": False, "key_value_heads": 2}])
def test_shapes_are_those_of_the_model_and_of_its_files(changes, tmp_path):
    tokenizer = pico_tokenizer()
    architecture = pico_architecture(tokenizer, **changes)
    new_model(architecture, tokenizer, seed=0).save_pretrained(tmp_path)
    stored = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    assert architecture_shapes(architecture) == stored_shapes(tmp_path) == stored


def test_a_tied_head_and_whole_numbers_are_not_counted(tmp_path):
    weights = {"model.embed_tokens.weight": torch.zeros(5, 2), "lm_head.weight": torch.zeros(5, 2)}
    save_file(
        {**weights, "steps": torch.zeros(3, dtype=torch.int64), "mask": torch.ones(2).bool()},
        tmp_path / "model.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    assert stored_shapes(tmp_path) == {"model.embed_tokens.weight": (5, 2)}
    # Whether the class ties them torch alone could say: a bound.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gemma"}))
    assert set(stored_shapes(tmp_path)) == set(weights)


@pytest.mark.parametrize("length", [3, 40, 99])
def test_a_header_that_is_cut_short_is_named(tmp_path, length):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    path.write_bytes(path.read_bytes()[:length] if length < 99 else b"GGUF" * 20)
    with pytest.raises(UserError, match=r"model\.safetensors: half-written or unreadable; copy or write it again"):
        stored_shapes(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("q_proj.weight", (7, 3), {"left": 7 * 3, "right": 3 * 3, "residual": 3 * 3}),
        ("q_proj.weight", (3, 7), {"left": 3 * 3, "right": 7 * 3, "residual": 7 * 3}),
        ("down_proj.weight", (3, 7), {"left": 3 * 3, "right": 7 * 3, "residual": 3 * 3}),
        ("norm.weight", (7,), {"left": 7, "right": 7, "residual": 7}),
        ("c_proj.weight", (3, 7), {"left": 3 * 3, "right": 7 * 3, "residual": 7 * 3}),
        ("mixer.weight", (7, 3), {"left": 7 * 3, "right": 3 * 3, "residual": 7 * 3}),
        ("conv.weight", (3, 2, 4), {"left": 3 * 3, "right": 8 * 3, "residual": 8 * 3}),
    ],
)
def test_a_factor_is_as_large_as_its_singular_vectors(name, shape, sizes):
    assert {side: factor_size(name, shape, side=side) for side in sizes} == sizes
    left = torch.linalg.svd(torch.randn(shape[0], math.prod(shape[1:])), full_matrices=False)[0]
    assert left.numel() == sizes["left"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_models_of_the_paper_have_the_sizes_that_their_makers_say(name):
    architecture = load_study(ROOT / f"configs/{name}.yaml").roles["base"].architecture
    assert parameters(architecture_shapes(architecture)) == PARAMETERS[name]
