"""What is done is found by its keys, and is not done again: what is left is the rest."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from safety_spaces.command_line import parse_arguments
from safety_spaces.experiments import update_spaces
from safety_spaces.experiments.plan.costs import counts
from safety_spaces.experiments.plan.work import Work, whole_work, work_left
from safety_spaces.experiments.projection.keys import energy_key, scores
from safety_spaces.experiments.state_keys import Compared, states_folders, wanted_overlaps
from safety_spaces.models import roles
from tests.pico import ROOT, copy_run, of_model, plan_of, prompts_of


@pytest.fixture
def copied(finished, tmp_path):
    """The command of a finished study whose run may be broken."""
    copy_run(finished / "runs", tmp_path / "runs")
    return parse_arguments("", [str(finished / "study.yaml"), "--runs", str(tmp_path / "runs")])


def test_of_a_finished_study_nothing_is_left(copied):
    assert work_left(copied.roles, copied.texts) == Work(*[[]] * 7)
    assert work_left(copied.roles, copied.texts, geometry_only=True) == Work(*[[]] * 7)


def test_what_is_done_is_taken_off(copied):
    """Gone are a score, another one with its answers, a seed's energies of a task, overlaps of updates, and the states
    of a prompt set with the overlaps that they gave."""
    layout, study = copied.layout, copied.study
    projected = [score for score in scores(copied.roles, copied.texts, 3) if not score.cell.is_baseline]
    judged = next(score for score in projected if score.metric == "harmfulness")
    solved = next(score for score in projected if score.metric == "utility")
    prompts = {name: prompts_of(copied, name) for name in study.activation_spaces.sets}
    (position,) = study.activation_spaces.positions
    wanted = wanted_overlaps(copied.roles, study.activation_spaces, study.evaluation, prompts, [3])
    _, overlaps = wanted.keys[Compared(3, "useful", position)]
    gone = {
        0: [
            energy_key(copied.roles, 0, "useful"),
            update_spaces.wanted_overlaps(copied.roles, study.update_spaces, [0]).keys[0][1],
        ]
    }
    for seed, keys in {**gone, 3: [judged.key, solved.key, overlaps]}.items():
        for key in keys:
            (layout.cells(seed) / f"{key}.json").unlink()
    (layout.responses(3) / f"{solved.answers}.jsonl").unlink()
    (states_folders(copied.roles, study.evaluation, 3, "useful", prompts)["useful"] / "last_prompt_token.npy").unlink()
    left = work_left(copied.roles, copied.texts)
    assert left.energies == [(0, "useful")]
    assert left.overlaps == [0]
    assert set(left.scores) == {(one.cell, one.metric) for one in (judged, solved)}
    assert left.answers == [(solved.cell, "utility")]
    assert left.read == ["useful"]
    assert left.states == [("useful", "last_prompt_token")]
    said = plan_of(copied)
    assert "90 energies (75 done, 15 left)" in said
    assert "200 scores (198 done, 2 left)" in said
    assert "1,300 generations of at most 7,800 tokens (1,294 done, 6 left)" in said
    assert "700 calls of rubric (693 done, 7 left)" in said
    assert "3 energy levels, 2 seeds (1 done, 1 left)" in said
    assert "216 prompts through the model (204 done, 12 left)" in said


def test_the_base_of_one_seed_is_left_alone(copied):
    for score in (score for score in scores(copied.roles, copied.texts, 0) if score.cell.task == "base"):
        (copied.layout.cells(0) / f"{score.key}.json").unlink()
        (copied.layout.responses(0) / f"{score.answers}.jsonl").unlink()
    left = counts(copied.texts, work_left(copied.roles, copied.texts))
    assert (left.models, left.scores) == (1, 2)
    assert left.asked == left.judged == {"utility": 6, "harmfulness": 7}


def test_of_a_seed_that_is_not_trained_everything_is_left(copied):
    more = replace(copied, study=copied.study.model_copy(update={"seeds": (0, 3, 4)}))
    assert work_left(more.roles, more.texts) == whole_work(more.study, seeds=[4])
    assert re.search(r"15 checkpoints of [\d.]+ KB, 5 still to be made", plan_of(more))


def test_what_cannot_be_found_out_is_not_taken_off(copied, caplog):
    study = copied.study
    role = study.roles["useful"].model_copy(update={"training": study.training.model_copy(update={"max_length": 7})})
    changed = replace(copied, study=study.model_copy(update={"roles": {**study.roles, "useful": role}}))
    assert work_left(changed.roles, changed.texts) == whole_work(changed.study)
    assert "seed 0: what is done is not taken off" in caplog.text
    assert "its training differ" in caplog.text


def test_nothing_is_hashed_where_nothing_can_be_done(tmp_path, monkeypatch):
    monkeypatch.setattr(roles, "folder_identity", lambda folder: pytest.fail(f"{folder} was read"))
    command = of_model("llama-3.2-1b", tmp_path)
    assert work_left(command.roles, command.texts) == whole_work(command.study)


def test_a_finished_study_is_planned_without_torch_and_without_a_network(finished):
    call = [str(finished / "study.yaml"), "--runs", str(finished / "runs"), "--plan"]
    code = (
        "import os, sys\n"
        "from safety_spaces.command_line import is_preview\n"
        "from safety_spaces.command_line import parse_arguments\n"
        f"is_preview(parse_arguments('', {call!r}))\n"
        "assert not {'torch', 'transformers', 'openai'} & set(sys.modules)\n"
        "assert os.environ['HF_HUB_OFFLINE'] == '1'\n"
    )
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=online, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "90 energies (90 done, 0 left)" in process.stdout
