"""Rows of a data set by its name in a study: from the Hugging Face hub, or from a local copy of the user."""

import ast
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safety_spaces.data.files import read_file
from safety_spaces.data.hub import folder_files, read_hub
from safety_spaces.data.table import DataSet, Row, find_data_set
from safety_spaces.errors import UserError, quote, warn_once
from safety_spaces.study.documents import plain_scalar

TOXIC_ABOVE = 5.5
"""ToxiGen's rule: a text is toxic where toxicity_ai + toxicity_human exceeds this (Hartvigsen et al., 2022)."""
BYTES_LITERAL = re.compile(r"""b(['"])(?:(?!\1)[ -\[\]-~]|\\(?:[\\'nrt]|x[0-9a-f]{2}))*\1""")
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(
    path: Path | None,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Row]:
    """Return the rows of a data set whose columns have the values in `where`, in its own order.

    Without a path they come from the hub, or its cache. A folder is a copy of what lies on the hub, a file one split of
    it. Rows hold `columns`, all of the table by default, and those of `where`. `names` says which column of a user's
    file stands for which of these; only where it is given, a data set need not be in the table. Raises UserError when
    the data set is unknown, cannot be had or read, lacks a column, a row is unusable, or none is left.
    """
    data_set = find_data_set(name, own=() if names is None else (name,))
    conditions, source = dict(where or {}), str(path or name)
    needed = dict.fromkeys((*(data_set.columns if columns is None else columns), *conditions))
    renamed = {data_set.aliases.get(own, own): theirs for own, theirs in (names or {}).items()}

    def choose(came: Sequence[str]) -> dict[str, str]:
        return {own: _find_column(own, came, data_set, renamed, name=name, source=source) for own in needed}

    if path is None:
        found = read_hub(name, data_set, choose=lambda came: choose(came).values())
    else:
        files = folder_files(path, name, hub=data_set.hub) if path.is_dir() else [path]
        prompt = renamed.get(data_set.prompt, data_set.prompt)
        found = [row for file in files for row in read_file(file, prompt=prompt)]
        if names is not None and not names:
            _check_size(path, name, data_set, len(found))
    chosen = choose(list(dict.fromkeys(column for row in found for column in row))) if found else {}
    read = {own: _reader(own, data_set, conditions.get(own)) for own in chosen}
    rows = [{own: read[own](row.get(theirs)) for own, theirs in chosen.items()} for row in found]
    kept = _filtered(rows, conditions, source=source)
    # A set of the hub is as it is; a file can be mended.
    _check_texts(kept, [own for own in data_set.texts if own in needed], source, filled=data_set.prompt if path else "")
    return list(kept.values())


def _check_size(path: Path, name: str, data_set: DataSet, rows: int) -> None:
    """Compare the rows of a copy with the set that it stands for, if the table knows a fixed commit of it."""
    size, hub = data_set.size, data_set.hub
    if size is None or hub is None or not hub.is_pinned or rows == size:
        return
    if path.is_dir() and rows > size:
        # Files of something else are among its own.
        raise UserError(f"{path}: expected the {size} rows of {name}, got {rows}; name one file of it")
    warn_once(f"{path}: {rows} rows, where {name} has {size}; is it a part, or another set?")


def _find_column(
    own: str, came: Sequence[str], data_set: DataSet, renamed: Mapping[str, str], *, name: str, source: str
) -> str:
    """Return the name that a column of the table has among those that came."""
    aliases = [alias for alias, column in data_set.aliases.items() if column == own]
    candidates = [renamed[own]] if own in renamed else [own, *aliases]
    for column in candidates:
        if column in came:
            return column
    advice = f"write datasets: {{{name}: {{path: FILE, columns: {{{own}: COLUMN OF THE FILE}}}}}}"
    raise UserError(f"{source}: expected the column {candidates[0]} of {name}, got {quote(', '.join(came))}; {advice}")


def _reader(column: str, data_set: DataSet, condition: Any) -> Callable[[Any], Any]:
    """Return how cells of a column are read: a CSV file gives numbers, true and false as text too."""
    if column in data_set.texts:
        return _decoded if data_set.is_literal else lambda value: value
    if isinstance(condition, str) or (column not in data_set.columns and condition is None):
        return lambda value: value
    return lambda value: plain_scalar(value.strip()) if isinstance(value, str) else value


def _decoded(text: Any) -> Any:
    """Return what a bytes literal of Python says; anything else as it is."""
    if not isinstance(text, str) or not BYTES_LITERAL.fullmatch(text):
        return text
    content: bytes = ast.literal_eval(text)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _filtered(rows: Sequence[Row], conditions: Mapping[str, Any], *, source: str) -> dict[int, Row]:
    """Return the rows that meet the conditions by their numbers; none is left out for another way to say the same."""
    for column, condition in conditions.items():
        expected = {bool: "true or false", str: "text"}.get(type(condition))
        for number, row in enumerate(rows, 1):
            value = row[column]
            # 0 and 1 equal false and true.
            fits = isinstance(value, str) if expected == "text" else value in (False, True)
            if expected and value is not None and not fits:
                came = f"{quote(repr(value))} in row {number}; correct `where` in the study"
                raise UserError(f"{source}: expected {expected} in the column {column}, as `where` has it, got {came}")
    met = conditions.items()
    kept = {n: row for n, row in enumerate(rows, 1) if all(row[column] == value for column, value in met)}
    if not kept:
        asked = f"rows with {quote(conditions)}" if rows else "rows"
        raise UserError(f"{source}: expected {asked}, got none; correct `where` or the path in the study")
    return kept


def is_text(value: object) -> bool:
    """Say whether a value is a text that can be written; JSON can hold half of a character, a lone surrogate."""
    return isinstance(value, str) and not LONE_SURROGATE.search(value)


def _check_texts(rows: Mapping[int, Row], columns: Sequence[str], source: str, *, filled: str) -> None:
    """Check that texts are texts, and those of one column not blank."""
    for column in columns:
        for number, row in rows.items():
            if not is_text(text := row[column]) or (column == filled and not text.strip()):
                came = f"{quote(repr(text))} in row {number}"
                raise UserError(f"{source}: expected text in the column {column}, got {came}; mend the data set")


def toxic_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of ToxiGen that its authors' rule calls toxic; raises UserError when a score is no number."""
    scores = [(row.get("toxicity_ai"), row.get("toxicity_human")) for row in rows]
    if not all(isinstance(score, int | float) and math.isfinite(score) for pair in scores for score in pair):
        raise UserError("toxigen: expected numbers in toxicity_ai and toxicity_human; use the annotated configuration")
    return [row for row in rows if row["toxicity_ai"] + row["toxicity_human"] > TOXIC_ABOVE]
