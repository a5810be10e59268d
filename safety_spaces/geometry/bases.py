"""Ordered orthonormal bases of the space a reference update acts in: the paper's and its two controls.

All three are matrices "M r" whose first k columns are the basis of k directions (equation 3), so one factorisation
per tensor serves every fraction, and a control differs from the claim in nothing but which directions it takes.

    D = U Sigma V',  S_k = span(U_k),  k = floor(rho min(M, N)) <= rank(D)
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

RELATIVE_RANK_TOLERANCE = 1e-6
ORTHONORMALITY_TOLERANCE = 1e-5
VECTOR_KINDS = frozenset({"norm", "bias"})
WRITES_TO_RESIDUAL = frozenset({"o_proj", "down_proj"})

Rounding = Literal["floor", "round"]
Side = Literal["left", "right", "residual"]
Projected = Literal["left", "right"]


@dataclass(frozen=True)
class Factors:
    """Left singular vectors U and singular values sigma, largest first, cut at the rank r."""

    U: Float[Tensor, "M r"]
    sigma: Float[Tensor, "r"]

    @property
    def rank(self) -> int:
        """Number of singular values above 1e-6 of the largest; 0 for a zero matrix."""
        return self.U.shape[1]


def factor(D: Float[Tensor, "M N"]) -> Factors:
    """Left factors of the thin SVD of a matrix of any shape, U in its precision and sigma in float64.

    QR first, so that the SVD is of a square of side min(M, N) only. That SVD is in float64: in float32 its own
    rounding leaves singular values above 1e-6 of the largest where there are none.
    """
    M, N = D.shape
    if M < N:
        # D' = Q R, so D = R' Q' and R' alone has the left factors of D.
        small, Q = torch.linalg.qr(D.T, mode="r").R.T, None
    else:
        Q, small = torch.linalg.qr(D)
    left, sigma, _ = torch.linalg.svd(small.double(), full_matrices=False)
    sigma = sigma[: numerical_rank(sigma)]
    U = left[:, : len(sigma)].to(D.dtype)
    return Factors(orthonormal(U if Q is None else Q @ U), sigma)


def numerical_rank(sigma: Float[Tensor, "n"]) -> int:
    """Number of singular values, given largest first, above 1e-6 of the largest."""
    return int((sigma > RELATIVE_RANK_TOLERANCE * sigma[:1]).sum())


def orthonormal(U: Float[Tensor, "M r"]) -> Float[Tensor, "M r"]:
    """U itself where U'U = I holds, otherwise its columns made orthonormal in order (prefix spans are kept)."""
    if U.shape[1] == 0:
        return U
    error = U.T @ U
    error.diagonal().sub_(1)
    return U if error.abs().max() <= ORTHONORMALITY_TOLERANCE else _orthonormalised(U)


def directions(fraction: float, shape: tuple[int, int], rank: int, *, rounding: Rounding = "floor") -> int:
    """Number of directions k of a fraction rho (Section 2): at least 1 and at most the rank; 0 where the rank is 0.

    The product rho min(M, N) is exact in decimals, so 0.29 of 100 is 29. "round" is the published code's rounding.
    """
    product = Fraction(str(fraction)) * min(shape)
    return min(rank, max(1, math.floor(product) if rounding == "floor" else round(product)))


def coinciding_fractions(
    fractions: Sequence[float], shape: tuple[int, int], rank: int, *, rounding: Rounding = "floor"
) -> tuple[float, ...]:
    """Fractions that the rank of a low-rank reference makes equal although the shape tells them apart."""
    wanted = {rho: directions(rho, shape, min(shape), rounding=rounding) for rho in fractions}
    capped = [rho for rho, k in wanted.items() if k >= rank]
    return tuple(capped) if len({wanted[rho] for rho in capped}) > 1 else ()


def top_k(U: Float[Tensor, "M r"], _generator: Generator) -> Float[Tensor, "M r"]:
    """The leading singular vectors (equation 3)."""
    return U


def random_k(U: Float[Tensor, "M r"], generator: Generator) -> Float[Tensor, "M r"]:
    """The same singular vectors in random order: k of the r, drawn without replacement (control Random-K)."""
    return U[:, torch.randperm(U.shape[1], generator=generator).to(U.device)]


def random(U: Float[Tensor, "M r"], generator: Generator) -> Float[Tensor, "M r"]:
    """A Haar-distributed frame (control Random).

    As a span it has the distribution of a Gaussian matrix's leading singular vectors. The numbers are drawn on the
    CPU, so every device sees the same frame.
    """
    M, r = U.shape
    return _orthonormalised(torch.randn(r, M, generator=generator).T.to(U))


BASES: Mapping[str, Callable[[Float[Tensor, "M r"], Generator], Float[Tensor, "M r"]]] = MappingProxyType(
    {"top_k": top_k, "random_k": random_k, "random": random}
)


def ordered_basis(basis: str, U: Float[Tensor, "M r"], *, seed: int, draw: int, name: str) -> Float[Tensor, "M r"]:
    """The basis of a tensor in order, given the reference update's left singular vectors U.

    A basis is fixed by seed, draw, tensor name and basis, whatever was drawn before.
    """
    key = hashlib.sha256(json.dumps([seed, draw, name, basis]).encode()).digest()
    return BASES[basis](U, Generator().manual_seed(int.from_bytes(key[:8])))


def project_from(side: Side, kind: str) -> Projected:
    """Side on which a kind of tensor is projected.

    residual takes the side that faces the residual stream: the outputs of o_proj and down_proj, the inputs of all
    others. A vector has one side, the left.
    """
    if kind in VECTOR_KINDS:
        return "left"
    if side == "residual":
        return "left" if kind in WRITES_TO_RESIDUAL else "right"
    return side


def orient(D: Float[Tensor, "..."], side: Projected) -> Float[Tensor, "..."]:
    """Turn a matrix so that its left is the side projected from; the same call turns it back."""
    return D.T if side == "right" else D


def _orthonormalised(X: Float[Tensor, "M r"]) -> Float[Tensor, "M r"]:
    Q: Tensor
    Q, R = torch.linalg.qr(X)
    # QR is unique, and Q Haar for a Gaussian X, only once the diagonal of R is positive.
    return Q * torch.where(R.diagonal() < 0, -1, 1).to(Q)
