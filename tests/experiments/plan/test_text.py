"""The plan counts what the study then has."""

from dataclasses import replace

import pandas as pd
import pytest
from safetensors.torch import load_file

from safety_spaces.command_line import parse_arguments
from safety_spaces.data.table import data_sets
from safety_spaces.errors import UserError
from safety_spaces.experiments.plan.card import check_memory
from safety_spaces.experiments.plan.costs import activation_bytes, judge_dollars, training_bytes, training_hours
from safety_spaces.experiments.plan.sizes import architecture_shapes, factor_size
from safety_spaces.experiments.projection.cells import cells
from safety_spaces.study import load_study
from safety_spaces.training.architecture import new_model
from tests.pico import PICO, ROOT, counts_of, of_model, plan_of, planned_of, run_script, write_study
from tests.pico_model import pico_architecture, pico_tokenizer


def test_the_plan_counts_parameters_checkpoints_and_cells(finished):
    command = parse_arguments("", [str(finished / "study.yaml"), "--runs", str(finished / "runs")])
    weights = load_file(finished / "runs/pico/seed-0/checkpoints/base/model.safetensors")
    parameters = sum(tensor.numel() for tensor in weights.values())
    text = plan_of(command)
    assert f"{parameters:,} parameters, 2 seeds" in text
    assert "10 checkpoints of" in text
    assert "0 still to be made" in text
    projection = pd.read_csv(finished / "results/pico/projection.csv")
    assert f"{len(projection)} scores" in text
    energy = pd.read_csv(finished / "results/pico/energy.csv")
    assert f"{(energy.tensor == 'all').sum()} energies" in text
    scored = sum(len(metrics) for cell, metrics in cells(command.study, 0).items() if not cell.is_baseline)
    assert scored * 2 == (projection.scheme != "none").sum()


@pytest.mark.parametrize(("changes", "flags", "factors"), [
    ({}, [], 0), ({"tied": "twice"}, [], 384 * 24), ({}, ["--geometry-only"], None),
    ({}, ["--geometry-only", "--keep-factors"], 0),
])  # fmt: skip
def test_the_plan_knows_what_will_lie_on_disk(tmp_path, changes, flags, factors):
    study = write_study(tmp_path / "study.yaml", projection={**PICO["projection"], **changes})
    command = parse_arguments("", [str(study), *flags], projects=True)
    shapes = architecture_shapes(command.study.roles["base"].architecture)
    numbers = (factors or 0) + sum(factor_size(n, s, side="left") for n, s in shapes.items())
    said = f"factors on disk {4 * numbers / 1000:.3g} KB a seed, removed at the end unless --keep-factors"
    assert said in plan_of(command) if factors is not None else "factors on disk" not in plan_of(command)


CONFIGS = [path.stem for path in (ROOT / "configs").glob("*.yaml") if path.stem.startswith(("qwen", "llama"))]
APPENDICES = sorted(name for name in CONFIGS if name.endswith("-appendices"))
MODELS = sorted(set(CONFIGS) - set(APPENDICES))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_the_paper_is_planned_before_any_download(name, tmp_path):
    """No network, no data, no weights: 84 models, AdvBench and GSM8K asked whole."""
    command = of_model(name, tmp_path)
    text = plan_of(command)
    check_memory(planned_of(command))
    # Ten baselines, 15 cells of each of four lines, three of them for utility and three for harmfulness, and nine doses
    # and ten matched cells for both.
    assert "84 models, 138 scores" in text
    assert f"{69 * (1319 + 520):,} generations of at most {69 * (1319 + 520) * 512:,} tokens, at most" in text
    assert f"judge: {69 * 520:,} calls of gpt-4o-mini, about" in text
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
    found = counts_of(command)
    assert {metric: number // SIZES[metric] for metric, number in found.asked.items()} == of
    assert found.models == 5 + sum(models.values())
    assert found.scores == sum(of.values())
    assert found.generations == sum(of[metric] * SIZES[metric] for metric in of if metric != "general_ability")
    text = plan_of(command)
    check_memory(planned_of(command))
    assert f"{found.models:,} models, {found.scores:,} scores; {found.generations:,} generations" in text
    assert f"{of['general_ability'] * 14_042:,} multiple-choice questions" in text
    assert f"over_refusal: {of['over_refusal'] * 250:,} calls of " in text
    assert "update_spaces" not in text


SIZES = {"utility": 1319, "harmfulness": 520, "general_ability": 14_042, "over_refusal": 250}
"""Prompts of the public sets; of XSTest, those that are harmless."""


def load_roles(name: str) -> list[dict]:
    return [role.model_dump() for role in load_study(ROOT / f"configs/{name}.yaml").roles.values()]


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
        plan_of(command)


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
    assert command.roles.architecture == pico_architecture(tokenizer)
    assert "activations not counted" not in plan_of(command)


def test_every_judge_that_is_paid_is_planned(tmp_path):
    judge = {"kind": "service", "name": "other", "price": {"input": 1.0, "output": 2.0}, "budget": 5.0, "attempts": 3}
    command = of_model("llama-3.2-1b", tmp_path, evaluation={"harmfulness": {"compared_judges": [judge]}})
    assert "judge_agreement: 35,880 calls of other, about" in plan_of(command)
    dollars = judge_dollars(command.study.evaluation.harmfulness.compared_judges[0], 35_880, response_tokens=512)
    assert f"{3 * dollars:.2f} if none is (estimated), stopped before 5.00, which does not suffice" in plan_of(command)
    assert "stopped before 30.00 (0.00 US dollars so far)" in plan_of(command)


def lines_of(text: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in text.splitlines())


def test_every_limit_of_the_questions_is_counted(tmp_path):
    """General ability asks so many of each subject, XSTest is read where it is safe, the published prompts lack one."""
    asked = {
        "general_ability": {"prompts": 10},
        "over_refusal": {"limit": None},
        "harmfulness": {"prompts": "published"},
    }
    few = counts_of(of_model("qwen2.5-1.5b-appendices", tmp_path, evaluation=asked))
    all_of = counts_of(of_model("qwen2.5-1.5b-appendices", tmp_path))
    each = {"utility": 1319, "harmfulness": 519, "general_ability": 57 * 10, "over_refusal": 250}
    assert {metric: few.asked[metric] * SIZES[metric] / all_of.asked[metric] for metric in SIZES} == each


def test_sets_that_are_here_are_counted_as_they_are(tmp_path):
    """Two subjects of 5 and 2 questions, of which 3 are asked; of 6 prompts 4 are safe; of 9 prompts 3 differ."""
    question = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 0}
    rows = {
        "mmlu": [{**question, "subject": subject} for subject in ["anatomy"] * 5 + ["virology"] * 2],
        "xstest": [{"prompt": f"p{n}", "label": "safe" if n < 4 else "unsafe"} for n in range(6)],
        "math": [{"problem": f"p{n % 3}", "solution": "s"} for n in range(9)],
    }
    for name in rows:
        pd.DataFrame(rows[name]).to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)
    command = of_model(
        "qwen2.5-1.5b-appendices",
        tmp_path,
        datasets={name: {"path": str(tmp_path / f"{name}.jsonl")} for name in rows},
        evaluation={"general_ability": {"prompts": 3}, "over_refusal": {"limit": None}},
    )
    found, hub = counts_of(command), counts_of(of_model("qwen2.5-1.5b-appendices", tmp_path))
    assert found.asked["general_ability"] == hub.asked["general_ability"] / SIZES["general_ability"] * 5
    assert found.asked["over_refusal"] == hub.asked["over_refusal"] / SIZES["over_refusal"] * 4
    assert hub.read - found.read == len(command.study.activation_spaces.checkpoints) * (5000 - 3)


@pytest.mark.parametrize(
    ("corpora", "message"),
    [
        ({"harmful": {"rows": 50_000}}, "corpora.harmful: expected at least 50,000 rows, got 27,186; ask for fewer"),
        ({"contaminated": {"harmful_share": 0.5}}, "corpora.contaminated: expected at least 10,000 rows, got 4,000"),
    ],
)
def test_a_corpus_that_is_smaller_than_asked_is_said_by_the_plan(tmp_path, corpora, message):
    with pytest.raises(UserError, match=message):
        plan_of(of_model("llama-3.2-1b", tmp_path, corpora=corpora))


def test_hours_are_those_of_the_card_that_is_named(tmp_path):
    text = plan_of(of_model("llama-2-7b", tmp_path))
    assert lines_of(text)["card"].startswith("RTX A6000, 48 GiB (51.5 GB): hours are estimated for it")
    assert lines_of(text)["finetune"].endswith("; at most 4.5 h on RTX A6000 (estimated)")
    assert "at most 211 h of generation on RTX A6000 (estimated)" in text


def test_no_hours_are_said_of_a_device_that_the_card_is_not(tmp_path):
    text = plan_of(replace(of_model("qwen2.5-7b", tmp_path), device="cpu"))
    assert "--device cpu is asked for, whose hours are not known" in lines_of(text)["card"]
    assert " h " not in text
    assert "the study names none" in plan_of(of_model("qwen2.5-7b", tmp_path, gpu=None))


def test_a_key_and_what_is_given_out_on_request_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    said = lines_of(plan_of(of_model("llama-3.2-1b", tmp_path)))
    assert said["judge"].endswith("OPENAI_API_KEY is not set: export it before judging")
    models = "models meta-llama/Llama-3.2-1B (about 2.47 GB), meta-llama/Llama-3.2-1B-Instruct (about 2.47 GB)"
    assert said["to be downloaded"].startswith(f"{models}; data sets advbench, beavertails")
    assert said["given out on request"] == (
        "ask for access at https://huggingface.co/meta-llama/Llama-3.2-1B, "
        "https://huggingface.co/meta-llama/Llama-3.2-1B-Instruct, https://huggingface.co/datasets/walledai/AdvBench, "
        "then log in with `hf auth login`"
    )
    local = {"harmfulness": {"judge": {"base_url": "http://localhost:8000/v1"}}}
    text = plan_of(of_model("llama-3.2-1b", tmp_path, evaluation=local))
    assert lines_of(text)["judge"].endswith("OPENAI_API_KEY is not set: http://localhost:8000/v1 may need none")


def test_neither_the_key_nor_the_token_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf-secret")
    text = plan_of(of_model("llama-3.2-1b", tmp_path))
    assert lines_of(text)["judge"].endswith("OPENAI_API_KEY is set")
    assert "hf auth login" not in text
    assert "secret" not in text


def test_what_is_here_is_not_to_be_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    revision = data_sets()["advbench"].hub.revision
    (tmp_path / "datasets--walledai--AdvBench" / "snapshots" / revision).mkdir(parents=True)
    (tmp_path / "math.csv").write_text("problem,solution\na,b\n")
    said = lines_of(plan_of(of_model("qwen2.5-3b", tmp_path, datasets={"math": {"path": str(tmp_path / "math.csv")}})))
    assert not {"advbench", "math"} & set(said["to be downloaded"].replace(",", "").split())
    assert "given out on request" not in said


def test_a_plan_of_the_geometry_alone_asks_no_model_and_needs_no_data(tmp_path, capsys):
    of_model("qwen2.5-7b", tmp_path, datasets={"advbench": {"path": "/moved/away.csv"}}, evaluation={"batch_size": 512})
    assert run_script("projection", tmp_path / "study.yaml", tmp_path, "--plan", "--geometry-only") == 0
    said = lines_of(capsys.readouterr().out)
    assert said["projection"] == "45 energies, no model is asked"
    assert not {"judge", "activation_spaces"} & set(said)


def test_a_role_whose_folder_is_not_there_is_named(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text(
        f"extends: {ROOT}/configs/llama-3.2-1b.yaml\nname: own\n"
        f"roles: {{useful: !replace {{path: {tmp_path}/nowhere}}}}\n"
    )
    text = plan_of(parse_arguments("", [str(path), "--runs", str(tmp_path / "runs")]))
    assert f"  not there (correct its path in the study): useful at {tmp_path}/nowhere\n" in text
    assert "5 checkpoints of 2.47 GB, 2 still to be made, 2 to be downloaded" in text
