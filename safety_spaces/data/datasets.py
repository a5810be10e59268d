"""Rows of a data set by its name in a study: from the Hugging Face hub, or from a local copy of the user."""

import ast
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from safety_spaces.data.files import folder_files, read_file
from safety_spaces.data.hub import read_hub
from safety_spaces.data.table import DataSet, Row, find_data_set
from safety_spaces.errors import UserError, quote
from safety_spaces.study.documents import plain_scalar

logger = logging.getLogger(__name__)

TOXIC_ABOVE = 5.5
"""ToxiGen's rule: a text is toxic where toxicity_ai + toxicity_human exceeds this (Hartvigsen et al., 2022)."""
BYTES_LITERAL = re.compile(r"""b(['"])(?:(?!\1)[ -\[\]-~]|\\(?:[\\'nrt]|x[0-9a-f]{2}))*\1""")
"""How Python writes bytes."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(
    path: Path | None,
    name: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
) -> list[Row]:
    """Read the rows of a data set whose columns have the values in `where`, in its own order.

    Without a path they come from the hub, or its cache. A folder is a copy of what lies on the hub, a file one split of
    it. Rows hold `columns`, all of the table by default, and those of `where`. `names` says which column of a user's
    file stands for which of these; only where it is given, a data set need not be in the table.

    Raises:
        UserError: the data set is unknown, cannot be had or read, lacks a column, a row is unusable, or none is left.
    """
    data_set, conditions, source = find_data_set(name, is_own=names is not None), dict(where or {}), _source(path, name)
    needed = list(dict.fromkeys((*(data_set.columns if columns is None else columns), *conditions)))
    if path is None:
        found = _hub_rows(name, data_set, needed)
    else:
        found = _file_rows(path, name, data_set, needed, names or {})
        if names is not None and not names:
            _check_size(path, name, len(found))
    rows = _converted(found, data_set, conditions)
    for column, value in conditions.items():
        _check_comparable([row[column] for row in rows], value, column=column, source=source)
    kept = {
        number: row
        for number, row in enumerate(rows, 1)
        if all(row[column] == value for column, value in conditions.items())
    }
    if not kept:
        asked = f"rows with {quote(conditions)}" if found else "rows"
        raise UserError(f"{source}: expected {asked}, got none; correct `where` or the path in the study")
    for column in (column for column in data_set.texts if column in needed):
        for number, row in kept.items():
            # A set of the hub is as it is; a file can be mended.
            is_prompt = column == data_set.prompt and path is not None
            if not is_text(row[column]) or (is_prompt and not row[column].strip()):
                came = f"{quote(repr(row[column]))} in row {number}"
                raise UserError(f"{source}: expected text in the column {column}, got {came}; mend the data set")
    return list(kept.values())


def _hub_rows(name: str, data_set: DataSet, needed: Sequence[str]) -> list[Row]:
    if data_set.hub is None:
        raise UserError(
            f"{name}: expected a local copy, it is on no hub; name it: datasets: {{{name}: {{path: FILE}}}}"
        )

    def choose(columns: Iterable[str]) -> dict[str, str]:
        return _choose_columns(columns, needed, data_set, {}, name=name, source=name)

    rows = read_hub(name, data_set.hub, choose=lambda columns: choose(columns).values(), access=data_set.access)
    return _renamed(rows, choose(rows[0])) if rows else []


def _file_rows(path: Path, name: str, data_set: DataSet, needed: Sequence[str], names: Mapping[str, str]) -> list[Row]:
    names = {data_set.aliases.get(column, column): theirs for column, theirs in names.items()}
    prompt = names.get(data_set.prompt, data_set.prompt)
    files = folder_files(path, name, hub=data_set.hub) if path.is_dir() else [path]
    rows = [row for file in files for row in read_file(file, prompt=prompt)]
    if not rows:
        return []
    came = dict.fromkeys(column for row in rows for column in row)
    return _renamed(rows, _choose_columns(came, needed, data_set, names, name=name, source=str(path)))


def _choose_columns(
    columns: Iterable[str],
    needed: Iterable[str],
    data_set: DataSet,
    names: Mapping[str, str],
    *,
    name: str,
    source: str,
) -> dict[str, str]:
    """Return the columns that are needed: their names in the table -> their names as they came."""
    came = list(columns)
    chosen: dict[str, str] = {}
    for own in needed:
        others = (other for other, of in data_set.aliases.items() if of == own)
        candidates = (names[own],) if own in names else (own, *others)
        found = [column for column in candidates if column in came]
        if not found:
            advice = f"write datasets: {{{name}: {{path: FILE, columns: {{{own}: COLUMN OF THE FILE}}}}}}"
            raise UserError(
                f"{source}: expected the column {candidates[0]} of {name}, got {quote(', '.join(came))}; {advice}"
            )
        chosen[own] = found[0]
    return chosen


def _renamed(rows: Sequence[Row], chosen: Mapping[str, str]) -> list[Row]:
    return [{own: row.get(theirs) for own, theirs in chosen.items()} for row in rows]


def _converted(rows: Sequence[Row], data_set: DataSet, conditions: Mapping[str, Any]) -> list[Row]:
    """Return rows whose texts are decoded; cells of a CSV file that are no texts become numbers, true or false."""
    compared_as_text = {column for column, value in conditions.items() if isinstance(value, str)}
    typed = {*data_set.columns, *conditions} - {*data_set.texts, *compared_as_text}
    literal = data_set.texts if data_set.is_literal else ()

    def convert(column: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if column in typed:
            return plain_scalar(value.strip())
        return _decoded(value) if column in literal else value

    return [{column: convert(column, value) for column, value in row.items()} for row in rows]


def _decoded(text: str) -> str:
    """Return what a bytes literal of Python says; any other text as it is."""
    if not BYTES_LITERAL.fullmatch(text):
        return text
    content: bytes = ast.literal_eval(text)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def is_text(value: object) -> bool:
    """Say whether a value is a text that can be written; JSON can hold half of a character, a lone surrogate."""
    return isinstance(value, str) and not LONE_SURROGATE.search(value)


def _check_comparable(values: Sequence[Any], condition: Any, *, column: str, source: str) -> None:
    """Check that no row is left out because its column says true or false, or a text, in another way."""
    expected = {bool: "true or false", str: "text"}.get(type(condition))
    for number, value in enumerate(values, 1):
        # 0 and 1 equal false and true.
        fits = isinstance(value, str) if expected == "text" else value in (False, True)
        if expected and value is not None and not fits:
            raise UserError(
                f"{source}: expected {expected} in the column {column}, as `where` has it, got {quote(repr(value))} in "
                f"row {number}; correct `where` in the study"
            )


@lru_cache
def _check_size(path: Path, name: str, rows: int) -> None:
    """Compare the rows of a copy with the set that it stands for, if the table knows a fixed commit of it; say it once.

    Raises:
        UserError: a folder gives more, so files of something else are among its own.
    """
    data_set = find_data_set(name, is_own=True)
    size, hub = data_set.size, data_set.hub
    if size is None or hub is None or hub.revision == "main" or rows == size:
        return
    if path.is_dir() and rows > size:
        raise UserError(f"{path}: expected the {size} rows of {name}, got {rows}; name one file of it")
    logger.warning("warning: %s: %d rows, where %s has %d; is it a part, or another set?", path, rows, name, size)


def _source(path: Path | None, name: str) -> str:
    return name if path is None else str(path)


def source_of(path: Path | None, name: str) -> str:
    """Return where the rows of a data set come from, for the record: its place on the hub, or the name of a file.

    Raises:
        UserError: they come from the hub, and no data set has this name.
    """
    return str(find_data_set(name).hub or name) if path is None else path.name


def toxic_rows(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of ToxiGen that its authors' rule calls toxic.

    Raises:
        UserError: the rows carry no toxicity scores.
    """
    scores = [(row.get("toxicity_ai"), row.get("toxicity_human")) for row in rows]
    if not all(isinstance(score, int | float) and math.isfinite(score) for pair in scores for score in pair):
        raise UserError("toxigen: expected numbers in toxicity_ai and toxicity_human; use the annotated configuration")
    return [row for row in rows if row["toxicity_ai"] + row["toxicity_human"] > TOXIC_ABOVE]
