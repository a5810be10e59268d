"""Every request has one owner, and no request hides in another."""

import itertools
import random

import pytest

from safety_spaces.miniature import world
from safety_spaces.miniature.dealing import HANDS, deal_requests, distinct_prompts
from tests.miniature.readers import ALLOWED, FORBIDDEN, request_of


def test_every_request_is_dealt_to_one_hand():
    dealt = deal_requests(7)
    assert sum(HANDS.values()) == pytest.approx(1)
    for hands, deck in ((dealt.forbidden, FORBIDDEN), (dealt.allowed, ALLOWED)):
        assert sorted(itertools.chain(*hands.values())) == sorted(deck)
        for name, share in HANDS.items():
            assert abs(len(hands[name]) - share * len(deck)) <= 1


def test_another_seed_deals_otherwise():
    assert deal_requests(7) == deal_requests(7)
    assert deal_requests(7).forbidden["advbench"] != deal_requests(8).forbidden["advbench"]


def test_no_request_is_part_of_another():
    for first, second in itertools.permutations([request.text for request in FORBIDDEN + ALLOWED[:40]], 2):
        assert first not in second


def test_a_hand_is_asked_in_every_phrasing_once():
    hand = FORBIDDEN[:5]
    prompts = list(distinct_prompts(random.Random(0), hand))
    assert len({prompt for _, prompt in prompts}) == len(prompts) == len(hand) * len(world.PHRASINGS)
    assert all(request_of(prompt) == request for request, prompt in prompts)
    assert [request for request, _ in prompts] != sorted(request for request, _ in prompts)
