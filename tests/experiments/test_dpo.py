"""A study whose reference is trained on preferences: from a file of pairs to a checkpoint that prefers as they do."""

import json
import math
from pathlib import Path

import pytest
import torch

from safety_spaces.command_line import Arguments, parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.experiments import training
from safety_spaces.study import FineTuned, Study, load_study
from tests.experiments.preferences import PAIRS, write_preferences
from tests.pico import run_script


def command_of(folder: Path) -> Arguments:
    return parse_arguments(
        "", [str(folder / "study.yaml"), "--runs", str(folder / "runs"), "--results", str(folder / "r")]
    )


def test_refusals_are_chosen_and_answers_rejected_whatever_their_place(tmp_path):
    write_preferences(tmp_path)
    rows = command_of(tmp_path).texts.role_rows("reference", 0)
    known = {f"Question: {pair['prompt']}\nAnswer:": pair for pair in PAIRS}
    assert len(rows) == len({row["prompt"] for row in rows}) == 16
    for row in rows:
        pair = known[row["prompt"]]
        assert (row["chosen"], row["rejected"]) == (f" {pair['refusal']}", f" {pair['answer']}")


def reference_of(study: Study) -> FineTuned:
    (recipe,) = [recipe for role, recipe in study.roles.items() if role == "reference"]
    assert isinstance(recipe, FineTuned)
    return recipe


def test_beta_belongs_to_preferences_alone(tmp_path):
    study = load_study(write_preferences(tmp_path))
    assert reference_of(study).beta == 0.1
    assert study.roles["useful"].beta is None
    assert Study.model_validate(json.loads(study.model_dump_json())) == study
    assert reference_of(load_study(write_preferences(tmp_path, beta=0.4))).beta == 0.4
    with pytest.raises(UserError, match=r"roles.reference.beta: expected none, since the method is sft, got 0.4"):
        load_study(write_preferences(tmp_path, method="sft", corpus="alignment", beta=0.4))
    with pytest.raises(UserError, match=r"roles.reference.beta: expected a number above 0, since the method is dpo"):
        load_study(write_preferences(tmp_path, beta=None))
    with pytest.raises(UserError, match=r"roles.reference.beta: .*greater than 0"):
        load_study(write_preferences(tmp_path, beta=0))


@torch.inference_mode()
def preference(folder: Path) -> list[float]:
    """Log-probability of the refusal less that of the answer, behind each prompt."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def score(prompt: str, response: str) -> float:
        ids = tokenizer(prompt + response)["input_ids"]
        logs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        places = range(len(tokenizer(prompt)["input_ids"]), len(ids))
        return sum(float(logs[place - 1, ids[place]]) for place in places)

    prompts = [(f"Question: {pair['prompt']}\nAnswer:", pair) for pair in PAIRS]
    return [score(prompt, f" {pair['refusal']}") - score(prompt, f" {pair['answer']}") for prompt, pair in prompts]


@pytest.mark.slow
def test_a_reference_from_preferences_refuses_more_than_its_base(tmp_path, monkeypatch):
    betas = []
    train = training.train
    monkeypatch.setattr(
        training, "train", lambda *rows, beta, **more: betas.append(beta) or train(*rows, beta=beta, **more)
    )
    study = write_preferences(tmp_path, beta=0.4)
    assert run_script("finetune", study, tmp_path) == 0
    assert betas == [None, 0.4, None, None, None]
    runs = tmp_path / "runs/pico"
    reference = runs / "seed-4/checkpoints/reference"
    notes = json.loads((reference / "recipe.json").read_text())
    assert notes["method"] == "dpo"
    # 16 pairs in passes of 8, twice.
    assert notes["steps"] == 4
    assert notes["loss"] < math.log(2)
    assert notes["share_of_weights_changed"] > 0.5
    before, after = preference(runs / "seed-4/checkpoints/base"), preference(reference)
    assert all(late > early for early, late in zip(before, after, strict=True))
    # Tasks start from it, and by supervised training.
    assert json.loads((runs / "seed-4/checkpoints/useful/recipe.json").read_text())["method"] == "sft"
    facts = json.loads((tmp_path / "results/pico/run.json").read_text())["corpora"]["preferences"]
    assert (facts["source"], facts["rows"], facts["unique_prompts"]) == ("pairs.jsonl", 16, 16)
