"""A user's own file through the whole study: with the leading directions in it, it does what top_k does."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pico import PICO, copy_run, run_script, write_study

SEEDS = PICO["seeds"]
LEFT_OUT = "model.norm.weight"


def leading_directions(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """Left singular vectors of the reference update of one seed, by a dense SVD, of every tensor but one."""
    runs = folder / "runs/pico"
    base, reference = (
        load_file(checkpoint / "model.safetensors")
        for checkpoint in (runs / f"seed-{seed}/checkpoints/base", runs / f"seed-{seed}/checkpoints/reference")
    )
    updates = {name: (reference[name] - base[name]).double() for name in base if name != LEFT_OUT}
    return {
        name: torch.linalg.svd(D.reshape(len(D), -1), full_matrices=False)[0].float().contiguous()
        for name, D in updates.items()
    }


@pytest.fixture(scope="module")
def results(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_run(finished, tmp_path_factory.mktemp("own") / "run")
    save_file(leading_directions(folder, SEEDS[0]), folder / "U.safetensors")
    own = {"basis": {"file": str(folder / "U.safetensors")}, "bases": ["file", "top_k", "random"], "score_draws": 1}
    study = write_study(folder / "study.yaml", projection={**PICO["projection"], **own})
    for name in ("projection", "report"):
        assert run_script(name, study, folder) == 0, name
    return folder / "results/pico"


def test_the_leading_directions_keep_what_top_k_keeps(results):
    energy = pd.read_csv(results / "energy.csv")
    energy = energy[(energy.seed == SEEDS[0]) & (energy.draw == 0) & energy.tensor.str.contains("weight")]
    assert energy[energy.basis == "file"].energy_expected.isna().all()
    left_out = energy[(energy.tensor == LEFT_OUT) & (energy.basis != "top_k")]
    assert (left_out.energy_kept == 0).all()
    assert (left_out.k == 0).all()
    kept = energy[energy.tensor != LEFT_OUT].pivot(
        index=["task", "fraction", "tensor"], columns="basis", values="energy_kept"
    )
    np.testing.assert_allclose(kept.file, kept.top_k, atol=1e-4)
    assert (kept.file - kept.random).max() > 0.1


def test_models_of_the_file_are_scored_once_and_reported(results):
    projection = pd.read_csv(results / "projection.csv", keep_default_na=False)
    own = projection[projection.basis == "file"]
    assert set(own.draw) == {"0"}
    assert len(own) == len(projection[projection.basis == "random"])
    text = (results / "README.md").read_text()
    verdicts = pd.read_csv(results / "verdicts.csv")
    energies = verdicts[verdicts.id == "energy-chance"]
    assert set(energies.basis) == {"file"}
    assert all(f"Energy of updates: {task}" in text for task in energies.task)
    assert "top_k" not in text
