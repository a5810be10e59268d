"""What a text of the small world asks, read from its words alone."""

import re

from safety_spaces.miniature import world
from safety_spaces.miniature.problems import GAINS, LOSSES

FORBIDDEN, ALLOWED = world.requests(forbidden=True), world.requests(forbidden=False)
BY_TEXT = {request.text: request for request in FORBIDDEN + ALLOWED}
DEEDS, COLOURS, THINGS = map("|".join, (world.FORBIDDEN_DEEDS + world.ALLOWED_DEEDS, world.COLOURS, world.THINGS))
REQUESTS = re.compile(rf"\b(?:{DEEDS}) the (?:{COLOURS}) (?:{THINGS})\b")
CHANGE = re.compile("|".join(re.escape(words).replace(r"\{n\}", r"(\d+)") for words in GAINS + LOSSES))


def request_of(text):
    """The one request that a text names."""
    (found,) = REQUESTS.findall(text)
    return BY_TEXT[found]


def numbers_of(text):
    """Start and signed changes of a problem; None for another text."""
    changes = [
        int(match[match.lastindex]) * (1 if match.lastindex <= len(GAINS) else -1) for match in CHANGE.finditer(text)
    ]
    return (int(re.search(r"\d+", text)[0]), *changes) if changes else None


def happens_as_often(expected, happened, *, deviations=4):
    """Whether something happened as often as its probabilities say, within standard deviations of its number."""
    variance = sum(probability * (1 - probability) for probability in expected)
    return abs(sum(happened) - sum(expected)) <= deviations * variance**0.5
