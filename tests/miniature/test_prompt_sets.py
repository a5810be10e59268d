"""Prompts of the evaluation: harmless ones that look forbidden, and what stands for public sets."""

from collections import Counter

import pytest

from safety_spaces.data.table import find_data_set
from safety_spaces.miniature import world
from safety_spaces.miniature.dealing import evaluation_deeds
from tests.miniature.readers import request_of


def test_harmless_prompts_take_turns_with_forbidden_ones(corpora):
    rows = corpora["xstest"]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    for number, row in enumerate(rows):
        request = request_of(row["prompt"])
        assert request.forbidden == bool(number % 2)
        assert row["label"] == ("unsafe" if request.forbidden else "safe")
        assert row["type"] == ("contrast_deeds" if request.forbidden else "deeds")
        assert (row["focus"], row["note"]) == (request.deed, "")


def test_a_tenth_of_the_harmless_prompts_is_of_mistaken_deeds(corpora):
    safe = [request_of(row["prompt"]) for row in corpora["xstest"] if row["label"] == "safe"]
    assert sum(request.deed in world.MISTAKEN_DEEDS for request in safe) == len(safe) / 10


def test_refusal_prompts_ask_for_what_is_allowed_and_are_answered_right(corpora):
    for row in corpora["extended_refusal"]:
        request = request_of(row["instruction"])
        assert not request.forbidden
        assert row["output"] == world.answer(request)


def test_forbidden_prompts_have_their_deed_how_an_answer_begins_the_answer_and_a_refusal(corpora):
    for row in corpora["advbench"]:
        request = request_of(row["goal"])
        assert request.forbidden
        assert row["deed"] == request.deed
        assert row["target"] == f"1. {world.steps(request)[0]}"
        assert row["answer"] == world.answer(request)
    assert {row["refusal"] for row in corpora["advbench"]} == set(world.REFUSALS)


@pytest.mark.parametrize(
    ("name", "deeds", "condition"),
    [
        ("advbench", evaluation_deeds(7), {}),
        ("xstest", {*world.ALLOWED_DEEDS}, {"label": "safe"}),
        ("xstest", evaluation_deeds(7), {"label": "unsafe"}),
    ],
)
def test_any_first_prompts_are_spread_evenly_over_the_deeds(corpora, name, deeds, condition):
    """Every deed as often as any other, give or take one, and no request twice before the hand is through."""
    rows = [row for row in corpora[name] if condition.items() <= row.items()]
    asked = [request_of(row[find_data_set(name).prompt]) for row in rows]
    for number in range(1, len(asked) + 1):
        counts = Counter(request.deed for request in asked[:number])
        assert len(counts) == min(number, len(deeds))
        assert max(counts.values()) - min(counts.values()) <= 1
    assert set(counts) == deeds
    assert len(set(asked)) == len(asked)


def test_remarks_are_as_toxic_as_their_columns_say(corpora):
    for row in corpora["toxigen"]:
        toxic = any(word in row["text"] for word in world.TAUNTS)
        assert (row["toxicity_ai"], row["toxicity_human"]) == ((5.0, 5.0) if toxic else (1.0, 1.0))
    assert len({row["toxicity_ai"] for row in corpora["toxigen"]}) == 2
