"""Rows of a data set by its name in a study: from the Hugging Face hub, or from a local copy of the user."""

import ast
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    data_set, conditions, source = (
        find_data_set(name, own=() if names is None else (name,)),
        dict(where or {}),
        _source(path, name),
    )
    needed = dict.fromkeys((*(data_set.columns if columns is None else columns), *conditions))
    theirs = {data_set.aliases.get(own, own): column for own, column in (names or {}).items()}

    def choose(came: Iterable[str]) -> dict[str, str]:
        return {own: _find_column(own, list(came), data_set, theirs, name=name, source=source) for own in needed}

    found = _found_rows(path, name, data_set, choose, prompt=theirs.get(data_set.prompt, data_set.prompt))
    if names is not None and not names and path is not None:
        _check_size(path, name, len(found))
    chosen = choose(dict.fromkeys(column for row in found for column in row)) if found else {}
    read = {own: _reader(own, data_set, conditions.get(own)) for own in chosen}
    rows = [{own: read[own](row.get(column)) for own, column in chosen.items()} for row in found]
    kept = dict(enumerate(rows, 1))
    for column, value in conditions.items():
        _check_comparable([row[column] for row in rows], value, column=column, source=source)
        kept = {number: row for number, row in kept.items() if row[column] == value}
    if not kept:
        asked = f"rows with {quote(conditions)}" if found else "rows"
        raise UserError(f"{source}: expected {asked}, got none; correct `where` or the path in the study")
    for column in (column for column in data_set.texts if column in needed):
        # A set of the hub is as it is; a file can be mended.
        _check_texts(kept, column, source=source, may_be_blank=column != data_set.prompt or path is None)
    return list(kept.values())


def _found_rows(
    path: Path | None, name: str, data_set: DataSet, choose: Callable[[Iterable[str]], dict[str, str]], *, prompt: str
) -> list[Row]:
    if path is not None:
        files = folder_files(path, name, hub=data_set.hub) if path.is_dir() else [path]
        return [row for file in files for row in read_file(file, prompt=prompt)]
    if data_set.hub is None:
        raise UserError(
            f"{name}: expected a local copy, it is on no hub; name it: datasets: {{{name}: {{path: FILE}}}}"
        )
    return read_hub(name, data_set.hub, choose=lambda came: choose(came).values(), access=data_set.access)


def _find_column(
    own: str, came: Sequence[str], data_set: DataSet, theirs: Mapping[str, str], *, name: str, source: str
) -> str:
    """Return the name that a column of the table has among those that came."""
    aliases = [other for other, of in data_set.aliases.items() if of == own]
    candidates = [theirs[own]] if own in theirs else [own, *aliases]
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


def is_text(value: object) -> bool:
    """Say whether a value is a text that can be written; JSON can hold half of a character, a lone surrogate."""
    return isinstance(value, str) and not LONE_SURROGATE.search(value)


def _check_texts(rows: Mapping[int, Row], column: str, *, source: str, may_be_blank: bool) -> None:
    for number, row in rows.items():
        if not is_text(text := row[column]) or not (may_be_blank or text.strip()):
            came = f"{quote(repr(text))} in row {number}"
            raise UserError(f"{source}: expected text in the column {column}, got {came}; mend the data set")


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
    data_set = find_data_set(name, own=(name,))
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
