"""Gold answers as lm-eval reads them: what it would score 0 in silence is refused before any work."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from safety_spaces.data.datasets import is_text
from safety_spaces.data.table import Row
from safety_spaces.errors import UserError, quote

GOLD = re.compile(r"(?s)(?:(.*####)\s*|\s*)(?=\S*[0-9])(-?[$0-9.,]{2,}|-?[0-9]+)\s*")
"""A worked answer: its steps, four hashes, and a number as lm-eval's flexible-extract can find it in a response."""
CHOICES = 4
COLUMNS = ("question", "choices", "answer")


def problems(rows: Sequence[Row], *, question: str, answer: str, source: str) -> list[Row]:
    """Return word problems in GSM8K's columns; spaces before and behind the number, which lm-eval compares, are fixed.

    Raises UserError when an answer does not end in a number.
    """
    found = []
    for number, row in enumerate(rows, 1):
        if (gold := GOLD.fullmatch(row[answer])) is None:
            came = f"{quote(repr(row[answer][-40:]))} at the end of row {number}"
            raise UserError(f"{source}: expected answers that end in #### and a number, got {came}; mend the data set")
        found.append({"question": row[question], "answer": " ".join(filter(None, gold.groups()))})
    return found


def check_choice(row: Mapping[str, Any]) -> None:
    """Check a row of multiple choice; raises UserError when it is unlike MMLU's."""
    question, choices, answer = (row[column] for column in COLUMNS)
    where = f"for {quote(repr(question))} of {row['subject']}; mend its data set"
    if not isinstance(choices, list | tuple) or len(choices) != CHOICES or not all(map(is_text, (question, *choices))):
        raise UserError(f"general_ability: expected {CHOICES} texts as choices, got {quote(repr(choices))} {where}")
    if type(answer) is not int or answer not in range(CHOICES):
        raise UserError(
            f"general_ability: expected a number from 0 to {CHOICES - 1} as answer, got {quote(repr(answer))} {where}"
        )
