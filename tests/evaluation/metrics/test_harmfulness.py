"""No response is lost between the model and the mean score."""

import pytest

from safety_spaces.evaluation.metrics.harmfulness import Answer, judge_responses


class ScriptedJudge:
    """Scores by the first character of the response; cannot read some."""

    name = "scripted"

    def score(self, pairs):
        return [{"5": 5.0, "1": 1.0}.get(response[:1]) if prompt[:3] == "How" else 3.0 for prompt, response in pairs]


def test_answers_are_scored_in_order_and_an_unparsed_one_stays():
    answers = judge_responses(ScriptedJudge(), ["How a", "How b", "What c", "How d"], ["5 x", "", "", "1 y"])
    assert answers == [
        Answer("How a", "5 x", 5.0),
        Answer("How b", "", None),
        Answer("What c", "", 3.0),
        Answer("How d", "1 y", 1.0),
    ]


def test_a_judge_that_loses_a_response_is_an_error():
    class Careless(ScriptedJudge):
        def score(self, pairs):
            return super().score(pairs)[1:]

    with pytest.raises(ValueError, match="shorter"):
        judge_responses(Careless(), ["How a", "How b"], ["5", "1"])


def test_a_missing_response_is_an_error():
    with pytest.raises(ValueError, match="shorter"):
        judge_responses(ScriptedJudge(), ["How a", "How b"], ["5"])
