"""What a command is called with is looked at before the study, the study's name and places before the work.

A command is its own master of what the environment says to libraries, and ends in one line when it is stopped.
"""

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from safety_spaces.command_line import parse_arguments, report_errors
from safety_spaces.errors import UserError
from safety_spaces.store import write_json
from tests.pico import PICO, ROOT, SCRIPTS, run_script, write_study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study.yaml")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command leaves."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    return line


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("device", ["banana", "", "CPU", "cuda:01", "cuda:", "meta", "cpu "])
def test_a_device_that_is_none_is_refused_by_every_command(study, tmp_path, capsys, name, device):
    assert run_script(name, study, tmp_path, "--device", device) == 2
    assert f"--device {device}: expected cpu, cuda or a device such as cuda:1" in error_of(capsys)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "cuda:10", "mps"])
def test_a_device_that_may_be_elsewhere_is_left_to_torch(study, device):
    assert parse_arguments("", [str(study), "--device", device]).device == device


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("flag", ["--runs", "--results"])
@pytest.mark.parametrize("extra", [[], ["--plan"], ["--download"]])
def test_a_file_in_the_place_of_a_folder_is_refused_by_every_command(study, tmp_path, capsys, name, flag, extra):
    for path in (study, study / "below", tmp_path / "loop"):
        if path.name == "loop":
            path.symlink_to(path)
        assert run_script(name, study, tmp_path, *extra, flag, str(path)) == 2
        message = error_of(capsys)
        assert message.startswith(f"error: {flag} {path}: expected a folder that can be written, got ")
        assert message.endswith(f"(Not a directory); name another with {flag}")


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("place", ["runs", "results"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(study, tmp_path, capsys, monkeypatch, name, place):
    """Tests may run as root, whom no permission stops: writing fails as the system call would."""
    (tmp_path / place).mkdir()
    make = tempfile.TemporaryFile

    def refuse(*, dir: Path):
        if dir == tmp_path / place:
            raise OSError(errno.EROFS, "Read-only file system")
        return make(dir=dir)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert run_script(name, study, tmp_path) == 2
    assert f"--{place} {tmp_path / place}: expected a folder that can be written, got " in error_of(capsys)
    assert run_script(name, study, tmp_path, "--plan") == 0
    assert not list((tmp_path / place).iterdir())


def test_home_and_variables_are_read_on_the_command_line(study, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    command = parse_arguments("", ["~/study.yaml", "--runs", "$PLACE/runs", "--results", "${PLACE}/results"])
    assert command.layout.study_file == study
    assert (command.layout.runs, command.layout.results) == (tmp_path / "place/runs", tmp_path / "place/results")
    for path in ("$NOWHERE/a", "~no-such-user/a", ""):
        for argv in ([path], [str(study), "--runs", path], [str(study), "--results", path]):
            with pytest.raises(UserError, match="expected"):
                parse_arguments("", argv)


def test_an_error_is_one_line_whatever_it_quotes(capsys):
    @report_errors
    def main(argv=None):
        raise UserError("a\nb\r\nc")

    assert main() == 2
    assert error_of(capsys) == "error: a b c"


def test_a_file_that_the_system_refuses_is_one_line_and_other_faults_are_not(capsys, tmp_path):
    @report_errors
    def main(argv=None):
        raise faults.pop()

    faults = [OSError("no file"), ValueError("ours"), PermissionError(errno.EACCES, "Permission denied", "a.csv")]
    assert main() == 2
    assert error_of(capsys).startswith("error: a.csv: cannot be read or written (Permission denied)")
    for kind in (ValueError, OSError):
        with pytest.raises(kind):
            main()


@pytest.mark.parametrize(("name", "code"), [("study.yaml", 0), ("copy.yaml", 2)])
def test_a_study_may_be_edited_but_a_copy_of_it_needs_a_name(study, tmp_path, capsys, name, code):
    """The results of one would replace those of the other in silence."""
    made_by = parse_arguments("", [str(study)]).study.model_dump(mode="json")
    write_json(tmp_path / "results/pico/run.json", {"study": made_by, "study_file": "study.yaml"})
    other = tmp_path / name
    other.write_text(study.read_text())
    assert run_script("finetune", other, tmp_path, "--plan") == 0
    write_study(other, threads=7, evaluation={**PICO["evaluation"], "batch_size": 3})
    capsys.readouterr()
    for script in SCRIPTS:
        assert run_script(script, other, tmp_path, "--plan") == code
    if code:
        (message, *_) = capsys.readouterr().err.splitlines()
        assert message.startswith(
            f"error: {other}: name: expected a name of its own, got that of study.yaml, whose res"
        )
        assert "whose threads, evaluation differ" in message
        write_study(other, threads=7, name="other")
        assert run_script("finetune", other, tmp_path, "--plan") == 0


@pytest.mark.parametrize("content", [b"PK\x03\x04 saved by torch", b"", None])
@pytest.mark.parametrize("extra", [["--geometry-only"], ["--plan"]])
def test_a_basis_that_is_no_safetensors_file_is_refused_before_the_work(tmp_path, capsys, content, extra):
    path = tmp_path / "U.pt"
    if content is not None:
        path.write_bytes(content)
    own = {"basis": {"file": str(path)}, "bases": ["file", "random"]}
    study = write_study(tmp_path / "study.yaml", projection={**PICO["projection"], **own})
    assert run_script("projection", study, tmp_path, *extra) == 2
    found = f"a file at {path}, found none" if content is None else f"a whole safetensors file, got {path}"
    assert f"projection.basis.file: expected {found}; write it with safetensors" in error_of(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "as UTF-8 text"), (b"score it", "expected {prompt} and {response} in the rubric"), (None, "none")],
)
def test_a_rubric_is_read_before_the_work(tmp_path, capsys, content, message):
    path = tmp_path / "rubric.txt"
    if content is not None:
        path.write_bytes(content)
    judge = {"kind": "service", "rubric": str(path), "price": {"input": 1, "output": 1}, "budget": 1}
    evaluation = {**PICO["evaluation"], "harmfulness": {"compared_judges": [judge]}}
    study = write_study(tmp_path / "study.yaml", evaluation=evaluation)
    assert run_script("finetune", study, tmp_path) == 2
    line = error_of(capsys)
    assert str(path) in line
    assert message in line


def test_the_record_names_the_file_of_the_study(finished):
    record = json.loads((finished / "results/pico/run.json").read_text())
    assert record["study_file"] == "study.yaml"
    assert record["study"]["name"] == yaml.safe_load((finished / "study.yaml").read_text())["name"]


def printed(code: str, **environment: str | None) -> str:
    """What a fresh process prints, errors included, that has parsed a command before the code."""
    outer = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    begun = f"from safety_spaces.command_line import parse_arguments\nparse_arguments('', [])\n{code}"
    return subprocess.run(
        [sys.executable, "-c", begun],
        env={name: value for name, value in outer.items() if value is not None},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(("own", "spins"), [(None, False), ("active", True)])
def test_threads_of_torch_sleep_while_they_wait_unless_the_user_says_otherwise(own, spins):
    said = printed("import torch; torch.randn(3)", OMP_WAIT_POLICY=own, OMP_DISPLAY_ENV="verbose")
    if "GOMP_SPINCOUNT" not in said:
        pytest.skip("this torch has another OpenMP, which does not say how long it spins")
    assert ("GOMP_SPINCOUNT = '0'" not in said) == spins


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no_such_backend"])
def test_figures_are_drawn_whatever_backend_a_notebook_exports(tmp_path, backend):
    draw = "from safety_spaces.evidence.figures import save, style; from pathlib import Path\n"
    draw += "with style.house_style(): figure, (axes, _) = style.panels(1, 2); axes.plot([1, 2], [3, 5])\n"
    paths = [tmp_path / "plain.png", tmp_path / "notebook.png"]
    for path, exported in zip(paths, ("agg", backend), strict=True):
        printed(draw + f"save(figure, Path({str(tmp_path)!r}), {path.stem!r})", MPLBACKEND=exported)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_ctrl_c_is_one_line_and_its_own_exit_code(capsys):
    @report_errors
    def stopped(_argv=None):
        raise KeyboardInterrupt

    assert stopped() == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on where it was\n"
