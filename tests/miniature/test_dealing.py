"""Every request has one owner, and no request hides in another."""

import itertools
import random
from collections import Counter

from safety_spaces.miniature import world
from safety_spaces.miniature.dealing import EVALUATION_DEEDS, HANDS, deal_requests, distinct_prompts, evaluation_deeds
from safety_spaces.miniature.world import Request
from tests.miniature.readers import ALLOWED, FORBIDDEN, request_of


def test_hands_are_disjoint_and_every_request_is_dealt():
    dealt = deal_requests(7)
    for hands, deck in ((dealt.forbidden, FORBIDDEN), (dealt.allowed, ALLOWED)):
        assert sorted(itertools.chain(*hands.values())) == sorted(deck)


def test_a_deed_has_as_many_requests_in_each_hand_as_others_of_its_kind():
    dealt = deal_requests(7)
    deals = {kind: dict.fromkeys(HANDS[kind], 0) for kind in HANDS}
    counted = Counter(
        (request.deed, hand) for hands in (dealt.forbidden, dealt.allowed) for hand in hands for request in hands[hand]
    )
    for deed in world.FORBIDDEN_DEEDS + world.ALLOWED_DEEDS:
        kind = (
            "evaluation" if deed in evaluation_deeds(7) else "forbidden" if deed in world.FORBIDDEN_DEEDS else "allowed"
        )
        assert {hand: number for (of, hand), number in counted.items() if of == deed} == HANDS[kind]
        deals[kind] = HANDS[kind]
    assert all(sum(sizes.values()) == len(world.requests_of("wake")) for sizes in deals.values())


def test_another_seed_deals_otherwise_and_evaluates_other_deeds():
    assert deal_requests(7) == deal_requests(7)
    assert deal_requests(7).forbidden["advbench"] != deal_requests(8).forbidden["advbench"]
    assert evaluation_deeds(7) != evaluation_deeds(8)
    assert len(evaluation_deeds(7)) == len(evaluation_deeds(8)) == EVALUATION_DEEDS


def test_no_request_is_part_of_another():
    # Two that share no colour cannot.
    texts = [
        Request(deed, "amber", thing).text
        for deed in world.FORBIDDEN_DEEDS + world.ALLOWED_DEEDS
        for thing in world.THINGS
    ]
    assert not [(first, second) for first, second in itertools.permutations(texts, 2) if first in second]


def test_a_hand_is_asked_in_every_phrasing_once():
    hand = FORBIDDEN[:5]
    prompts = list(distinct_prompts(random.Random(0), hand))
    assert len({prompt for _, prompt in prompts}) == len(prompts) == len(hand) * len(world.PHRASINGS)
    assert all(request_of(prompt) == request for request, prompt in prompts)
    assert [request for request, _ in prompts] != sorted(request for request, _ in prompts)


def test_prompts_take_deeds_in_turn_and_no_request_again_before_all_had_theirs():
    hand = [request for at in (0, 96, 480) for request in FORBIDDEN[at : at + 7]]
    asked = [request for request, _ in distinct_prompts(random.Random(1), hand)]
    assert len({request.deed for request in hand}) == 3
    for start in range(0, len(asked), 3):
        assert len({request.deed for request in asked[start : start + 3]}) == 3
    for start in range(0, len(asked), len(hand)):
        assert sorted(asked[start : start + len(hand)]) == sorted(hand)
