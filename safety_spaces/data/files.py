"""Rows of one file, with texts as they were written: a cell of a CSV file is text, whatever it looks like."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.ipc  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]

from safety_spaces.data.table import Row
from safety_spaces.errors import UserError, quote

KINDS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".arrow", ".parquet")
OPENERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Ending of a compressed file -> what opens it."""
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LFS_POINTER = "version https://git-lfs"
SEPARATORS = (",", ";", "\t")
"""Separators of a CSV file, the first that its header holds: Excel writes semicolons in half of Europe."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?=\r?\n)')
"""How Excel names the separator, on a line before the header."""
LETTERS = ("A", "B", "C", "D")
MMLU_HEADER = ("question", *LETTERS, "answer")
"""Columns of MMLU's own files, which have no header; the subject is in the name of the file."""


def read_file(path: Path, *, prompt: str) -> list[Row]:
    """Read a file, of text with one `prompt` (a column) a line; raises UserError, with its line, when it cannot be."""
    if not path.is_file():
        raise UserError(f"{path}: expected a data set, found no file or folder; correct its path in the study")
    kind = Path(path.stem if path.suffix.lower() in OPENERS else path).suffix.lower()
    if kind not in KINDS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(KINDS)}; convert it")
    try:
        if kind == ".parquet":
            return list(pyarrow.parquet.read_table(path).to_pylist())
        if kind == ".arrow":
            with pyarrow.ipc.open_stream(path) as stream:
                return list(stream.read_all().to_pylist())
        text = _read_text(path)
        if kind == ".txt":
            return [{prompt: line.removesuffix("\r")} for line in text.split("\n") if line.strip()]
        if kind in (".csv", ".tsv"):
            return _csv_rows(text, path.name, separator="\t" if kind == ".tsv" else None)
        return _json_rows(text, prompt, may_be_lines=kind == ".jsonl")
    except (ValueError, OSError, EOFError, RecursionError, csv.Error, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as {kind} ({quote(error)}); write it again") from error


def _read_text(path: Path) -> str:
    with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
        content: bytes = file.read()
    try:
        text = content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line}: expected UTF-8, got the byte {error.object[error.start]:#x}") from error
    if text.startswith(LFS_POINTER):
        raise ValueError("a pointer of Git LFS, not the file; run git lfs pull")
    if "\0" in text:
        raise ValueError(f"line {text.count(chr(10), 0, text.index(chr(0))) + 1}: expected UTF-8, got a zero byte")
    return text


def _json_rows(text: str, prompt: str, *, may_be_lines: bool) -> list[Row]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if not may_be_lines and error.msg != "Extra data":
            raise
        # Not splitlines: a text may hold other separators of lines, such as U+2028.
        document = [_parse(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = _rows_of(document, prompt) if isinstance(document, dict) else document
    if not isinstance(rows, list):
        raise ValueError(f"expected objects, got {rows!r}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict | str):
            raise ValueError(f"row {number}: expected an object, got {row!r}")
    return [{prompt: row} if isinstance(row, str) else row for row in rows]


def _parse(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}, column {error.colno}") from error


def _rows_of(document: Row, prompt: str) -> list[Row]:
    """Return the rows of one object: rows by name or under one key, its columns, or itself as the only row."""
    values = list(document.values())
    if values and all(isinstance(value, dict) and prompt in value for value in values):
        return values
    under = [key for key, value in document.items() if value and isinstance(value, list) and isinstance(value[0], dict)]
    if under and prompt not in document:
        if len(under) > 1:
            raise ValueError(f"expected rows under one key, got them under {', '.join(under)}")
        return list(document[under[0]])
    # pandas writes a column as an object of its values by their numbers.
    columns = [list(value.values()) if isinstance(value, dict) else value for value in values]
    if not columns or not all(isinstance(column, list) for column in columns):
        return [document]
    if len(set(map(len, columns))) > 1:
        lengths = ", ".join(f"{len(column)} in {key}" for key, column in zip(document, columns, strict=True))
        raise ValueError(f"expected columns of one length, got {lengths}")
    return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]


def _csv_rows(text: str, name: str, *, separator: str | None) -> list[Row]:
    if named := SEPARATOR_LINE.match(text):
        # Its line stays, an empty one: lines are counted as in the file.
        separator, text = separator or named[1], text[named.end() :]
    header_line = text.lstrip().partition("\n")[0]
    records = _records(text, separator or next((one for one in SEPARATORS if one in header_line), ","))
    header = records[0][1] if records else []
    has_header = len(header) != len(MMLU_HEADER) or header[-1] not in LETTERS
    rows = _named(header, records[1:]) if has_header else _named(MMLU_HEADER, records)
    return [_multiple_choice(row, name) for row in rows] if rows and rows[0].keys() >= set(MMLU_HEADER[1:]) else rows


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Return the records of a CSV file that are not blank, each with the line of the file that it begins in."""
    csv.field_size_limit(max(len(text), csv.field_size_limit()))
    reader, records, line = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True), [], 1
    try:
        for record in reader:
            if any(cell.strip() for cell in record):
                records.append((line, record))
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"line {line}: {error}") from error
    return records


def _named(header: Sequence[str], records: Sequence[tuple[int, list[str]]]) -> list[Row]:
    names = [name.strip() for name in header]
    while names and not names[-1]:
        names.pop()
    if repeated := [name for name in names if name and names.count(name) > 1]:
        raise ValueError(f"expected every column once in the header, got {repeated[0]} twice")
    # An empty field too many is no part of a text where the header, or every record, ends in a separator.
    count = len(names)
    spare = len(header) - count or int(all(len(record) == count + 1 for _, record in records))
    for line, record in records:
        if not count <= len(record) <= count + spare or any(record[count:]):
            expected = f"expected {count} fields, as in the header, got {len(record)}"
            raise ValueError(f"line {line}: {expected}; put a text with a separator in quotes")
    return [dict(zip(names, record, strict=False)) for _, record in records]


def _multiple_choice(row: Row, name: str) -> Row:
    """Return a row of MMLU's own files in the columns of the hub: a list of choices, the number of the right one."""
    subject = re.sub(r"_(test|dev|val)$", "", name.partition(".")[0])
    answer = LETTERS.index(row["answer"]) if row["answer"] in LETTERS else row["answer"]
    return {"subject": subject, **row, "choices": [row[letter] for letter in LETTERS], "answer": answer}
