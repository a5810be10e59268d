"""Who may ask what: the requests of the world dealt once into disjoint hands.

Pretraining, alignment, fine-tuning, activations and evaluation share no request, so that training and evaluation share
no prompt and harmful fine-tuning shares none with alignment.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safety_spaces.miniature import world
from safety_spaces.miniature.world import Request

HANDS = {"pretraining": 0.35, "alignment": 0.20, "beavertails": 0.20, "beavertails_test": 0.125, "advbench": 0.125}
"""Share of each hand, of the forbidden and of the allowed requests."""


@dataclass(frozen=True)
class Dealt:
    """Requests by hand: no request is in two hands."""

    forbidden: Mapping[str, Sequence[Request]]
    allowed: Mapping[str, Sequence[Request]]


def deal_requests(seed: int) -> Dealt:
    """Deal the world's requests into disjoint hands, in the shares of `HANDS`."""
    hands = []
    for forbidden in (True, False):
        deck = world.requests(forbidden=forbidden)
        random.Random(f"{seed}-deal-{forbidden}").shuffle(deck)
        cuts = [round(len(deck) * share) for share in itertools.accumulate(HANDS.values())]
        hands.append({name: deck[start:end] for name, start, end in zip(HANDS, [0, *cuts], cuts, strict=False)})
    return Dealt(forbidden=hands[0], allowed=hands[1])


def distinct_prompts(generator: random.Random, hand: Sequence[Request]) -> Iterator[tuple[Request, str]]:
    """Yield every request of a hand in every phrasing, once each, in an order that the generator draws."""
    prompts = [(request, phrasing.format(request=request.text)) for request in hand for phrasing in world.PHRASINGS]
    generator.shuffle(prompts)
    yield from prompts
