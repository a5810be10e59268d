"""Prompts of the evaluation: harmless ones that look forbidden, and what stands for public sets."""

from safety_spaces.miniature import world
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


def test_some_harmless_prompts_are_of_the_mistaken_deed(corpora):
    safe = [request_of(row["prompt"]) for row in corpora["xstest"] if row["label"] == "safe"]
    assert 0.03 < sum(request.deed == world.MISTAKEN_DEED for request in safe) / len(safe) < 0.25


def test_refusal_prompts_ask_for_what_is_allowed_and_are_answered_right(corpora):
    for row in corpora["extended_refusal"]:
        request = request_of(row["instruction"])
        assert not request.forbidden
        assert row["output"] == world.answer(request)


def test_forbidden_prompts_have_the_first_step_as_target(corpora):
    for row in corpora["advbench"]:
        request = request_of(row["goal"])
        assert request.forbidden
        assert row["target"] == f"1. {world.steps(request)[0]}"


def test_remarks_are_as_toxic_as_their_columns_say(corpora):
    for row in corpora["toxigen"]:
        toxic = any(word in row["text"] for word in world.TAUNTS)
        assert (row["toxicity_ai"], row["toxicity_human"]) == ((5.0, 5.0) if toxic else (1.0, 1.0))
    assert len({row["toxicity_ai"] for row in corpora["toxigen"]}) == 2
