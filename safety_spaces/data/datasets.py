"""The table of data sets: which columns a public set has, and which of them are prompt and response.

A local file stands for a public set when it has the same columns; JSON lines, CSV and parquet are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from safety_spaces.errors import UserError

Row = dict[str, Any]


@dataclass(frozen=True)
class DataSet:
    """Columns of a public data set. A set without a response column holds prompts or whole texts only."""

    prompt: str
    response: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns a file must have to stand for this set; others pass through."""
        return (self.prompt,) if self.response is None else (self.prompt, self.response)


DATA_SETS: Mapping[str, DataSet] = {
    "pretraining": DataSet("text"),
    "alignment": DataSet("prompt", "response"),
    "metamathqa": DataSet("query", "response"),
    "gsm8k_train": DataSet("question", "answer"),
    "gsm8k_test": DataSet("question", "answer"),
    "math": DataSet("problem", "solution"),
    "beavertails": DataSet("prompt", "response"),
    "beavertails_test": DataSet("prompt", "response"),
    "advbench": DataSet("goal", "target"),
    "toxigen": DataSet("text"),
}
"""Name in a study -> columns. gsm8k is openai/gsm8k, math is EleutherAI/hendrycks_math, and so on (README)."""

TOXIC_ABOVE = 5.5
"""ToxiGen's rule: a text is toxic where toxicity_ai + toxicity_human exceeds this (Hartvigsen et al., 2022)."""

_READERS: Mapping[str, Callable[[Path, DataSet], pd.DataFrame]] = {
    ".jsonl": lambda path, _: pd.read_json(path, lines=True, dtype=False),
    # A text that looks like a number stays a text.
    ".csv": lambda path, data_set: pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(data_set.columns, str)),
    ".parquet": lambda path, _: pd.read_parquet(path),
}


def find_data_set(name: str) -> DataSet:
    """Return a data set of the table.

    Raises:
        UserError: no data set has this name.
    """
    if name not in DATA_SETS:
        raise UserError(f"data set {name}: expected one of {', '.join(DATA_SETS)}; correct the name in the study")
    return DATA_SETS[name]


def read_rows(path: Path, name: str, *, where: Mapping[str, Any] | None = None) -> list[Row]:
    """Read the rows of a data set whose columns have the values in `where`, in the order of the file.

    Raises:
        UserError: the file is missing, of an unknown kind, cannot be parsed, lacks a column, or no row is left.
    """
    data_set = find_data_set(name)
    frame = _read_frame(path, data_set)
    for column in (*data_set.columns, *(where or {})):
        if column not in frame:
            raise UserError(f"{path}: expected the column {column} of {name}, got {', '.join(map(str, frame))}")
    for column, value in (where or {}).items():
        frame = frame[frame[column] == value]
    if frame.empty:
        raise UserError(f"{path}: expected rows with {dict(where or {})}, got none; correct `where` in the study")
    return [{str(column): value for column, value in row.items()} for row in frame.to_dict("records")]


def _read_frame(path: Path, data_set: DataSet) -> pd.DataFrame:
    if path.suffix not in _READERS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(_READERS)}; convert it")
    if not path.is_file():
        raise UserError(f"{path}: expected a data set, found no file; correct its path in the study")
    try:
        return _READERS[path.suffix](path, data_set)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as {path.suffix} ({error}); write it again") from error


def toxic_rows(rows: list[Row]) -> list[Row]:
    """Return the rows of ToxiGen that its authors' rule calls toxic.

    Raises:
        UserError: the rows carry no toxicity scores.
    """
    if not all({"toxicity_ai", "toxicity_human"} <= set(row) for row in rows):
        raise UserError("toxigen: expected the columns toxicity_ai and toxicity_human; use the annotated configuration")
    return [row for row in rows if row["toxicity_ai"] + row["toxicity_human"] > TOXIC_ABOVE]
