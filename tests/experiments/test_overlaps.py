"""Experiment 3 against plain code: dense SVDs."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

from tests.experiments.plain import plain_mso
from tests.pico import PICO, copy_run, run_script

ETAS = PICO["update_spaces"]["etas"]
SEED = PICO["seeds"][1]


def load(folder: Path, role: str) -> dict[str, np.ndarray]:
    runs = folder / "runs/pico"
    path = runs / f"seed-{SEED}/checkpoints/{role}"
    return {name: tensor.double().numpy() for name, tensor in load_file(path / "model.safetensors").items()}


def test_overlaps_of_updates_are_those_of_dense_svds(finished):
    table = pd.read_csv(finished / "results/pico/update_spaces.csv")
    table = table[table.seed == SEED]
    base, reference = load(finished, "base"), load(finished, "reference")
    update = {role: {n: load(finished, role)[n] - reference[n] for n in base} for role in ("useful", "harmful")}
    update["reference"] = {n: reference[n] - base[n] for n in base}
    names = [name for name in base if base[name].ndim == 2]
    assert set(table.tensor) == set(names)
    for name in names:
        for first, second in (("useful", "harmful"), ("useful", "reference"), ("harmful", "reference")):
            for eta in ETAS:
                row = table[(table.tensor == name) & (table.pair == f"{first}-{second}") & (table.eta == eta)].iloc[0]
                mso, k_first, k_second = plain_mso(update[first][name], update[second][name], eta)
                assert (row.k_first, row.k_second) == (k_first, k_second)
                assert row.mso == pytest.approx(mso, abs=1e-4)
                assert row.mso_chance == pytest.approx(max(k_first, k_second) / len(base[name]), rel=1e-5)
            both = update[first][name].ravel(), update[second][name].ravel()
            cosine = np.dot(*both) / np.linalg.norm(both[0]) / np.linalg.norm(both[1])
            assert row.cosine == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize(
    ("script", "table"), [("update_spaces", "update_spaces.csv"), ("activation_space", "activation_spaces.csv")]
)
def test_a_finished_comparison_is_written_again_without_torch(finished, tmp_path, monkeypatch, script, table):
    folder = copy_run(finished, tmp_path / "run")
    path = folder / "results/pico" / table
    before = path.read_bytes()
    path.unlink()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert run_script(script, folder / "study.yaml", folder) == 0
    assert path.read_bytes() == before


def test_tensors_compared_before_a_kill_are_not_compared_again(finished, tmp_path, monkeypatch):
    from safety_spaces.experiments import weight_overlaps

    folder = copy_run(finished, tmp_path / "run")
    cells = folder / f"runs/pico/seed-{SEED}/cells"
    rows = {path: json.loads(path.read_text()).get("rows") for path in cells.glob("*.json") if "-" not in path.stem}
    (whole,) = (path for path, found in rows.items() if found and "cosine" in found[0])
    whole.unlink()
    monkeypatch.setattr(weight_overlaps, "_tensor_overlaps", lambda *_: pytest.fail("compared again"))
    before = (folder / "results/pico/update_spaces.csv").read_bytes()
    assert run_script("update_spaces", folder / "study.yaml", folder) == 0
    assert (folder / "results/pico/update_spaces.csv").read_bytes() == before
