"""Files that a run leaves behind: written whole or not at all, named by what made them.

A study runs for hours and is killed now and then. So every result is written beside its place and renamed into it, and
found again by a digest of what determines it, never of paths or times; an edited table is noticed before it is lost.
"""

import csv
import glob
import hashlib
import io
import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError

DIGEST_LENGTH = 16
RECORD = "run.json"
CONFIG_KEYS_WITHOUT_EFFECT = {"_name_or_path", "transformers_version"}
FILES_WITH_EFFECT = ("generation_config.json", "tokenizer.json")
SOURCES = (
    "safety_spaces/**/*.py",
    "safety_spaces/**/*.j2",
    "scripts/*",
    "exp-*/*",
    "requirements.txt",
    "pyproject.toml",
)


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whenever the run is killed.

    Raises:
        UserError: the disk is full or read-only, or the folder may not be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            leftover.unlink(missing_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


@contextmanager
def partial_folder(final: Path) -> Iterator[Path]:
    """Yield an empty `<final>.partial`, renamed to `final` when the block ends well; else it stays, emptied next time.

    Raises:
        UserError: `final` already holds files, or the folder cannot be made or renamed.
    """
    if final.exists() and any(final.iterdir()):
        raise UserError(f"{final}: expected no folder or an empty one; move it away, then run again")
    partial = final.with_name(f"{final.name}.partial")
    with writing(partial):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    yield partial
    with writing(final):
        partial.replace(final)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says against writing `path` into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); free disk space or write elsewhere") from error


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON (sorted keys, floats exact)."""
    content = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


def is_checkpoint(folder: Path) -> bool:
    """Say whether `folder` is a finished checkpoint: config.json and safetensors under its final name."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def checkpoint_identity(folder: Path) -> str:
    """Return the digest of a checkpoint's weights, configuration and tokenizer, whatever its path, age and writer.

    Raises:
        UserError: the folder is not a finished checkpoint.
    """
    config = read_json(folder / "config.json")
    if config is None or not is_checkpoint(folder):
        raise UserError(f"{folder}: expected config.json and *.safetensors; train the checkpoint or correct its path")
    effective = {key: value for key, value in config.items() if key not in CONFIG_KEYS_WITHOUT_EFFECT}
    files = [*folder.glob("*.safetensors"), *(folder / name for name in FILES_WITH_EFFECT if (folder / name).is_file())]
    return digest([effective, [file_digest(path) for path in sorted(files)]])


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is no file or no whole object in it."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class Cells:
    """Finished results in one folder, a file each, by the digest of what determines them."""

    folder: Path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what `put` stored, or None when it is absent or not whole."""
        return read_json(self.folder / f"{key}.json")

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Store a result; floats come back exactly, and a NaN raises ValueError, because a missing number is None."""
        _write_json(self.folder / f"{key}.json", result)


@dataclass(frozen=True)
class Layout:
    """Where the files of one study lie, below the roots of all results and all runs."""

    results: Path
    runs: Path
    study_name: str

    @property
    def results_folder(self) -> Path:
        """Tables, figures, report and run record."""
        return self.results / self.study_name

    @property
    def corpora(self) -> Path:
        """One JSON-lines file per data set that the study writes or is given."""
        return self.runs / self.study_name / "corpora"

    @property
    def base(self) -> Path:
        """The pretrained checkpoint, one for all seeds."""
        return self.runs / self.study_name / "checkpoints" / "base"

    @property
    def judge(self) -> Path:
        """Judge replies, shared by all studies."""
        return self.runs / "judge"

    def checkpoint(self, role: str, seed: int, replicate: int = 0) -> Path:
        """Return the folder of a role's checkpoint; the base has one for all seeds."""
        name = f"{role}-{replicate}" if replicate else role
        return self.base if role == "base" else self._seed(seed) / "checkpoints" / name

    def cells(self, seed: int) -> Path:
        """Return the folder of finished results."""
        return self._seed(seed) / "cells"

    def responses(self, seed: int) -> Path:
        """Return the folder of generated texts."""
        return self._seed(seed) / "responses"

    def states(self, seed: int) -> Path:
        """Return the folder of hidden states."""
        return self._seed(seed) / "states"

    def factors(self, seed: int) -> Path:
        """Return the folder of factorised updates."""
        return self._seed(seed) / "factors"

    def _seed(self, seed: int) -> Path:
        return self.runs / self.study_name / f"seed-{seed}"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, sorted by the columns in order; floats to 6 significant digits, None as an empty cell.

    Raises:
        UserError: the file there now is not as run.json records it: someone has edited it.
        ValueError: a row has other columns, or a number is not finite.
    """
    content = _csv_bytes(columns, rows)
    new = hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]
    old = file_digest(path) if path.exists() else new
    if old != new:
        check_unedited(path.parent, path.name)
    # Until the file is replaced either digest is right: a run killed in between leaves no table that looks edited.
    update_record(path.parent, {"tables": {path.name: [old, new]}})
    write_atomically(path, content)
    update_record(path.parent, {"tables": {path.name: [new]}})


def check_unedited(results_folder: Path, name: str) -> None:
    """Check that a table is the one that run.json records.

    Raises:
        UserError: the table is missing, or its content is not the recorded one.
    """
    path = results_folder / name
    if not path.exists():
        raise UserError(f"{path}: expected a table, found none; run the experiment that writes it")
    if file_digest(path) not in read_record(results_folder).get("tables", {}).get(name, []):
        raise UserError(
            f"{path}: not as {RECORD} records it, edited by hand: move it away or delete it, then run again"
        )


def _csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    ordered = []
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(f"expected the columns {sorted(columns)}, got {sorted(row)}")
        ordered.append([row[column] for column in columns])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in sorted(ordered, key=_sort_key))
    return text.getvalue().encode()


def _sort_key(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """Order empty cells before numbers before texts; a column of layers holds `all` beside indices."""
    return [(0, 0) if value is None else (2, value) if isinstance(value, str) else (1, value) for value in values]


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.6g}"
    if isinstance(value, int):
        return str(value).lower()
    raise ValueError(f"expected text, a finite number or None in a table, got {value!r}")


def read_record(results_folder: Path) -> dict[str, Any]:
    """Return run.json of a results folder, empty where there is none.

    Raises:
        UserError: the file is there but is no JSON object.
    """
    path = results_folder / RECORD
    if (record := read_json(path)) is None and path.exists():
        raise UserError(f"{path}: expected a JSON object; restore it, or move it and the tables beside it away")
    return record or {}


def record_stage(
    results_folder: Path, stage: str, *, seconds: float, peak_memory_bytes: int, sources: Sequence[str], **facts: Any
) -> None:
    """Record one stage in run.json, and beside the stages what it knows: study, versions, device, seeds, row counts.

    A fact that is a mapping is merged key by key with what earlier stages recorded; any other replaces it.
    """
    entry = {"seconds": seconds, "peak_memory_bytes": peak_memory_bytes, "sources": list(sources)}
    update_record(results_folder, {"stages": {stage: entry}, **facts})


def update_record(results_folder: Path, facts: Mapping[str, Any]) -> None:
    """Merge facts into run.json, atomically; a fact that is a mapping is merged key by key."""
    record = read_record(results_folder)
    for name, fact in facts.items():
        record[name] = {**record.get(name, {}), **fact} if isinstance(fact, Mapping) else fact
    _write_json(results_folder / RECORD, record)


def source_digest(root: Path, study_files: Iterable[Path]) -> str:
    """Return the digest of the sources below `root`, and of the study files, that results are made by."""
    sources = {path.relative_to(root).as_posix(): path for pattern in SOURCES for path in root.glob(pattern)}
    sources |= {f"study {number}": path for number, path in enumerate(study_files)}
    return digest({name: file_digest(path) for name, path in sources.items() if path.is_file()})


@dataclass
class Stage:
    """Wall time of a `with` block, and the peak resident memory of this process up to its end."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def __enter__(self) -> "Stage":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.peak_memory_bytes = peak if sys.platform == "darwin" else peak * 1024  # the unit is the platform's
