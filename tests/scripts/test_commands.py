"""The commands as a user types them: real processes, from another directory, killed and started again."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pico import ROOT, SCRIPTS, copy_run, load_script, run_script, write_study

ENVIRONMENT = {**os.environ, "VENV": sys.prefix, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
SHELLS = {"finetune": "scripts/finetune.sh", "update_spaces": "exp-3-update_spaces/update_spaces.sh"}


def arguments(folder: Path) -> list[str]:
    return [str(folder / "study.yaml"), "--runs", str(folder / "runs"), "--results", str(folder / "results")]


def kill_when(command: list[str], reached: Callable[[], bool]) -> None:
    """Start a process and kill it, without warning, as soon as it has come so far."""
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        try:
            process.wait(timeout=0.002)
        except subprocess.TimeoutExpired:
            continue
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_is_written(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        load_script(name).main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "Writes " in printed
    for option in ("--device", "--runs", "--results", "--plan"):
        assert option in printed


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_plan_comes_before_any_work_and_without_torch(name, tmp_path):
    write_study(tmp_path / "study.yaml")
    call = f"import runpy, sys; sys.argv = {['script', *arguments(tmp_path), '--plan']!r}\n"
    call += f"try: runpy.run_path({str(ROOT / SCRIPTS[name])!r}, run_name='__main__')\n"
    call += "except SystemExit as stopped: assert stopped.code == 0\n"
    call += "assert not {'torch', 'transformers', 'trl', 'lm_eval'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "finetune: 10 checkpoints of" in done.stdout
    assert "10 still to be made" in done.stdout
    assert "projection: 90 energies, 130 models, 200 scores" in done.stdout
    assert list(tmp_path.iterdir()) == [tmp_path / "study.yaml"]


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_commands_work_from_another_directory(name, finished, tmp_path):
    """Everything is done already, so this is quick; the last line says what was written."""
    folder = copy_run(finished, tmp_path / "a run with spaces")
    done = subprocess.run(
        ["bash", str(ROOT / SHELLS[name]), *arguments(folder)],
        cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("wrote ")


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_commands_hand_on_the_exit_code(name, tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / SHELLS[name]), str(tmp_path / "nowhere.yaml")],
        env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_the_last_line_names_the_files_that_were_written(finished, tmp_path, capsys):
    folder = copy_run(finished, tmp_path / "run")
    assert run_script("projection", folder / "study.yaml", folder) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    paths = last.removeprefix("wrote ").split(", ")
    assert [Path(path).name for path in paths] == ["energy.csv", "scores.parquet", "projection.csv"]
    assert all(Path(path).is_file() for path in paths)


@pytest.mark.parametrize("damaged", ["README.md", "figure_4.png"])
def test_a_second_report_is_the_same_bytes(finished, tmp_path, capsys, damaged):
    folder = copy_run(finished, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (folder / "results/pico").iterdir()}
    assert run_script("report", folder / "study.yaml", folder) == 0
    assert capsys.readouterr().out == "wrote nothing: nothing was left to do here\n"
    (folder / "results/pico" / damaged).write_bytes(b"damaged")
    assert run_script("report", folder / "study.yaml", folder) == 0
    assert "/README.md, " in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (folder / "results/pico").iterdir()} == before


@pytest.mark.slow
def test_a_killed_sweep_resumes_to_the_same_bytes(finished, tmp_path):
    """Killed three times at moments drawn from how far it has come; then left alone."""
    folder = copy_run(finished, tmp_path / "run")
    shutil.rmtree(folder / "runs/pico/seed-2/cells")
    tables = {name: (folder / "results/pico" / name).read_bytes() for name in ("energy.csv", "projection.csv")}
    for name in tables:
        (folder / "results/pico" / name).unlink()
    command = [sys.executable, str(ROOT / SCRIPTS["projection"]), *arguments(folder)]
    generator = random.Random(1)
    cells = folder / "runs/pico/seed-2/cells"
    for _ in range(3):
        done = len(list(cells.glob("*.json")))
        target = done + generator.randint(1, 40)
        kill_when(command, lambda target=target: len(list(cells.glob("*.json"))) >= target)
        assert not (folder / "results/pico/projection.csv").exists()
    assert subprocess.run(command, env=ENVIRONMENT, check=False).returncode == 0
    for name, content in tables.items():
        assert (folder / "results/pico" / name).read_bytes() == content, name


@pytest.mark.parametrize("name", ["finetune", "projection", "update_spaces", "activation_space"])
def test_a_stage_that_a_kill_kept_from_the_record_is_recorded_by_the_next_run(finished, tmp_path, name):
    folder = copy_run(finished, tmp_path / "run")
    path = folder / "results/pico/run.json"
    before = json.loads(path.read_text())
    stage = {"activation_space": "activation_spaces"}.get(name, name)
    changed = {**before, "stages": {key: value for key, value in before["stages"].items() if key != stage}}
    path.write_text(json.dumps(changed))
    assert run_script(name, folder / "study.yaml", folder) == 0
    after = json.loads(path.read_text())
    assert after["stages"][stage]["sources"] == before["stages"][stage]["sources"]


@pytest.mark.slow
def test_a_killed_training_leaves_nothing_that_looks_finished(tmp_path):
    study = write_study(tmp_path / "study.yaml", seeds=[2], world={"seed": 5, "sizes": _larger()})
    command = [sys.executable, str(ROOT / SCRIPTS["finetune"]), *arguments(tmp_path)]
    base = tmp_path / "runs/pico/seed-2/checkpoints"
    kill_when(command, (base / "base.partial").exists)
    assert not (base / "base").exists()
    assert run_script("finetune", study, tmp_path) == 0
    assert (base / "base/model.safetensors").is_file()
    assert not (base / "base.partial").exists()


def _larger() -> dict[str, int]:
    from tests.pico import SIZES

    return {**SIZES, "pretraining": 400}


@pytest.mark.slow
def test_one_command_reproduces_a_study_in_a_clone_with_a_space(tmp_path):
    clone = tmp_path / "a clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    study = write_study(tmp_path / "study.yaml", seeds=[2], extends=str(clone / "configs/miniature.yaml"))
    # The environment of this test run, with a stamp that says that the clone is installed in it: no network is needed.
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin/python"
    python.write_text(f'#!/usr/bin/env bash\nPYTHONPATH="{clone}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    content = (clone / "requirements.txt").read_bytes() + (clone / "pyproject.toml").read_bytes()
    checksum = subprocess.run(["cksum"], input=content, capture_output=True, check=True).stdout.decode().strip()
    (environment / ".safety-spaces").write_text(f"{clone} {checksum}\n")
    for _ in range(2):
        done = subprocess.run(
            ["bash", str(clone / "scripts/reproduce.sh"), str(study)],
            cwd=tmp_path, env={**ENVIRONMENT, "VENV": str(environment)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        written = [line for line in done.stdout.splitlines() if line.startswith("wrote ")]
        assert len(written) == 5
    assert (clone / "results/pico/README.md").is_file()
    assert written[-1] == "wrote nothing: nothing was left to do here"
    assert (clone / "runs/pico/seed-2/checkpoints/useful/model.safetensors").is_file()
