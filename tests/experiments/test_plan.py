"""The plan counts what the study then has."""

import pandas as pd
from safetensors.torch import load_file

from safety_spaces.experiments.cells import cells_per_seed
from safety_spaces.experiments.command import parse_command
from safety_spaces.experiments.plan import architecture_parameters, plan


def test_the_plan_counts_parameters_checkpoints_and_cells(finished):
    command = parse_command("", [str(finished / "study.yaml"), "--runs", str(finished / "runs")])
    weights = load_file(finished / "runs/pico/checkpoints/base/model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    assert architecture_parameters(command.study.roles["base"].architecture) == parameters
    text = plan(command)
    assert f"{parameters:,} parameters, 2 seeds" in text
    assert "9 checkpoints of" in text
    assert "0 still to be made" in text
    projection = pd.read_csv(finished / "results/pico/projection.csv")
    assert f"{len(projection)} scores" in text
    energy = pd.read_csv(finished / "results/pico/energy.csv")
    assert f"{(energy.tensor == 'all').sum()} energies" in text
    assert cells_per_seed(command)["scores"] * 2 == (projection.scheme != "none").sum()
