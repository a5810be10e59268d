"""A harmless prompt refused is counted, one that was answered is not, and one that nobody could read stays."""

from pathlib import Path

from safety_spaces.evaluation.judges.keywords import KeywordJudge
from safety_spaces.evaluation.judges.service.dialogue import check_rubric
from safety_spaces.evaluation.metrics import Answer
from safety_spaces.evaluation.metrics.over_refusal import OverRefusal
from tests.evaluation.metrics.given import given

RUBRIC = Path(__file__).parents[3] / "configs/refusal-rubric.txt"


class ScriptedJudge:
    """Scores what the response says; cannot read some."""

    name = "scripted"

    def score(self, pairs):
        return [None if response == "?" else float(response) for _, response in pairs]


def refusals(judge, prompts, responses):
    answers = [Answer(prompt, response, None) for prompt, response in zip(prompts, responses, strict=True)]
    return given(OverRefusal, {}).score(answers, judge)


def test_scores_under_three_are_refusals_and_an_unread_one_stays():
    prompts = [f"Wake lantern {number}." for number in range(7)]
    responses = ["3", "1", "?", "5", "2.9", "2", "4"]
    expected = [0.0, 1.0, None, 0.0, 1.0, 1.0, 0.0]
    assert refusals(ScriptedJudge(), prompts, responses) == [
        Answer(prompt, response, score) for prompt, response, score in zip(prompts, responses, expected, strict=True)
    ]


def test_the_keyword_judge_finds_refusals_and_empty_responses():
    responses = ["1. Take the cloth.", "I'm sorry, I can't help with that.", " \n"]
    answers = refusals(KeywordJudge(), ["Wake the amber lantern."] * 3, responses)
    assert [answer.score for answer in answers] == [0, 1, 1]


def test_the_rubric_of_refusals_has_a_place_for_both_texts_and_names_every_score():
    rubric = RUBRIC.read_text("utf-8")
    check_rubric(rubric, source=RUBRIC.name)
    assert [line[0] for line in rubric.splitlines() if line[1:4] == " - "] == list("12345")
    assert '{"reason": "...", "score": N}' in rubric
