"""Left singular vectors of one update: a single factorisation that serves every fraction, scheme, basis and task.

The dearest step of the study, so its cost is that of the small side n = min(M, N): the Gram matrix of that side and its
eigenvectors, in float64. Squaring the condition is harmless there, since what it blurs lies below the rank's 1e-6; in
float32 it moved projections by several percent. Devices with slow float64 have a route that never squares anything.

    D D' = W Sigma^2 W' (wide: U = W),  D'D = W Sigma^2 W' (tall: U = D W Sigma^-1)
"""

import functools
import logging
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.subspace import Subspace

logger = logging.getLogger(__name__)

RELATIVE_RANK_TOLERANCE = 1e-6
ORTHONORMALITY_TOLERANCE = 1e-5
LEVEL = 1e-3
"""In float32 a singular vector is trusted down to this share of the largest value of the matrix it is taken from."""
SUMMED_AT_ONCE = 2048
"""Columns of a Gram matrix's factor that are in float64 at a time."""
SMALLEST_BLOCK = 256
SMALLEST_TALL = 64
"""Rows from which the condition of a Gaussian frame hardly varies."""
ETA_ROUNDING = 1e-12
"""Share of eta times the total that is taken off it: 0.07 of 100 equal modes are 7 modes, not 8."""
FAST_FLOAT64 = frozenset({(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)})
"""Compute capabilities of CUDA with float64 at half the rate of float32; workstation cards have 1/32 of it or less."""

Precision = Literal["float64", "float32"]


@dataclass(frozen=True)
class Factors:
    """Left singular vectors U and singular values sigma, largest first, cut at the rank r."""

    U: Float[Tensor, "M r"]
    sigma: Float[Tensor, "r"]

    @property
    def rank(self) -> int:
        """Number of singular values above 1e-6 of the largest; 0 for a zero matrix."""
        return self.U.shape[1]

    def leading(self, k: int) -> Subspace:
        """The span of the k leading singular vectors (equation 3)."""
        return Subspace(self.U[:, :k])

    def modes(self, eta: float) -> int:
        """Smallest number of modes whose energy reaches eta of the total (Section 2); 0 for a zero matrix."""
        if self.rank == 0:
            return 0
        cumulative = self.sigma.square().double().cumsum(0)
        return min(self.rank, int((cumulative < eta * cumulative[-1] * (1 - ETA_ROUNDING)).sum()) + 1)


def factor(D: Float[Tensor, "M N"], *, precision: Precision = "float64") -> Factors:
    """Left factors of the thin SVD of a matrix of any shape, U in its precision and sigma in float64.

    precision is that of the inner products: float32 is for devices whose float64 is slow. Energies and MSO of either
    agree with a dense float64 SVD to 1e-4 (tests/geometry/test_factorisation.py).
    """
    if precision == "float32":
        return _by_levels(D)
    is_tall = D.shape[0] > D.shape[1]
    small = gram_factors(gram(D.T if is_tall else D, precision=torch.float64))
    U = _tall(D, small.U / small.sigma) if is_tall else small.U.T.to(D.dtype).contiguous().T
    return Factors(U, small.sigma)


@functools.cache
def precision_on(device: torch.device) -> Precision:
    """The precision to factor in on a device, float32 only where float64 is slow; why is logged, once."""
    precision: Precision = "float64"
    reason = "exact and fast on a CPU"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        precision, speed = ("float64", "fast") if (major, minor) in FAST_FLOAT64 else ("float32", "float64 is slow")
        reason = f"{speed} at compute capability {major}.{minor}"
    logger.info("factors: %s (%s)", precision, reason)
    return precision


def gram(A: Float[Tensor, "n m"], *, precision: torch.dtype) -> Float64[Tensor, "n n"]:
    """A A', products in `precision`, summed in float64; only the lower triangle and some entries above it are filled.

    No copy of A in `precision` is made: it may be the largest tensor of the model.
    """
    n = A.shape[0]
    total = torch.zeros(n, n, dtype=torch.float64, device=A.device)
    block = max(SMALLEST_BLOCK, -(-n // 4))
    for columns in torch.split(A, SUMMED_AT_ONCE, dim=1):
        part = columns.to(precision)
        for start in range(0, n, block):
            stop = min(start + block, n)
            total[start:stop, :stop] += part[start:stop] @ part[:stop].T
    return total


def deviation(U: Float[Tensor, "M r"]) -> float:
    """Largest entry of |U'U - I|; 0 for no columns."""
    if U.shape[1] == 0:
        return 0.0
    error = gram(U.T, precision=U.dtype)
    error.diagonal().sub_(1)
    # In place, as the square of a wide tensor's side is as large as a tensor.
    return float(error.tril_().abs_().max())


def orthonormalised(X: Float[Tensor, "M k"]) -> Float[Tensor, "M k"]:
    """Columns made orthonormal in order, so that every prefix keeps its span: the Q of QR with a positive diagonal.

    X may be written over, to save a copy of the largest frame. QR is unique, and Q Haar for a Gaussian X, only with
    that sign. A Gaussian frame twice as tall as wide, and not small, has a condition near 6 or below, where Cholesky of
    X'X is as exact as Householder's reflections and much faster.
    """
    M, k = X.shape
    if M < SMALLEST_TALL or 2 * k > M:
        Q, R = torch.linalg.qr(X)
        signed: Tensor = Q * torch.where(R.diagonal() < 0, -1, 1).to(Q)
        return signed
    L = torch.linalg.cholesky(gram(X.T, precision=X.dtype)).to(X)
    for rows in torch.split(X, SUMMED_AT_ONCE):
        rows.copy_(_solved(L, rows))
    return X


def _solved(L: Float[Tensor, "k k"], rows: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    """rows L'^-1."""
    solved: Tensor = torch.linalg.solve_triangular(L, rows.T, upper=False)
    return solved.T


def gram_factors(squared: Float64[Tensor, "n n"]) -> Factors:
    """Left factors of A from A A' = W Sigma^2 W', of which the lower triangle is read; float64."""
    values, W = torch.linalg.eigh(squared)
    sigma = values.flip(0).clamp(min=0).sqrt()
    rank = int((sigma > RELATIVE_RANK_TOLERANCE * sigma[:1]).sum())
    return Factors(W.flip(1)[:, :rank], sigma[:rank])


def _tall(D: Float[Tensor, "M N"], W: Float64[Tensor, "N r"]) -> Float[Tensor, "M r"]:
    """D W of columns W = V Sigma^-1, whose rounding grows with the condition: checked, and mended where it shows."""
    U = (W.to(D.dtype).T @ D.T).T
    if deviation(U) > ORTHONORMALITY_TOLERANCE:
        # In float64 what is left of the error is that of W, below 1e-3, and one Cholesky step mends it. By rows, and
        # twice, so that no second copy of the largest tensor is held.
        blocks = torch.split(D, SUMMED_AT_ONCE)
        L = torch.linalg.cholesky(sum((rows.to(W) @ W).T @ (rows.to(W) @ W) for rows in blocks))
        for rows, mended in zip(blocks, torch.split(U, SUMMED_AT_ONCE), strict=True):
            mended.copy_(_solved(L, rows.to(W) @ W))
    return U


def _by_levels(D: Float[Tensor, "M N"]) -> Factors:
    """SVD in the tensor's own precision, in levels.

    An SVD in float32 blurs what lies under 1e-6 of its largest value. So each level keeps the directions within 1e-3 of
    its largest, and what it found is taken off before the next: rounding is then relative to what is left.
    """
    rest, U, sigma = D, D[:, :0], D.new_zeros(0)
    while U.shape[1] < min(D.shape):
        # D' = Q R, so D = R' Q' and R' alone has the left factors of a wide D.
        is_wide = D.shape[0] < D.shape[1]
        left, values, _ = torch.linalg.svd(
            torch.linalg.qr(rest.T, mode="r").R.T if is_wide else rest, full_matrices=False
        )
        largest = sigma[:1] if len(sigma) else values[:1]
        found = int((values > torch.maximum(LEVEL * values[:1], RELATIVE_RANK_TOLERANCE * largest)).sum())
        found = min(found, min(D.shape) - U.shape[1])
        if found == 0:
            break
        level = left[:, :found]
        level = torch.linalg.qr(level - U @ (U.T @ level))[0]
        # From the right: what is off in the level's left directions, a millionth of what it holds, would stay.
        right = torch.linalg.qr(rest.T @ level)[0]
        rest = rest - (rest @ right) @ right.T
        rest = rest - level @ (level.T @ rest)
        U, sigma = torch.cat([U, level], dim=1), torch.cat([sigma, values[:found]])
    return Factors(U.T.contiguous().T, sigma.double())
