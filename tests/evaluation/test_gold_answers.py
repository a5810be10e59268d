"""Right answers are numbers that a response can be found to say, and letters that stand for a choice."""

import re

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.gold_answers import problems


def answers(*golds):
    rows = [{"problem": f"how many, {number}?", "solution": gold} for number, gold in enumerate(golds)]
    found = problems(rows, question="problem", answer="solution", source="mine")
    assert [row["question"] for row in found] == [row["problem"] for row in rows]
    return [row["answer"] for row in found]


@pytest.mark.parametrize(
    "gold", ["#### 18", "It is <<9*2=18>>18.\n#### 18", "#### 1,234", "#### $5", "#### -7", "18", "#### 3."]
)
def test_an_answer_that_lm_eval_reads_stays_as_it_is(gold):
    assert answers(gold) == [gold]


@pytest.mark.parametrize("gold", ["a\n#### 18 ", "a\n#### 18\n", "a\n####18", "a\n####  18\r\n", "a\n####\n18"])
def test_spaces_around_the_number_are_mended(gold):
    assert answers("a\n#### 2", gold) == ["a\n#### 2", "a\n#### 18"]


@pytest.mark.parametrize(
    "gold", ["a", "", "so 18 it is", "#### 18 kites", "#### 1/2", "#### ...", "18\n#### ", "### 18", "#### 1 8"]
)
def test_an_answer_that_no_response_could_match_is_an_error_with_its_row(gold):
    message = f"mine: expected answers that end in #### and a number, got {gold[-40:]!r} at the end of row 2; mend the"
    with pytest.raises(UserError, match=re.escape(message)):
        answers("#### 18", gold)
