"""run.json and the tables it vouches for: what each stage cost, and which bytes of a table are the run's own.

A table that somebody has edited is noticed before it is lost, and before it is read for a finding.
"""

import csv
import io
import math
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.store import content_digest, file_digest, read_json, write_atomically, write_json

RECORD = "run.json"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV, or as parquet where the file is called so, and record the table in run.json.

    Raises UserError when somebody has edited the file there now.
    """
    content = parquet_bytes(columns, rows) if path.suffix == ".parquet" else csv_bytes(columns, rows)
    new = content_digest(content)
    old = file_digest(path) if path.exists() else new
    if old != new:
        check_unedited(path.parent, path.name)
    # Until the file is replaced either digest is right: a run killed in between leaves no table that looks edited.
    update_record(path.parent, {"tables": {path.name: [old, new]}})
    write_atomically(path, content)
    update_record(path.parent, {"tables": {path.name: [new]}})


def check_unedited(results_folder: Path, name: str) -> None:
    """Check that a table is the one that run.json records, else raise UserError."""
    path = results_folder / name
    if not path.exists():
        raise UserError(f"{path}: expected a table, found none; run the experiment that writes it")
    if not (results_folder / RECORD).exists():
        raise UserError(
            f"{path}: expected {RECORD} beside it, found none; restore {RECORD}, or keep the table elsewhere (move it "
            "away) and run its experiment again, which measures only what the runs lack"
        )
    known = read_record(results_folder).get("tables", {})
    if name not in known:
        raise UserError(
            f"{path}: expected it in {RECORD}, which is of later experiments alone; move the table away and run its "
            "experiment again, which measures only what the runs lack"
        )
    if file_digest(path) not in known[name]:
        raise UserError(
            f"{path}: not as {RECORD} records it, edited by hand: move it away or delete it, then run again"
        )


def csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV, sorted by the columns in order; floats to 6 significant digits, None as an empty cell.

    Raises ValueError when a row has other columns, or a number is not finite.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_cell, row) for row in _ordered(columns, rows))
    return text.getvalue().encode()


def parquet_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as parquet, sorted by the columns in order; whole numbers stay whole where cells are empty.

    Raises ValueError when a row has other columns.
    """
    # Costs an import of half a second, which other tables do without.
    import pandas as pd

    table = pd.DataFrame(_ordered(columns, rows), columns=list(columns)).convert_dtypes(convert_string=False)
    return bytes(table.to_parquet(index=False, compression="zstd"))


def _ordered(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> list[list[Any]]:
    found = []
    for row in rows:
        if set(row) != set(columns):
            raise ValueError(f"expected the columns {sorted(columns)}, got {sorted(row)}")
        found.append([row[column] for column in columns])
    return sorted(found, key=_sort_key)


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
    """Return run.json of a results folder, empty where there is none; raise UserError where it is no JSON object."""
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
    write_json(results_folder / RECORD, record)


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # the unit is the platform's


@dataclass
class Stage:
    """Wall time of a `with` block, and the peak resident memory up to its end: of this process, and of its workers."""

    seconds: float = 0.0
    peak_memory_bytes: int = 0
    workers_memory_bytes: int = 0

    def __enter__(self) -> "Stage":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.peak_memory_bytes = peak_memory_bytes() + self.workers_memory_bytes
