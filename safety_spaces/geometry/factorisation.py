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
"""Of eta times the total, taken off it: 0.07 of 100 equal modes are 7 modes, not 8."""

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

    def modes(self, eta: float) -> int:
        """Smallest number of modes whose energy reaches eta of the total (Section 2); 0 for a zero matrix."""
        if self.rank == 0:
            return 0
        cumulative = self.sigma.square().double().cumsum(0)
        reached = cumulative >= eta * cumulative[-1] * (1 - ETA_ROUNDING)
        return min(self.rank, int((~reached).sum()) + 1)

    def leading(self, k: int) -> Subspace:
        """The span of the k leading singular vectors (equation 3)."""
        return Subspace(self.U[:, :k])


def factor(D: Float[Tensor, "M N"], *, precision: Precision = "float64") -> Factors:
    """Left factors of the thin SVD of a matrix of any shape, U in its precision and sigma in float64.

    precision is that of the inner products: float32 is for devices whose float64 is slow. Energies and MSO of either
    agree with a dense float64 SVD to 1e-4 (tests/geometry/test_factorisation.py).
    """
    return _by_gram(D) if precision == "float64" else _by_levels(D)


@functools.cache
def precision_on(device: torch.device) -> Precision:
    """The precision to factor in on a device, float32 only where float64 is slow; why is logged, once."""
    precision: Precision = "float64"
    reason = "exact and fast on a CPU"
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        precision = "float64" if capability in FAST_FLOAT64 else "float32"
        speed = "fast" if precision == "float64" else "float64 is slow"
        reason = "{} at compute capability {}.{}".format(speed, *capability)
    logger.info("factors: %s (%s)", precision, reason)
    return precision


def numerical_rank(sigma: Float[Tensor, "n"]) -> int:
    """Number of singular values, given largest first, above 1e-6 of the largest."""
    return int((sigma > RELATIVE_RANK_TOLERANCE * sigma[:1]).sum())


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


def is_orthonormal(U: Float[Tensor, "M r"]) -> bool:
    """Whether U'U = I to 1e-5 in every entry."""
    return deviation(U) <= ORTHONORMALITY_TOLERANCE


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
    if M >= SMALLEST_TALL and 2 * k <= M:
        return _cholesky_orthonormalised(X)
    Q: Tensor
    Q, R = torch.linalg.qr(X)
    return Q * torch.where(R.diagonal() < 0, -1, 1).to(Q)


def _cholesky_orthonormalised(X: Float[Tensor, "M k"]) -> Float[Tensor, "M k"]:
    L = torch.linalg.cholesky(gram(X.T, precision=X.dtype)).to(X)
    for rows in torch.split(X, SUMMED_AT_ONCE):
        rows.copy_(_solved(L, rows))
    return X


def _solved(L: Float[Tensor, "k k"], rows: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
    """rows L'^-1."""
    solved: Tensor = torch.linalg.solve_triangular(L, rows.T, upper=False)
    return solved.T


def gram_factors(squared: Float64[Tensor, "n n"]) -> Factors:
    """Left factors of A from A A' = W Sigma^2 W', of which the lower triangle is read; float64.

    The squared condition is harmless in float64: what it blurs lies below the rank's 1e-6 of the largest.
    """
    values, W = torch.linalg.eigh(squared)
    sigma = values.flip(0).clamp(min=0).sqrt()
    rank = numerical_rank(sigma)
    return Factors(W.flip(1)[:, :rank], sigma[:rank])


def _by_gram(D: Float[Tensor, "M N"]) -> Factors:
    M, N = D.shape
    small = gram_factors(gram(D if M <= N else D.T, precision=torch.float64))
    U = small.U.T.to(D.dtype).contiguous().T if M <= N else _tall(D, small.U / small.sigma)
    return Factors(U, small.sigma)


def _tall(D: Float[Tensor, "M N"], W: Float64[Tensor, "N r"]) -> Float[Tensor, "M r"]:
    """D W of columns W = V Sigma^-1, whose rounding grows with the condition: checked, and mended where it shows."""
    U = (W.to(D.dtype).T @ D.T).T
    if is_orthonormal(U):
        return U
    # In float64 what is left of the error is that of W, below 1e-3, and one Cholesky step mends it. By rows, and twice,
    # so that no second copy of the largest tensor is held.
    blocks = torch.split(D, SUMMED_AT_ONCE)
    L = torch.linalg.cholesky(sum((rows.to(W) @ W).T @ (rows.to(W) @ W) for rows in blocks))
    for rows, mended in zip(blocks, torch.split(U, SUMMED_AT_ONCE), strict=True):
        mended.copy_(_solved(L, rows.to(W) @ W))
    return U


def _by_levels(D: Float[Tensor, "M N"]) -> Factors:
    """QR and SVD in the tensor's own precision, in levels.

    An SVD in float32 blurs what lies under 1e-6 of its largest value. So each level keeps the directions within 1e-3 of
    its largest, and what it found is taken off before the next: rounding is then relative to what is left.
    """
    rest, U = D, D[:, :0]
    sigma = D.new_zeros(0)
    while U.shape[1] < min(D.shape):
        left, values = _svd_by_qr(rest)
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


def _svd_by_qr(D: Float[Tensor, "M N"]) -> tuple[Float[Tensor, "M n"], Float[Tensor, "n"]]:
    M, N = D.shape
    if M < N:
        # D' = Q R, so D = R' Q' and R' alone has the left factors of D.
        left, values, _ = torch.linalg.svd(torch.linalg.qr(D.T, mode="r").R.T, full_matrices=False)
        return left, values
    Q, R = torch.linalg.qr(D)
    left, values, _ = torch.linalg.svd(R, full_matrices=False)
    return Q @ left, values
