"""A checkpoint is all of its files, and is identified by what changes a model and by nothing else."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from safety_spaces.errors import UserError
from safety_spaces.models.folders import (
    checkpoint_identity,
    flaw,
    is_adapter,
    is_checkpoint,
    special_tokens,
    weight_files,
)


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


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def instead(name: str, content: str = "") -> Callable[[Path], object]:
    """Put a file in the place of the weights."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_text(content)

    return change


def written(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def longer(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"0")


def moved_below(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).mkdir(parents=True)
        (folder / "model.safetensors").rename(folder / name / "model.safetensors")

    return change


INDEXED = '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (instead("pytorch_model.bin"), "found pytorch_model.bin, a pickle, and none is read; save the model as safe"),
        (instead("pytorch_model-00001-of-00002.bin"), "found pytorch_model-00001-of-00002.bin, a pickle"),
        (instead("training_args.bin"), "found no model.safetensors"),
        (instead("model-Q4.gguf"), "found GGUF alone; name the folder of safetensors files"),
        (instead("model-00001-of-00002.safetensors"), "found shards without model.safetensors.index.json; copy that"),
        (instead("consolidated.safetensors"), "found consolidated.safetensors in the place of model.safetensors"),
        (instead("adapter_model.safetensors"), "found adapter_model.safetensors without adapter_config.json"),
        (
            instead("adapter_config.json", "{}"),
            "found adapter_config.json without adapter_model.safetensors; copy that",
        ),
        (
            written("adapter_config.json", "{}"),
            "found adapter_config.json without adapter_model.safetensors; copy that",
        ),
        (moved_below("a/b/c"), "found no model.safetensors"),
        (instead("model.safetensors.index.json", INDEXED), "found no model-00001-of-00002.safetensors; copy it too"),
        (instead("model.safetensors.index.json", "{"), "found a model.safetensors.index.json that names no files"),
        (instead("model.safetensors.index.json", '{"weight_map": ["a"]}'), "index.json that names no files"),
        (moved_below("checkpoint-500"), "found some below it; name one of these folders, as "),
        (moved_below("snapshots/0f"), "found some below it; name one of these folders, as "),
        (without("config.json"), "found no config.json; copy it"),
        (written("config.json", "{"), "found config.json, which is no JSON object"),
        (written("config.json", "[]"), "found config.json, which is no JSON object"),
        (written("config.json", "[" * 100_000), "found config.json, which is no JSON object"),
        (cut, "model.safetensors: half-written or unreadable"),
        (longer, "model.safetensors: half-written or unreadable"),
        (written("model.safetensors", ""), "model.safetensors: half-written or unreadable"),
        (written("model.safetensors", "no tensors at all"), "model.safetensors: half-written or unreadable"),
        (written("model.safetensors", LFS), "found model.safetensors as a pointer of Git LFS; run git lfs pull"),
    ],
)
def test_what_a_folder_lacks_is_said(tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    folder = write_checkpoint(tmp_path / "a")
    assert flaw(folder) is None
    change(folder)
    assert message in str(flaw(folder))
    assert not is_checkpoint(folder)


def test_a_path_that_is_no_folder_says_what_it_is(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "a")
    for name in ("loop", "dangling"):
        (tmp_path / name).symlink_to(tmp_path / ("loop" if name == "loop" else "nowhere"))
        assert flaw(tmp_path / name) == "found a link that leads nowhere; link it again"
    assert flaw(folder / "model.safetensors") == f"found a file; name a folder: {folder}"
    assert flaw(folder / "config.json") == "found a file"
    (folder / "model.gguf").touch()
    assert str(flaw(folder / "model.gguf")).startswith("found a GGUF file; name the folder of safetensors")
    assert flaw(tmp_path / "b") == "found none"
    (tmp_path / "b").mkdir()
    assert flaw(tmp_path / "b") == "found an empty folder"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "nowhere")
    assert "that is no file, or a link to none" in str(flaw(folder))


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom no permission stops: the listing fails as the system call would."""
    folder = write_checkpoint(tmp_path / "a")

    def refuse(self: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert flaw(folder) == "found one that cannot be read (Permission denied); make it readable"


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
