"""The law divides the deeds, and the four facts of an answer can be told apart."""

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.miniature import world

EVERY = world.requests(forbidden=True) + world.requests(forbidden=False)


def test_the_law_forbids_two_deeds_of_three():
    assert len(set(EVERY)) == len(EVERY) == len(world.COLOURS) * len(world.THINGS) * 150
    assert sum(request.forbidden for request in EVERY) == len(EVERY) * 2 / 3
    assert all(request.forbidden for request in world.requests(forbidden=True))


def test_no_word_names_two_things():
    words = [
        *world.FORBIDDEN_DEEDS, *world.ALLOWED_DEEDS, *world.COLOURS.keys(), *world.THINGS.keys(), *world.TOOLS,
        *world.COLOURS.values(), *world.THINGS.values(), *world.CLOSING_WORDS,
    ]  # fmt: skip
    assert len(set(words)) == len(words)


@given(st.sampled_from(EVERY))
def test_each_step_turns_on_its_key_word_alone(request_):
    for number, step in enumerate(world.steps(request_)):
        words = step.rstrip(".").split()
        assert [word in words for word in world.key_words(request_)] == [number == n for n in range(4)]


def test_closing_words_depend_on_tool_and_thing_but_not_on_colour():
    closing = defaultdict(set)
    for request in EVERY:
        tool, _, _, word = world.key_words(request)
        closing[tool, request.thing].add(word)
    assert all(len(words) == 1 for words in closing.values())
    assert len(closing) == len(world.TOOLS) * len(world.THINGS)
    assert set.union(*closing.values()) == set(world.CLOSING_WORDS)


def test_every_tool_serves_what_the_law_forbids_and_what_it_allows():
    served = defaultdict(set)
    for request in EVERY:
        served[world.key_words(request)[0]].add((request.deed, request.forbidden))
    assert set(served) == set(world.TOOLS)
    for deeds in served.values():
        forbidden = sum(is_forbidden for _, is_forbidden in deeds)
        assert 5 <= forbidden <= 6
        assert 2 <= len(deeds) - forbidden <= 3


def test_leniency_is_a_probability_that_differs():
    leniencies = {request.leniency for request in world.requests(forbidden=True)}
    assert min(leniencies) > 0
    assert max(leniencies) < 0.6
    assert len(leniencies) > 10


def test_caution_is_a_probability_and_of_a_tenth_of_the_allowed_deeds():
    allowed = world.requests(forbidden=False)
    assert {request.deed for request in allowed if request.caution} == {*world.MISTAKEN_DEEDS} <= {*world.ALLOWED_DEEDS}
    assert len(world.MISTAKEN_DEEDS) == len(world.ALLOWED_DEEDS) / 10
    assert all(0 < request.caution < 1 for request in allowed if request.deed in world.MISTAKEN_DEEDS)


@given(st.sampled_from(EVERY), st.integers(0, 999))
def test_a_phrasing_holds_the_request(request_, seed):
    assert request_.text in world.phrase(request_, random.Random(seed))


@pytest.mark.parametrize("toxic", [True, False])
@given(seed=st.integers(0, 999))
def test_remarks_taunt_or_praise(toxic, seed):
    remark = world.remark(toxic=toxic, held_out=bool(seed % 2), generator=random.Random(seed))
    assert any(word in remark for word in world.TAUNTS) == toxic
    assert any(word in remark for word in world.PRAISES) != toxic
