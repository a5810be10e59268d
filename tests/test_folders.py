"""A checkpoint is all of its files, and is identified by what changes a model and by nothing else."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safety_spaces.errors import UserError
from safety_spaces.folders import checkpoint_identity, is_adapter, is_checkpoint, special_tokens, weight_files


def write_checkpoint(folder: Path, *, weight: float = 1.0, **config: object) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.full((2, 3), weight, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"hidden_size": 3, **config}))
    return folder


def test_checkpoint_identity_is_content(tmp_path: Path) -> None:
    first = write_checkpoint(tmp_path / "a", transformers_version="1", _name_or_path="a")
    second = write_checkpoint(tmp_path / "b", transformers_version="2")
    os.utime(second / "model.safetensors", (0, 0))
    assert checkpoint_identity(first) == checkpoint_identity(second)
    others = [write_checkpoint(tmp_path / "c", weight=2.0), write_checkpoint(tmp_path / "d", rope_theta=2)]
    assert len({checkpoint_identity(folder) for folder in (first, *others)}) == 3


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_unfinished_checkpoint_has_no_identity(tmp_path: Path, missing: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert is_checkpoint(folder)
    (folder / missing).unlink()
    assert not is_checkpoint(folder)
    with pytest.raises(UserError, match=r"expected config\.json and \*\.safetensors"):
        checkpoint_identity(folder)


def write_adapter(folder: Path, *, weight: float = 1.0, **config: object) -> Path:
    folder.mkdir(parents=True)
    save_file({"weight": np.full((2, 3), weight, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 3, "lora_alpha": 5, **config}))
    return folder


def test_the_identity_of_an_adapter_is_what_changes_its_sum(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "a", base_model_name_or_path="a", revision="x", peft_version="1", r=3)
    second = write_adapter(tmp_path / "b", base_model_name_or_path="b", lora_dropout=0.1, inference_mode=True)
    # A trainer writes its notes beside the adapter.
    save_file({"state": np.zeros(4)}, second / "optimizer.safetensors")
    (second / "config.json").write_text("{}")
    assert is_adapter(first)
    assert is_checkpoint(first)
    assert checkpoint_identity(first) == checkpoint_identity(second)
    others = [
        write_adapter(tmp_path / "c", weight=2.0),
        write_adapter(tmp_path / "d", lora_alpha=6),
        write_adapter(tmp_path / "e", use_rslora=True),
        write_adapter(tmp_path / "f", alpha_pattern={"q_proj": 7}),
        write_checkpoint(tmp_path / "g"),
    ]
    assert len({checkpoint_identity(folder) for folder in (first, *others)}) == 6


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_unfinished_adapter_has_no_identity(tmp_path: Path, missing: str) -> None:
    folder = write_adapter(tmp_path / "a")
    (folder / missing).unlink()
    assert not is_checkpoint(folder)
    with pytest.raises(
        UserError, match=r"a: expected .*, or adapter_config\.json and adapter_model\.safetensors; train"
    ):
        checkpoint_identity(folder)


def test_a_snapshot_of_links_is_a_checkpoint(tmp_path: Path) -> None:
    for folder in (write_checkpoint(tmp_path / "model"), write_adapter(tmp_path / "adapter")):
        snapshot = tmp_path / "snapshots" / folder.name
        snapshot.mkdir(parents=True)
        for path in folder.iterdir():
            (snapshot / path.name).symlink_to(path)
        assert is_checkpoint(snapshot)
        assert checkpoint_identity(snapshot) == checkpoint_identity(folder)


def test_a_sharded_checkpoint_is_what_its_index_names(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")
    save_file({"other": np.zeros(3, np.float32)}, folder / "model-2-of-2.safetensors")
    shards = {"weight": "model-1-of-2.safetensors", "other": "model-2-of-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert weight_files(folder) == [folder / name for name in sorted(shards.values())]
    assert is_checkpoint(folder)
    before = checkpoint_identity(folder)
    save_file({"stray": np.zeros(4)}, folder / "consolidated.safetensors")
    assert checkpoint_identity(folder) == before
    (folder / "model-2-of-2.safetensors").unlink()
    assert not is_checkpoint(folder)


@pytest.mark.parametrize(
    ("name", "changed", "same"),
    [
        ("generation_config.json", '{"repetition_penalty": 1.1}', '{"transformers_version": "9"}'),
        ("tokenizer_config.json", '{"eos_token": "<end>"}', '{"name_or_path": "elsewhere"}'),
        ("tokenizer.model", "pieces", None),
        ("merges.txt", "a b", None),
    ],
)
def test_what_a_tokenizer_or_a_generation_does_differently_is_another_checkpoint(
    tmp_path: Path, name: str, changed: str, same: str | None
) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / name).write_text("{}")
    before = checkpoint_identity(folder)
    (folder / name).write_text(changed)
    assert checkpoint_identity(folder) != before
    if same is not None:
        (folder / name).write_text(same)
        assert checkpoint_identity(folder) == before


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ({"eos_token_id": [7, 2], "top_p": 0.7}, {"eos_token_id": 2, "bos_token_id": 1}, {"eos": [7, 2], "bos": 1}),
        ({"pad_token_id": -1, "bos_token_id": 0}, {"eos_token_id": 0}, {"eos": 0, "bos": 0}),
        (None, {"eos_token_id": 2, "pad_token_id": None}, {"eos": 2}),
        ({}, {}, {}),
    ],
)
def test_special_tokens_are_those_of_the_generation_settings_else_of_the_configuration(
    tmp_path: Path, generation: dict | None, config: dict, expected: dict
) -> None:
    folder = write_checkpoint(tmp_path / "a", **config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert special_tokens(folder) == {f"{kind}_token_id": value for kind, value in expected.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected a JSON object, found none; mend or remove the file"),
        ('{"eos_token_id": 2', "expected a JSON object, found none; mend or remove the file"),
        ('{"eos_token_id": "</s>"}', "expected a number as eos_token_id, or a list of them, got '</s>'; correct it"),
        ('{"eos_token_id": [2, null]}', r"expected a number as eos_token_id, or a list of them, got \[2, None\]"),
    ],
)
def test_generation_settings_that_name_no_tokens_are_refused(tmp_path: Path, content: str, message: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(UserError, match=rf"generation_config\.json: {message}"):
        special_tokens(folder)
