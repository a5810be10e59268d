"""Which tokens a position names: exact indices."""

import pytest

from safety_spaces.evaluation.positions import Tokens, number_of_states, position_name, tokens_read
from safety_spaces.study import TokenWindow

LONG, SHORT, SILENT = Tokens([1, 2, 3, 4, 5], [6, 7, 8]), Tokens([1, 2], [3]), Tokens([1, 2, 3], [])


def window(of, start, stop, combine="stacked"):
    return TokenWindow(of=of, start=start, stop=stop, combine=combine)


@pytest.mark.parametrize(
    ("position", "long", "short", "silent"),
    [
        ("last_prompt_token", [4], [1], [2]),
        ("last_generated_token", [7], [2], [2]),
        ("last_column", [10], [10], [10]),
        (window("prompt", 0, 3), [0, 1, 2], [0, 1], [0, 1, 2]),
        (window("prompt", 2, 9, "averaged"), [2, 3, 4], [], [2]),
        (window("generated", 0, 2), [5, 6], [2], []),
        (window("generated", 1, 3, "averaged"), [6, 7], [], []),
        (window("generated", 3, 4), [], [], []),
    ],
)
def test_a_position_names_these_tokens(position, long, short, silent):
    read = [list(tokens_read(position, text, width=11)) for text in (LONG, SHORT, SILENT)]
    assert read == [long, short, silent]


@pytest.mark.parametrize(
    ("position", "number"),
    [
        ("last_prompt_token", 3),
        ("last_generated_token", 3),
        ("last_column", 3),
        (window("prompt", 0, 3), 8),
        (window("prompt", 0, 3, "averaged"), 3),
        (window("prompt", 2, 9), 4),
        (window("prompt", 2, 9, "averaged"), 2),
        (window("generated", 1, 3), 2),
        (window("generated", 1, 3, "averaged"), 1),
        (window("generated", 3, 4, "averaged"), 0),
    ],
)
def test_every_token_is_a_state_or_every_text_that_has_one(position, number):
    assert number_of_states(position, [LONG, SHORT, SILENT]) == number


def test_positions_have_names_of_their_own():
    positions = [
        "last_prompt_token",
        window("prompt", 0, 4),
        window("prompt", 0, 4, "averaged"),
        window("generated", 0, 4),
    ]
    names = [position_name(position) for position in positions]
    assert names == ["last_prompt_token", "prompt-0-4-stacked", "prompt-0-4-averaged", "generated-0-4-stacked"]
