"""Which Python the shell commands run, and where they install: with a Python that only notes what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pico import ROOT

NOTING = """#!/bin/bash
echo "$0 $*" >> "$NOTES"
case "$*" in
    *find_spec*) exit "${LACKS_REQUIREMENTS:-0}" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
esac
"""


@pytest.fixture
def clone(tmp_path) -> Path:
    """A second copy of the tree, in a folder whose name holds a space."""
    folder = tmp_path / "second clone"
    folder.mkdir()
    for name in ("safety_spaces", "scripts", "exp-3-update_spaces", "exp-4-activation_spaces", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def run(clone, tmp_path):
    """Call a shell command of the clone while conda's base is active; return exit code, errors and what was noted."""
    base = write_python(tmp_path / "conda/bin/python")
    write_python(base.with_name("python3"))
    notes = tmp_path / "notes"

    def run(script: str, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        notes.write_text("")
        conda = {"CONDA_PREFIX": str(tmp_path / "conda"), "CONDA_DEFAULT_ENV": "base", "NOTES": str(notes)}
        done = subprocess.run(
            ["bash", str((clone / script).relative_to(tmp_path)), *arguments],
            env={"PATH": f"{base.parent}:/usr/bin:/bin", "CDPATH": str(tmp_path), **conda, **environment},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stderr, notes.read_text().splitlines()

    return run


def write_python(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(NOTING)
    path.chmod(0o755)
    return path


def installing(notes: list[str]) -> set[str]:
    """The Pythons that were asked to install something."""
    return {note.partition(" -m pip install")[0] for note in notes if " -m pip install" in note}


@pytest.mark.parametrize("script", ["scripts/reproduce.sh", "scripts/test.sh"])
def test_nothing_is_installed_into_an_active_conda_environment(run, clone, script):
    code, errors, notes = run(script)
    assert code == 0, errors
    assert installing(notes) == {f"{clone}/.venv/bin/python"}
    # Once is enough.
    assert installing(run(script)[2]) == set()


def test_requirements_go_where_venv_says(run, clone, tmp_path):
    write_python(tmp_path / "own/bin/python")
    assert installing(run("scripts/reproduce.sh", VENV="own")[2]) == {f"{tmp_path}/own/bin/python"}
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--help"], 0, ""),
        (["--plan"], 0, ""),
        (["nowhere.yaml"], 2, "error: nowhere.yaml: expected a study file, found none; correct its path\n"),
        (["nowhere.yaml", "--plan"], 2, "error: nowhere.yaml: expected a study file, found none; correct its path\n"),
        (["--plam"], 2, "error: --plam: expected --plan, --download, --device, --runs or --results; correct it\n"),
        (["--runs"], 2, "error: --runs: expected a value behind it, got none\n"),
    ],
)  # fmt: skip
def test_what_does_no_work_installs_nothing(run, clone, arguments, code, message):
    done, errors, notes = run("scripts/reproduce.sh", *arguments)
    assert (done, errors) == (code, message)
    assert installing(notes) == set()
    assert not (clone / ".venv").exists()
    assert any("projection.py" in note for note in notes) == (arguments == ["--plan"])


@pytest.mark.parametrize("script", ["scripts/finetune.sh", "exp-3-update_spaces/update_spaces.sh"])
def test_the_clones_own_environment_comes_before_an_active_one(run, clone, tmp_path, script):
    def used(**environment: str) -> str:
        return run(script, **environment)[2][-1].partition(f" {clone}")[0]

    assert used() == f"{tmp_path}/conda/bin/python"
    own = write_python(clone / ".venv/bin/python")
    assert used() == str(own)
    other = write_python(tmp_path / "other/bin/python")
    assert used(VENV=str(other.parents[1])) == str(other)


@pytest.mark.parametrize("script", ["scripts/finetune.sh", "scripts/reproduce.sh"])
def test_without_the_requirements_a_command_says_how_to_install_them(run, clone, script):
    code, errors, notes = run(script, "--plan", LACKS_REQUIREMENTS="1")
    assert code == 2
    (line,) = errors.splitlines()
    venv = clone / ".venv"
    assert line.startswith(f"error: {venv}: expected a Python with the requirements, found none; run: python3 -m venv")
    assert installing(notes) == set()


@pytest.mark.slow
@pytest.mark.parametrize("safe_path", ["", "1"])
def test_a_second_clone_runs_its_own_code_wherever_it_is_called_from(clone, tmp_path, safe_path):
    """The other clone is the one that is installed, or the one on PYTHONPATH."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": safe_path, "VENV": sys.prefix}
    paths = [path for path in (*clone.glob("scripts/*.py"), *clone.glob("exp-*/*.py")) if path.stem != "mso"]
    commands = [[sys.executable, str(path)] for path in paths]
    commands += [["bash", str(path)] for path in (clone / "scripts/finetune.sh", *clone.glob("exp-*/*.sh"))]
    assert len(commands) == 8
    for command in commands:
        done = subprocess.run(
            [*command, "--plan"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert f"results: {clone}/results/miniature; runs: {clone}/runs/miniature" in done.stdout
