"""The promise that no row is missing: a cell that is absent, repeated or empty is an error, never a hole.

A mean over what happens to be there would hide a run that stopped half-way. Each selection therefore names the whole
grid that the study asked for.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

import pandas as pd

from safety_spaces.errors import UserError


def where(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """The rows whose columns have these values."""
    for column, value in wanted.items():
        table = table[(table[column] == value).fillna(False)]
    return table


def complete(
    rows: pd.DataFrame, name: str, axes: Mapping[str, Sequence[object]], *, values: tuple[str, ...] = ()
) -> pd.DataFrame:
    """The rows of the full product of axes, each exactly once and with all its values.

    Raises:
        UserError: a cell is missing, there twice, or without one of its values.
    """
    for axis, wanted in axes.items():
        rows = rows[rows[axis].isin(list(wanted))]
    found = Counter(zip(*(rows[axis] for axis in axes), strict=True))
    cells = list(product(*axes.values()))
    for wrong, word in (
        ([c for c in cells if found[c] == 0], "missing"),
        ([c for c in cells if found[c] > 1], "repeated"),
    ):
        if wrong:
            first = ", ".join(f"{axis} {part}" for axis, part in zip(axes, wrong[0], strict=True))
            raise UserError(
                f"{name}: {len(wrong)} of {len(cells)} cells {word}, first {first}; run that experiment again"
            )
    for column in values:
        if rows[column].isna().any():
            advice = "see to the judge, which scored none of the answers" if column == "value" else "run it again"
            raise UserError(f"{name}: {column} is empty in {int(rows[column].isna().sum())} cells; {advice}")
    return rows
