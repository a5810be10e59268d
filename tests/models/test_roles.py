"""A path of a study is a folder or a model of the hub, and what is wrong with it is said before any work."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from safety_spaces.command_line import parse_arguments
from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.experiments import finetune
from safety_spaces.models import roles
from safety_spaces.models.roles import is_on_hub
from tests.pico import run_script

COMMANDS = [
    ("finetune", []), ("projection", []), ("projection", ["--geometry-only"]), ("update_spaces", []),
    ("activation_space", []), ("report", ["--plan"]), ("projection", ["--plan"]), ("finetune", ["--download"]),
]  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty cache of the hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    save_file({"model.embed_tokens.weight": np.ones((4, 3), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return folder


def study_of(base: str, **changes: object) -> Path:
    roles = {"base": {"path": base}, "reference": {"path": str(write_model(Path("aligned").absolute()))}}
    content = {"extends": "configs/paper.yaml", "name": "own", "model": "own", "roles": roles, **changes}
    Path("study.yaml").write_text(yaml.safe_dump(content))
    return Path("study.yaml")


def test_what_is_here_is_a_folder_and_what_looks_like_one_is_no_id(here):
    for path in ("gpt2", "owner/model"):
        assert is_on_hub(path)
        write_model(here / path)
        assert not is_on_hub(path)
    # Beside a folder that is here: a mistake in a path.
    assert not is_on_hub("owner/modle")
    assert not any(map(is_on_hub, ("checkpoints/base", "./owner2/model", "~/model", "/a/b", "models", "configs/x")))


def test_a_model_in_the_cache_may_share_its_owner_with_a_folder_here(here, monkeypatch):
    (here / "owner").mkdir()
    assert not is_on_hub("owner/model")
    monkeypatch.setattr(roles, "cached_model", lambda name, revision: here / "cache")
    assert is_on_hub("owner/model")


@pytest.mark.parametrize("path", ["~/base", "$HOME/base", "base", "./base"])
def test_a_folder_is_found_however_its_path_is_written(here, path):
    write_model(here / "base")
    command = parse_arguments("", [str(study_of(path))])
    assert command.roles.finished("base", 0).resolve() == here / "base"


@pytest.mark.parametrize(("name", "flags"), COMMANDS)
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("checkpoints/base", "{here}/checkpoints/base: expected the finished checkpoint base, found none; correct"),
        ("aligned/base", "/base: expected the finished checkpoint base, found none; correct its path in the study, or "
         "run hf download aligned/base if the hub has it in safetensors"),
        ("~/base", "{here}/base: expected the finished checkpoint base, found none"),
        ("aligned/model.safetensors", "found a file; name a folder: {here}/aligned, or correct its path in the study"),
        ("$NOWHERE/base", "$NOWHERE/base: expected the environment variable NOWHERE, found none"),
        ("pickled", "{here}/pickled: expected the finished checkpoint base, found pytorch_model.bin, a pickle"),
    ],
)  # fmt: skip
def test_every_command_refuses_what_is_no_checkpoint(here, capsys, name, flags, path, message):
    study = study_of(path)
    (write_model(here / "pickled") / "model.safetensors").rename(here / "pickled/pytorch_model.bin")
    assert run_script(name, study, here, *flags) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    assert message.format(here=here) in lines[0]
    assert not (here / "runs").exists()


def test_what_is_neither_here_nor_reached_is_said_to_be_both(here):
    command = parse_arguments("", [str(study_of("gpt2"))])
    with pytest.raises(UserError, match=f"^gpt2: expected a folder, a downloaded model or a network, .*no {here}/gpt2"):
        command.roles.finished("base", 0)


def test_a_base_that_nothing_is_trained_from_is_looked_for_before_the_trainings(here, monkeypatch):
    monkeypatch.setattr(Texts, "role_rows", lambda *_: [])
    monkeypatch.setattr(finetune, "_train_if_missing", lambda *_: pytest.fail("trained"))
    command = parse_arguments("", [str(study_of("chekpoints/base")), "--runs", str(here / "runs")])
    with pytest.raises(UserError, match=f"chekpoints/base: expected a folder, .*no {here}/chekpoints/base"):
        finetune.finetune(command)


@pytest.mark.parametrize(("name", "flags"), [("finetune", []), ("projection", ["--plan"])])
def test_the_folder_of_a_classifier_is_looked_at_too(here, capsys, name, flags):
    judge = {"kind": "classifier", "name": "models/judge", "harmful_labels": ["unsafe"]}
    study = study_of("aligned", evaluation={"harmfulness": {"compared_judges": [judge]}})
    assert run_script(name, study, here, *flags) == 2
    assert f"{here}/models/judge: expected the classifier of a judge, found none" in capsys.readouterr().err


def test_a_report_needs_tables_and_no_checkpoint(here, capsys):
    assert run_script("report", study_of("checkpoints/base"), here) == 2
    assert "expected a table, found none; write one with" in capsys.readouterr().err
