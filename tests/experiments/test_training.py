"""One training of a study: real architectures in shards, several processes, and what is said of rounding."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from safety_spaces.command_line import parse_arguments
from safety_spaces.experiments.finetune import finetune
from safety_spaces.training.optimizers import BETAS, EPSILON
from tests.experiments.preferences import write_preferences
from tests.pico import PICO, ROOT, SCRIPTS, SIZES, run_script, write_study
from tests.pico_model import pico_tokenizer

LAYOUT = {**PICO["training"], "batch_size": 2, "accumulation": 4}
TASK = {"from": "reference", "method": "sft", "corpus": "useful"}


def parent(folder: Path, family: str) -> Path:
    """Write a tiny model as the hub has them: bf16, in shards, without a token for padding alone."""
    tokenizer = pico_tokenizer()
    tokenizer.pad_token = None
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=family == "qwen2",
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="5KB")
    tokenizer.save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def study_of(folder: Path, given: Path, **training: object) -> Path:
    """Write a study of one task on a given model."""
    roles = {role: {"path": str(given)} for role in ("base", "reference")} | {
        role: {**TASK, "corpus": role} for role in ("useful", "harmful", "contaminated")
    }
    content = {**PICO, "seeds": [4], "training": {**LAYOUT, **training}}
    content.pop("roles")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content) + f"roles: !replace {json.dumps(roles)}\n")
    return path


def arguments(folder: Path) -> list[str]:
    return [str(folder / "study.yaml"), "--runs", str(folder / "runs"), "--results", str(folder / "results")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "precision", "dtype"),
    [
        ("qwen2", "bf16", torch.bfloat16),
        ("llama", "fp32", torch.float32),
    ],
)
def test_a_real_architecture_in_shards_is_fine_tuned(tmp_path, caplog, family, precision, dtype):
    given = parent(tmp_path / "given", family)
    recommended = {"temperature": 0.7, "stop_strings": ["."], "transformers_version": "4.40.0"}
    (given / "generation_config.json").write_text(json.dumps(recommended))
    study_of(tmp_path, given, precision=precision, learning_rate=1e-5)
    with caplog.at_level("WARNING", logger="safety_spaces"):
        command = parse_arguments("", arguments(tmp_path))
        folders = finetune(command.roles, command.texts, device=command.device)
    assert len(folders) == 3
    for folder in folders:
        weights = load_file(folder / "model.safetensors")
        before = {name: w for shard in given.glob("*.safetensors") for name, w in load_file(shard).items()}
        assert {name: w.shape for name, w in weights.items()} == {name: w.shape for name, w in before.items()}
        assert {weight.dtype for weight in weights.values()} == {dtype}
        changed = sum(int((weight != before[name].to(dtype)).sum()) for name, weight in weights.items())
        share = changed / sum(weight.numel() for weight in weights.values())
        assert json.loads((folder / "recipe.json").read_text())["share_of_weights_changed"] == pytest.approx(share)
        assert AutoModelForCausalLM.from_pretrained(folder).dtype == dtype
        end = json.loads((given / "config.json").read_text())["eos_token_id"]
        # The end of the text pads where the tokenizer has no token for that alone.
        kept = json.loads((folder / "generation_config.json").read_text())
        assert kept == kept | recommended | {"eos_token_id": end, "pad_token_id": end}
    assert ("bf16 rounded the rest away; see training.precision" in caplog.text) == (precision == "bf16")
    if family == "qwen2":
        assert any(name.endswith("q_proj.bias") for name in weights)


def test_a_parent_whose_generation_config_cannot_be_read_is_refused_before_any_work(tmp_path, capsys):
    given = parent(tmp_path / "given", "llama")
    (given / "generation_config.json").write_text('{"temperature": 0.7,}')
    study = study_of(tmp_path, given)
    assert run_script("finetune", study, tmp_path) == 2
    message = f"{given / 'generation_config.json'}: expected a JSON object, found none; mend or remove the file"
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "runs").exists()


def launched(folder: Path, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Call the fine-tuning in a process of its own, or in several that a launcher starts."""
    command = [*before, str(ROOT / SCRIPTS["finetune"]), *arguments(folder)]
    outer = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, env=outer, capture_output=True, text=True, check=False, timeout=300)


TWO = (
    str(Path(sys.executable).with_name("accelerate")),
    "launch",
    "--multi_gpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
    "--mixed_precision",
    "no",
    "--dynamo_backend",
    "no",
    "--main_process_port",
    "0",
)


@pytest.mark.slow
def test_two_processes_train_what_one_trains(tmp_path):
    # The reference is trained on preferences, the base and the tasks on texts.
    study = write_preferences(tmp_path, training={**LAYOUT, "save_every": 3})
    for name, launcher in (("one", (sys.executable,)), ("two", TWO)):
        (tmp_path / name).mkdir()
        shutil.copy(study, tmp_path / name)
        done = launched(tmp_path / name, *launcher)
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / name / "runs" for name in ("one", "two"))
    names = {path.relative_to(one) for path in one.rglob("*")}
    assert {path.relative_to(two) for path in two.rglob("*")} == names
    assert not list(two.rglob("*.state")) + list(two.rglob("*.partial"))
    weights = [name for name in names if name.suffix == ".safetensors"]
    assert len(weights) == 5
    for name in weights:
        alone, together = load_file(one / name), load_file(two / name)
        for tensor, values in alone.items():
            # Sums of gradients are ordered otherwise; a step is 0.01.
            torch.testing.assert_close(together[tensor], values, rtol=0, atol=1e-4)
        first, second = (json.loads((runs / name.with_name("recipe.json")).read_text()) for runs in (one, two))
        assert set(first) == set(second)
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
        differing = {key for key in first if first[key] != second[key]}
        assert differing <= {"seconds", "loss", "loss_by_tenth", "parent", "share_of_weights_changed"}


def weights_below(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in (folder / "runs").rglob("model.safetensors")}


@pytest.mark.slow
def test_weights_do_not_depend_on_the_number_of_workers(tmp_path):
    # The last step of the base has one pass, which is not full, and one that is missing; that of the reference two.
    sizes, two = {"pretraining": 91, "alignment": 45}, {"training": {"batch_size": 4, "accumulation": 2}}
    changes = {
        "seeds": [3],
        "world": {**PICO["world"], "sizes": {**SIZES, **sizes}},
        "roles": {**PICO["roles"], "reference": two},
    }
    for name in ("one", "several"):
        (tmp_path / name).mkdir()
    assert run_script("finetune", write_study(tmp_path / "one/study.yaml", workers=1, **changes), tmp_path / "one") == 0
    write_study(tmp_path / "several/study.yaml", workers=4, **changes)
    stop_in_the_base(tmp_path / "several")
    study = write_study(tmp_path / "several/study.yaml", workers=2, **changes)
    assert run_script("finetune", study, tmp_path / "several") == 0
    alone = weights_below(tmp_path / "one")
    assert len(alone) == 5
    assert weights_below(tmp_path / "several") == alone


def stop_in_the_base(folder: Path) -> None:
    """Begin the fine-tuning in a process of its own, and end it as ctrl-C does once a member was killed in the base."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / SCRIPTS["finetune"]), *arguments(folder)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (folder / "runs/pico/seed-3/checkpoints/base.partial").exists():
        time.sleep(0.01)
    members = [of for of in psutil.Process(process.pid).children() if "spawn_main" in " ".join(of.cmdline())]
    assert len(members) == 2
    members[0].kill()
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "warning: base seed 3: its process was killed; it is done again in another one" in errors
    assert not any(member.is_running() for member in members)
    assert not weights_below(folder)


@pytest.mark.slow
def test_processes_that_cannot_share_a_step_stop_in_one_line(tmp_path):
    write_study(tmp_path / "study.yaml", training={**LAYOUT, "accumulation": 3})
    done = launched(tmp_path, *TWO)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1
    assert "reference: expected training.accumulation to be a multiple of the 2 processes, got 3" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_processes_without_a_launcher_are_refused(tmp_path):
    write_study(tmp_path / "study.yaml")
    done = launched(tmp_path, sys.executable, RANK="1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert "error: WORLD_SIZE: expected one process, or a launcher; use accelerate launch or torchrun" in done.stderr


def test_accelerate_reads_the_configuration_of_sharded_training():
    config = load_config_from_file(str(ROOT / "configs/fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    assert config.mixed_precision == "no"
    assert config.fsdp_config["fsdp_version"] == 2
    assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"


def test_all_optimisers_have_the_numbers_of_the_trainer():
    from transformers import TrainingArguments

    arguments = TrainingArguments(use_cpu=True)
    assert (arguments.adam_beta1, arguments.adam_beta2) == BETAS
    assert arguments.adam_epsilon == EPSILON
