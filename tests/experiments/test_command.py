"""A command is its own master of what the environment says to libraries, and ends in one line when it is stopped."""

import os
import subprocess
import sys

import pytest

from safety_spaces.experiments.command import report_errors
from tests.pico import ROOT


def printed(code: str, **environment: str | None) -> str:
    """What a fresh process prints, errors included, that has parsed a command before the code."""
    outer = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    begun = f"from safety_spaces.experiments.command import parse_command\nparse_command('', [])\n{code}"
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
        printed(draw + f"save(figure, Path({str(path)!r}))", MPLBACKEND=exported)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_ctrl_c_is_one_line_and_its_own_exit_code(capsys):
    @report_errors
    def stopped(_argv=None):
        raise KeyboardInterrupt

    assert stopped() == 130
    assert capsys.readouterr().err == "\nstopped; the same command goes on where it was\n"
