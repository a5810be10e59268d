"""Checkpoints: trained once, in order, from rows that are recorded."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from safety_spaces.command_line import parse_arguments
from safety_spaces.experiments import finetune as module
from safety_spaces.experiments.finetune import prepare_corpora
from tests.pico import SIZES, copy_run, run_script, write_study

ROLES = ("reference", "useful", "harmful", "contaminated")


def checkpoints(folder: Path) -> list[Path]:
    runs = folder / "runs/pico"
    return [runs / f"seed-{seed}/checkpoints/{role}" for seed in (0, 3) for role in ("base", *ROLES)]


def test_every_checkpoint_loads_as_a_hugging_face_folder(trained):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in checkpoints(trained):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.tie_word_embeddings
        assert tokenizer("How do I wake the amber bell?")["input_ids"]
        assert not list(folder.parent.glob("*.partial"))


def test_each_training_waits_for_its_parent_alone_and_is_as_long_as_its_rows(tmp_path):
    study = write_study(tmp_path / "study.yaml", training={"batch_size": 8, "accumulation": 3, "epochs": 2})
    command = parse_arguments(
        "", [str(study), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    )
    trainings = module._trainings(command.study)
    _, lengths = module._prepared(command.roles, command.texts, trainings)
    jobs = {job.name: job for job in module._jobs(command.roles, command.texts, trainings, lengths, device="cpu")}
    rows = {"base": 96, "reference": 48, "useful": 40, "harmful": 16, "contaminated": 40}
    assert {name: job.steps for name, job in jobs.items()} == {
        f"{role} seed {seed}": 2 * number for role, number in rows.items() for seed in (0, 3)
    }
    assert {name: set(job.after) for name, job in jobs.items() if name.endswith("3")} == {
        "base seed 3": set(),
        "reference seed 3": {"base seed 3"},
        **{f"{role} seed 3": {"reference seed 3"} for role in ROLES[1:]},
    }
    # Only a sum of two passes is the same in any order; the base has two a step.
    assert {name for name, job in jobs.items() if job.processes > 1} == {"base seed 0", "base seed 3"}


def test_a_seed_trains_everything_again_from_the_base_on(trained):
    folders = {folder.parts[-3:]: folder for folder in checkpoints(trained)}
    weights = {name: load_file(folder / "model.safetensors") for name, folder in folders.items()}
    recipes = {name: json.loads((folder / "recipe.json").read_text()) for name, folder in folders.items()}
    for role in ("base", *ROLES):
        first, second = (("seed-0", "checkpoints", role), ("seed-3", "checkpoints", role))
        assert any(not torch.equal(weights[first][name], weights[second][name]) for name in weights[first])
        # Its own order of its own rows, and its own start.
        assert all(recipes[first][key] != recipes[second][key] for key in ("rows", "seed"))
        assert (recipes[first]["parent"] == recipes[second]["parent"]) == (role == "base")


def test_the_record_holds_rows_and_the_share_of_weights_that_changed(trained):
    record = json.loads((trained / "results/pico/run.json").read_text())
    assert record["rows"] == SIZES
    assert set(record["weights_changed"]) == {f"{role} seed {seed}" for role in ROLES for seed in (0, 3)}
    assert set(record["losses"]) == {"base seed 0", "base seed 3", *record["weights_changed"]}
    assert all(0 < len(losses) <= 10 for losses in record["losses"].values())
    assert record["losses"]["base seed 0"][-1] < record["losses"]["base seed 0"][0]
    parent, child = (
        load_file(folder / "model.safetensors") for folder in (checkpoints(trained)[1], checkpoints(trained)[3])
    )
    changed = sum((parent[name] != child[name]).sum().item() for name in parent)
    share = changed / sum(tensor.numel() for tensor in parent.values())
    assert record["weights_changed"]["harmful seed 0"] == pytest.approx(share)


def test_a_finished_checkpoint_is_not_trained_again(trained, tmp_path, monkeypatch):
    folder = copy_run(trained, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert run_script("finetune", folder / "study.yaml", folder) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")} == before


def test_a_checkpoint_that_is_gone_is_trained_again_to_the_same_bytes(trained, tmp_path):
    folder = copy_run(trained, tmp_path / "run")
    harmful = folder / "runs/pico/seed-3/checkpoints/harmful"
    before = (harmful / "model.safetensors").read_bytes()
    harmful.rename(harmful.with_name("harmful.partial"))  # as a killed training leaves it
    assert run_script("finetune", folder / "study.yaml", folder) == 0
    assert (harmful / "model.safetensors").read_bytes() == before


def test_corpora_that_were_cut_short_are_written_again(trained, tmp_path):
    folder = copy_run(trained, tmp_path / "run")
    corpora = folder / "runs/pico/corpora"
    before = (corpora / "metamathqa.jsonl").read_bytes()
    (corpora / "world.json").unlink()
    (corpora / "metamathqa.jsonl").unlink()
    assert run_script("finetune", folder / "study.yaml", folder) == 0
    assert (corpora / "metamathqa.jsonl").read_bytes() == before


def test_contaminated_rows_replace_useful_ones(trained):
    recipes = [json.loads((folder / "recipe.json").read_text()) for folder in checkpoints(trained)]
    steps = {folder.name: recipe["steps"] for folder, recipe in zip(checkpoints(trained), recipes, strict=True)}
    assert steps["contaminated"] == steps["useful"] == 5
    assert steps["harmful"] == 2


def test_an_existing_base_is_used_in_place(trained, tmp_path, capsys):
    base = copy_run(trained / "runs/pico/seed-3/checkpoints/base", tmp_path / "my base")
    roles = {role: {"from": "reference", "method": "sft", "corpus": role} for role in ROLES[1:]}
    reference = {"from": "base", "method": "sft", "corpus": "alignment", "training": {"learning_rate": 0.001}}
    roles |= {"base": {"path": str(base)}, "reference": reference}
    study = write_study(tmp_path / "study.yaml", seeds=[3])
    study.write_text(study.read_text().replace("roles:", "unused:"))
    content = __import__("yaml").safe_load(study.read_text())
    content.pop("unused")
    text = __import__("yaml").safe_dump(content) + f"roles: !replace {json.dumps(roles)}\n"
    study.write_text(text)
    assert run_script("finetune", study, tmp_path) == 0
    assert not (tmp_path / "runs/pico/seed-3/checkpoints/base").exists()
    again = (tmp_path / "runs/pico/seed-3/checkpoints/useful/model.safetensors").read_bytes()
    assert again == (trained / "runs/pico/seed-3/checkpoints/useful/model.safetensors").read_bytes()


def test_corpora_follow_a_world_that_changes_and_changes_back(trained, tmp_path):
    corpora = copy_run(trained, tmp_path / "run") / "runs/pico/corpora"
    before = (corpora / "metamathqa.jsonl").read_bytes()
    contents = []
    for seed in (6, 5):
        study = write_study(tmp_path / "study.yaml", world={"seed": seed, "sizes": SIZES})
        command = parse_arguments("", [str(study), "--runs", str(tmp_path / "run/runs")])
        prepare_corpora(command.study, command.layout)
        contents.append((corpora / "metamathqa.jsonl").read_bytes())
    assert contents[0] != before
    assert contents[1] == before


def test_corpora_edited_by_hand_are_written_again(trained, tmp_path):
    folder = copy_run(trained, tmp_path / "run")
    path = folder / "runs/pico/corpora/advbench.jsonl"
    before = path.read_bytes()
    path.write_bytes(before[:-30])
    command = parse_arguments("", [str(folder / "study.yaml"), "--runs", str(folder / "runs")])
    prepare_corpora(command.study, command.layout)
    assert path.read_bytes() == before
