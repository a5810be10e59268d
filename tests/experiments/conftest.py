"""One finished pico study for all tests of the experiments."""

from pathlib import Path

import pytest

from tests.pico import SCRIPTS, run_script, write_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with study.yaml, runs/ and results/ after all five scripts; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    study = write_study(folder / "study.yaml")
    for name in SCRIPTS:
        assert run_script(name, study, folder) == 0, name
    return folder
