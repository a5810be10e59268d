"""One pico study for all tests of the experiments: after its trainings, and after everything."""

from pathlib import Path

import pytest

from tests.pico import SCRIPTS, copy_run, run_script, write_study


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with study.yaml, runs/ and results/ after the fine-tuning; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_script("finetune", write_study(folder / "study.yaml"), folder) == 0
    return folder


@pytest.fixture(scope="session")
def finished(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder after all five scripts; not to be changed."""
    folder = copy_run(trained, tmp_path_factory.mktemp("finished") / "run")
    for name in SCRIPTS:
        assert run_script(name, folder / "study.yaml", folder) == 0, name
    return folder
