"""The report of a finished study: verdicts from its tables, answers where the runs are, nothing done twice."""

import json
import shutil
from datetime import datetime

import pandas as pd
import pytest

from safety_spaces.evidence.claims import CLAIMS
from safety_spaces.evidence.tables import COLUMNS
from tests.pico import PICO, WITH_CONTROLS, copy_run, of_model, plan_of, run_script, write_study

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dosed(finished, tmp_path_factory):
    """The pico study with every control, finished; not to be changed."""
    folder = copy_run(finished, tmp_path_factory.mktemp("dosed") / "run")
    study = write_study(folder / "study.yaml", **WITH_CONTROLS)
    for name in ("projection", "report"):
        assert run_script(name, study, folder) == 0
    return folder


@pytest.fixture
def run(dosed, tmp_path):
    return copy_run(dosed, tmp_path / "run")


def test_verdicts_premises_and_selectivity_are_tables_of_the_results(dosed):
    folder = dosed / "results/pico"
    for name in ("verdicts", "premises", "selectivity"):
        assert tuple(pd.read_csv(folder / f"{name}.csv").columns) == COLUMNS[name]
    assert {*pd.read_csv(folder / "verdicts.csv").id} == {claim.id for claim in CLAIMS}


def test_what_counts_was_settled_before_the_first_score(finished):
    (settled,) = json.loads((finished / "results/pico/run.json").read_text())["settled"].values()
    assert settled["scores_before"] == 0
    assert settled["evidence"]["margin"] == 0.15
    assert settled["claims"] == {claim.id: claim.statistic for claim in CLAIMS}
    assert datetime.fromisoformat(settled["at"]).tzinfo is not None


def test_another_margin_is_settled_anew_and_says_how_much_was_known(run):
    study = write_study(run / "study.yaml", **WITH_CONTROLS, evidence={**PICO["evidence"], "margin": 0.2})
    assert run_script("projection", study, run) == 0
    first, second = json.loads((run / "results/pico/run.json").read_text())["settled"].values()
    scores = pd.read_parquet(run / "results/pico/scores.parquet")
    cells = scores.drop(columns=["prompt", "cluster", "value"]).drop_duplicates()
    assert (first["scores_before"], second["scores_before"]) == (0, len(cells))


def test_answers_stand_side_by_side_and_stay_where_the_runs_are_gone(run):
    page = run / "results/pico/report.html"
    text = page.read_text()
    assert "Show the answers" in text or "<details" in text
    assert "contaminated, orthogonal top_k at 0.9" in text
    shutil.rmtree(run / "runs/pico/seed-0/cells")
    assert run_script("report", run / "study.yaml", run) == 0
    assert page.read_text() == text


def test_a_report_that_is_up_to_date_is_not_made_again(run):
    before = {path: path.stat().st_mtime_ns for path in (run / "results/pico").iterdir()}
    assert run_script("report", run / "study.yaml", run) == 0
    assert {path: path.stat().st_mtime_ns for path in (run / "results/pico").iterdir()} == before


def test_an_edited_parquet_file_is_refused(run, capsys):
    path = run / "results/pico/scores.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "value"] = 0.5
    table.to_parquet(path, index=False)
    assert run_script("report", run / "study.yaml", run) == 2
    assert "scores.parquet: not as run.json records it, edited by hand" in capsys.readouterr().err


def test_the_plan_of_a_verdict_says_what_it_can_detect(tmp_path):
    plan = plan_of(of_model("qwen2.5-1.5b", tmp_path, evidence={"expected_gap": {"utility": 0.4, "harmfulness": 2.0}}))
    assert "verdict: about 0." in plan
    assert "if the task raises utility by 0.4 and harmfulness by 2 (margin 0.15; 1,319 and 520 prompts" in plan
