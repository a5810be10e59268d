"""What a command says at its end: few lines, narrow, and the numbers of its files."""

import json

import pandas as pd
import pytest

from safety_spaces.experiments.summary import LINES, WIDTH, overlap_table
from safety_spaces.experiments.summary import summary as summary_of
from safety_spaces.study import load_study
from tests.pico import copy_run, run_script


@pytest.fixture
def summary(finished):
    """The summary of files of the pico study."""
    study = load_study(finished / "study.yaml")
    return lambda written: summary_of(written, study)


def table_of(text):
    """Cells by line, the first of them the header."""
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("name", ["energy", "projection", "update_spaces", "activation_spaces", "verdicts"])
def test_a_summary_is_short_and_narrow(finished, name, summary):
    text = summary([finished / f"results/pico/{name}.csv"])
    lines = text.splitlines()
    assert 1 < len(lines) <= 2 * LINES + 3
    assert max(map(len, lines)) <= WIDTH


def test_scores_are_means_over_seeds_and_draws(finished, summary):
    rows = table_of(summary([finished / "results/pico/energy.csv", finished / "results/pico/projection.csv"]))
    assert rows[0] == ["task", "scheme", "basis", "fraction", "energy", "harmfulness", "utility"]
    table = pd.read_csv(finished / "results/pico/projection.csv", keep_default_na=False)
    where = (table.task == "contaminated") & (table.scheme == "orthogonal") & (table.basis == "random")
    cells = table[where & (table.fraction == "0.5")]
    expected = [cells.energy_kept.astype(float), *(cells[cells.metric == m].value for m in ("harmfulness", "utility"))]
    (found,) = [row for row in rows if row[:3] == ["contaminated", "orthogonal", "random"]]
    assert [float(cell) for cell in found[4:]] == pytest.approx([column.mean() for column in expected], abs=6e-4)
    assert [row[0] for row in rows[1:6]] == ["base", "contaminated", "harmful", "reference", "useful"]


def test_energies_have_a_column_for_each_fraction(finished, summary):
    rows = table_of(summary([finished / "results/pico/energy.csv"]))
    table = pd.read_csv(finished / "results/pico/energy.csv")
    where = (table.task == "harmful") & (table.basis == "random_k") & (table.tensor == "all")
    expected = [table[where & (table.fraction == fraction)].energy_kept.mean() for fraction in (0.1, 0.5, 0.9)]
    (found,) = [row for row in rows if row[:2] == ["harmful", "random_k"]]
    assert [float(cell) for cell in found[2:]] == pytest.approx(expected, abs=6e-4)


def test_overlaps_stand_beside_chance(finished, summary):
    updates = table_of(summary([finished / "results/pico/update_spaces.csv"]))
    table = pd.read_csv(finished / "results/pico/update_spaces.csv")
    rows = table[(table.pair == "useful-reference") & (table.eta == 0.9)]
    (found,) = [row for row in updates if row[0] == "useful-reference"]
    assert [float(cell) for cell in found[5:7]] == pytest.approx([rows.mso.mean(), rows.mso_chance.mean()], abs=6e-4)
    states = table_of(summary([finished / "results/pico/activation_spaces.csv"]))
    table = pd.read_csv(finished / "results/pico/activation_spaces.csv")
    rows = table[(table.checkpoint == "useful") & (table.pair == "useful-harmful_2") & (table.eta == 0.5)]
    rows = rows[~rows.centred]
    (found,) = [row for row in states if row[:2] == ["useful", "useful-harmful_2"]]
    assert [float(cell) for cell in found[2:4]] == pytest.approx([rows.mso.mean(), rows.mso_chance.mean()], abs=6e-4)


def test_matrices_that_one_training_left_untouched_count_for_nothing():
    measured = {"pair": "a-b", "tensor": "w", "kind": "o_proj", "layer": 0, "eta": 0.5}
    text = overlap_table([
        measured | {"mso": 0.75, "mso_chance": 0.25, "cosine": -0.5},
        measured | {"mso": None, "mso_chance": None, "cosine": 0.0, "layer": 1},
    ])  # fmt: skip
    rows = [row[-3:] for row in table_of(text)[1:]]
    assert rows == [["0.750", "0.250", "-0.500"]] * 3 + [["-", "-", "-"]]


def test_trainings_are_told_by_role_and_seed(finished, summary):
    folders = [finished / "runs/pico" / place for place in ("seed-0/checkpoints/base", "seed-3/checkpoints/useful")]
    header, base, useful = table_of(summary(folders))
    notes = json.loads((folders[1] / "recipe.json").read_text())
    assert header == ["role", "seed", "steps", "last", "loss", "share", "changed"]
    assert (base[0], base[-1]) == ("base", "-")
    assert useful[:3] == ["useful", "3", str(notes["steps"])]
    expected = [notes["loss_by_tenth"][-1], notes["share_of_weights_changed"]]
    assert [float(cell) for cell in useful[3:]] == pytest.approx(expected, abs=6e-4)


def test_nothing_written_has_no_table(summary):
    assert summary([]) == ""


def test_the_table_stands_above_the_files(finished, tmp_path, capsys, summary):
    folder = copy_run(finished, tmp_path / "run")
    assert run_script("update_spaces", folder / "study.yaml", folder) == 0
    path = folder / "results/pico/update_spaces.csv"
    assert capsys.readouterr().out == f"{summary([path])}wrote {path}\n"
