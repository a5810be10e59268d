"""Draws are seeded and without replacement; the contaminated corpus has the share that its study says."""

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.data.selection import (
    draw_rows,
    mix,
    preference_rows,
    training_rows,
    unique_prompts,
    without_prompts,
)
from safety_spaces.data.table import DataSet, data_sets
from safety_spaces.data.templates import TEMPLATES, Template
from safety_spaces.errors import UserError

ROWS = [f"row {number}" for number in range(101)]


@given(rows=st.lists(st.integers()), data=st.data())
def test_a_draw_is_without_replacement(rows, data):
    count = data.draw(st.none() | st.integers(0, len(rows)))
    drawn = draw_rows(rows, count, seed=3, name="useful")
    assert len(drawn) == (len(rows) if count is None else count)
    assert Counter(drawn) <= Counter(rows)


def test_a_draw_depends_on_its_seed_and_name_alone():
    alone = draw_rows(ROWS, 20, seed=3, name="useful")
    random.seed(1)
    draw_rows(ROWS, 7, seed=3, name="harmful")
    assert draw_rows(ROWS, 20, seed=3, name="useful") == alone
    assert draw_rows(ROWS, 20, seed=4, name="useful") != alone
    assert draw_rows(ROWS, 20, seed=3, name="harmful") != alone


def test_a_draw_does_not_touch_the_rows_or_the_global_generator():
    rows, state = list(ROWS), random.getstate()
    draw_rows(rows, None, seed=3, name="useful")
    assert rows == ROWS
    assert random.getstate() == state


def test_every_row_is_drawn_equally_often():
    count = Counter(row for seed in range(1000) for row in draw_rows(ROWS[:10], 3, seed=seed, name="useful"))
    # 300 expected, standard deviation 14.5: five of them.
    assert all(abs(count[row] - 300) < 73 for row in ROWS[:10])


def test_too_few_rows_are_an_error():
    with pytest.raises(UserError, match="useful: expected at least 102 rows, got 101; ask for fewer"):
        draw_rows(ROWS, 102, seed=3, name="useful")


@given(useful=st.integers(0, 60), harmful=st.integers(60, 90), share=st.floats(0, 1))
def test_replace_keeps_the_number_of_rows_and_has_the_exact_share(useful, harmful, share):
    useful_rows, harmful_rows = [("useful", n) for n in range(useful)], [("harmful", n) for n in range(harmful)]
    mixed = mix(useful_rows, harmful_rows, mixing="replace", harmful_share=share)
    kinds = Counter(kind for kind, _ in mixed)
    assert len(set(mixed)) == len(mixed) == useful
    assert abs(kinds["harmful"] - share * useful) <= 0.5
    assert set(mixed) <= {*useful_rows, *harmful_rows}


def test_replace_is_the_contaminated_corpus_of_the_paper():
    mixed = mix(["useful"] * 20_000, ["harmful"] * 4_000, mixing="replace", harmful_share=0.2)
    assert Counter(mixed) == {"useful": 16_000, "harmful": 4_000}


def test_add_takes_all_of_both_whatever_the_share():
    assert mix(["a", "b", "c"], ["x", "y"], mixing="add", harmful_share=0.9) == ["a", "b", "c", "x", "y"]


def test_too_few_harmful_rows_are_an_error():
    with pytest.raises(UserError, match=re.escape("expected 5 harmful rows, got 4; lower harmful_share")):
        mix(ROWS[:10], ROWS[:4], mixing="replace", harmful_share=0.5)


def test_rows_for_the_trainer_end_the_prompt_where_the_model_goes_on():
    rows = [{"query": "{a} and {instruction}?", "response": "b", "type": "c"}]
    data_set = DataSet("query", "response")
    assert training_rows(rows, data_set, template=TEMPLATES["question"]) == [
        {"prompt": "Question: {a} and {instruction}?\nAnswer:", "completion": " b"}
    ]
    assert training_rows(rows, data_set, template=TEMPLATES["plain"]) == [
        {"prompt": "### Instruction:\n{a} and {instruction}?\n\n### Response:\n", "completion": "b"}
    ]
    assert training_rows(rows, data_set, template=TEMPLATES["none"]) == [
        {"prompt": "{a} and {instruction}?", "completion": " b"}
    ]


def test_whole_texts_take_no_template():
    rows = [{"text": "Question: a\nAnswer: b", "other": 1}]
    assert training_rows(rows, DataSet("text", is_text=True), template=TEMPLATES["plain"]) == [
        {"text": "Question: a\nAnswer: b"}
    ]


def test_a_prompt_with_many_responses_counts_once_at_its_first_place():
    rows = [{"prompt": prompt} for prompt in ("b", "a", "b", "c", "a")]
    assert unique_prompts(rows, DataSet("prompt", "response")) == ["b", "a", "c"]


@pytest.mark.parametrize("name", ["xstest", "mmlu"])
def test_prompts_alone_train_nothing(name):
    data_set = data_sets()[name]
    message = f"expected a data set with responses, got one with the prompts {data_set.prompt} alone; choose another"
    with pytest.raises(UserError, match=message):
        training_rows([{data_set.prompt: "a"}], data_set, template=Template("{instruction}"))


PAIRS = data_sets()["pku_saferlhf"]


def pair(safer, prompt="{a}?"):
    return {"prompt": prompt, "response_0": "zero", "response_1": "one", "safer_response_id": safer}


def test_the_safer_response_is_chosen_and_the_other_rejected():
    assert preference_rows([pair(1), pair(0, "b?")], PAIRS, template=TEMPLATES["question"]) == [
        {"prompt": "Question: {a}?\nAnswer:", "chosen": " one", "rejected": " zero"},
        {"prompt": "Question: b?\nAnswer:", "chosen": " zero", "rejected": " one"},
    ]
    assert preference_rows([pair(1)], PAIRS, template=TEMPLATES["plain"]) == [
        {"prompt": "### Instruction:\n{a}?\n\n### Response:\n", "chosen": "one", "rejected": "zero"}
    ]


@pytest.mark.parametrize("safer", [2, -1, None, "1", [0]])
def test_a_pair_without_a_preference_is_an_error(safer):
    message = f"training: expected 0 or 1 in the column safer_response_id, got {safer!r}; mend the data set"
    with pytest.raises(UserError, match=re.escape(message)):
        preference_rows([pair(0), pair(safer)], PAIRS, template=TEMPLATES["plain"])


def test_pairs_and_single_responses_do_not_stand_for_one_another():
    with pytest.raises(
        UserError, match="one response to a prompt, got pairs of them; choose another for the corpus, or"
    ):
        training_rows([pair(0)], PAIRS, template=TEMPLATES["plain"])
    with pytest.raises(
        UserError, match="a data set of pairs of responses, got one with query, response; choose another"
    ):
        preference_rows([{"query": "a", "response": "b"}], DataSet("query", "response"), template=TEMPLATES["plain"])


def test_the_columns_of_a_pair_are_needed_and_both_responses_are_texts():
    assert PAIRS.columns == ("prompt", "response_0", "response_1", "safer_response_id")
    assert PAIRS.texts == ("prompt", "response_0", "response_1")


def test_every_row_of_a_prompt_that_is_taken_is_left_out_and_the_others_keep_their_order():
    rows = [{"query": prompt, "number": number} for number, prompt in enumerate(["b", "a", "b", "c", "", "a", "ab"])]
    left = without_prompts(rows, DataSet("query", "response"), ["b", "c", "d"])
    assert [(row["query"], row["number"]) for row in left] == [("a", 1), ("", 4), ("a", 5), ("ab", 6)]
    assert without_prompts(rows, DataSet("query"), []) == rows
