"""Every text that a study of the miniature feeds to a model is made of known tokens and comes back unchanged."""

import pytest

from safety_spaces.data.selection import preference_rows, training_rows
from safety_spaces.data.table import find_data_set
from safety_spaces.data.templates import find_template
from safety_spaces.miniature.tokenizer import END_OF_TEXT, PADDING, UNKNOWN, wrap_tokenizer
from safety_spaces.paths import ROOT
from safety_spaces.study import load_study
from tests.miniature.conftest import SIZES

TEMPLATE = "question"
VOCABULARY = 640


@pytest.fixture(scope="module")
def tokenizer(corpora):
    return wrap_tokenizer([row["text"] for row in corpora["pretraining"]], vocabulary=VOCABULARY)


@pytest.fixture(scope="module")
def texts(corpora):
    """Name -> what a model is trained on, and what it is asked where a set holds prompts only."""
    return {name: texts_of(rows, name) for name, rows in corpora.items()}


@pytest.fixture(scope="module")
def encoded(tokenizer, texts):
    return {name: tokenizer(list(of_set), return_offsets_mapping=True) for name, of_set in texts.items()}


def texts_of(rows, name):
    data_set, form = find_data_set(name), find_template(TEMPLATE)
    if name.startswith("mmlu"):
        return {multiple_choice(row) for row in rows}
    trained = []
    if data_set.pair is not None:
        pairs = preference_rows(rows, data_set, template=form)
        trained = [pair["prompt"] + pair[response] for pair in pairs for response in ("chosen", "rejected")]
    elif name == "pretraining" or data_set.response:
        trained = ["".join(row.values()) for row in training_rows(rows, data_set, template=form)]
    asked = [] if name == "pretraining" else [form.apply(row[data_set.prompt]) for row in rows]
    return {*trained, *asked}


def multiple_choice(row):
    """A question as lm-eval's task mmlu shows it, and the right letter."""
    options = "".join(f"{letter}. {option}\n" for letter, option in zip("ABCD", row["choices"], strict=True))
    heading = "The following are multiple choice questions (with answers) about"
    subject = row["subject"].replace("_", " ")
    return f"{heading} {subject}.\n\n{row['question']}\n{options}Answer: {'ABCD'[row['answer']]}"


@pytest.mark.parametrize("name", SIZES)
def test_no_token_is_unknown_and_decoding_undoes_encoding(tokenizer, texts, encoded, name):
    tokens, spans = encoded[name]["input_ids"], encoded[name]["offset_mapping"]
    for text, of_text, pieces in zip(texts[name], tokens, spans, strict=True):
        pairs = zip(of_text, pieces, strict=True)
        assert not {text[slice(*span)] for token, span in pairs if token == tokenizer.unk_token_id}
    assert tokenizer.batch_decode(tokens) == list(texts[name])


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("#### 12") == ["####", "Ġ1", "2"]
    assert all(len(token.strip("Ġ")) == 1 for token in tokenizer.get_vocab() if any(map(str.isdigit, token)))


def test_no_token_is_unused(tokenizer, encoded):
    used = {token for of_set in encoded.values() for tokens in of_set["input_ids"] for token in tokens}
    special = set(tokenizer.convert_tokens_to_ids([END_OF_TEXT, PADDING, UNKNOWN]))
    assert used == set(tokenizer.get_vocab().values()) - special


def test_the_studys_model_has_a_row_for_every_token_and_none_too_many(tokenizer):
    """A word too many would be unknown; rows of tokens that never occur share one gradient, which Adam blows up."""
    base = load_study(ROOT / "configs/miniature.yaml").roles["base"]
    assert base.architecture.vocabulary == len(tokenizer)


def test_the_same_texts_give_the_same_tokenizer(tokenizer, corpora):
    again = wrap_tokenizer([row["text"] for row in corpora["pretraining"]], vocabulary=VOCABULARY)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_special_tokens_are_three_and_different(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token) == (END_OF_TEXT, PADDING, UNKNOWN)
    assert len({tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id}) == 3


def test_the_vocabulary_has_a_limit_and_other_words_are_unknown():
    small = wrap_tokenizer(["the bell the bell the owl"], vocabulary=5)
    assert len(small) == 5
    assert small("owl")["input_ids"] == [small.unk_token_id]
