"""The bases of one tensor: the paper's, a user's own, and the two controls.

All are directions in order, of which the first k are the basis of k directions (equation 3), so a control differs from
the claim in nothing but which directions it takes.

    D = U Sigma V',  S_k = span(U_k),  k = floor(rho min(M, N)) <= rank(D)

A user's own basis is the subspace that somebody claims, put in the place of top_k. One safetensors file holds a matrix
for each tensor that the claim is about, under the tensor's name: orthonormal columns in order, as tall as the tensor's
projected side. A tensor without a matrix has no directions: all of its update is outside the subspace.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from safety_spaces.errors import UserError
from safety_spaces.geometry.factorisation import deviation, orthonormalised
from safety_spaces.geometry.subspace import Subspace, chance_energy
from safety_spaces.geometry.updates import Updates
from safety_spaces.models.checkpoints import Checkpoint, as_matrix
from safety_spaces.models.tensor_files import stored_tensors
from safety_spaces.tensors import OWN_BASIS, RANDOM, RANDOM_K, TOP_K, Rounding

ACCEPTED_DEVIATION = 1e-4
"""Largest entry of |U'U - I| of a user's own columns."""
DRAWN_AT_ONCE = 16


@dataclass(frozen=True)
class Bases:
    """Every basis of one tensor "M N": U is of the reference update, `own` of a user's file where there is one.

    A draw is fixed by seed, its number, the tensor's and the basis's name, whatever was drawn before.
    """

    name: str
    shape: tuple[int, int]
    U: Float[Tensor, "M r"]
    own: Float[Tensor, "M c"] | None = None
    seed: int = 0

    def subspace(self, basis: str, *, k: int, draw: int = 0, device: torch.device | None = None) -> Subspace:
        """The span of the first k directions of a basis, or of more; raises ValueError for `file` where there is none.

        top_k and file: the columns of U, or a user's own, as they stand (equation 3). random_k: the columns of U, drawn
        without replacement. random: a Haar frame of k columns, made on the device.
        """
        if basis == TOP_K:
            return Subspace(self.U)
        if basis == OWN_BASIS:
            if self.own is None:
                raise ValueError("expected the columns of a user's own basis, got none")
            return Subspace(self.own)
        generator = stream(basis, seed=self.seed, draw=draw, name=self.name)
        if basis == RANDOM_K:
            return Subspace(self.U, torch.randperm(self.U.shape[1], generator=generator))
        return Subspace(haar_frame(self.shape[0], k, generator, device=device))

    def counts(self, fractions: Sequence[float], *, rounding: Rounding = "floor") -> list[int]:
        """k of each fraction, the same for every basis."""
        return [directions(rho, *self._size, rounding=rounding) for rho in fractions]

    def has_coinciding(self, fractions: Sequence[float], *, rounding: Rounding = "floor") -> bool:
        """Whether the rank of a low-rank reference makes fractions equal although the shape tells them apart."""
        size, limit = self._size
        wanted = {directions(rho, size, size, rounding=rounding) for rho in fractions}
        return sum(k >= limit for k in wanted) > 1

    def expected_energy(self, basis: str, k: int, *, update: float, span: float) -> float | None:
        """Mean of |P_k D|^2 over draws of a basis, None where none is drawn; `update` is |D|^2, `span` |U'D|^2."""
        of = {RANDOM: (self.shape[0], update), RANDOM_K: (self.U.shape[1], span)}.get(basis)
        return None if of is None else chance_energy(k, *of)

    def rank(self, basis: str) -> int:
        """Number of directions that a basis is taken from: the columns of U, or a user's own."""
        return self.own.shape[1] if basis == OWN_BASIS and self.own is not None else self.U.shape[1]

    @property
    def _size(self) -> tuple[int, int]:
        """What a fraction is a share of, and the most there are: min(M, N) and the rank, or a user's columns."""
        return (min(self.shape), self.U.shape[1]) if self.own is None else (self.own.shape[1], self.own.shape[1])


def directions(fraction: float, size: int, limit: int, *, rounding: Rounding = "floor") -> int:
    """Number of directions k of a fraction rho (Section 2): at least 1 and at most limit; 0 where the limit is 0.

    size is min(M, N) and limit the rank of the reference update; of a user's own basis both are its columns. The
    product is exact in decimals, so 0.29 of 100 is 29. "round" is the published code's rounding.
    """
    product = Fraction(str(fraction)) * size
    return min(limit, max(1, math.floor(product) if rounding == "floor" else round(product)))


def stream(basis: str, *, seed: int, draw: int, name: str) -> Generator:
    """The random numbers of one draw of one tensor's basis; they come from the CPU, the same for every device."""
    key = hashlib.sha256(json.dumps([seed, draw, name, basis]).encode()).digest()
    return Generator().manual_seed(int.from_bytes(key[:8]))


def haar_frame(M: int, k: int, generator: Generator, *, device: torch.device | None = None) -> Float[Tensor, "M k"]:
    """A Haar frame of k columns, fewer a prefix of more; it spans what an SVD of Gaussian noise would, without one."""
    return orthonormalised(gaussian(M, k, generator).to(device))


def gaussian(M: int, k: int, generator: Generator) -> Float[Tensor, "M k"]:
    """Independent standard normal numbers, of which fewer columns are a prefix."""
    # Torch draws sixteen normal numbers at a time, and others for a last group that is not whole.
    drawn = torch.randn(-(-k * M // DRAWN_AT_ONCE) * DRAWN_AT_ONCE, generator=generator)[: k * M]
    return drawn.reshape(k, M).T


def open_basis(path: Path, updates: Updates) -> Checkpoint:
    """List the matrices of a user's file; raises UserError when a name or a shape does not fit the updates."""
    matrices = Checkpoint(path, stored_tensors(path))
    if not matrices.names:
        raise UserError(f"{path}: expected a matrix for one tensor or more, found none; write it with save_file")
    if unknown := sorted(set(matrices.names) - set(updates.names)):
        raise UserError(
            f"{path}: expected names of tensors of {updates.reference.folder}, {unknown[0]} is none; "
            f"names look like {updates.names[0]}"
        )
    for name in matrices.names:
        shape, height = matrices.shape(name), updates.shape(name)[0]
        if len(shape) not in (1, 2) or shape[0] != height or (shape[1:] or (1,))[0] > height:
            raise UserError(
                f"{path}: expected {name} to have {height} rows and at most as many columns, got {shape}; "
                "correct the matrix or projection.basis.side"
            )
    return matrices


def own_columns(matrices: Checkpoint, name: str, height: int) -> Float[Tensor, "M c"]:
    """A user's directions of one tensor, or none; raises UserError when they are not orthonormal to 1e-4."""
    if name not in matrices.stored:
        return torch.zeros(height, 0)
    U = as_matrix(matrices.tensor(name)).float()
    if (largest := deviation(U)) > ACCEPTED_DEVIATION:
        raise UserError(
            f"{matrices.folder}: expected orthonormal columns of {name}, U'U differs from I by {largest:.2g}; "
            "write the Q of torch.linalg.qr(U) in float32"
        )
    return U
