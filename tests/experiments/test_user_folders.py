"""Folders as people have them, through the commands: other families, older buffers, mixed types, quantised ones."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from safety_spaces.command_line import parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.experiments.projection import stage
from safety_spaces.experiments.training import train_role
from tests.experiments.plain import plain_mso
from tests.models.families import FAMILIES, family_model, rewrite
from tests.models.test_opening import OLD
from tests.pico import ROOT, run_script

ROLES = ("base", "reference", "useful", "harmful", "contaminated")
FRACTION, ETA = 0.5, 0.5


@pytest.fixture
def study(tmp_path):
    """Writes five folders of a family and a study of them; returns their weights in float64 by role."""

    def write(name, given=ROLES):
        weights = {}
        for seed, role in enumerate(ROLES):
            model = family_model(name, seed=seed)
            model.save_pretrained(tmp_path / role)
            weights[role] = {key: of.detach().double().numpy() for key, of in model.named_parameters()}
        roles = {role: {"path": str(tmp_path / role)} for role in ROLES}
        tasks = {role: Replaced(roles[role]) for role in given[2:]}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump({
            "extends": str(ROOT / "configs/paper.yaml"), "name": "own", "model": name, "threads": 1,
            "roles": {**{role: roles[role] for role in given[:2]}, **tasks},
            "update_spaces": {"etas": [ETA]}, "projection": {"fractions": [FRACTION]},
        }))  # fmt: skip
        return weights

    return write


class Replaced(dict):
    """A mapping that replaces the extended one."""


yaml.SafeDumper.add_representer(Replaced, lambda dumper, data: dumper.represent_mapping("!replace", data.items()))


def run(script, tmp_path, *flags):
    return run_script(script, tmp_path / "study.yaml", tmp_path, *flags)


def table(tmp_path, name):
    return pd.read_csv(tmp_path / f"results/own/{name}.csv")


def to_type(dtype):
    return lambda tensors: {key: of.to(dtype) for key, of in tensors.items()}


def with_buffers(name):
    return lambda tensors: {**tensors, **OLD[name](0), **OLD[name](1)}


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "openai-gpt", "gemma"])
def test_tables_of_old_and_mixed_folders_are_those_of_dense_algebra(study, tmp_path, name):
    weights, embeddings = study(name), FAMILIES[name].embeddings
    rewrite(tmp_path / "useful", to_type(torch.float64))
    if name in OLD:
        rewrite(tmp_path / "base", with_buffers(name))
    assert run("projection", tmp_path, "--geometry-only") == 0
    assert run("update_spaces", tmp_path) == 0
    update = {role: {key: of - weights["reference"][key] for key, of in weights[role].items()} for role in ROLES[2:]}
    update["reference"] = {key: of - weights["base"][key] for key, of in weights["reference"].items()}
    energy = table(tmp_path, "energy").query("basis == 'top_k' and task == 'useful'").set_index("tensor")
    inside, norms = {}, {}
    for key, D in update["useful"].items():
        matrix, reference = (of[key].reshape(len(D), -1) for of in (update["useful"], update["reference"]))
        U = np.linalg.svd(reference, full_matrices=False)[0]
        k = max(1, int(FRACTION * min(matrix.shape)))
        inside[key], norms[key] = ((U[:, :k].T @ matrix) ** 2).sum(), (matrix**2).sum()
        assert energy.energy_kept[key] == pytest.approx(inside[key] / norms[key], rel=1e-4)
    for total, left_out in (("all", ()), ("all_but_embeddings", embeddings)):
        keys = [key for key in norms if key not in left_out]
        assert energy.update_norm[total] == pytest.approx(sum(norms[key] for key in keys) ** 0.5, rel=1e-5)
        kept = sum(inside[key] for key in keys) / sum(norms[key] for key in keys)
        assert energy.energy_kept[total] == pytest.approx(kept, rel=1e-4)
    overlaps = table(tmp_path, "update_spaces").query("pair == 'useful-harmful'").set_index("tensor")
    assert overlaps.kind[embeddings[0]] == energy.kind[embeddings[0]] == "embed_tokens"
    assert set(overlaps.index) == {key for key, of in weights["base"].items() if of.ndim == 2}
    for key, row in overlaps.iterrows():
        mso, *_ = plain_mso(update["useful"][key], update["harmful"][key], ETA)
        assert row.mso == pytest.approx(mso, abs=1e-4)


@pytest.mark.parametrize("role", ROLES)
def test_a_quantised_folder_is_refused_before_any_work(study, tmp_path, role, capsys):
    study("llama")
    path = tmp_path / role / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "fp8"}}))
    scripts = [("finetune", ()), ("projection", ("--geometry-only",)), ("update_spaces", ())]
    # Overlaps are of no contaminated task.
    for script, flags in scripts[: 2 if role == "contaminated" else 3]:
        assert run(script, tmp_path, *flags) == 2
        error = capsys.readouterr().err.strip()
        assert f"{role}: expected weights in float32" in error
        assert "\n" not in error
    assert not (tmp_path / "runs/own/seed-0/cells").exists()


@pytest.mark.parametrize("script", ["projection", "update_spaces"])
def test_a_type_of_codes_is_refused_before_any_work(study, tmp_path, script, capsys):
    study("llama")
    rewrite(tmp_path / "harmful", to_type(torch.float8_e4m3fn))
    assert run(script, tmp_path, *(["--geometry-only"] if script == "projection" else [])) == 2
    assert "harmful: expected weights in float32" in capsys.readouterr().err
    assert not (tmp_path / "runs/own/seed-0/cells").exists()


def command_of(tmp_path, *flags):
    return parse_arguments("", [str(tmp_path / "study.yaml"), "--runs", str(tmp_path / "runs"), *flags], projects=True)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_that_are_joined_are_refused_before_the_sweep(study, tmp_path, name):
    study(name)
    roles = command_of(tmp_path).roles
    settings = {"device": "cpu", "is_scored": True, "keep_factors": False}
    with pytest.raises(UserError, match=r"reference: expected tensors as the live model has them, it joins .*experts"):
        stage._measure(stage.wanted_energies(roles, [0]), 0, [(0, "useful")], **settings)
    assert run("projection", tmp_path, "--geometry-only") == 0
    assert "kind:w1" in set(table(tmp_path, "energy").tensor) or name == "qwen3_moe"


def test_a_model_without_a_head_is_not_trained(study, tmp_path):
    study("llama", given=ROLES[:2])
    shutil.rmtree(tmp_path / "reference")
    family_model("llama", seed=1).model.save_pretrained(tmp_path / "reference")
    command = command_of(tmp_path)
    with pytest.raises(UserError, match=r"reference: expected the tensors of its model, lm_head.weight missing"):
        train_role(command.roles, command.texts, "useful", 0, [], recipe={"seed": 0}, device_name=None)
