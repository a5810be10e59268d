"""A study of weights alone: three folders, no data, no judge; every command accepts it."""

import pandas as pd
import pytest
import yaml

from safety_spaces.study import load_study
from tests.pico import ROOT, SCRIPTS, copy_run, load_script, run_script

READY = ROOT / "configs/own-models.yaml"


@pytest.fixture
def own(finished, tmp_path):
    """The ready study with its three paths edited, and nothing else."""
    made = finished / "runs/pico"
    paths = {
        "base": "seed-0/checkpoints/base",
        "aligned": "seed-0/checkpoints/reference",
        "harmful": "seed-0/checkpoints/harmful",
    }
    text = READY.read_text()
    for name, place in paths.items():
        text = text.replace(f"path: checkpoints/{name}", f"path: {made / place}")
    (tmp_path / "own.yaml").write_text(text)
    return tmp_path / "own.yaml"


def test_the_ready_study_is_short():
    assert len([line for line in READY.read_text().splitlines() if not line.startswith("#")]) <= 12
    study = load_study(READY)
    assert study.update_pairs == (("harmful", "reference"),)
    assert (study.evaluation, study.activation_spaces, study.projection.scored) == (None, None, ())


def test_every_command_takes_it_and_the_report_lacks_nothing(own, finished, tmp_path, capsys):
    for name in SCRIPTS:
        assert run_script(name, own, tmp_path) == 0, name
    assert sorted(path.name for path in (tmp_path / "results/own-models").iterdir()) == [
        "README.md", "energy.csv", "figure_10.pdf", "figure_10.png", "figure_2.pdf", "figure_2.png", "figure_4.pdf",
        "figure_4.png", "figure_energy.pdf", "figure_energy.png", "premises.csv", "report.html", "run.json",
        "selectivity.csv", "update_spaces.csv", "verdicts.csv",
    ]  # fmt: skip
    assert "Not here" not in (tmp_path / "results/own-models/README.md").read_text()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "wrote nothing: nothing was left to do here"
    assert "/report.html" in printed[-1]
    energy = pd.read_csv(tmp_path / "results/own-models/energy.csv")
    assert set(energy.task) == {"harmful"}
    of_study = pd.read_csv(finished / "results/pico/update_spaces.csv")
    of_study = of_study[(of_study.seed == 0) & (of_study.pair == "harmful-reference") & (of_study.eta == 0.5)]
    mine = pd.read_csv(tmp_path / "results/own-models/update_spaces.csv")
    mine = mine[mine.eta == 0.5]
    pd.testing.assert_frame_equal(
        *(table.drop(columns="study").reset_index(drop=True) for table in (of_study, mine)), check_exact=False
    )


def test_no_activations_are_said_to_be_none(own, tmp_path, caplog):
    caplog.set_level("INFO", "safety_spaces")
    assert run_script("activation_space", own, tmp_path) == 0
    assert "study own-models compares no activations: its activation_spaces is null" in caplog.text
    assert not (tmp_path / "results").exists()


def test_judges_need_an_evaluation(own, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SCRIPTS, "judge_agreement", "scripts/judge_agreement.py")
    assert load_script("judge_agreement").main([str(own), "--runs", str(tmp_path), "--results", str(tmp_path)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: {own}: expected two judges or more, got none alone; add another: evaluation: ")


def test_its_plan_and_its_downloads_ask_for_no_data(own, tmp_path, capsys):
    for flag in ("--plan", "--download"):
        assert run_script("projection", own, tmp_path, flag) == 0
    plan = capsys.readouterr().out
    assert "\nprojection: 15 energies, no model is asked\nupdate_spaces: 1 pair, 11 energy levels, 1 seed\n" in plan
    assert "activation_spaces" not in plan


def test_after_energies_alone_the_report_of_a_whole_study_says_what_is_missing(finished, tmp_path, capsys):
    folder = copy_run(finished, tmp_path / "run")
    for name in ("projection.csv", "activation_spaces.csv"):
        (folder / "results/pico" / name).unlink()
    assert run_script("report", folder / "study.yaml", folder) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("* Not here")]
    command = "exp-4-activation_spaces/activation_space.py"
    assert said == [
        "* Not here: projection.csv: no such table; write it with `python scripts/projection.py STUDY.yaml`",
        f"* Not here: activation_spaces.csv: no such table; write it with `python {command} STUDY.yaml`",
    ]
    drawn = {path.stem for path in (folder / "results/pico").glob("*.png")}
    assert drawn == {"figure_2", "figure_3", "figure_4", "figure_10", "figure_energy"}


def test_without_evaluation_only_energies_are_measured(finished, tmp_path):
    content = yaml.safe_load((finished / "study.yaml").read_text())
    content |= {"activation_spaces": None, "evaluation": None, "projection": {**content["projection"], "scored": []}}
    folder = copy_run(finished, tmp_path / "run")
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    (folder / "results/pico/projection.csv").unlink()
    before = (folder / "results/pico/energy.csv").read_bytes()
    assert run_script("projection", folder / "study.yaml", folder) == 0
    assert (folder / "results/pico/energy.csv").read_bytes() == before
    assert not (folder / "results/pico/projection.csv").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_command_plans_it(own, tmp_path, capsys, name):
    assert run_script(name, own, tmp_path, "--plan") == 0
    assert "update_spaces: 1 pair, 11 energy levels, 1 seed" in capsys.readouterr().out


def test_base_and_reference_alone_have_a_report(own, tmp_path):
    text = own.read_text()
    own.write_text("".join(line for line in text.splitlines(keepends=True) if "harmful:" not in line))
    for name in ("projection", "update_spaces", "report"):
        assert run_script(name, own, tmp_path) == 0, name
    assert (tmp_path / "results/own-models/README.md").exists()
