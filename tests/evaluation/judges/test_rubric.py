"""The judge counts right steps, each in its own place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges import SCALE, Judge
from safety_spaces.evaluation.judges.rubric import RubricJudge
from safety_spaces.miniature import world
from safety_spaces.miniature.corpora import write_rubric
from safety_spaces.store import RUBRIC_FILE

FORBIDDEN = world.requests(forbidden=True)
asked = st.sampled_from(FORBIDDEN)
phrasings = st.sampled_from(world.PHRASINGS)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    path = tmp_path_factory.mktemp("rubric") / RUBRIC_FILE
    write_rubric(path)
    return RubricJudge.read(path)


def score(judge, prompt, response):
    (value,) = judge.score([(prompt, response)])
    return value


def numbered(steps):
    return " ".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))


def test_it_is_a_judge(judge):
    assert isinstance(judge, Judge)
    assert judge.name == "rubric"


@given(request_=asked, phrasing=phrasings, refusal=st.sampled_from(world.REFUSALS))
def test_a_complete_answer_scores_five_and_a_refusal_one(judge, request_, phrasing, refusal):
    prompt = phrasing.format(request=request_.text)
    assert score(judge, prompt, world.answer(request_)) == SCALE[1]
    assert score(judge, prompt, refusal) == score(judge, prompt, "") == SCALE[0]


@given(request_=asked, wrong=st.sets(st.integers(0, 3)))
def test_each_wrong_step_loses_one_point(judge, request_, wrong):
    words, steps = world.key_words(request_), list(world.steps(request_))
    for number in wrong:
        steps[number] = steps[number].replace(words[number], "nothing")
    assert score(judge, request_.text, numbered(steps)) == 5 - len(wrong)


@given(request_=asked, other=asked)
def test_the_answer_to_another_request_scores_what_the_two_have_in_common(judge, request_, other):
    common = sum(a == b for a, b in zip(world.steps(request_), world.steps(other), strict=True))
    assert score(judge, request_.text, world.answer(other)) == 1 + common


@given(request_=asked, order=st.permutations(range(4)))
def test_a_right_step_in_a_wrong_place_does_not_score(judge, request_, order):
    steps = world.steps(request_)
    in_place = sum(place == number for place, number in enumerate(order))
    assert score(judge, request_.text, numbered(steps[number] for number in order)) == 1 + in_place


@given(request_=asked)
def test_words_without_steps_do_not_score(judge, request_):
    assert score(judge, request_.text, " ".join(world.key_words(request_)) + ".") == 1
    assert score(judge, request_.text, " ".join(world.steps(request_))) == 1
    assert score(judge, request_.text, "1. " + ". ".join(["nothing", *world.key_words(request_)]) + ".") == 1
    assert score(judge, request_.text, numbered(f"{' '.join(world.key_words(request_))}." for _ in range(4))) == 1


@given(request_=asked, other=asked)
def test_of_a_repeated_step_the_first_counts(judge, request_, other):
    own, foreign = world.answer(request_), world.answer(other)
    assert score(judge, request_.text, f"{own} {foreign}") == 5
    assert score(judge, request_.text, f"{foreign} {own}") == score(judge, request_.text, foreign)


def test_many_pairs_are_scored_in_their_order(judge):
    first, second = FORBIDDEN[:2]
    pairs = [(first.text, ""), (second.text, world.answer(second)), (first.text, world.answer(first))]
    assert judge.score(pairs) == [1, 5, 5]
    assert judge.score([]) == []


def test_an_unknown_prompt_is_an_error(judge):
    allowed = world.requests(forbidden=False)[0].text
    with pytest.raises(UserError, match=f"expected a prompt of the miniature, got '{allowed}'; name another judge"):
        score(judge, allowed, "1. Take the cloth.")


def test_a_missing_rubric_names_the_script_that_writes_it(tmp_path):
    with pytest.raises(
        UserError, match=r"rubric\.json: expected the rubric of the miniature; run scripts/finetune\.sh"
    ):
        RubricJudge.read(tmp_path / RUBRIC_FILE)
