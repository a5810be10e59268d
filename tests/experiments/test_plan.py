"""The plan counts what the study then has."""

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import projected_cells
from safety_spaces.experiments.command import parse_command
from safety_spaces.experiments.costs import activation_bytes, counts, judge_dollars, training_bytes, training_hours
from safety_spaces.experiments.plan import check_memory, plan
from safety_spaces.experiments.sizes import architecture_shapes, base_architecture, factor_size
from safety_spaces.study import load_study
from safety_spaces.training.architecture import new_model
from tests.pico import ROOT, run_script, write_study
from tests.pico_model import pico_architecture, pico_tokenizer


def test_the_plan_counts_parameters_checkpoints_and_cells(finished):
    command = parse_command("", [str(finished / "study.yaml"), "--runs", str(finished / "runs")])
    weights = load_file(finished / "runs/pico/checkpoints/base/model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = plan(command)
    assert f"{parameters:,} parameters, 2 seeds" in text
    assert "9 checkpoints of" in text
    assert "0 still to be made" in text
    projection = pd.read_csv(finished / "results/pico/projection.csv")
    assert f"{len(projection)} scores" in text
    energy = pd.read_csv(finished / "results/pico/energy.csv")
    assert f"{(energy.tensor == 'all').sum()} energies" in text
    scored = sum(len(metrics) for metrics in projected_cells(command.study, 0).values())
    assert scored * 2 == (projection.scheme != "none").sum()


@pytest.mark.parametrize(("changes", "flags", "factors"), [
    ({}, [], 0), ({"tied": "twice"}, [], 256 * 24), ({}, ["--geometry-only"], None),
    ({}, ["--geometry-only", "--keep-factors"], 0),
])  # fmt: skip
def test_the_plan_knows_what_will_lie_on_disk(tmp_path, changes, flags, factors):
    study = write_study(tmp_path / "study.yaml", projection=changes)
    command = parse_command("", [str(study), *flags], projects=True)
    shapes = architecture_shapes(command.study.roles["base"].architecture)
    numbers = 0 if factors is None else factors + sum(factor_size(n, s, side="left") for n, s in shapes.items())
    size = f"{4 * numbers / 1000:.3g} KB" if numbers else "0 B"
    assert f"factors on disk {size} a seed, removed at the end unless --keep-factors" in plan(command)


CONFIGS = [path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem.startswith(("qwen", "llama"))]
APPENDICES = sorted(name for name in CONFIGS if name.endswith("-appendices"))
MODELS = sorted(set(CONFIGS) - set(APPENDICES))


def of_model(name: str, tmp_path, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"extends": str(ROOT / f"configs/{name}.yaml"), "name": "own", **changes}))
    return parse_command("", [str(path), "--runs", str(tmp_path / "runs")])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_paper_is_planned_before_any_download(name, tmp_path):
    """No network, no data, no weights: 65 models, AdvBench and GSM8K asked whole."""
    command = of_model(name, tmp_path)
    text = plan(command)
    check_memory(command)
    # Ten baselines and 15 cells of each of four lines: utility in three of them, harmfulness in three.
    assert "65 models, 100 scores" in text
    assert f"{50 * (1319 + 520):,} generations of at most {50 * (1319 + 520) * 512:,} tokens, at most" in text
    assert f"judge: {50 * 520:,} calls of gpt-4o-mini, about" in text
    assert "stopped before 30.00" in text
    given = sum(role.get("path") is not None for role in load_roles(name))
    assert f"{5 - given} still to be made, {given} to be downloaded" in text


@pytest.mark.parametrize("name", APPENDICES)
def test_the_appendices_of_a_model_are_planned(name, tmp_path):
    """Five baselines of all four metrics; cells of 3 bases and 5 fractions for each task, layer and other layers."""
    command = of_model(name, tmp_path)
    scored, cells = command.study.projection.scored, 3 * 5
    models = {one: cells * (1 if one.layers is None else 2 * len(one.layers)) for one in scored}
    of = {metric: 5 + sum(models[one] for one in scored if metric in one.metrics) for metric in SIZES}
    found = counts(command)
    assert {metric: number // SIZES[metric] for metric, number in found.asked.items()} == of
    assert found.models == 5 + sum(models.values())
    assert found.scores == sum(of.values())
    assert found.generations == sum(of[metric] * SIZES[metric] for metric in of if metric != "general_ability")
    text = plan(command)
    check_memory(command)
    assert f"{found.models:,} models, {found.scores:,} scores; {found.generations:,} generations" in text
    assert f"{of['general_ability'] * 14_042:,} multiple-choice questions" in text
    assert f"over_refusal: {of['over_refusal'] * 250:,} calls of " in text
    assert "update_spaces" not in text


SIZES = {"utility": 1319, "harmfulness": 520, "general_ability": 14_042, "over_refusal": 250}
"""Prompts of the public sets; of XSTest, those that are harmless."""


def load_roles(name: str) -> list[dict]:
    return [role.model_dump() for role in load_study(ROOT / f"configs/{name}.yaml").roles.values()]


@pytest.mark.parametrize(
    ("training", "needed"),
    [
        # Table 3 as it stands: 2 + 2 + 4 bytes for each of 7.6 billion weights, and about a gigabyte of activations.
        ({"optimizer": "adamw"}, "61.9 GB: (2 weights + 2 gradients + 4 optimiser) bytes x 7,615,616,512 parameters"),
        ({"optimizer": "adamw", "precision": "bf16_kahan"}, "77.2 GB: (2 weights + 2 gradients + 6 optimiser)"),
        ({"optimizer": "adamw", "precision": "fp32"}, "123 GB: (4 weights + 4 gradients + 8 optimiser)"),
    ],
)
def test_what_cannot_fit_is_refused_with_the_arithmetic(tmp_path, training, needed, capsys):
    of_model("qwen2.5-7b", tmp_path, training=training)
    assert run_script("projection", tmp_path / "study.yaml", tmp_path, "--plan") == 2
    output = capsys.readouterr()
    assert output.out.startswith("study own: 7,615,616,512 parameters")
    assert "roles.useful: expected a training that fits into 48 GiB" in output.err
    assert needed in output.err
    assert "adamw_8bit or adamw_offload" in output.err


def test_a_live_model_that_cannot_fit_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"projection: expected a live model that fits into 48 GiB, got 30\.5 GB weights"
    ):
        check_memory(of_model("qwen2.5-7b", tmp_path, evaluation={"batch_size": 512}))


def test_activations_that_are_computed_again_need_less_memory(tmp_path):
    study = of_model("llama-3.2-1b", tmp_path).study
    shape, training = study.roles["base"].architecture, study.training_of("useful")
    kept = training.model_copy(update={"gradient_checkpointing": False})
    logits = 512 * 128_256 * 10
    again, once = (activation_bytes(how, "sft", shape) - logits for how in (training, kept))
    assert shape.layers * again > once > 8 * again


def test_the_size_of_a_model_that_is_neither_here_nor_described_is_asked_for(tmp_path):
    command = of_model("llama-3.2-1b", tmp_path, roles={"base": {"architecture": None}})
    with pytest.raises(UserError, match=r"run with --download first, or write roles\.base.architecture"):
        plan(command)


def test_preference_optimisation_holds_a_reference_and_two_texts_a_row(tmp_path):
    shape = of_model("llama-3.2-1b", tmp_path).study.roles["base"].architecture
    training = of_model("llama-3.2-1b-dpo", tmp_path).study.training_of("reference")
    assert sum(training_bytes(training, "dpo").values()) == sum(training_bytes(training, "sft").values()) + 2
    assert activation_bytes(training, "dpo", shape) == 2 * activation_bytes(training, "sft", shape)
    # Two texts, and beside the policy's 6 + 2 operations the 2 of the reference's forward pass.
    hours = [training_hours(training, method, 10**9, 1000, 1e13) for method in ("sft", "dpo")]
    assert hours[1] == pytest.approx(hours[0] * 2 * 10 / 8)


def test_a_folder_without_a_described_shape_is_planned_from_its_configuration(tmp_path):
    tokenizer = pico_tokenizer()
    new_model(pico_architecture(tokenizer), tokenizer, seed=0).save_pretrained(tmp_path / "base")
    command = of_model("llama-3.2-1b", tmp_path, roles={"base": {"path": str(tmp_path / "base"), "architecture": None}})
    assert base_architecture(command) == pico_architecture(tokenizer)
    assert "activations not counted" not in plan(command)


def test_every_judge_that_is_paid_is_planned(tmp_path):
    judge = {"kind": "service", "name": "other", "price": {"input": 1.0, "output": 2.0}, "budget": 5.0, "attempts": 3}
    command = of_model("llama-3.2-1b", tmp_path, evaluation={"harmfulness": {"compared_judges": [judge]}})
    assert "judge_agreement: 26,000 calls of other, about" in plan(command)
    dollars = judge_dollars(command.study.evaluation.harmfulness.compared_judges[0], 26_000, response_tokens=512)
    assert f"{3 * dollars:.2f} if none is (estimated), stopped before 5.00" in plan(command)
