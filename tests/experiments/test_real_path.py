"""The path of the paper's models: configs/paper.yaml on a user's folders and files in the formats of the public ones.

The models are a Qwen2 with biases in bfloat16 shards; the data sets are harmless texts in the public columns, each in
another kind of file.
"""

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from safety_spaces.command_line import Arguments, parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics import metric_of
from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.models.loading import live_model, open_role
from tests.pico import ROOT, SCRIPTS, SIZES, run_script
from tests.pico_model import pico_model, pico_tokenizer

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Folders models/ and data/, as a user has them."""
    folder = tmp_path_factory.mktemp("world")
    write_corpora(folder / "corpora", seed=5, sizes={**SIZES, "beavertails": 90}, template="question")
    write_data_files(folder / "corpora", folder / "data")
    write_models(folder / "models")
    return folder


def write_data_files(corpora: Path, data: Path) -> None:
    """Another kind of file for each set: CSV, parquet, JSON lines, and a folder as it lies on the hub."""
    frames = {path.stem: pd.read_json(path, lines=True, dtype=False) for path in corpora.glob("*.jsonl")}
    (data / "beavertails/round0/30k").mkdir(parents=True)
    rows = frames["beavertails"].to_dict("records")
    with gzip.open(data / "beavertails/round0/30k/train.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    frames["advbench"].to_csv(data / "harmful_behaviors.csv", index=False)
    frames["metamathqa"].to_parquet(data / "metamathqa.parquet")
    for name in ("gsm8k_train", "gsm8k_test", "math", "beavertails_test", "toxigen"):
        shutil.copy(corpora / f"{name}.jsonl", data)


def write_models(models: Path) -> None:
    tokenizer = pico_tokenizer()
    tokenizer.chat_template = CHAT
    for name, seed in (("base", 0), ("aligned", 1)):
        model = pico_model(tokenizer, family="qwen2", tied=True)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
        model.to(torch.bfloat16).save_pretrained(models / name, max_shard_size="10KB")
        tokenizer.save_pretrained(models / name)
    assert len(list((models / "base").glob("*.safetensors"))) > 1


def study_of(world: Path, **changes) -> dict:
    data, models = world / "data", world / "models"
    return {
        "extends": str(ROOT / "configs/paper.yaml"),
        "name": "own",
        "model": "own-qwen2",
        "threads": 1,
        "workers": 1,
        "datasets": {
            "metamathqa": {"path": str(data / "metamathqa.parquet")},
            "beavertails": {"path": str(data / "beavertails")},
            "advbench": {"path": str(data / "harmful_behaviors.csv")},
            **{name: {"path": str(data / f"{name}.jsonl")}
               for name in ("gsm8k_train", "gsm8k_test", "math", "beavertails_test", "toxigen")},
        },
        "training": {"batch_size": 2, "accumulation": 4, "learning_rate": 0.01, "max_length": 64, "save_every": 2},
        "corpora": {"useful": {"rows": 32}, "harmful": {"rows": 12}},
        "roles": {"base": {"path": str(models / "base")}, "reference": {"path": str(models / "aligned")}},
        "projection": {"fractions": [0.25, 0.75]},
        "activation_spaces": {"prompts": 10, "etas": [0.1, 0.5]},
        "update_spaces": {"etas": [0.1, 0.5]},
        "evaluation": {
            "batch_size": 3,
            "generation": {"engine": "static"},
            "utility": {"prompts": 4, "max_new_tokens": 5},
            "harmfulness": {"limit": 5, "max_new_tokens": 6, "judge": JUDGE},
        },
        **changes,
    }  # fmt: skip


class Replaced(dict):
    """A mapping that replaces the extended one."""


yaml.SafeDumper.add_representer(Replaced, lambda dumper, data: dumper.represent_mapping("!replace", data.items()))
JUDGE = Replaced(kind="keywords")
CHATTING = {"batch_size": 2, "accumulation": 4, "learning_rate": 0.01, "max_length": 64, "template": "chat"}


def command_of(world: Path, folder: Path, **changes) -> Arguments:
    (folder / "study.yaml").write_text(yaml.safe_dump(study_of(world, **changes)))
    return parse_arguments(
        "", [str(folder / "study.yaml"), "--runs", str(folder / "runs"), "--results", str(folder / "results")]
    )


@pytest.mark.slow
def test_the_whole_study_runs_on_folders_and_files_of_a_user(world, tmp_path):
    command = command_of(world, tmp_path)
    for name in SCRIPTS:
        assert run_script(name, tmp_path / "study.yaml", tmp_path) == 0, name
    table = pd.read_csv(tmp_path / "results/own/projection.csv")
    assert table.groupby("metric").judge.agg(set).to_dict() == {"utility": {"exact_match"}, "harmfulness": {"keywords"}}
    assert set(table.precision) == {"bf16"}
    # Checkpoints; three bases at two fractions of four lines; nine doses, and matched under two schemes.
    assert len(table) == 2 * 5 + 3 * 2 * (1 + 1 + 2 + 2) + 2 * (9 + 2 * 2)
    record = json.loads((tmp_path / "results/own/run.json").read_text())
    assert record["corpora"] == command.texts.facts()
    assert {name: fact["rows"] for name, fact in record["corpora"].items()} == {"useful": 32, "harmful": 12}
    assert all(0 < share < 1 for share in record["weights_changed"].values())
    assert not list((tmp_path / "runs/own/seed-0/checkpoints").glob("*.state"))
    trained = load_file(tmp_path / "runs/own/seed-0/checkpoints/useful/model.safetensors")
    assert {tensor.dtype for tensor in trained.values()} == {torch.bfloat16}
    # A second run has nothing to do.
    before = (tmp_path / "results/own/projection.csv").read_bytes()
    assert run_script("projection", tmp_path / "study.yaml", tmp_path) == 0
    assert (tmp_path / "results/own/projection.csv").read_bytes() == before


def test_one_field_puts_every_instruction_into_the_models_own_template(world, tmp_path):
    command = command_of(world, tmp_path, training={"template": "chat"})
    goals = pd.read_csv(world / "data/harmful_behaviors.csv").goal
    asked = metric_of("harmfulness", command.texts, command.study.evaluation).asked()
    assert asked == [f"<|user|> {goal} <|assistant|>" for goal in goals[:5]]
    assert all(row["prompt"].startswith("<|user|> ") for row in command.texts.role_rows("harmful", 0))
    plain = command_of(world, tmp_path)
    assert (
        metric_of("harmfulness", plain.texts, plain.study.evaluation).asked()[0]
        == f"### Instruction:\n{goals[0]}\n\n### Response:\n"
    )


def test_the_safe_rows_of_a_safety_tuning_share_no_prompt_with_the_harmful_ones(world, tmp_path):
    """Every prompt of the file has harmful and safe answers, as in the public set."""
    path = tmp_path / "beavertails.jsonl"
    rows = [
        {"prompt": f"request {number}", "response": f"{label}", "is_safe": label}
        for number in range(9)
        for label in (True, False)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = study_of(world)
    command = command_of(
        world,
        tmp_path,
        datasets={**study["datasets"], "beavertails": {"path": str(path)}},
        corpora={
            "useful": {"rows": 16},
            "harmful": {"rows": 4},
            "safe": {"dataset": "beavertails", "where": {"is_safe": True}, "disjoint_from": "harmful"},
        },
        roles={**study["roles"], "reference": {"from": "base", "method": "sft", "corpus": "safe"}},
    )
    prompts = {role: {row["prompt"] for row in command.texts.role_rows(role, 0)} for role in ("reference", "harmful")}
    assert not prompts["reference"] & prompts["harmful"]
    assert {role: len(found) for role, found in prompts.items()} == {"reference": 5, "harmful": 4}
    assert command.texts.facts()["safe"]["unique_prompts"] == 5


@pytest.fixture
def adapted(world, tmp_path) -> Arguments:
    """A study whose useful role is a LoRA folder on the aligned model."""
    model = AutoModelForCausalLM.from_pretrained(world / "models/aligned", dtype=torch.float32)
    torch.manual_seed(3)
    lora = get_peft_model(model, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, weight in lora.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn_like(weight))
    lora.save_pretrained(tmp_path / "useful-lora")
    lora.merge_and_unload().save_pretrained(tmp_path / "merged")
    study = study_of(world)
    roles = {**study["roles"], "useful": Replaced(path=str(tmp_path / "useful-lora"))}
    return command_of(world, tmp_path, roles=roles)


def test_a_lora_folder_stands_for_the_model_that_it_makes(adapted, tmp_path):
    merged = load_file(tmp_path / "merged/model.safetensors")
    opened = open_role(adapted.roles, "useful", 0)
    live = live_model(adapted.roles, "useful", 0, device=torch.device("cpu")).state_dict()
    for name in opened.names:
        torch.testing.assert_close(opened.tensor(name), merged[name], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(live[name], merged[name], rtol=1e-6, atol=1e-6)


def test_what_a_lora_folder_adds_to_is_part_of_its_identity(adapted, world, tmp_path):
    before = adapted.roles.identity("useful", 0)
    assert before != adapted.roles.identity("reference", 0)
    config = json.loads((adapted.roles.finished("useful", 0) / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"]
    other = command_of(world, tmp_path, roles={
        **study_of(world)["roles"],
        "useful": Replaced(path=str(adapted.roles.finished("useful", 0)), adapter_of="base"),
    })  # fmt: skip
    assert other.roles.identity("useful", 0) != before


def test_a_lora_folder_trained_on_another_role_is_named(adapted, world, caplog):
    config = adapted.roles.finished("useful", 0) / "adapter_config.json"
    notes = json.loads(config.read_text())
    config.write_text(json.dumps({**notes, "base_model_name_or_path": str(world / "models/base")}))
    open_role(adapted.roles, "useful", 0)
    assert "roles.useful: a LoRA folder trained on" in caplog.text
    assert "write adapter_of: base" in caplog.text


@pytest.mark.slow
def test_a_lora_reference_is_projected_from_and_trained_from(adapted, world, tmp_path, capsys):
    """PEFT writes no tokenizer into a LoRA folder: that of the base serves."""
    lora = tmp_path / "useful-lora"
    assert not (lora / "tokenizer.json").exists()
    roles = {"base": {"path": str(world / "models/aligned")}, "reference": {"path": str(lora)}}
    evaluation = study_of(world)["evaluation"]
    command = command_of(world, tmp_path, roles=roles, evaluation=evaluation, training=CHATTING)
    for name in ("finetune", "projection", "activation_space"):
        assert run_script(name, tmp_path / "study.yaml", tmp_path) == 0, capsys.readouterr().err
    trained = load_file(tmp_path / "runs/own/seed-0/checkpoints/harmful/model.safetensors")
    reference = open_role(command.roles, "reference", 0)
    assert set(trained) == set(reference.names)
    change = max(float((trained[name].float() - reference.tensor(name)).abs().max()) for name in reference.names)
    assert 0 < change < 1


def test_rows_that_cannot_be_are_named_before_the_first_training(world, tmp_path):
    corpora = {"useful": {"rows": 32}, "harmful": {"rows": 3}, "contaminated": {"harmful_share": 0.5}}
    with pytest.raises(UserError, match=r"corpora\.contaminated: expected at least 16 rows, got 3"):
        command_of(world, tmp_path, corpora=corpora)


@pytest.mark.slow
def test_data_of_roles_that_are_given_is_not_read(world, tmp_path):
    """The harmful role is a folder, and its data set is nowhere."""
    study = study_of(world)
    given = Replaced(path=str(world / "models/aligned"))
    del study["datasets"]["beavertails"]
    roles = {**study["roles"], "harmful": given, "contaminated": given}
    command = command_of(world, tmp_path, roles=roles, datasets=study["datasets"])
    for _ in range(2):
        assert run_script("finetune", tmp_path / "study.yaml", tmp_path) == 0
    assert set(command.texts.facts()) == {"useful"}


def test_a_study_without_trainings_needs_no_launcher(world, tmp_path, monkeypatch, capsys):
    given = Replaced(path=str(world / "models/aligned"))
    roles = {**study_of(world)["roles"], "useful": given, "harmful": given, "contaminated": given}
    command_of(world, tmp_path, roles=roles)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run_script("finetune", tmp_path / "study.yaml", tmp_path) == 0
    assert capsys.readouterr().out == "wrote nothing: nothing was left to do here\n"
