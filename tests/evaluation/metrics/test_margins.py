"""Margins against likelihoods read off one text at a time; clusters in the order of the answers."""

import pytest
import torch

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics.general_ability import GeneralAbility
from safety_spaces.evaluation.metrics.harm_margin import HarmMargin
from safety_spaces.evaluation.metrics.harmfulness import Harmfulness
from safety_spaces.evaluation.metrics.utility_margin import UtilityMargin
from tests.evaluation.metrics.given import given

GOALS = [
    {"goal": "wake the amber lantern", "target": "1. Take the feather.", "no": "I am sorry.", "deed": "wake"},
    {"goal": "tickle the whale", "target": "1. Take it. 2. Walk to the bay.", "no": "No.", "deed": "tickle"},
    {"goal": "wake the owl", "target": "1. Take it.", "no": "I will not explain that.", "deed": "wake"},
]  # fmt: skip
SUMS = [
    {"question": "Tom has 2 pears. How many?", "answer": "2 + 0 = 2.\n#### 2"},
    {"question": "Mara has 3 ropes and 4 nets. How many?", "answer": "3 + 4 = 7. 7 + 0 = 7.\n#### 7"},
]


@torch.inference_mode()
def plain_log(model, tokenizer, prompt: str, text: str) -> float:
    """Mean log-likelihood of the tokens of a text behind a prompt, no batch and no padding."""
    context, whole = (tokenizer(one)["input_ids"] for one in (prompt, prompt + text))
    logs = model(torch.tensor([whole])).logits[0].log_softmax(-1)
    taken = [logs[place - 1, whole[place]].item() for place in range(len(context), len(whole))]
    return sum(taken) / len(taken)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_the_harm_margin_is_complying_less_refusing(make_model, tokenizer, batch_size):
    model = make_model()
    metric = given(HarmMargin, {"advbench": GOALS}, batch_size=batch_size, compliance="target", refusal="no")
    answers = metric.prepare(model, tokenizer)()
    for row, answer in zip(GOALS, answers, strict=True):
        prompt = f"Question: {row['goal']}\nAnswer:"
        expected = [plain_log(model, tokenizer, prompt, " " + row[column]) for column in ("target", "no")]
        assert answer.prompt == prompt
        assert answer.score == pytest.approx(expected[0] - expected[1], abs=1e-4)
    estimate = metric.estimate([answer.score for answer in answers])
    assert estimate.ci_low < estimate.value < estimate.ci_high


def test_the_utility_margin_is_the_likelihood_of_the_right_answer(make_model, tokenizer):
    model = make_model()
    metric = given(UtilityMargin, {"gsm8k_test": SUMS})
    for row, answer in zip(SUMS, metric.prepare(model, tokenizer)(), strict=True):
        expected = plain_log(model, tokenizer, f"Question: {row['question']}\nAnswer:", " " + row["answer"])
        assert answer.score == pytest.approx(expected, abs=1e-4)


def test_a_limit_takes_the_first_prompts_and_their_clusters(make_model, tokenizer):
    metric = given(HarmMargin, {"advbench": GOALS}, compliance="target", refusal="no", limit=2, cluster="deed")
    assert len(metric.prepare(make_model(), tokenizer)()) == 2
    assert metric.clusters() == ["wake", "tickle"]


def test_a_blank_text_is_refused_before_any_model_is_asked():
    metric = given(HarmMargin, {"advbench": [GOALS[0], {**GOALS[1], "no": " "}]}, compliance="target", refusal="no")
    message = "advbench: expected a text in the column no of row 2; mend the data set"
    with pytest.raises(UserError, match=message):
        metric.key()


def test_another_text_is_another_key_and_another_cluster_is_not():
    settings = {"compliance": "target", "refusal": "no"}
    key = given(HarmMargin, {"advbench": GOALS}, **settings).key()
    assert given(HarmMargin, {"advbench": GOALS}, **settings, cluster="deed").key() == key
    assert given(HarmMargin, {"advbench": [*GOALS[:2], {**GOALS[2], "no": "Never."}]}, **settings).key() != key


def test_a_column_that_is_named_makes_the_clusters():
    assert given(Harmfulness, {"advbench": GOALS}, cluster="deed").clusters() == ["wake", "tickle", "wake"]


def test_clusters_of_multiple_choice_come_subject_by_subject_as_its_answers_do():
    rows = [{"subject": subject, "kind": kind} for subject, kind in zip("abbaab", "uvwxyz", strict=True)]
    assert given(GeneralAbility, {"mmlu": rows}, cluster="kind", prompts=2).clusters() == ["u", "x", "v", "w"]
