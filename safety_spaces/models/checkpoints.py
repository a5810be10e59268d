"""The tensors of Hugging Face checkpoint folders, read one at a time.

Every update of the paper is a difference of two checkpoints (equations 1 and 2), tensor by tensor, so no model is ever
held whole: peak memory is a few copies of the largest tensor.

    update = second - first

The products of a LoRA folder are made where a tensor is asked for, so an adapter costs no second model.
"""

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.models.folders import is_adapter
from safety_spaces.models.model_tensors import UNKNOWN, ModelTensors
from safety_spaces.models.tensor_files import StoredTensor
from safety_spaces.tensors import HEAD, VOCABULARY_KINDS, Projected, Side, faces_residual, kind, project_from

NAMES_SHOWN = 3
KEPT_OPEN = 2**24
"""Bytes of a file that stays mapped: of a small one the header takes the time, a large one would count as memory."""
SUBTRACTED_AT_ONCE = 2**22
"""Numbers of a stored tensor that are in float32 at a time."""


def mapped(stored: StoredTensor) -> Float[Tensor, "..."]:
    """A tensor as stored, mapped from its file: only what is used of it is read; UserError where the file is cut."""
    try:
        state = stored.file.stat()
        opened = _opened_once if state.st_size <= KEPT_OPEN else _opened
        values: Tensor = opened(stored.file, state.st_ino, state.st_size, state.st_mtime_ns).get_tensor(stored.key)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{stored.file}: half-written or unreadable ({error}); copy or make it again") from error
    # A copy: who writes to what stays mapped would change what the next one reads.
    return values.clone() if opened is _opened_once else values


def _opened(file: Path, *_state: int) -> Any:
    return safe_open(file, framework="pt")


_opened_once = functools.lru_cache(maxsize=32)(_opened)


@dataclass(frozen=True)
class LowRank:
    """What a pair of LoRA matrices (A r x N, B M x r) adds to one tensor: scale B A, transposed for an embedding."""

    A: StoredTensor
    B: StoredTensor
    scale: float
    is_transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        outputs, inputs = self.B.shape[0], self.A.shape[1]
        return (inputs, outputs) if self.is_transposed else (outputs, inputs)

    def add_to(self, W: Float[Tensor, "M N"], *, sign: int = 1) -> None:
        """Add the product, or its first M rows, to W in place."""
        A, B = (mapped(part).to(W) for part in (self.A, self.B))
        left, right = (A.t(), B.t()) if self.is_transposed else (B, A)
        W.addmm_(left[: W.shape[0]], right, alpha=sign * self.scale)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one folder that its live model has, by the live model's names, else all by those in the files.

    A tensor of a LoRA folder is one stored by its parent, or by itself, and the products that are added to it.
    """

    folder: Path
    stored: Mapping[str, StoredTensor]
    low_rank: Mapping[str, tuple[LowRank, ...]] = field(default_factory=dict)
    model: ModelTensors = UNKNOWN
    ties_head: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, sorted."""
        return tuple(sorted(self.stored))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, as stored."""
        return self.stored[name].shape

    def kind(self, name: str) -> str:
        """Kind of a tensor: what the model says of it, or its name."""
        return self.model.kinds.get(name) or kind(name)

    def projected(self, name: str, side: Side) -> Projected:
        """Side that a tensor is projected on, of the matrix as it is stored."""
        return project_from(side, self.kind(name), is_transposed=name in self.model.transposed)

    def check_faces_residual(self) -> None:
        """Raise UserError unless each matrix is known to read from the residual stream or to write to it."""
        for name in self.names:
            of, axes = self.kind(name), len(self.shape(name))
            # Only the model says whether the matrices of GPT-2 are stored as inputs x outputs.
            is_known = axes == 2 and faces_residual(of) and (self.model.is_known or not of.startswith("c_"))
            if axes > 1 and of != "norm" and not is_known:
                raise UserError(
                    f"{self.folder}: expected matrices that are known to read from the residual stream or to write to "
                    f"it, {name} is not; set projection.side to left or right"
                )

    def check_is_whole(self) -> None:
        """Raise UserError unless transformers builds a model of the folder's settings, of the tensors in its files."""
        if not self.model.is_known:
            raise UserError(
                f"{self.folder}: expected a config.json that transformers builds a causal model of, it builds none; "
                "correct model_type or the settings in it, or compare updates alone with --geometry-only"
            )
        shapes = self.model.shapes
        unequal = [name for name in self.names if shapes.get(name, self.shape(name)) != self.shape(name)]
        # Rows that an adapter adds are looked at where it is added.
        if unequal and not is_adapter(self.folder):
            raise UserError(
                f"{self.folder}: expected tensors of the shapes that its config.json says, {_listed(unequal)} differ "
                f"({self.shape(unequal[0])} against {shapes[unequal[0]]}); copy the config.json of these weights"
            )
        missing = sorted(set(self.model.kinds).difference(self.model.tied, self.names))
        if missing and not self._parts():
            raise UserError(
                f"{self.folder}: expected the tensors of its model, {_listed(missing)} missing; save the whole model "
                "(AutoModelForCausalLM), or compare updates alone with --geometry-only"
            )

    def check_is_live(self) -> None:
        """Raise UserError unless the live model can be given the weights tensor by tensor."""
        self.check_is_whole()
        if parts := self._parts():
            raise UserError(
                f"{self.folder}: expected tensors as the live model has them, it joins {parts[0]} and others (experts) "
                "into one; such a model is not scored: compare its updates alone with --geometry-only"
            )

    def _parts(self) -> list[str]:
        # What the live model joins into others.
        return [name for name in self.names if name not in self.model.kinds]

    def tensor(self, name: str) -> Float[Tensor, "..."]:
        """Read one tensor, in float32 or float64; raises UserError when its file is cut short or it is not finite."""
        values = self.mapped(name).to(self.dtype(name))
        self.check_finite(name, values)
        return values

    def mapped(self, name: str) -> Float[Tensor, "..."]:
        """One tensor as stored, mapped from its file; an adapter's sum is computed. UserError where the file is cut."""
        values = mapped(self.stored[name])
        # A copy: what is mapped is not to be written.
        values = values.to(self.dtype(name), copy=True) if self.products(name) else values
        for product in self.products(name):
            product.add_to(values)
        return values

    def dtype(self, name: str) -> torch.dtype:
        """The type that a tensor is computed in: float32, or float64 where any part of it is stored so."""
        parts = [self.stored[name], *(part for product in self.products(name) for part in (product.A, product.B))]
        return torch.float64 if any(part.dtype == "F64" for part in parts) else torch.float32

    def products(self, name: str) -> tuple[LowRank, ...]:
        """The products that adapters add to one stored tensor; none in most folders."""
        return self.low_rank.get(name, ())

    def check_finite(self, name: str, values: Float[Tensor, "..."]) -> None:
        """Raise UserError when values of a tensor of this checkpoint hold a NaN or an infinity."""
        if not _is_finite(values):
            raise UserError(
                f"{self.folder}: expected finite weights, tensor {name} holds NaN or infinity; "
                "the training diverged or the file is damaged: train or download it again"
            )


def check_same_tensors(first: Checkpoint, second: Checkpoint) -> None:
    """Raise UserError unless both hold tensors of the same names and shapes, but for the number of tokens."""
    for one, other in ((first, second), (second, first)):
        missing = sorted(set(one.names) - set(other.names))
        if missing == [HEAD] and other.ties_head:
            raise UserError(
                f"{other.folder}: expected an output head of its own as in {one.folder}, it is tied to the embedding; "
                "save both models tied or both untied (tie_word_embeddings in config.json)"
            )
        if missing:
            raise UserError(
                f"{other.folder}: expected the tensors of {one.folder}, {_listed(missing)} missing; "
                "compare checkpoints of one model"
            )
    _check_shapes(first, second, first.names)


def _check_shapes(first: Checkpoint, second: Checkpoint, names: Iterable[str]) -> None:
    def is_comparable(name: str) -> bool:
        one, other = first.shape(name), second.shape(name)
        is_per_token = name in first.model.per_token or kind(name) in VOCABULARY_KINDS
        return one == other or (is_per_token and one[1:] == other[1:])

    if unequal := [name for name in names if not is_comparable(name)]:
        raise UserError(
            f"{second.folder}: expected the shapes of {first.folder}, {_listed(unequal)} differ "
            f"({second.shape(unequal[0])} against {first.shape(unequal[0])}); compare checkpoints of one model"
        )


def fitted(checkpoint: Checkpoint, reference: Checkpoint, name: str) -> Float[Tensor, "..."]:
    """A tensor of a checkpoint in the shape of the reference's, in float32 or better.

    Where the vocabularies differ, rows that the reference lacks are left out, and rows that it has alone are its own.
    Raises UserError when the shapes differ in more, a file is cut short or a value is not finite.
    """
    _check_shapes(reference, checkpoint, [name])
    values, shape = checkpoint.tensor(name), reference.shape(name)
    if values.shape == shape:
        return values
    return torch.cat([values[: shape[0]], reference.tensor(name)[len(values) :]])


def check_differs(base: Checkpoint, reference: Checkpoint) -> None:
    """Raise UserError when every tensor of the reference equals the base's: no update, hence no subspace."""
    if all(_are_equal(base, reference, name) for name in base.names):
        raise UserError(
            f"{reference.folder}: expected weights that differ from {base.folder}, all are equal; "
            "check the paths, or train longer or in float32"
        )


def _are_equal(first: Checkpoint, second: Checkpoint, name: str) -> bool:
    if first.stored[name] == second.stored[name] and first.products(name) == second.products(name):
        return True
    one, other = (as_matrix(checkpoint.tensor(name)) for checkpoint in (first, second))
    rows = min(len(one), len(other))
    return torch.equal(one[:rows], other[:rows])


def update(first: Checkpoint, second: Checkpoint, name: str) -> Float[Tensor, "M N"]:
    """second - first of one tensor as a matrix, in float32 or better (equations 1 and 2).

    Of vocabularies of other sizes the shared rows. Neither checkpoint's tensor is copied whole. What an adapter adds is
    not added and subtracted again: adapter - parent is the product itself. Raises UserError when the shapes differ, a
    file is cut short or a value is not finite.
    """
    _check_shapes(first, second, [name])
    D = _stored_difference(first, second, name)
    for one, other, sign in ((second, first, 1), (first, second, -1)):
        for product in one.products(name):
            if product not in other.products(name):
                product.add_to(D, sign=sign)
    if not _is_finite(D):
        for checkpoint in (first, second):
            checkpoint.tensor(name)
        # Both are finite: their difference overflows.
        second.check_finite(name, D)
    return D


def _stored_difference(first: Checkpoint, second: Checkpoint, name: str) -> Float[Tensor, "M N"]:
    """The difference of what is stored, without products; zeros where both store one tensor."""
    dtype = torch.promote_types(first.dtype(name), second.dtype(name))
    one, other = (as_matrix(mapped(checkpoint.stored[name])) for checkpoint in (first, second))
    shared = min(len(one), len(other)), one.shape[1]
    if first.stored[name] == second.stored[name]:
        return torch.zeros(shared, dtype=dtype)
    D = torch.empty(shared, dtype=dtype)
    rows = max(1, SUBTRACTED_AT_ONCE // max(1, shared[1]))
    parts = (torch.split(matrix[: shared[0]], rows) for matrix in (D, one, other))
    for part, subtracted, minuend in zip(*parts, strict=True):
        torch.sub(minuend.to(D), subtracted.to(D), out=part)
    return D


def as_matrix(values: Float[Tensor, "..."]) -> Float[Tensor, "M N"]:
    """See a tensor as a matrix: 2-D as it is, a vector as (n, 1), more dimensions as (first, rest)."""
    rows = values.shape[0] if values.ndim else 1
    return values if values.ndim == 2 else values.reshape(rows, math.prod(values.shape[1:]))


def _is_finite(values: Float[Tensor, "..."]) -> bool:
    # aminmax lets NaN through and, unlike isfinite, makes no copies of a large tensor.
    return not values.numel() or all(math.isfinite(extreme.item()) for extreme in torch.aminmax(values))


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + rest
