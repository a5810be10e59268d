"""Rows of a local copy: one file, or a folder as it lies on the Hugging Face hub.

Texts come as they were written: a cell of a CSV file is text, whatever it looks like.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.ipc  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import yaml

from safety_spaces.data.progress import without_progress_bars
from safety_spaces.data.table import Hub, Row
from safety_spaces.errors import UserError, quote

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
    """Read JSON (lines), CSV, TSV, Arrow, parquet, or a text file with one `prompt` (the name of its column) a line.

    Raises:
        UserError: the file is missing, of an unknown kind, or cannot be parsed; which line.
    """
    if not path.is_file():
        raise UserError(f"{path}: expected a data set, found no file or folder; correct its path in the study")
    kind = _kind(path)
    if kind not in _READERS:
        raise UserError(f"{path}: expected a file that ends in {', '.join(_READERS)}; convert it")
    try:
        return _READERS[kind](path, prompt)
    except (ValueError, OSError, EOFError, RecursionError, csv.Error, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as {kind} ({quote(error)}); write it again") from error


def _kind(path: Path) -> str:
    return (Path(path.stem).suffix if path.suffix.lower() in OPENERS else path.suffix).lower()


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


def _read_lines(path: Path, prompt: str) -> list[Row]:
    lines = (line.removesuffix("\r") for line in _read_text(path).split("\n"))
    return [{prompt: line} for line in lines if line.strip()]


def _read_json(path: Path, prompt: str) -> list[Row]:
    text = _read_text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if _kind(path) == ".json" and error.msg != "Extra data":
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
    # pandas writes a column as an object of its values by their numbers.
    columns = {key: list(value.values()) if isinstance(value, dict) else value for key, value in document.items()}
    under = [key for key, value in document.items() if value and isinstance(value, list) and isinstance(value[0], dict)]
    if under and prompt not in document:
        if len(under) > 1:
            raise ValueError(f"expected rows under one key, got them under {', '.join(under)}")
        return list(document[under[0]])
    if not columns or not all(isinstance(column, list) for column in columns.values()):
        return [document]
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{len(column)} in {key}" for key, column in columns.items())
        raise ValueError(f"expected columns of one length, got {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _read_csv(path: Path, _: str) -> list[Row]:
    text = _read_text(path)
    if named := SEPARATOR_LINE.match(text):
        # Its line stays, an empty one: lines are counted as in the file.
        separator, text = named[1], text[named.end() :]
    else:
        header_line = text.lstrip().partition("\n")[0]
        separator = next((one for one in SEPARATORS if one in header_line), ",")
    records = _records(text, "\t" if _kind(path) == ".tsv" else separator)
    header = records[0][1] if records else []
    if len(header) == len(MMLU_HEADER) and header[-1] in LETTERS:
        return [_multiple_choice(row, path) for row in _named(MMLU_HEADER, records)]
    rows = _named(header, records[1:])
    return [_multiple_choice(row, path) for row in rows] if rows and {*LETTERS, "answer"} <= rows[0].keys() else rows


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
    for name in filter(None, names):
        if names.count(name) > 1:
            raise ValueError(f"expected every column once in the header, got {name} twice")
    # An empty field too many is no part of a text where the header, or every record, ends in a separator.
    spare = len(header) - len(names) or int(all(len(record) == len(names) + 1 for _, record in records))
    for line, record in records:
        if not len(names) <= len(record) <= len(names) + spare or any(record[len(names) :]):
            raise ValueError(
                f"line {line}: expected {len(names)} fields, as in the header, got {len(record)}; put a text with a "
                "separator in quotes"
            )
    return [dict(zip(names, record, strict=False)) for _, record in records]


def _multiple_choice(row: Row, path: Path) -> Row:
    """Return a row of MMLU's own files in the columns of the hub: a list of choices, the number of the right one."""
    subject = re.sub(r"_(test|dev|val)$", "", path.name.partition(".")[0])
    choices = [row[letter] for letter in LETTERS]
    answer = LETTERS.index(row["answer"]) if row["answer"] in LETTERS else row["answer"]
    return {"subject": subject, **row, "choices": choices, "answer": answer}


def _read_parquet(path: Path, _: str) -> list[Row]:
    rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def _read_arrow(path: Path, _: str) -> list[Row]:
    with pyarrow.ipc.open_stream(path) as stream:
        rows: list[Row] = stream.read_all().to_pylist()
    return rows


_READERS: Mapping[str, Callable[[Path, str], list[Row]]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_lines,
    ".arrow": _read_arrow,
    ".parquet": _read_parquet,
}


def folder_files(folder: Path, name: str, *, hub: Hub | None) -> list[Path]:
    """Return the files of a folder that hold the split of a data set, the configurations of `hub` in their order.

    A folder with one split stands for any split, a folder with one configuration for all, unless the names of its files
    say otherwise. MMLU's own folder has a file for each subject.

    Raises:
        UserError: the folder holds no data files, or not the split or the configurations.
    """
    import datasets

    configs = hub.configs if hub else ()
    if hub and (subjects := sorted(folder.glob(f"**/{hub.split}/*_{hub.split}.csv"))):
        return subjects
    try:
        with without_progress_bars():
            available = datasets.get_dataset_config_names(str(folder.absolute()))
            choices = _choices(folder, name, configs, available=available)
            files = [file for choice in choices for file in _split_files(folder, name, hub=hub, choice=choice)]
    # What a broken dataset card makes `datasets` raise.
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}: expected data files of {name} ({quote(error)}); name a file of it instead"
        ) from error
    if hub:
        _check_complete(folder, name, hub, files)
    return files


def _choices(folder: Path, name: str, configs: Sequence[str], *, available: Sequence[str]) -> list[dict[str, str]]:
    """Return what tells `datasets` each configuration: its name, or its subfolder in a copy without a dataset card."""
    if configs and set(configs) <= set(available):
        return [{"name": config} for config in configs]
    if configs and all((folder / config).is_dir() for config in configs):
        return [{"data_dir": config} for config in configs]
    if len(available) == 1 and not any((folder / config).is_dir() for config in configs):
        return [{"name": available[0]}]
    missing = ", ".join(config for config in configs if config not in available)
    expected = f"the configurations {quote(missing)}" if configs else "one configuration"
    raise UserError(
        f"{folder}: expected {expected} of {name}, got {quote(', '.join(available))}; copy the whole data set"
    )


def _split_files(folder: Path, name: str, *, hub: Hub | None, choice: Mapping[str, str]) -> list[Path]:
    import datasets

    # A cache of its own: the builder leaves a lock file behind.
    with tempfile.TemporaryDirectory() as cache:
        builder = datasets.load_dataset_builder(str(folder.absolute()), cache_dir=cache, **choice)
    found = {str(split): [Path(file) for file in files] for split, files in builder.config.data_files.items()}
    split, only = hub.split if hub else "", next(iter(found))
    if split not in found and (len(found) > 1 or _is_another(only, split, folder, found[only])):
        expected = f"the split {split}" if split else "one split"
        raise UserError(f"{folder}: expected {expected} of {name}, got {', '.join(found)}; name a file of it")
    files = found.get(split, found[only])
    # GSM8K's own folder holds test_socratic.jsonl beside test.jsonl.
    exact = [file for file in files if re.fullmatch(rf"{split}(-\d+-of-\d+)?", file.name.partition(".")[0])]
    return exact or files


def _is_another(only: str, split: str, folder: Path, files: Sequence[Path]) -> bool:
    """Say whether the files of the only split call themselves another one; `datasets` calls nameless files train."""
    wanted = split.rpartition("_")[2]
    names = [re.split("[^a-z]", file.relative_to(folder.absolute()).as_posix()) for file in files]
    return wanted in ("train", "test", "dev") and wanted != only and any(only in words for words in names)


def _check_complete(folder: Path, name: str, hub: Hub, files: Sequence[Path]) -> None:
    """Check that files which are named after configurations are those of all of them."""
    paths = [file.relative_to(folder.absolute()).as_posix() for file in files]
    named = [one for one in hub.configs if any(re.search(rf"(^|[/.-]|{hub.split}_){one}([/._-]|$)", p) for p in paths)]
    if 0 < len(named) < len(hub.configs):
        missing = ", ".join(one for one in hub.configs if one not in named)
        raise UserError(
            f"{folder}: expected the configurations of {name}, got none of {missing}; copy the whole data set"
        )
