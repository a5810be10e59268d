"""The committed results are what their tables say. What pages promise is asked in test_pages.py."""

import shutil
from pathlib import Path

import pytest

from safety_spaces.evidence.report import write_report
from safety_spaces.evidence.tables import FILES
from safety_spaces.study import load_study
from tests.pico import ROOT

STUDIES = ["miniature", "miniature-dpo", "miniature-safety-tuned", "miniature-appendices"]


@pytest.mark.parametrize("name", STUDIES)
def test_studies_that_share_a_base_know_its_shape(name):
    base = load_study(ROOT / "configs" / f"{name}.yaml").roles["base"]
    assert base.architecture == load_study(ROOT / "configs/miniature.yaml").roles["base"].architecture


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_report_follows_from_the_committed_tables(tmp_path, name):
    """The figures and the findings are drawn again from the CSVs alone; not a byte differs."""
    committed = ROOT / "results" / name
    again = Path(shutil.copytree(committed, tmp_path / name))
    for path in [again / "README.md", *again.glob("*.png")]:
        path.unlink()
    write_report(again, load_study(ROOT / "configs" / f"{name}.yaml"), sources_changed=False)
    assert {path.name for path in again.iterdir()} == {path.name for path in committed.iterdir()}
    for path in committed.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_tables_are_those_that_the_run_recorded(name):
    from safety_spaces.record import check_unedited

    tables = list((ROOT / "results" / name).glob("*.csv"))
    assert len(tables) == (3 if name == "miniature-appendices" else len(FILES))
    for table in tables:
        check_unedited(ROOT / "results" / name, table.name)
