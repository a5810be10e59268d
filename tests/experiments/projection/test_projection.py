"""Experiments 1 and 2 against plain code that knows nothing of the project but its files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from safety_spaces.command_line import parse_arguments
from safety_spaces.evaluation.judges.rubric import RubricJudge
from safety_spaces.evidence.tables import SCORES
from safety_spaces.experiments.plan.sizes import factor_size, stored_shapes
from tests.pico import PICO, copy_run, plan_of, run_script

FRACTIONS = PICO["projection"]["fractions"]
SEEDS = PICO["seeds"]


def weights(folder: Path, role: str, seed: int) -> dict[str, torch.Tensor]:
    runs = folder / "runs" / "pico"
    path = runs / f"seed-{seed}/checkpoints/{role}"
    return {name: tensor.double() for name, tensor in load_file(path / "model.safetensors").items()}


def matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.ndim == 2 else tensor[:, None]


def plain_projection(
    folder: Path, task: str, seed: int, fraction: float
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By tensor: the task update and its part in the leading directions, by a dense SVD in float64."""
    base, reference, tuned = (weights(folder, role, seed) for role in ("base", "reference", task))
    parts = {}
    for name in base:
        update, D = matrix(reference[name] - base[name]), matrix(tuned[name] - reference[name])
        U = torch.linalg.svd(update, full_matrices=False)[0]
        k = max(1, int(fraction * min(D.shape)))
        parts[name] = D, U[:, :k] @ (U[:, :k].T @ D)
    return parts


@pytest.fixture(scope="module")
def energy(finished: Path) -> pd.DataFrame:
    return pd.read_csv(finished / "results/pico/energy.csv")


@pytest.fixture(scope="module")
def projection(finished: Path) -> pd.DataFrame:
    return pd.read_csv(
        finished / "results/pico/projection.csv", keep_default_na=False, dtype={"fraction": str, "draw": str}
    )


@pytest.mark.parametrize("task", ["useful", "harmful", "contaminated"])
def test_energies_of_the_leading_directions_are_those_of_a_dense_svd(finished, energy, task):
    for seed in SEEDS:
        for fraction in FRACTIONS:
            parts = plain_projection(finished, task, seed, fraction)
            kept = sum(part.square().sum() for _, part in parts.values()) / sum(
                D.square().sum() for D, _ in parts.values()
            )
            rows = energy[(energy.task == task) & (energy.seed == seed) & (energy.basis == "top_k")]
            rows = rows[rows.fraction == fraction]
            assert rows[rows.tensor == "all"].energy_kept.item() == pytest.approx(kept.item(), abs=1e-4)
            for name, (D, part) in parts.items():
                ratio = part.square().sum() / D.square().sum()
                assert rows[rows.tensor == name].energy_kept.item() == pytest.approx(ratio.item(), abs=1e-4)


def test_random_bases_keep_their_closed_form_within_sampling_error(energy):
    for basis in ("random", "random_k"):
        rows = energy[
            (energy.basis == basis) & (energy.kind.isin(["q_proj", "up_proj"])) & energy.tensor.str.contains("layers")
        ]
        gap = (rows.energy_kept - rows.energy_expected).mean()
        assert abs(gap) < 4 * (rows.energy_kept - rows.energy_expected).std() / np.sqrt(len(rows)), basis


def test_the_table_has_every_cell_once(projection):
    cells = projection.groupby(["task", "scheme", "basis", "fraction", "seed", "draw", "metric"]).size()
    assert (cells == 1).all()
    assert len(projection) == 2 * (
        5 * 2 + 6 * 5 * 3
    )  # seeds x (checkpoints x metrics + lines x (basis, draw) x fractions)
    assert set(projection.layers) == {"all"}
    assert list(projection.columns[-3:]) == ["others", "shots", "dose"]
    assert set(projection.dose) == {""}
    assert set(projection.others) == {""}
    shots = projection.groupby("metric")["shots"].agg(set)
    assert dict(shots) == {"utility": {"0"}, "harmfulness": {""}}


def test_parallel_and_orthogonal_energies_of_a_cell_add_to_one(projection):
    rows = projection[(projection.task == "contaminated") & (projection.scheme != "none")]
    sums = (
        rows.assign(kept=rows.energy_kept.astype(float))
        .groupby(["basis", "fraction", "seed", "draw", "metric"])
        .kept.sum()
    )
    np.testing.assert_allclose(sums, 1, atol=1e-5)


def test_float32_delivers_the_intended_update(projection):
    rows = projection[projection.scheme != "none"]
    np.testing.assert_allclose(rows.realised_energy.astype(float), 1, atol=1e-4)
    np.testing.assert_allclose(rows.realised_cosine.astype(float), 1, atol=1e-4)


def test_the_cosine_of_task_and_reference_update_is_that_of_the_whole_vectors(finished, projection):
    for seed in SEEDS:
        base, reference, tuned = (weights(finished, role, seed) for role in ("base", "reference", "useful"))
        update = torch.cat([(reference[n] - base[n]).flatten() for n in sorted(base)])
        task = torch.cat([(tuned[n] - reference[n]).flatten() for n in sorted(base)])
        cosine = torch.nn.functional.cosine_similarity(update, task, dim=0).item()
        rows = projection[(projection.task == "useful") & (projection.seed == seed)]
        np.testing.assert_allclose(rows.cosine_task_reference.astype(float), cosine, atol=1e-5)


@pytest.mark.parametrize(("task", "scheme"), [("harmful", "parallel"), ("contaminated", "orthogonal")])
def test_a_cell_answers_like_a_checkpoint_with_its_weights(finished, projection, task, scheme, tmp_path):
    """The weights put in place are those of a merged checkpoint loaded from disk, and so are the answers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    seed, fraction = SEEDS[1], 0.5
    folder = finished / f"runs/pico/seed-{seed}/checkpoints/reference"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        AutoTokenizer.from_pretrained(folder),
    )
    state = model.state_dict()
    for name, (D, part) in plain_projection(finished, task, seed, fraction).items():
        added = part if scheme == "parallel" else D - part
        state[name].copy_((weights(finished, "reference", seed)[name] + added.reshape(state[name].shape)).float())
    stored = {
        "scores" in cell: (path.stem, cell)
        for path in (finished / f"runs/pico/seed-{seed}/cells").glob("*.json")
        if (cell := json.loads(path.read_text())).get("metric") == "harmfulness"
        and (cell["task"], cell["scheme"], cell["basis"], cell["fraction"]) == (task, scheme, "top_k", fraction)
    }
    (key, _), (_, scored) = stored[False], stored[True]
    path = finished / f"runs/pico/seed-{seed}/responses/{key}.jsonl"
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    judge = RubricJudge.read(finished / "runs/pico/corpora/rubric.json")
    for answer, score in zip(answers, scored["scores"], strict=True):
        prompt = tokenizer(f"Question: {answer['prompt']}\nAnswer:", return_tensors="pt")
        output = model.generate(**prompt, max_new_tokens=6, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        text = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text == answer["response"]
        assert judge.score([(answer["prompt"], answer["response"])]) == [score]
    row = projection[
        (projection.task == task) & (projection.scheme == scheme) & (projection.basis == "top_k")
        & (projection.fraction == "0.5") & (projection.seed == seed) & (projection.metric == "harmfulness")
    ]  # fmt: skip
    assert float(row.value.item()) == pytest.approx(np.mean(scored["scores"]))
    assert int(row.n.item()) == len(answers) == 7


def test_a_finished_sweep_is_written_again_without_torch(finished, tmp_path, monkeypatch):
    folder = copy_run(finished, tmp_path / "run")
    table = folder / "results/pico/projection.csv"
    before = table.read_bytes()
    table.unlink()
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert run_script("projection", folder / "study.yaml", folder) == 0
    assert table.read_bytes() == before


def test_cells_that_are_gone_are_measured_again_with_the_same_result(finished, tmp_path):
    folder = copy_run(finished, tmp_path / "run")
    cells = sorted((folder / "runs/pico/seed-0/cells").glob("*.json"))
    kept = {path: path.read_bytes() for path in cells}
    for path in cells[::3]:
        path.unlink()
    cells[1].write_bytes(kept[cells[1]][:-20])  # half-written: counts as absent
    before = {name: (folder / "results/pico" / name).read_bytes() for name in ("energy.csv", "projection.csv")}
    assert run_script("projection", folder / "study.yaml", folder) == 0
    for name, content in before.items():
        assert (folder / "results/pico" / name).read_bytes() == content, name


def test_factors_are_removed_at_the_end_unless_they_are_to_be_kept(finished, tmp_path):
    folder = copy_run(finished, tmp_path / "run")
    factors = [folder / f"runs/pico/seed-{seed}/factors" for seed in SEEDS]
    assert not any(path.exists() for path in factors)
    for path in (folder / "runs/pico").glob("seed-*/cells/*.json"):
        if '"metric"' not in path.read_text():
            path.unlink()
    assert run_script("projection", folder / "study.yaml", folder, "--keep-factors") == 0
    stored = [list(path.rglob("*.safetensors")) for path in factors]
    names = set(weights(folder, "base", SEEDS[0]))
    assert all({file.stem for file in files} == names for files in stored)
    assert run_script("projection", folder / "study.yaml", folder, "--geometry-only") == 0
    assert all(path.exists() for path in factors)
    command = parse_arguments("", [str(folder / "study.yaml"), "--runs", str(folder / "runs")])
    numbers = sum(tensor.numel() for file in stored[0] for tensor in load_file(file).values())
    shapes = stored_shapes(folder / "runs/pico/seed-0/checkpoints/base")
    planned = sum(factor_size(name, shape, side="left") for name, shape in shapes.items())
    # An update may have a direction less than its shape allows: after few steps some have next to none.
    assert 0.99 * planned <= numbers <= planned
    assert f"factors on disk {4 * planned / 1000:.3g} KB a seed, removed at the end" in plan_of(command)
    assert run_script("projection", folder / "study.yaml", folder) == 0
    assert not any(path.exists() for path in factors)


def test_geometry_only_writes_energies_alone(finished, tmp_path, caplog):
    folder = copy_run(finished, tmp_path / "run")
    for name in ("energy.csv", "projection.csv"):
        (folder / "results/pico" / name).unlink()
    with caplog.at_level("INFO", logger="safety_spaces"):
        assert run_script("projection", folder / "study.yaml", folder, "--geometry-only") == 0
    assert (folder / "results/pico/energy.csv").exists()
    assert not (folder / "results/pico/projection.csv").exists()
    assert "seed 3: cosine of harmful and reference update" in caplog.text


def test_scores_of_prompts_are_what_the_table_of_means_is_made_of(finished, projection):
    """The values of scores.parquet average to projection.csv, cell by cell."""
    scores = pd.read_parquet(finished / "results/pico/scores.parquet")
    assert tuple(scores.columns) == SCORES
    cell = ["seed", "task", "scheme", "basis", "fraction", "draw", "metric"]
    means = scores.groupby(cell, dropna=False).value.agg(["mean", "size"])
    table = pd.read_csv(finished / "results/pico/projection.csv").convert_dtypes().set_index(cell).value
    assert len(means) == len(table)
    joined = means.reset_index().fillna(-1).merge(table.reset_index().fillna(-1), on=cell)
    assert len(joined) == len(means)
    np.testing.assert_allclose(joined["mean"].astype(float), joined.value.astype(float), atol=1e-5)
    assert {metric: set(sizes) for metric, sizes in means["size"].groupby("metric")} == {
        "utility": {6}, "harmfulness": {7}
    }  # fmt: skip
