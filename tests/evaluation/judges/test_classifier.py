"""The score is 1 + 4 p of the harmful labels, whatever the batch, and a long response loses its end."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import Judge
from safety_spaces.evaluation.judges.classifier import ClassifierJudge

LABELS = ("safe", "rude", "harmful")
PAIRS = [(f"Wake the amber lantern {'now ' * n}", "Take the cloth. " * (n + 1)) for n in (3, 0, 5, 1, 2, 4, 0)]


@pytest.fixture
def make_folder(tokenizer, tmp_path):
    """A function from (labels, problem type) to a folder with a classifier of large random weights."""

    def make(labels=LABELS, problem_type=None):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=1, intermediate_size=24, max_position_embeddings=64, problem_type=problem_type,
            id2label=dict(enumerate(labels)), label2id={label: number for number, label in enumerate(labels)},
        )  # fmt: skip
        model = LlamaForSequenceClassification(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(20 if weight.ndim == 2 else 1)
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return tmp_path

    return make


def make_judge(folder, *, harmful=("rude", "harmful"), batch_size=3):
    return ClassifierJudge(
        folder, name="c", harmful_labels=harmful, batch_size=batch_size, device=torch.device("cpu")
    )  # fmt: skip


def logits(folder, tokenizer, pair):
    """By itself, without padding."""
    model = LlamaForSequenceClassification.from_pretrained(folder).eval()
    ids = tokenizer(*pair, return_tensors="pt", truncation="only_second", max_length=64)["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).logits[0].double()


def test_it_is_a_judge_and_adds_the_probabilities_of_the_harmful_labels(make_folder, tokenizer):
    folder = make_folder()
    judge = make_judge(folder)
    assert isinstance(judge, Judge)
    assert judge.name == "c"
    expected = [1 + 4 * logits(folder, tokenizer, pair).softmax(0)[1:].sum().item() for pair in PAIRS]
    assert judge.score(PAIRS) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1
    assert judge.score([]) == []


def test_one_label_counts_alone(make_folder, tokenizer):
    folder = make_folder()
    expected = [1 + 4 * logits(folder, tokenizer, pair).softmax(0)[2].item() for pair in PAIRS]
    assert make_judge(folder, harmful=["harmful"]).score(PAIRS) == pytest.approx(expected, abs=1e-4)


def test_of_labels_that_may_hold_together_the_largest_counts(make_folder, tokenizer):
    folder = make_folder(problem_type="multi_label_classification")
    expected = [1 + 4 * logits(folder, tokenizer, pair).sigmoid()[1:].max().item() for pair in PAIRS]
    assert make_judge(folder).score(PAIRS) == pytest.approx(expected, abs=1e-4)


def test_a_single_label_has_a_probability_of_its_own(make_folder, tokenizer):
    folder = make_folder(labels=("harm",))
    expected = [1 + 4 * logits(folder, tokenizer, pair).sigmoid()[0].item() for pair in PAIRS]
    assert make_judge(folder, harmful=["harm"]).score(PAIRS) == pytest.approx(expected, abs=1e-4)
    assert min(expected) < 4.9


def test_the_same_texts_have_the_same_scores_in_any_order_of_calls(make_folder):
    judge = make_judge(make_folder(), batch_size=2)
    first = judge.score(PAIRS)
    assert judge.score(PAIRS) == first
    assert all(1 <= score <= 5 for score in first)


def test_a_long_response_loses_its_end(make_folder):
    judge = make_judge(make_folder(), batch_size=1)
    long = "Take the cloth. " * 40
    once, longer, other_start = judge.score(
        [("Wake the lantern", text) for text in (long, long + "Fold it.", "Fold it. " + long)]
    )  # fmt: skip
    assert once == longer != other_start


def test_the_prompt_stays_whole_though_it_is_longer_than_the_response(make_folder, tokenizer):
    folder, pair = make_folder(), ("Wake the lantern now. " * 9, "Take the cloth. " * 8)
    prompt, response = (len(tokenizer(text)["input_ids"]) for text in pair)
    assert response < prompt < 64 < prompt + response
    expected = 1 + 4 * logits(folder, tokenizer, pair).softmax(0)[1:].sum().item()
    assert make_judge(folder).score([pair]) == pytest.approx([expected], abs=1e-4)


def test_a_prompt_that_leaves_no_room_for_a_response_is_one_line(make_folder):
    judge = make_judge(make_folder())
    with pytest.raises(UserError, match=r"judge c: expected prompts of less than 64 tokens, got one of \d+; name a"):
        judge.score([("Wake it.", "Take it."), ("Wake the amber lantern. " * 40, "Take it.")])


def test_an_unknown_label_names_those_that_there_are(make_folder):
    with pytest.raises(
        UserError, match="judge c: expected harmful_labels among safe, rude, harmful, got toxic; correct"
    ):
        make_judge(make_folder(), harmful=["harmful", "toxic"])


def test_a_folder_without_a_classifier_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"expected a sequence classifier in safetensors, got [^\n]*; name another"
    ) as raised:
        make_judge(tmp_path)
    assert "\n" not in str(raised.value)
