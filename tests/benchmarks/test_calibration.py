import json
import subprocess
import sys

import pandas as pd
import pytest

from tests.pico import ROOT

SETTINGS = ["main, 10 deeds", "one seed, 200 prompts"]


def simulate(table, *arguments):
    call = [sys.executable, ROOT / "benchmarks" / "calibration.py", "--table", table, "--studies", "3", *arguments]
    done = subprocess.run([str(part) for part in call], capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_settings_are_simulated_once_and_the_words_are_counted(tmp_path):
    table = tmp_path / "calibration.csv"
    rows = simulate(table, *SETTINGS)
    assert [row["setting"] for row in rows] == SETTINGS
    for row in rows:
        words = [row[word] for word in ("separable", "selective", "worse", "equivalent", "undecided")]
        assert sum(words) == pytest.approx(1)
        assert 0 <= row["coverage_of_all"] <= 1
        assert 0.01 < row["stated_error"] < 0.2
        assert abs(row["bias"]) < 0.15
    content = table.read_bytes()
    assert [row["cpu_seconds"] for row in simulate(table, *SETTINGS)] == pytest.approx(
        [row["cpu_seconds"] for row in rows], rel=1e-5
    )
    assert table.read_bytes() == content
    again = simulate(tmp_path / "again.csv", SETTINGS[1])
    assert {**again[0], "cpu_seconds": 0} == {**rows[1], "cpu_seconds": 0}


def test_committed_numbers_meet_the_targets():
    """Two standard errors of a share of 500 studies are about 0.02: rows of fewer studies than 2,000 get that more."""
    rows = pd.read_csv(ROOT / "results/benchmarks/calibration.csv").set_index("setting")
    assert (rows.studies[["main", "main, twice the margin", "one seed"]] == 2000).all()
    assert rows.coverage[rows.studies == 2000].between(0.935, 0.965).all()
    assert rows.coverage.between(0.915, 0.985).all()
    null = rows[rows.effect == "(0.0, 0.0, 0.0)"]
    assert (null.separable + null.selective <= 0.06).all()
    assert rows.loc["main, twice the margin", "separable"] >= 0.95
    assert (rows.equivalent[rows.effect.str.contains("0.15")] <= 0.06).all()
