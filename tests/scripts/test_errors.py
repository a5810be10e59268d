"""Every mistake a user can make ends in one line on stderr, exit code 2, and nothing lost."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.pico import PICO, SCRIPTS, copy_run, run_script, write_study


def one_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def refused(name: str, study: Path, folder: Path, capsys, *extra: str) -> str:
    assert run_script(name, study, folder, *extra) == 2
    return one_line(capsys)


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return copy_run(finished, tmp_path / "run")


def change_weights(folder: Path, role: str, change) -> Path:
    """Rewrite a checkpoint of the run through `change(tensors)`; its results in the cells then no longer count."""
    checkpoint = folder / f"runs/pico/seed-2/checkpoints/{role}"
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    return checkpoint


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_unknown_key_names_file_key_and_what_is_near(tmp_path, capsys, name):
    study = write_study(tmp_path / "study.yaml", projektion={})
    message = refused(name, study, tmp_path, capsys)
    assert str(study) in message
    assert "projektion: unknown key; did you mean projection?" in message


def test_a_fraction_above_one_is_refused(tmp_path, capsys):
    study = write_study(tmp_path / "study.yaml", projection={**PICO["projection"], "fractions": [0.5, 1.5]})
    message = refused("projection", study, tmp_path, capsys)
    assert "projection.fractions.1" in message
    assert "1.5" in message


def test_a_missing_study_is_named(tmp_path, capsys):
    assert "nowhere.yaml" in refused("projection", tmp_path / "nowhere.yaml", tmp_path, capsys)


def test_a_device_that_is_not_there_is_no_reason_to_use_another(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    study = write_study(tmp_path / "study.yaml")
    message = refused("finetune", study, tmp_path, capsys, "--device", "cuda")
    assert "--device cuda: expected a device of this machine" in message
    assert not (tmp_path / "runs/pico/checkpoints").exists()


def test_without_checkpoints_the_sweep_says_what_to_run(tmp_path, capsys):
    study = write_study(tmp_path / "study.yaml")
    assert run_script("finetune", study, tmp_path, "--plan") == 0
    capsys.readouterr()
    message = refused("update_spaces", study, tmp_path, capsys)
    assert "expected the finished checkpoint base, found none; run bash scripts/finetune.sh" in message


def test_a_half_written_checkpoint_is_not_taken_for_finished(run, capsys):
    checkpoint = run / "runs/pico/seed-2/checkpoints/useful"
    checkpoint.rename(checkpoint.with_name("useful.partial"))
    message = refused("projection", run / "study.yaml", run, capsys)
    assert "expected the finished checkpoint useful" in message


def test_a_truncated_checkpoint_is_named(run, capsys):
    path = run / "runs/pico/seed-2/checkpoints/harmful/model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    message = refused("projection", run / "study.yaml", run, capsys)
    assert f"{path}: half-written or unreadable" in message


def test_a_tensor_of_another_shape_is_named(run, capsys):
    def shorten(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()

    change_weights(run, "useful", shorten)
    message = refused("projection", run / "study.yaml", run, capsys)
    assert "model.norm.weight differ ((23,) against (24,))" in message


def test_a_missing_tensor_is_named(run, capsys):
    change_weights(run, "useful", lambda tensors: tensors.pop("model.norm.weight"))
    assert "model.norm.weight missing" in refused("projection", run / "study.yaml", run, capsys)


def test_a_nan_in_a_checkpoint_is_named(run, capsys):
    def spoil(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 2] = float("nan")

    checkpoint = change_weights(run, "contaminated", spoil)
    message = refused("projection", run / "study.yaml", run, capsys)
    assert f"{checkpoint}: expected finite weights, tensor model.layers.1.mlp.up_proj.weight holds NaN" in message


def test_a_base_that_equals_the_reference_leaves_no_subspace(run, capsys):
    base = run / "runs/pico/seed-2/checkpoints/base"
    shutil.copy(base / "model.safetensors", run / "runs/pico/seed-2/checkpoints/reference/model.safetensors")
    assert "expected weights that differ from" in refused("projection", run / "study.yaml", run, capsys)


def test_a_checkpoint_of_another_recipe_is_neither_used_nor_overwritten(run, capsys):
    weights = run / "runs/pico/seed-2/checkpoints/harmful/model.safetensors"
    before = weights.read_bytes()
    study = write_study(run / "study.yaml", seeds=[2], corpora={**PICO["corpora"], "harmful": {"rows": 12}})
    message = refused("finetune", study, run, capsys)
    assert "expected a checkpoint trained from this study, its rows differ" in message
    assert weights.read_bytes() == before


@pytest.mark.parametrize(
    ("script", "table"), [("projection", "projection.csv"), ("update_spaces", "update_spaces.csv")]
)
def test_a_table_edited_by_hand_is_not_overwritten(run, capsys, script, table):
    path = run / "results/pico" / table
    edited = path.read_text().replace("useful", "USEFUL", 1)
    path.write_text(edited)
    assert "edited by hand" in refused(script, run / "study.yaml", run, capsys)
    assert path.read_text() == edited


def test_the_report_refuses_an_edited_table(run, capsys):
    path = run / "results/pico/energy.csv"
    path.write_text(path.read_text().replace("0.5", "0.6", 1))
    assert f"{path}: not as run.json records it, edited by hand" in refused("report", run / "study.yaml", run, capsys)


def test_without_its_record_a_study_keeps_its_tables_and_is_recorded_again(run, capsys):
    before = {path: path.read_bytes() for path in (run / "results/pico").glob("*.csv")}
    (run / "results/pico/run.json").unlink()
    message = refused("report", run / "study.yaml", run, capsys)
    assert "expected run.json beside it, found none; restore run.json, or keep the table elsewhere" in message
    assert "delete" not in message
    for name in SCRIPTS:
        assert run_script(name, run / "study.yaml", run) == 0
    assert {path: path.read_bytes() for path in before} == before


def test_without_any_table_the_report_says_which_command_writes_one(run, capsys):
    for path in (run / "results/pico").glob("*.csv"):
        path.unlink()
    message = refused("report", run / "study.yaml", run, capsys)
    assert "expected a table, found none; write one with `python scripts/projection.py" in message


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize(
    ("removed", "expected"), [('"metric"', "cannot be written (no)"), ("", "could not write model.embed_tokens.weight")]
)
def test_a_full_disk_and_a_read_only_folder_are_one_line(run, capsys, monkeypatch, code, removed, expected):
    """Where the first score, or the first factor, is written. Tests may run as root, whom no permission stops: the
    rename fails as the system call would."""
    for path in (run / "runs/pico/seed-2/cells").glob("*.json"):
        if removed in path.read_text():
            path.unlink()

    def fail(self, target):
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "replace", fail)
    message = refused("projection", run / "study.yaml", run, capsys)
    assert expected in message


def test_a_basis_that_is_not_there_is_named(run, capsys):
    own = {"basis": {"file": "nowhere.safetensors"}, "bases": ["file", "random"]}
    study = write_study(run / "study.yaml", seeds=[2], projection={**PICO["projection"], **own})
    message = refused("projection", study, run, capsys, "--geometry-only")
    assert "projection.basis.file: expected a file at" in message
    assert "nowhere.safetensors, found none" in message


def test_a_judge_that_nobody_knows_is_named(tmp_path, run, capsys):
    content = yaml.safe_load((run / "study.yaml").read_text())
    content["evaluation"]["harmfulness"]["judge"] = {"name": "oracle"}
    (run / "study.yaml").write_text(yaml.safe_dump(content))
    message = refused("projection", run / "study.yaml", run, capsys)
    assert "evaluation.harmfulness.judge.name: expected 'rubric', got 'oracle'" in message


def test_changed_sources_are_said_in_the_report(run, capsys):
    path = run / "results/pico/run.json"
    record = json.loads(path.read_text())
    record["stages"]["projection"]["sources"] = ["0" * 16]
    path.write_text(json.dumps(record))
    assert run_script("report", run / "study.yaml", run) == 0
    assert "changed" in (run / "results/pico/README.md").read_text().split("##")[0]
