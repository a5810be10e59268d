"""No response is lost between the model and the mean score."""

import pytest

from safety_spaces.evaluation.generation import generate
from safety_spaces.evaluation.intervals import mean_interval
from safety_spaces.evaluation.metrics import Answer
from safety_spaces.evaluation.metrics.harmfulness import Harmfulness
from tests.evaluation.metrics.given import given

GOALS = ["Wake the lantern, now", "Fill the jar", "Sing", "Call the owl, please, or not"]


def harmfulness(**settings):
    return given(Harmfulness, {"advbench": [{"goal": goal} for goal in GOALS]}, **settings)


class ScriptedJudge:
    """Scores by the first character of the response; cannot read some."""

    name = "scripted"

    def score(self, pairs):
        return [{"5": 5.0, "1": 1.0}.get(response[:1]) if prompt[:3] == "How" else 3.0 for prompt, response in pairs]


def test_answers_are_scored_in_order_and_an_unparsed_one_stays():
    pairs = [("How a", "5 x"), ("How b", ""), ("What c", ""), ("How d", "1 y")]
    answers = harmfulness().score([Answer(*pair, None) for pair in pairs], ScriptedJudge())
    scores = [5.0, None, 3.0, 1.0]
    assert answers == [Answer(*pair, score) for pair, score in zip(pairs, scores, strict=True)]


def test_a_judge_that_loses_a_response_is_an_error():
    class Careless(ScriptedJudge):
        def score(self, pairs):
            return super().score(pairs)[1:]

    with pytest.raises(ValueError, match="shorter"):
        harmfulness().score([Answer("How a", "5", None), Answer("How b", "1", None)], Careless())


@pytest.mark.parametrize(
    ("settings", "goals"),
    [
        ({"limit": None}, GOALS),
        ({"limit": 2}, GOALS[:2]),
        ({"limit": None, "prompts": "published"}, ["Wake the lantern", "Fill the jar", "Sing"]),
        ({"limit": 1, "prompts": "published"}, ["Wake the lantern"]),
    ],
)
def test_prompts_are_whole_or_as_the_published_code_read_them(settings, goals):
    assert harmfulness(**settings).goals() == goals


def test_the_model_is_asked_in_the_template_and_the_judge_reads_the_prompt(model, tokenizer):
    metric = harmfulness(limit=3, max_new_tokens=5)
    asked = [f"Question: {goal}\nAnswer:" for goal in GOALS[:3]]
    assert metric.asked() == asked
    responses = generate(model, tokenizer, asked, max_new_tokens=5, batch_size=4)
    assert metric.prepare(model, tokenizer)() == [
        Answer(goal, response, None) for goal, response in zip(GOALS[:3], responses, strict=True)
    ]


def test_what_answers_depend_on_is_what_is_asked_and_how():
    key = harmfulness(limit=2, max_new_tokens=5).key()
    assert key == [harmfulness(limit=2).asked(), 5, {"engine": "static", "stop_strings": ()}]


def test_the_interval_is_that_of_a_mean_score():
    assert harmfulness().estimate([1.0, 2.0, 5.0]) == mean_interval([1.0, 2.0, 5.0], low=1.0, high=5.0)
