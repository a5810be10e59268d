"""Files that a run leaves behind: written whole or not at all, named by what made them.

A study runs for hours and is killed now and then. So every result is written beside its place and renamed into it, and
found again by a digest of what determines it, never of paths or times.
"""

import glob
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from safety_spaces.errors import UserError

DIGEST_LENGTH = 16
RUBRIC_FILE = "rubric.json"
SOURCES = (
    "safety_spaces/**/*.py", "safety_spaces/**/*.j2", "safety_spaces/**/*.csv", "safety_spaces/**/*.yaml",
    "scripts/*", "exp-*/*", "requirements.txt", "pyproject.toml",
)  # fmt: skip
READERS = (
    "safety_spaces/evidence/**/*", "safety_spaces/experiments/report.py", "safety_spaces/experiments/summary.py",
    "safety_spaces/experiments/plan/*.py", "scripts/report.py",
)  # fmt: skip
"""Sources that read results and make none: a better figure leaves the numbers under it proved."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whenever the run is killed.

    Raises UserError when the disk is full or read-only, or the folder may not be written.
    """
    partial = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(platform.node())}.*.tmp"):
            # Another process may be writing the same result just now.
            if not _is_running(int(leftover.suffixes[-2][1:])):
                leftover.unlink(missing_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


@contextmanager
def partial_folder(final: Path) -> Iterator[Path]:
    """Yield an empty `<final>.partial`, renamed to `final` when the block ends well; else it stays, emptied next time.

    Raises UserError when `final` already holds files, or the folder cannot be made or renamed.
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


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Let the block run in one process at a time, of all that name the same lock file."""
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    # One object a file and process, so that a block within a block of the same process does not wait for itself.
    with FileLock(lock, is_singleton=True):
        yield


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `value` as canonical JSON (sorted keys, floats exact)."""
    return content_digest(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def content_digest(content: bytes) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def file_digest(path: Path) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a file's content.

    The hub's cache names a large file by its SHA-256: 15 GB are then not read again to learn it.
    """
    content = path.resolve()
    if content.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", content.name):
        return content.name[:DIGEST_LENGTH]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGEST_LENGTH]


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the digests of the paths that are files, by name and sorted."""
    return {path.name: file_digest(path) for path in sorted(paths) if path.is_file()}


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is no file or no whole object in it."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as `write_atomically` does; a NaN raises ValueError, because a missing number is None."""
    write_atomically(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class Cells:
    """Finished results in one folder, a file each, by the digest of what determines them."""

    folder: Path

    def get(self, key: str) -> dict[str, Any] | None:
        """Return what `put` stored, or None when it is absent or not whole."""
        return read_json(self.folder / f"{key}.json")

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Store a result as `write_json` does; floats come back exactly."""
        write_json(self.folder / f"{key}.json", result)


@dataclass(frozen=True)
class Layout:
    """Where the files of one study lie, below the roots of all results and all runs, and what makes its results.

    `sources` is the digest of the code, the study file and the pinned requirements.
    """

    results: Path
    runs: Path
    study_name: str
    study_file: Path = Path("study.yaml")
    sources: str = ""

    @property
    def results_folder(self) -> Path:
        """Tables, figures, report and run record."""
        return self.results / self.study_name

    @property
    def corpora(self) -> Path:
        """One JSON-lines file per data set that the study writes or is given."""
        return self.runs / self.study_name / "corpora"

    @property
    def rubric(self) -> Path:
        """The right steps of an answer to every forbidden request of the miniature."""
        return self.corpora / RUBRIC_FILE

    @property
    def lock(self) -> Path:
        """Held by the process that writes the tables."""
        return self.runs / self.study_name / "tables.lock"

    @property
    def judge(self) -> Path:
        """Judge replies, shared by all studies."""
        return self.runs / "judge"

    def checkpoint(self, role: str, seed: int, replicate: int = 0) -> Path:
        """Return the folder of a role's checkpoint."""
        name = f"{role}-{replicate}" if replicate else role
        return self._seed(seed) / "checkpoints" / name

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


def source_digest(root: Path, study_files: Iterable[Path]) -> str:
    """Return the digest of the sources below `root`, and of the study files, that results are made by."""
    sources = {path for pattern in SOURCES for path in root.glob(pattern)} - _readers(root)
    named = {path.relative_to(root).as_posix(): path for path in sources if path.is_file()}
    named |= {f"study {number}": path for number, path in enumerate(study_files)}
    return digest({name: file_digest(path) for name, path in named.items()})


def reader_digest(root: Path) -> str:
    """Return the digest of the sources below `root` that read results and make none."""
    files = (path for path in _readers(root) if path.is_file() and path.suffix != ".pyc")
    return digest({path.relative_to(root).as_posix(): file_digest(path) for path in files})


def _readers(root: Path) -> set[Path]:
    return {path for pattern in READERS for path in root.glob(pattern)}
