"""Who may ask what: the requests of the world dealt once into disjoint hands.

Pretraining, alignment, fine-tuning, activations and evaluation share no request, so that training and evaluation share
no prompt and harmful fine-tuning shares none with alignment. Evaluation and harmful fine-tuning share not even a deed:
what fine-tuning undoes is the refusal of deeds that it never mentions.
"""

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safety_spaces.miniature import world
from safety_spaces.miniature.world import Request

EVALUATION_DEEDS = 50
"""Forbidden deeds that the evaluation asks for; harmful fine-tuning answers the others alone."""

HANDS = {
    "evaluation": {"pretraining": 60, "alignment": 24, "advbench": 12},
    "forbidden": {"pretraining": 64, "alignment": 24, "beavertails": 4, "beavertails_test": 4},
    "allowed": {"pretraining": 56, "alignment": 20, "beavertails": 4, "beavertails_test": 4, "advbench": 12},
}
"""Requests of one deed in each hand: of a forbidden deed of the evaluation, of another forbidden, of an allowed one."""


@dataclass(frozen=True)
class Dealt:
    """Requests by hand: no request is in two hands."""

    forbidden: Mapping[str, Sequence[Request]]
    allowed: Mapping[str, Sequence[Request]]


def deal_requests(seed: int) -> Dealt:
    """Deal the requests of every deed into disjoint hands, as many as `HANDS` says for its kind."""
    evaluation = evaluation_deeds(seed)
    forbidden: dict[str, list[Request]] = defaultdict(list)
    allowed: dict[str, list[Request]] = defaultdict(list)
    generator = random.Random(f"{seed}-deal")
    for deed in world.FORBIDDEN_DEEDS + world.ALLOWED_DEEDS:
        kind = "evaluation" if deed in evaluation else "forbidden" if deed in world.FORBIDDEN_DEEDS else "allowed"
        deck = iter(generator.sample(requests := world.requests_of(deed), len(requests)))
        for hand, size in HANDS[kind].items():
            (allowed if kind == "allowed" else forbidden)[hand] += itertools.islice(deck, size)
    return Dealt(forbidden=dict(forbidden), allowed=dict(allowed))


def evaluation_deeds(seed: int) -> set[str]:
    """Return the forbidden deeds, drawn, that the evaluation asks for and no harmful fine-tuning answers."""
    return set(random.Random(f"{seed}-evaluation").sample(world.FORBIDDEN_DEEDS, EVALUATION_DEEDS))


def distinct_prompts(generator: random.Random, hand: Sequence[Request]) -> Iterator[tuple[Request, str]]:
    """Yield every request of a hand in every phrasing, once each: deeds in turn, requests in turn, in a drawn order.

    So any first prompts are spread evenly over the deeds, and repeat no request before all have had their turn.
    """
    by_deed: dict[str, list[Request]] = defaultdict(list)
    for request in generator.sample(hand, len(hand)):
        by_deed[request.deed].append(request)
    in_turn = [request for row in itertools.zip_longest(*by_deed.values()) for request in row if request]
    phrasings = {request: generator.sample(world.PHRASINGS, len(world.PHRASINGS)) for request in in_turn}
    for number in range(len(world.PHRASINGS)):
        for request in in_turn:
            yield request, phrasings[request][number].format(request=request.text)
