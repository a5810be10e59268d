"""Which tokens a position names, by exact indices, and what it says of itself."""

import json

import pytest
from pydantic_core import to_jsonable_python

from safety_spaces.study import ActivationSpaces, SingleToken, TokenWindow

LONG, SHORT, SILENT = (5, 8), (2, 3), (3, 3)
"""Tokens of a prompt, and of prompt and answer."""


def window(of, start, stop, combine="stacked"):
    return TokenWindow(of=of, start=start, stop=stop, combine=combine)


@pytest.mark.parametrize(
    ("position", "long", "short", "silent"),
    [
        (SingleToken.last_prompt_token, [4], [1], [2]),
        (SingleToken.last_generated_token, [7], [2], [2]),
        (SingleToken.last_column, [10], [10], [10]),
        (window("prompt", 0, 3), [0, 1, 2], [0, 1], [0, 1, 2]),
        (window("prompt", 2, 9, "averaged"), [2, 3, 4], [], [2]),
        (window("generated", 0, 2), [5, 6], [2], []),
        (window("generated", 1, 3, "averaged"), [6, 7], [], []),
        (window("generated", 3, 4), [], [], []),
    ],
)
def test_a_position_names_these_tokens(position, long, short, silent):
    read = [list(position.span(prompt, length, 11)) for prompt, length in (LONG, SHORT, SILENT)]
    assert read == [long, short, silent]


@pytest.mark.parametrize(
    ("position", "name", "words", "at_most", "averaged", "answer"),
    [
        (SingleToken.last_prompt_token, "last_prompt_token", "last prompt token", 1, False, None),
        (SingleToken.last_generated_token, "last_generated_token", "last generated token", 1, False, None),
        (window("prompt", 0, 4), "prompt-0-4-stacked", "prompt tokens 0 to 3, stacked", 4, False, None),
        (window("prompt", 1, 4, "averaged"), "prompt-1-4-averaged", "prompt tokens 1 to 3, averaged", 1, True, None),
        (window("generated", 2, 6), "generated-2-6-stacked", "generated tokens 2 to 5, stacked", 4, False, 6),
    ],
)
def test_a_position_answers_for_itself(position, name, words, at_most, averaged, answer):
    assert (position.name, position.words) == (name, words)
    assert (position.states_of_prompt, position.is_averaged) == (at_most, averaged)
    assert position.answer_tokens == answer
    assert position.reads_answer == ("generated" in name)


def test_a_position_is_in_tables_and_keys_as_in_the_study():
    token, early = SingleToken.last_column, window("prompt", 2, 8, "averaged")
    assert json.dumps(to_jsonable_python([token, early])) == (
        '["last_column", {"of": "prompt", "start": 2, "stop": 8, "combine": "averaged"}]'
    )
    columns = ("position", "window_of", "window_start", "window_stop", "window_combine")
    assert tuple(token.table_columns.items()) == tuple(zip(columns, ("last_column", *4 * [None]), strict=True))
    assert early.table_columns == dict(zip(columns, ("early_window", "prompt", 2, 8, "averaged"), strict=True))
    assert (token.prompt_window, early.prompt_window) == (None, range(2, 8))
    assert window("generated", 2, 8).prompt_window is None


def test_text_is_a_position_and_a_position_text():
    settings = ActivationSpaces.model_validate({
        "positions": ["last_prompt_token", {"of": "generated", "stop": 3, "combine": "stacked"}],
        "prompts": 1, "etas": [0.5], "checkpoints": ["base"],
        "sets": {name: {"dataset": "math"} for name in ("useful", "harmful_1", "harmful_2")},
    })  # fmt: skip
    assert settings.positions == (SingleToken.last_prompt_token, window("generated", 0, 3))
    assert settings.model_dump()["positions"] == ("last_prompt_token", window("generated", 0, 3).model_dump())
    assert ActivationSpaces.model_validate_json(settings.model_dump_json()) == settings
    assert {SingleToken.last_column: 1}["last_column"] == 1
