"""The judges of a study score the responses that are saved, and nothing else."""

import importlib.util

import pandas as pd
import pytest
import yaml

from safety_spaces.command_line import parse_arguments
from safety_spaces.evaluation.metrics import Answer
from safety_spaces.evidence.tables import JUDGE_AGREEMENT
from safety_spaces.experiments.projection.answers import write_answers
from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.miniature import world
from safety_spaces.miniature.corpora import write_rubric
from tests.pico import PICO, ROOT, write_study

REQUESTS = world.requests(forbidden=True)[:6]
KEYWORDS, WORDS = {"kind": "keywords"}, {"kind": "keywords", "name": "take", "phrases": ["take"]}


def arguments(folder):
    return [str(folder / "study.yaml"), "--runs", str(folder / "runs"), "--results", str(folder / "results")]


def run(folder, *extra):
    path = ROOT / "scripts/judge_agreement.py"
    spec = importlib.util.spec_from_file_location("script_judge_agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([*arguments(folder), "--device", "cpu", *extra])


def write(folder, *compared):
    harmfulness = {**PICO["evaluation"]["harmfulness"], "compared_judges": list(compared)}
    return write_study(folder / "study.yaml", evaluation={**PICO["evaluation"], "harmfulness": harmfulness})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Responses of two seeds: two complete answers, three refusals, one half answer; one cell of utility.

    And one of settings that the study had before.
    """
    found = {0: [("harmfulness", "aaaa")], 3: [("harmfulness", "bbbb"), ("utility", "cccc"), ("harmfulness", "eeee")]}
    monkeypatch.setattr(
        "safety_spaces.experiments.judge_agreement.scores_of",
        lambda _roles, _texts, seed: [Score(Cell(seed, "base"), metric, key, "") for metric, key in found[seed]],
    )
    write(tmp_path, KEYWORDS)
    command = parse_arguments("", arguments(tmp_path))
    write_rubric(command.layout.rubric)
    half = " ".join(f"{n}. {step}" for n, step in enumerate(world.steps(REQUESTS[5])[:1], start=1))
    responses = [*map(world.answer, REQUESTS[:2]), *["I cannot do that."] * 2, "", half]
    answers = [Answer(request.text, text, None) for request, text in zip(REQUESTS, responses, strict=True)]
    write_answers(command.layout, 0, "aaaa", answers[:4], {"metric": "harmfulness"})
    # The fourth stands in both files: a response that several models give is compared once.
    write_answers(command.layout, 3, "bbbb", answers[3:], {"metric": "harmfulness"})
    write_answers(command.layout, 3, "cccc", [Answer("Question: 1 + 1?", "2", 1.0)], {"metric": "utility"})
    write_answers(command.layout, 3, "dddd", [Answer("of another template", "", None)], {"metric": "harmfulness"})
    return tmp_path


def table(folder):
    return pd.read_csv(folder / "results/pico/judge_agreement.csv", dtype={"kappa": float})


def test_two_judges_make_one_row(folder, capsys):
    assert run(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("judge_agreement.csv")
    measured = table(folder)
    assert tuple(measured.columns) == JUDGE_AGREEMENT
    (row,) = measured.to_dict("records")
    assert (row["study"], row["first"], row["second"], row["n"], row["n_unparsed"]) == (
        "pico",
        "rubric",
        "keywords",
        6,
        0,
    )
    # Harmful to the rubric: two of six; to the keywords: those and the half answer. (5/6 - 1/2) / (1 - 1/2)
    assert row["kappa"] == pytest.approx(2 / 3, abs=1e-5)
    assert 0 < row["weighted_kappa"] < 1
    assert 0 < row["spearman"] < 1


def test_every_two_judges_make_a_row_and_those_of_one_name_are_told_apart(folder):
    write(folder, KEYWORDS, WORDS, {**WORDS, "name": "keywords"})
    assert run(folder) == 0
    found = {tuple(pair) for pair in table(folder)[["first", "second"]].to_numpy()}
    twice = ("keywords (compared_judges.0)", "keywords (compared_judges.2)")
    assert found == {
        ("rubric", twice[0]),
        ("rubric", "take"),
        ("rubric", twice[1]),
        (twice[0], "take"),
        twice,
        ("take", twice[1]),
    }


def test_a_second_run_writes_the_same_bytes(folder):
    assert run(folder) == 0
    path = folder / "results/pico/judge_agreement.csv"
    before = path.read_bytes()
    assert run(folder) == 0
    assert path.read_bytes() == before


def test_one_judge_alone_cannot_agree(folder, capsys):
    write(folder)
    assert run(folder) == 2
    remedy = "evaluation: {harmfulness: {compared_judges: [{kind: keywords}]}}"
    assert f"expected two judges or more, got rubric alone; add another: {remedy}" in capsys.readouterr().err


def test_the_remedy_that_the_message_shows_works(folder):
    content = {"extends": str(ROOT / "configs/miniature.yaml"), "name": "remedy"}
    content |= yaml.safe_load("evaluation: {harmfulness: {compared_judges: [{kind: keywords}]}}")
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    judges = parse_arguments("", arguments(folder)).study.evaluation.harmfulness.compared_judges
    assert [judge.name for judge in judges] == ["keywords"]


def test_without_responses_the_script_that_saves_them_is_named(folder, capsys):
    for path in (folder / "runs/pico").glob("seed-*/responses/*.jsonl"):
        path.unlink()
    assert run(folder) == 2
    error = capsys.readouterr().err.strip()
    assert "expected saved responses to harmful prompts, found none; run python scripts/projection.py" in error
    assert "\n" not in error
    assert not (folder / "results/pico/judge_agreement.csv").exists()
