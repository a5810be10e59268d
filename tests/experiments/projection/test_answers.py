"""Answers outlive their scores: another judge needs no model, and a judge that fails loses none."""

import pandas as pd
import pytest
import yaml

from safety_spaces.command_line import parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.rubric import RubricJudge
from safety_spaces.evidence.tables import read_table
from safety_spaces.experiments.projection import answers, weights
from safety_spaces.experiments.projection.keys import scores
from safety_spaces.store import Cells
from tests.pico import copy_run, run_script


@pytest.fixture
def run(finished, tmp_path):
    return copy_run(finished, tmp_path / "run")


def judged_by(run, kind: str):
    content = yaml.safe_load((run / "study.yaml").read_text())
    content["evaluation"]["harmfulness"]["judge"] = {"kind": kind}
    path = run / "study.yaml"
    base, _ = path.with_name("base.yaml"), content.pop("name")
    base.write_text(yaml.safe_dump({**content, "evaluation": {**content["evaluation"], "harmfulness": {
        **content["evaluation"]["harmfulness"], "judge": {}}}}))  # fmt: skip
    path.write_text(
        f"extends: base.yaml\nname: pico\nevaluation: {{harmfulness: {{judge: !replace {{kind: {kind}}}}}}}\n"
    )
    return path


def test_another_judge_needs_no_model(run, monkeypatch):
    monkeypatch.setattr(weights, "answer_cell", lambda *_: pytest.fail("a model was asked again"))
    before = pd.read_csv(run / "results/pico/projection.csv")
    assert run_script("projection", judged_by(run, "keywords"), run) == 0
    after = pd.read_csv(run / "results/pico/projection.csv")
    harmful = after.metric == "harmfulness"
    assert set(after.judge[harmful]) == {"keywords"}
    # Each of seven responses scores 1 or 5.
    assert {round((value - 1) * 7 / 4, 3) for value in after.value[harmful]} <= set(range(8))
    unchanged = [table[table.metric == "utility"].reset_index(drop=True) for table in (before, after)]
    pd.testing.assert_frame_equal(*unchanged, check_dtype=False)


def test_a_judge_that_fails_loses_no_answer(run, monkeypatch, capsys):
    """The answers of all seeds are generated before the first is judged, and utility needs no judge."""
    for path in (run / "runs/pico").glob("seed-*/cells/*.json"):
        if '"metric"' in path.read_text():
            path.unlink()

    def fail(*_):
        raise UserError("the judge is ill")

    monkeypatch.setattr(RubricJudge, "score", fail)
    study = run / "study.yaml"
    assert run_script("projection", study, run) == 2
    assert "the judge is ill" in capsys.readouterr().err
    command = parse_arguments("", [str(study), "--runs", str(run / "runs"), "--results", str(run / "results")])
    first, *others = command.study.seeds
    assert all(
        answers.has_answers(command.layout, first, score.answers)
        for score in scores(command.roles, command.texts, first)
    )
    tasks = [
        score for seed in others for score in scores(command.roles, command.texts, seed) if score.cell.task != "base"
    ]
    assert all(answers.has_answers(command.layout, score.cell.seed, score.answers) for score in tasks)
    for score in [*scores(command.roles, command.texts, first), *tasks]:
        found = Cells(command.layout.cells(score.cell.seed)).get(score.key)
        assert (found is not None) == (score.metric == "utility")


def test_answers_without_what_made_them_do_not_count(run):
    command = parse_arguments("", [str(run / "study.yaml"), "--runs", str(run / "runs")])
    seed = command.study.seeds[0]
    score = next(scores(command.roles, command.texts, seed))
    assert answers.has_answers(command.layout, seed, score.answers)
    (command.layout.cells(seed) / f"{score.answers}.json").unlink()
    assert not answers.has_answers(command.layout, seed, score.answers)


def test_a_line_within_a_response_is_no_end_of_it(run):
    command = parse_arguments("", [str(run / "study.yaml"), "--runs", str(run / "runs")])
    texts = ["two\nlines", "a separator \u2028 of lines", "\u0085", "", "{}"]
    written = [answers.Answer("p", text, None) for text in texts]
    answers.write_answers(command.layout, 0, "key", written, {})
    assert answers.read_answers(command.layout, 0, "key") == written


def test_answers_that_were_removed_are_said_to_be(run):
    command = parse_arguments("", [str(run / "study.yaml"), "--runs", str(run / "runs")])
    with pytest.raises(UserError, match=r"gone\.jsonl: expected answers, found none; run again"):
        answers.answer_facts(command.layout, 0, "gone")


def test_a_model_without_any_score_has_empty_values_and_the_other_rows_are_as_they_were(run):
    command = parse_arguments("", [str(run / "study.yaml"), "--runs", str(run / "runs")])
    seed = command.study.seeds[0]
    score = next(
        each
        for each in scores(command.roles, command.texts, seed)
        if each.metric == "harmfulness" and each.cell.task == "useful"
    )
    cells, before = Cells(command.layout.cells(seed)), read_table(run / "results/pico", "projection")
    cells.put(score.key, {**cells.get(score.key), "scores": [None] * 7})
    assert run_script("projection", run / "study.yaml", run) == 0
    after = read_table(run / "results/pico", "projection")
    ((number, row),) = after[after.value.isna()].iterrows()
    assert (row.task, row.seed, row.metric, row.n, row.n_unparsed) == ("useful", seed, "harmfulness", 0, 7)
    assert pd.isna([row.ci_low, row.ci_high]).all()
    pd.testing.assert_frame_equal(after.drop(number), before.drop(number))
