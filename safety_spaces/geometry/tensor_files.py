"""Tensors in safetensors files: listed from the header, mapped into memory, read where they are used."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.headers import FLOATING


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and its shape."""

    file: Path
    key: str
    shape: tuple[int, ...]

    def mapped(self) -> Float[Tensor, "..."]:
        """The tensor as stored, mapped from its file: only what is used of it is read.

        Raises UserError when the file is cut short.
        """
        with _opened(self.file) as file:
            values: Tensor = file.get_tensor(self.key)
        return values


def stored_tensors(path: Path, *, integers: bool = False) -> dict[str, StoredTensor]:
    """The floating-point tensors of one safetensors file, from its header, or those of integers too.

    Raises UserError when the file is unreadable.
    """
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (a handle is no mapping)
        return {
            name: StoredTensor(path, name, tuple(values.get_shape()))
            for name, values in slices.items()
            if integers or values.get_dtype() in FLOATING
        }


def computed_in(values: Float[Tensor, "..."]) -> torch.dtype:
    """The type that a tensor is computed in: float32, or float64 where it is stored so."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def is_finite(values: Float[Tensor, "..."]) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    # aminmax lets NaN through and, unlike isfinite, makes no copies of a large tensor.
    return not values.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(values))


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError when it is unreadable."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise _half_written(path, error) from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise _half_written(path, error) from error


def _half_written(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: half-written or unreadable ({error}); copy or make it again")
