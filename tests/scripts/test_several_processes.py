"""Several processes share the work of one study and leave the files that one process leaves."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.pico import ROOT, SCRIPTS, copy_run, run_script, write_study

TABLES = {"projection": ("energy.csv", "projection.csv"), "update_spaces": ("update_spaces.csv",),
          "activation_space": ("activation_spaces.csv",)}  # fmt: skip


@pytest.fixture
def unmeasured(finished, tmp_path) -> Path:
    """The run of a finished study without its results, and what they were."""
    folder = copy_run(finished, tmp_path / "run")
    shutil.rmtree(folder / "runs/pico/seed-2/cells")
    shutil.rmtree(folder / "runs/pico/seed-2/states")
    shutil.rmtree(folder / "runs/pico/seed-2/responses")
    return folder


def tables_of(folder: Path, name: str) -> dict[str, bytes]:
    return {table: (folder / "results/pico" / table).read_bytes() for table in TABLES[name]}


@pytest.mark.parametrize("name", TABLES)
def test_two_processes_one_after_the_other_are_one(unmeasured, name, monkeypatch, capsys, caplog):
    """As if each were killed and started again: neither waits, and whoever is last writes the tables."""
    caplog.set_level("INFO")
    before = tables_of(unmeasured, name)
    for table in before:
        (unmeasured / "results/pico" / table).unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run_script(name, unmeasured / "study.yaml", unmeasured) == 0
    assert capsys.readouterr().out == "wrote nothing: nothing was left to do here\n"
    assert "left to other processes; the last one writes the tables" in caplog.text
    assert not (unmeasured / "results/pico" / TABLES[name][0]).exists()
    monkeypatch.setenv("RANK", "0")
    assert run_script(name, unmeasured / "study.yaml", unmeasured) == 0
    assert tables_of(unmeasured, name) == before


@pytest.mark.slow
def test_two_processes_of_a_launcher_are_one(unmeasured):
    before = tables_of(unmeasured, "projection")
    for table in before:
        (unmeasured / "results/pico" / table).unlink()
    # Without a GPU --cpu would start one process, --multi_gpu starts two that find none.
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    done = subprocess.run(
        [*launcher, str(ROOT / SCRIPTS["projection"]), str(unmeasured / "study.yaml"),
         "--runs", str(unmeasured / "runs"), "--results", str(unmeasured / "results")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("wrote ") == 2
    assert tables_of(unmeasured, "projection") == before


@pytest.mark.slow
def test_two_workers_make_the_tables_of_one(finished, tmp_path):
    """Everything anew, training too."""
    study = write_study(tmp_path / "study.yaml", seeds=[2], workers=2)
    for name in ("finetune", *TABLES):
        assert run_script(name, study, tmp_path) == 0, name
    for name in TABLES:
        assert tables_of(tmp_path, name) == tables_of(finished, name)


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_sweep_costs_neither_the_run_nor_a_byte(unmeasured):
    before, study = tables_of(unmeasured, "projection"), write_study(unmeasured / "study.yaml", seeds=[2], workers=2)
    for table in before:
        (unmeasured / "results/pico" / table).unlink()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / SCRIPTS["projection"]), str(study),
         "--runs", str(unmeasured / "runs"), "--results", str(unmeasured / "results")],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Once the first answers are there a worker is in the middle of the next ones.
    while process.poll() is None and not list((unmeasured / "runs/pico/seed-2").glob("responses/*.json*")):
        pass
    worker = next(of for of in psutil.Process(process.pid).children() if "spawn_main" in " ".join(of.cmdline()))
    worker.kill()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "warning" in line.lower()]
    assert line.endswith(": its process was killed; it is done again in another one")
    assert line.startswith("warning: seed 2, task ")
    assert "Traceback" not in errors
    assert tables_of(unmeasured, "projection") == before
