"""What a safetensors file says of its tensors in its header, and whether it is whole. No weight is read, no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError

FLOATING = frozenset({"F16", "BF16", "F32", "F64"})
"""Types whose numbers are the weights themselves."""
LARGEST_HEADER = 100_000_000
"""Bytes that the library itself accepts: a file of another format may claim any number."""
LFS_POINTER = b"version https://git-lfs"
"""What a clone without Git LFS has in the place of a large file."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and its type and shape as safetensors writes them."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        """Whether the numbers are weights in floating point."""
        return self.dtype in FLOATING


def stored_tensors(*files: Path, integers: bool = False) -> dict[str, StoredTensor]:
    """Return the floating-point tensors of files by name, or integers too; UserError when a file is cut short."""
    found = {}
    for path in files:
        if (header := _header(path)) is None:
            raise UserError(f"{path}: half-written or unreadable; copy or write it again")
        for key, entry in header.items():
            found[key] = StoredTensor(path, key, entry["dtype"], tuple(entry["shape"]))
    return {key: stored for key, stored in found.items() if integers or stored.is_floating}


def file_flaw(path: Path) -> str | None:
    """Return why a path is no whole safetensors file, and what to do, else None; raises OSError if it is unreadable."""
    if not path.is_file():
        return f"found no {path.name}; copy it too"
    with path.open("rb") as file:
        start = file.read(8)
    if start and LFS_POINTER.startswith(start):
        return f"found {path.name} as a pointer of Git LFS; run git lfs pull"
    return f"found {path}: half-written or unreadable; copy or write it again" if _header(path) is None else None


def _header(path: Path) -> dict[str, Any] | None:
    """Return the entries of a file's tensors by name; None where it is no safetensors file, or cut short."""
    with path.open("rb") as file:
        size, length = path.stat().st_size, int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(length) if 8 + length <= min(size, LARGEST_HEADER) else b"")
            tensors.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in tensors.values()]
            whole = 8 + length + max(ends, default=0) == size
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            return None
    return dict(tensors) if whole else None
