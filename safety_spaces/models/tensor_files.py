"""Tensors in safetensors files: listed from the header, mapped into memory, read where they are used."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.models.headers import file_headers


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
        try:
            with safe_open(self.file, framework="pt") as file:
                values: Tensor = file.get_tensor(self.key)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.file}: half-written or unreadable ({error}); copy or make it again") from error
        return values


def stored_tensors(path: Path, *, integers: bool = False) -> dict[str, StoredTensor]:
    """The floating-point tensors of one safetensors file, from its header, or those of integers too.

    Raises UserError when the file is unreadable.
    """
    headers = file_headers(path)
    return {name: StoredTensor(path, name, of.shape) for name, of in headers if integers or of.is_floating}


def computed_in(values: Float[Tensor, "..."]) -> torch.dtype:
    """The type that a tensor is computed in: float32, or float64 where it is stored so."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def is_finite(values: Float[Tensor, "..."]) -> bool:
    """Whether a tensor holds neither NaN nor infinity."""
    # aminmax lets NaN through and, unlike isfinite, makes no copies of a large tensor.
    return not values.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(values))
