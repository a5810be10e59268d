"""What is asked for ahead of the work does no work, and what cannot be had is one line."""

import pytest
from safetensors.numpy import save_file

from safety_spaces.command_line import parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics.metric import Accuracy, Judged
from safety_spaces.experiments import checks
from safety_spaces.models import hub
from tests.pico import ROOT, SCRIPTS, run_script, write_study

SETS = {
    "metamathqa", "beavertails", "math", "beavertails_test", "toxigen", "gsm8k_test", "gsm8k_train", "advbench",
}  # fmt: skip


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """What would have been downloaded."""
    names: list[str] = []
    monkeypatch.setattr(ahead, "read_rows", lambda path, name: names.append(name))
    monkeypatch.setattr(ahead, "fetch_model", lambda name, revision: names.append(f"{name}@{revision[:3]}"))
    return names


def command_of(path, *flags):
    return parse_arguments("", [str(path), *flags])


def test_everything_that_a_study_takes_from_the_hub_is_fetched_once(fetched):
    assert ahead.ahead(command_of(ROOT / "configs/llama-3.2-1b.yaml", "--download"))
    assert sorted(fetched) == sorted({"meta-llama/Llama-3.2-1B@4e2", "meta-llama/Llama-3.2-1B-Instruct@921"} | SETS)


def test_what_the_appendices_ask_is_fetched_and_not_what_trained_the_models_that_they_take(fetched, monkeypatch):
    monkeypatch.setattr(ahead, "is_on_hub", lambda _: False)
    assert ahead.ahead(command_of(ROOT / "configs/qwen2.5-1.5b-appendices.yaml", "--download"))
    assert sorted(fetched) == sorted(
        SETS - {"metamathqa", "beavertails"} | {"mmlu", "mmlu_dev", "xstest", "extended_refusal"}
    )


def test_a_role_that_is_trained_and_a_local_copy_are_not_fetched(fetched, tmp_path):
    path = tmp_path / "study.yaml"
    (tmp_path / "here.csv").write_text("goal,target\nwake the owl,no\n")
    path.write_text(
        f"extends: {ROOT}/configs/llama-3.2-1b-safety-tuned.yaml\nname: own\n"
        f"datasets: {{advbench: {{path: {tmp_path}/here.csv}}}}\n"
        "evaluation: {harmfulness: {compared_judges: [{kind: classifier, name: some/judge, revision: abc, "
        "harmful_labels: [unsafe]}]}}\n"
    )
    ahead.ahead(command_of(path, "--download"))
    assert sorted(fetched) == sorted({"meta-llama/Llama-3.2-1B@4e2", "some/judge@abc"} | SETS - {"advbench"})


def test_the_small_world_needs_nothing_from_the_hub(fetched, tmp_path):
    assert ahead.ahead(command_of(write_study(tmp_path / "study.yaml"), "--download"))
    assert not fetched


def test_without_a_flag_the_work_itself_is_meant(tmp_path):
    assert not ahead.ahead(command_of(write_study(tmp_path / "study.yaml")))


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_plans_and_downloads_without_doing_its_work(name, tmp_path, capsys):
    study = write_study(tmp_path / "study.yaml")
    for flag in ("--plan", "--download"):
        assert run_script(name, study, tmp_path, flag) == 0
    assert capsys.readouterr().out.startswith("study pico: ")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "runs").exists()


def test_without_a_network_a_model_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: {ROOT}/configs/qwen2.5-1.5b.yaml\nname: own\n")
    assert run_script("finetune", study, tmp_path, "--download") == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: Qwen/Qwen2.5-1.5B: expected a folder, a downloaded model or a network")


def test_a_model_that_was_cut_short_in_the_cache_is_asked_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "1.safetensors"}}')
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: {ROOT}/configs/qwen2.5-1.5b.yaml\nname: own\n")
    monkeypatch.setattr(hub, "_snapshot", lambda name, revision, local_files_only: tmp_path)
    command = command_of(study)
    with pytest.raises(UserError, match=r"expected the finished checkpoint base, found no 1\.safetensors"):
        command.roles.finished("base", 0)
    save_file({}, tmp_path / "1.safetensors")
    assert command.roles.finished("base", 0) == tmp_path


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("datasets: {advbnch: {path: a.csv}}", "advbnch"),
        ("datasets: {advbench: {path: /nowhere.csv}}", "/nowhere.csv: expected a data set, found no file or folder"),
        ("evaluation: {harmfulness: {judge: {rubric: nowhere.txt}}}", "expected its rubric at"),
    ],
)
def test_what_a_study_names_is_looked_at_before_hours_of_work(tmp_path, lines, message, capsys):
    study = tmp_path / "study.yaml"
    study.write_text(f"extends: configs/llama-3.2-1b.yaml\nname: own\n{lines}\n")
    for name in ("finetune", "projection"):
        assert run_script(name, study, tmp_path) == 2
        assert message in capsys.readouterr().err


def test_a_missing_key_is_said_at_once(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for kind in (Accuracy, Judged):
        monkeypatch.setattr(kind, "key", lambda _: None)
    checks.check_asked(command_of(ROOT / "configs/llama-3.2-1b.yaml").texts)
    assert "no OPENAI_API_KEY: answers will be generated, and not judged" in caplog.text


def test_what_is_missing_below_a_classifier_judge_is_asked_of_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    path = tmp_path / "study.yaml"
    path.write_text(
        f"extends: {write_study(tmp_path / 'pico.yaml')}\nname: own\n"
        "evaluation: {harmfulness: {judge: !replace {kind: classifier, name: some/judge, harmful_labels: [unsafe]}}}\n"
    )
    with pytest.raises(UserError, match="some/judge: expected a folder, a downloaded model or a network"):
        ahead.ahead(command_of(path, "--download"))


@pytest.mark.parametrize(
    ("name", "flags", "looks"),
    [("report", [], False), ("update_spaces", [], False), ("projection", ["--geometry-only"], False),
     ("projection", [], True), ("finetune", [], True), ("activation_space", [], True), ("report", ["--plan"], True)],
)  # fmt: skip
def test_only_work_that_reads_data_needs_it(tmp_path, capsys, name, flags, looks):
    study = write_study(tmp_path / "study.yaml", datasets={"advbench": {"path": "/moved/away.csv"}})
    run_script(name, study, tmp_path, *flags)
    assert ("/moved/away.csv: expected a data set" in capsys.readouterr().err) == looks
