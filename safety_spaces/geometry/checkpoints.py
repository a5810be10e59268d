"""The tensors of Hugging Face checkpoint folders, read one at a time.

Every update of the paper is a difference of two checkpoints (equations 1 and 2), tensor by tensor, so no model is ever
held whole: peak memory is a few copies of the largest tensor.

    update = second - first
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.tensors import HEAD, kind

NAMES_SHOWN = 3
SUBTRACTED_AT_ONCE = 2**22
"""Numbers of a stored tensor that are in float32 at a time."""


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and its shape."""

    file: Path
    key: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The floating-point tensors of one folder; integer buffers are not listed."""

    folder: Path
    stored: Mapping[str, StoredTensor]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, sorted."""
        return tuple(sorted(self.stored))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, as stored."""
        return self.stored[name].shape

    def tensor(self, name: str) -> Float[Tensor, "..."]:
        """Read one tensor, in float32 (float64 is kept).

        Raises UserError when the file is cut short or the tensor holds a NaN or an infinity.
        """
        values = self.mapped(name)
        values = values.to(_computed_in(values))
        self.check_finite(name, values)
        return values

    def mapped(self, name: str) -> Float[Tensor, "..."]:
        """One tensor as stored, mapped from its file: only what is used of it is read.

        Raises UserError when the file is cut short.
        """
        place = self.stored[name]
        with _opened(place.file) as file:
            values: Tensor = file.get_tensor(place.key)
        return values

    def check_finite(self, name: str, values: Float[Tensor, "..."]) -> None:
        """Raise UserError when values of a tensor of this checkpoint hold a NaN or an infinity."""
        if not _is_finite(values):
            raise UserError(
                f"{self.folder}: expected finite weights, tensor {name} holds NaN or infinity; "
                "the training diverged or the file is damaged: train or download it again"
            )


def open_checkpoint(folder: Path | str, *, tied: Literal["once", "twice"] = "once") -> Checkpoint:
    """List the tensors of a folder with model.safetensors or a sharded model.safetensors.index.json.

    tied says how often an output head counts that config.json ties to the embedding: once, as the embedding, or twice,
    as in a state_dict (the published code). Raises UserError when the folder or a shard is missing or unreadable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: expected a checkpoint folder, found none; train it first or correct the path")
    stored = {name: place for path in _shards(folder) for name, place in stored_tensors(path).items()}
    if _ties_head(folder):
        # A stored copy is ignored, as transformers does: the model computes with the embedding.
        stored.pop(HEAD, None)
        embedding = next((name for name in stored if kind(name) == "embed_tokens"), None)
        if tied == "twice" and embedding is not None:
            stored[HEAD] = stored[embedding]
    return Checkpoint(folder, stored)


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """The floating-point tensors of one safetensors file, from its header. Raises UserError when it is unreadable."""
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (a handle is no mapping)
        return {
            name: StoredTensor(path, name, tuple(values.get_shape()))
            for name, values in slices.items()
            if values.get_dtype().startswith(("F", "BF"))
        }


def check_same_tensors(first: Checkpoint, second: Checkpoint) -> None:
    """Raise UserError unless both hold tensors of the same names and shapes."""
    for one, other in ((first, second), (second, first)):
        if missing := sorted(set(one.names) - set(other.names)):
            raise UserError(
                f"{other.folder}: expected the tensors of {one.folder}, {_listed(missing)} missing; "
                "compare checkpoints of one model"
            )
    if unequal := [name for name in first.names if first.shape(name) != second.shape(name)]:
        example = unequal[0]
        raise UserError(
            f"{second.folder}: expected the shapes of {first.folder}, {_listed(unequal)} differ "
            f"({second.shape(example)} against {first.shape(example)}); compare checkpoints of one model"
        )


def check_differs(base: Checkpoint, reference: Checkpoint) -> None:
    """Raise UserError when every tensor of the reference equals the base's: no update, hence no subspace.

    Both hold the same tensors; reading stops at the first difference.
    """
    if all(torch.equal(base.tensor(name), reference.tensor(name)) for name in base.names):
        raise UserError(
            f"{reference.folder}: expected weights that differ from {base.folder}, all are equal; "
            "check the paths, or train longer or in float32"
        )


def update(first: Checkpoint, second: Checkpoint, name: str) -> Float[Tensor, "M N"]:
    """second - first of one tensor as a matrix, in float32 or better (equations 1 and 2).

    Neither checkpoint's tensor is copied whole. Raises UserError when a file is cut short or a value is not finite.
    """
    one, other = (as_matrix(checkpoint.mapped(name)) for checkpoint in (first, second))
    D = torch.empty(one.shape, dtype=torch.promote_types(_computed_in(one), _computed_in(other)))
    rows = max(1, SUBTRACTED_AT_ONCE // max(1, one.shape[1]))
    for part, subtracted, minuend in zip(*(torch.split(matrix, rows) for matrix in (D, one, other)), strict=True):
        torch.sub(minuend.to(D), subtracted.to(D), out=part)
    if not _is_finite(D):
        for checkpoint in (first, second):
            checkpoint.tensor(name)
        # Both are finite: their difference overflows.
        second.check_finite(name, D)
    return D


def _computed_in(values: Float[Tensor, "..."]) -> torch.dtype:
    return torch.float64 if values.dtype == torch.float64 else torch.float32


def _is_finite(values: Float[Tensor, "..."]) -> bool:
    # aminmax lets NaN through and, unlike isfinite, makes no copies of a large tensor.
    return not values.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(values))


def as_matrix(values: Float[Tensor, "..."]) -> Float[Tensor, "M N"]:
    """See a tensor as a matrix: 2-D as it is, a vector as (n, 1), more dimensions as (first, rest)."""
    return (
        values
        if values.ndim == 2
        else values.reshape(values.shape[0] if values.ndim else 1, math.prod(values.shape[1:]))
    )


def _shards(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if not index.exists():
        raise UserError(
            f"{folder}: expected model.safetensors or model.safetensors.index.json, found neither; "
            "save the model with save_pretrained"
        )
    shards = [folder / name for name in sorted(set(_read_json(index).get("weight_map", {}).values()))]
    for shard in shards:
        if not shard.exists():
            raise UserError(f"{index}: expected the shard {shard.name}, found none; download or train the folder again")
    return shards


def _ties_head(folder: Path) -> bool:
    config = folder / "config.json"
    return config.exists() and bool(_read_json(config).get("tie_word_embeddings", False))


def _read_json(path: Path) -> dict[str, Any]:
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
    return UserError(f"{path}: half-written or unreadable ({error}); delete it and make it again")


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + rest
