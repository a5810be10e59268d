"""How many states a position gives."""

import pytest

from safety_spaces.evaluation.positions import Tokens, number_of_states
from safety_spaces.study import SingleToken, TokenWindow

LONG, SHORT, SILENT = Tokens([1, 2, 3, 4, 5], [6, 7, 8]), Tokens([1, 2], [3]), Tokens([1, 2, 3], [])


def window(of, start, stop, combine="stacked"):
    return TokenWindow(of=of, start=start, stop=stop, combine=combine)


@pytest.mark.parametrize(
    ("position", "number"),
    [
        (SingleToken.last_prompt_token, 3),
        (SingleToken.last_generated_token, 3),
        (SingleToken.last_column, 3),
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
