"""Ordered orthonormal bases of the space a reference update acts in: the paper's and its two controls.

All are directions in order, of which the first k are the basis of k directions (equation 3), so one factorisation per
tensor serves every fraction, and a control differs from the claim in nothing but which directions it takes.

    D = U Sigma V',  S_k = span(U_k),  k = floor(rho min(M, N)) <= rank(D)
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from safety_spaces.geometry.factorisation import orthonormalised
from safety_spaces.tensors import FIXED_BASES, Projected

Rounding = Literal["floor", "round"]

DRAWN_AT_ONCE = 16


@dataclass(frozen=True)
class OrderedBasis:
    """Orthonormal directions in order: the columns of a frame, rearranged (order None: as they stand).

    A control that takes the columns of U in another order thus shares U, and C = U'D, with top_k.
    """

    frame: Float[Tensor, "M n"]
    order: Int[Tensor, "n"] | None = None

    def __len__(self) -> int:
        """Number of directions n."""
        return self.frame.shape[1]

    def columns(self, start: int, stop: int) -> Float[Tensor, "M k"]:
        """Directions start ... stop - 1."""
        # Rows of the transpose: a frame lies in memory direction by direction.
        return self._taken(self.frame.T, start, stop).T

    def rows(self, C: Float[Tensor, "n N"], start: int, stop: int) -> Float[Tensor, "k N"]:
        """The same directions' rows of C = frame'D."""
        return self._taken(C, start, stop)

    def _taken(self, rows: Float[Tensor, "n a"], start: int, stop: int) -> Float[Tensor, "k a"]:
        return rows[start:stop] if self.order is None else rows[self.order[start:stop].to(rows.device)]


def directions(fraction: float, size: int, limit: int, *, rounding: Rounding = "floor") -> int:
    """Number of directions k of a fraction rho (Section 2): at least 1 and at most limit; 0 where the limit is 0.

    size is min(M, N) and limit the rank of the reference update; of a user's own basis both are its columns. The
    product is exact in decimals, so 0.29 of 100 is 29. "round" is the published code's rounding.
    """
    product = Fraction(str(fraction)) * size
    return min(limit, max(1, math.floor(product) if rounding == "floor" else round(product)))


def coinciding_fractions(
    fractions: Sequence[float], size: int, limit: int, *, rounding: Rounding = "floor"
) -> tuple[float, ...]:
    """Fractions that the rank of a low-rank reference makes equal although the shape tells them apart."""
    wanted = {rho: directions(rho, size, size, rounding=rounding) for rho in fractions}
    capped = [rho for rho, k in wanted.items() if k >= limit]
    return tuple(capped) if len({wanted[rho] for rho in capped}) > 1 else ()


def ordered_basis(
    basis: str,
    frame: Float[Tensor, "M n"],
    *,
    k: int,
    seed: int,
    draw: int,
    name: str,
    device: torch.device | None = None,
) -> OrderedBasis:
    """The first k directions, or more, of a tensor's basis.

    top_k and file: the columns of frame, the reference update's left singular vectors U or a user's own, as they stand
    (equation 3). random_k: the columns of U, drawn without replacement (control Random-K). random: a Haar frame of k
    columns as tall as frame, made on the device (control Random). A basis is fixed by seed, draw, tensor name and its
    own name, whatever was drawn before.
    """
    if basis in FIXED_BASES:
        return OrderedBasis(frame)
    generator = stream(basis, seed=seed, draw=draw, name=name)
    if basis == "random_k":
        return OrderedBasis(frame, torch.randperm(frame.shape[1], generator=generator))
    return OrderedBasis(haar_frame(frame.shape[0], k, generator, device=device))


def stream(basis: str, *, seed: int, draw: int, name: str) -> Generator:
    """The random numbers of one draw of one tensor's basis; they come from the CPU, the same for every device."""
    key = hashlib.sha256(json.dumps([seed, draw, name, basis]).encode()).digest()
    return Generator().manual_seed(int.from_bytes(key[:8]))


def haar_frame(M: int, k: int, generator: Generator, *, device: torch.device | None = None) -> Float[Tensor, "M k"]:
    """A Haar-distributed frame of k columns; nested: fewer columns are a prefix of more.

    As a span it has the distribution of a Gaussian matrix's leading singular vectors, so no SVD of noise is needed.
    """
    return orthonormalised(gaussian(M, k, generator).to(device))


def gaussian(M: int, k: int, generator: Generator) -> Float[Tensor, "M k"]:
    """Independent standard normal numbers, of which fewer columns are a prefix."""
    # Torch draws sixteen normal numbers at a time, and others for a last group that is not whole.
    drawn = torch.randn(-(-k * M // DRAWN_AT_ONCE) * DRAWN_AT_ONCE, generator=generator)[: k * M]
    return drawn.reshape(k, M).T


def orient(D: Float[Tensor, "..."], side: Projected) -> Float[Tensor, "..."]:
    """Turn a matrix so that its left is the side projected from; the same call turns it back."""
    return D.T if side == "right" else D
