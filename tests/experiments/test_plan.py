"""The plan counts what the study then has."""

import json
import math

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import cells_per_seed
from safety_spaces.experiments.command import parse_command
from safety_spaces.experiments.plan import architecture_shapes, factor_size, plan, stored_shapes
from safety_spaces.training.architecture import new_model
from tests.pico import write_study
from tests.pico_model import pico_architecture, pico_tokenizer


def test_the_plan_counts_parameters_checkpoints_and_cells(finished):
    command = parse_command("", [str(finished / "study.yaml"), "--runs", str(finished / "runs")])
    weights = load_file(finished / "runs/pico/checkpoints/base/model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = plan(command)
    assert f"{parameters:,} parameters, 2 seeds" in text
    assert "9 checkpoints of" in text
    assert "0 still to be made" in text
    projection = pd.read_csv(finished / "results/pico/projection.csv")
    assert f"{len(projection)} scores" in text
    energy = pd.read_csv(finished / "results/pico/energy.csv")
    assert f"{(energy.tensor == 'all').sum()} energies" in text
    assert cells_per_seed(command)["scores"] * 2 == (projection.scheme != "none").sum()


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
        tmp_path / "a.safetensors",
    )
    (tmp_path / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    assert stored_shapes(tmp_path) == {"model.embed_tokens.weight": (5, 2)}
    (tmp_path / "config.json").write_text("{}")
    assert set(stored_shapes(tmp_path)) == set(weights)


@pytest.mark.parametrize("length", [3, 40])
def test_a_header_that_is_cut_short_is_named(tmp_path, length):
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:length])
    with pytest.raises(UserError, match=r"a\.safetensors: expected a safetensors header"):
        stored_shapes(tmp_path)


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [
        ("q_proj.weight", (7, 3), {"left": 7 * 3, "right": 3 * 3, "residual": 3 * 3}),
        ("q_proj.weight", (3, 7), {"left": 3 * 3, "right": 7 * 3, "residual": 7 * 3}),
        ("down_proj.weight", (3, 7), {"left": 3 * 3, "right": 7 * 3, "residual": 3 * 3}),
        ("norm.weight", (7,), {"left": 7, "right": 7, "residual": 7}),
        ("conv.weight", (3, 2, 4), {"left": 3 * 3, "right": 8 * 3, "residual": 8 * 3}),
    ],
)
def test_a_factor_is_as_large_as_its_singular_vectors(name, shape, sizes):
    assert {side: factor_size(name, shape, side=side) for side in sizes} == sizes
    left = torch.linalg.svd(torch.randn(shape[0], math.prod(shape[1:])), full_matrices=False)[0]
    assert left.numel() == sizes["left"]


@pytest.mark.parametrize(("changes", "flags", "factors"), [
    ({}, [], 0), ({"tied": "twice"}, [], 256 * 24), ({}, ["--geometry-only"], None),
    ({}, ["--geometry-only", "--keep-factors"], 0),
])  # fmt: skip
def test_the_plan_knows_what_will_lie_on_disk(tmp_path, changes, flags, factors):
    study = write_study(tmp_path / "study.yaml", projection=changes)
    command = parse_command("", [str(study), *flags], projects=True)
    shapes = architecture_shapes(command.study.roles["base"].architecture)
    numbers = 0 if factors is None else factors + sum(factor_size(n, s, side="left") for n, s in shapes.items())
    size = f"{4 * numbers / 1000:.3g} KB" if numbers else "0 B"
    assert f"factors on disk {size} a seed, removed at the end unless --keep-factors" in plan(command)
