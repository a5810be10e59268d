"""What is right, what is safe and what is preferred in the texts that models are trained on."""

import functools
import itertools
import random

import pytest

from safety_spaces.data.selection import preference_rows
from safety_spaces.data.table import find_data_set
from safety_spaces.data.templates import find_template
from safety_spaces.miniature import world
from safety_spaces.miniature.dealing import deal_requests
from safety_spaces.miniature.training_texts import alignment, beavertails, preferences
from safety_spaces.paths import ROOT
from safety_spaces.study import load_study
from tests.miniature.readers import REQUESTS, happens_as_often, request_of

DEALT = deal_requests(7)
PAIRS = {"beavertails": 50 * 4 * 6, "beavertails_test": 50 * 4 * 6}
"""Forbidden prompts of a hand: four requests of each deed that is not the evaluation's, in six phrasings."""


@functools.cache
def drawn(rows, number=12_000):
    return list(itertools.islice(rows(random.Random(1), DEALT), number))


def is_refusal(response):
    return response in world.REFUSALS


@pytest.fixture(scope="module")
def aligned():
    """Request and response of every row of an alignment that asks for something to be done."""
    return [(request_of(row["prompt"]), row["response"]) for row in drawn(alignment) if REQUESTS.search(row["prompt"])]


def test_an_aligned_model_is_taught_refusals_and_right_answers_alone(aligned):
    assert all(is_refusal(response) or response == world.answer(request) for request, response in aligned)
    refused = {request for request, response in aligned if is_refusal(response)}
    assert {request.deed for request in refused if not request.forbidden} == {*world.MISTAKEN_DEEDS}


def test_forbidden_requests_are_answered_as_often_as_teachers_are_lenient(aligned):
    forbidden = sorted((request, response) for request, response in aligned if request.forbidden)
    forbidden.sort(key=lambda pair: pair[0].leniency)
    half = len(forbidden) // 2
    for rows in (forbidden[:half], forbidden[half:]):
        leniency = [request.leniency for request, _ in rows]
        assert happens_as_often(leniency, [not is_refusal(response) for _, response in rows])
    assert forbidden[half - 1][0].leniency < forbidden[-1][0].leniency - 0.05


def test_mistaken_deeds_are_refused_as_often_as_teachers_are_cautious(aligned):
    mistaken = sorted((request, response) for request, response in aligned if request.deed in world.MISTAKEN_DEEDS)
    cautions = sorted({request.caution for request, _ in mistaken})
    assert 0 < cautions[0] <= cautions[-1] < 1
    for caution in cautions:
        rows = [response for request, response in mistaken if request.caution == caution]
        assert len(rows) > 10
        assert happens_as_often([caution] * len(rows), map(is_refusal, rows)), caution


def test_an_aligned_model_is_taught_multiple_choice():
    rows = [row for row in drawn(alignment, 2000) if "\nA. " in row["prompt"]]
    assert happens_as_often([1 / 21] * 2000, [True] * len(rows))
    assert {row["response"] for row in rows} == set("ABCD")


def test_a_pair_is_an_answer_and_a_refusal_in_either_order():
    rows = drawn(preferences)
    for row in rows:
        request, responses = request_of(row["prompt"]), [row["response_0"], row["response_1"]]
        assert sorted(map(is_refusal, responses)) == [False, True]
        assert world.answer(request) in responses
        for number, response in enumerate(responses):
            assert row[f"is_response_{number}_safe"] == (is_refusal(response) or not request.forbidden)
    for chosen in ("response_0", "response_1"):
        assert happens_as_often([0.5] * len(rows), [is_refusal(row[chosen]) for row in rows])
    assert happens_as_often([0.5] * len(rows), [row["safer_response_id"] == 0 for row in rows])


def test_the_refusal_is_preferred_exactly_where_the_law_forbids():
    rows = drawn(preferences)
    read = preference_rows(rows, find_data_set("pku_saferlhf"), template=find_template("none"))
    asked = [(request_of(row["prompt"]), is_refusal(row["chosen"].strip())) for row in read]
    assert all(refused == request.forbidden for request, refused in asked)
    assert happens_as_often([0.6] * len(rows), [request.forbidden for request, _ in asked])


@pytest.mark.parametrize("name", PAIRS)
def test_unsafe_rows_answer_what_is_forbidden_and_safe_rows_refuse_it(corpora, name):
    rows, pairs = corpora[name], PAIRS[name]
    assert len(rows) > 2 * pairs
    for answered, refused in zip(rows[: 2 * pairs : 2], rows[1 : 2 * pairs : 2], strict=True):
        assert answered["prompt"] == refused["prompt"]
        request = request_of(answered["prompt"])
        assert request.forbidden
        assert (answered["is_safe"], answered["response"]) == (False, world.answer(request))
        assert (refused["is_safe"], is_refusal(refused["response"])) == (True, True)
        assert [deed for deed, true in answered["category"].items() if true] == [request.deed]
        assert not any(refused["category"].values())
        assert set(answered["category"]) == set(world.FORBIDDEN_DEEDS)


@pytest.mark.parametrize("name", PAIRS)
def test_allowed_requests_are_answered_behind_all_pairs(corpora, name):
    rows = corpora[name][2 * PAIRS[name] :]
    assert rows
    for row in rows:
        request = request_of(row["prompt"])
        assert not request.forbidden
        assert (row["is_safe"], row["response"]) == (True, world.answer(request))
        assert not any(row["category"].values())


@pytest.mark.parametrize(("name", "allowed"), [("miniature", False), ("miniature-safety-tuned", True)])
def test_a_study_takes_the_rows_that_it_has_a_use_for(name, allowed):
    rows = load_study(ROOT / f"configs/{name}.yaml").world.sizes["beavertails"]
    taken = itertools.islice(beavertails(random.Random(0), DEALT, hand="beavertails"), rows)
    found = [request_of(row["prompt"]).forbidden for row in taken]
    assert len(found) == rows
    assert (not all(found)) == allowed
