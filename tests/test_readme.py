"""The committed results are what their tables say. What pages promise is asked in test_pages.py."""

import shutil

import pytest

from safety_spaces.command_line import parse_arguments
from safety_spaces.evidence.tables import FILES
from safety_spaces.experiments.report import report
from safety_spaces.record import check_unedited
from safety_spaces.study import load_study
from tests.pico import ROOT

STUDIES = sorted(path.parent.name for path in (ROOT / "results").glob("*/verdicts.csv"))


def test_every_study_of_the_miniature_has_results():
    assert {"miniature", "miniature-dpo", "miniature-safety-tuned", "miniature-appendices"} <= {*STUDIES}


@pytest.mark.parametrize("name", STUDIES)
def test_studies_that_share_a_base_know_its_shape(name):
    base = load_study(ROOT / "configs" / f"{name}.yaml").roles["base"]
    assert base.architecture == load_study(ROOT / "configs/miniature.yaml").roles["base"].architecture


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_report_follows_from_the_committed_tables(tmp_path, name):
    """Verdicts, figures and pages are made again from the tables alone, but for the answers; not a byte differs."""
    committed = ROOT / "results" / name
    again = shutil.copytree(committed, tmp_path / name)
    made = {path.name for path in again.iterdir() if path.suffix in (".png", ".pdf", ".html", ".md")}
    made |= {"verdicts.csv", "premises.csv", "selectivity.csv"}
    for one in made:
        (again / one).unlink()
    study = str(ROOT / "configs" / f"{name}.yaml")
    arguments = parse_arguments("", [study, "--results", str(tmp_path), "--runs", str(tmp_path / "runs")])
    report(arguments.roles, arguments.texts)
    assert {path.name for path in again.iterdir()} == {path.name for path in committed.iterdir()}
    for one in made - {"report.html"}:
        assert (again / one).read_bytes() == (committed / one).read_bytes(), one


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_tables_are_those_that_the_run_recorded(name):
    tables = [*(ROOT / "results" / name).glob("*.csv"), *(ROOT / "results" / name).glob("*.parquet")]
    # Verdicts, premises, selectivity and scores beside what the study compares.
    assert len(tables) == (3 if name == "miniature-appendices" else len(FILES)) + 4
    for table in tables:
        check_unedited(ROOT / "results" / name, table.name)
