"""Task updates projected on a basis (equations 4 to 6).

With C = U'D the energies of all k are running sums of C's squared row norms, and the parallel part grows with k by
U[:, k0:k1] C[k0:k1]; no M x M projector is ever formed. Tensors come oriented: the projected side is the left.

    P_k D = U_k U_k' D,  E_k = |P_k D|^2 / |D|^2,  E_k(orthogonal) = 1 - E_k
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.bases import OrderedBasis

Scheme = Literal["parallel", "orthogonal"]
Vectors = Literal["project", "keep", "drop"]


def coefficients(U: Float[Tensor, "M r"], D: Float[Tensor, "M N"]) -> Float[Tensor, "r N"]:
    """C = U'D: the update in the coordinates of the basis."""
    return U.T @ D


def row_energies(C: Float[Tensor, "r N"]) -> Float64[Tensor, "r"]:
    """Squared norm of each row of C: what each direction holds of the update."""
    norms: Tensor = torch.linalg.vector_norm(C, dim=1)
    return norms.double().square()


def energy_curve(C: Float[Tensor, "r N"]) -> Float64[Tensor, "r+1"]:
    """|P_k D|^2 at index k = 0 ... r (numerator of equation 7)."""
    return running_sum(row_energies(C))


def running_sum(energies: Float64[Tensor, "r"]) -> Float64[Tensor, "r+1"]:
    """Sums of the first k energies at index k = 0 ... r."""
    return torch.cat([energies.new_zeros(1), energies.cumsum(0)])


def parallel_parts(
    D: Float[Tensor, "M N"],
    basis: OrderedBasis,
    ks: Sequence[int],
    *,
    C: Float[Tensor, "r N"] | None = None,
    onto: Float[Tensor, "M N"] | None = None,
    vectors: Vectors = "project",
) -> Iterator[Float[Tensor, "M N"]]:
    """P_k D for each k (equation 5), ascending, added onto a tensor where one is given.

    C, if it is there already, is frame'D of the basis. Each yielded tensor is the running sum itself, valid until the
    next is asked for: copy what is to be kept. What precedes k is summed in the order of ks, so the same ks give the
    same bytes. Raises ValueError when ks descend.
    """
    if list(ks) != sorted(ks):
        raise ValueError(f"expected ascending numbers of directions, got {list(ks)}")
    share = vector_share(D.shape, vectors)
    total, done = torch.zeros_like(D) if onto is None else onto, 0
    if share is not None:
        total.add_(D, alpha=share)
    for k in ks:
        if share is None:
            added = basis.columns(done, k).to(D)
            total.addmm_(added, coefficients(added, D) if C is None else basis.rows(C, done, k))
            done = k
        yield total


def kept(
    D: Float[Tensor, "M N"], parallel: Float[Tensor, "M N"], scheme: Scheme, *, vectors: Vectors = "project"
) -> Float[Tensor, "M N"]:
    """The part of an update that a scheme keeps, given its parallel part (equations 5 and 6).

    A vector that a policy takes out of the projection is kept, or dropped, under both schemes alike.
    """
    return parallel if scheme == "parallel" or vector_share(D.shape, vectors) is not None else D - parallel


def vector_share(shape: Sequence[int], vectors: Vectors) -> float | None:
    """Share of a vector's update (N = 1) that counts as parallel by policy; None where the basis decides."""
    return None if shape[1] > 1 else {"project": None, "keep": 1.0, "drop": 0.0}[vectors]


def squared_norm(D: Float[Tensor, "M N"]) -> float:
    """|D|^2, the squared Frobenius norm; rows in the tensor's precision, summed in float64."""
    return float(row_energies(D).sum())


def inner(first: Float[Tensor, "M N"], second: Float[Tensor, "M N"]) -> float:
    """Frobenius inner product, in the better of two precisions, rows summed in float64."""
    dtype = torch.promote_types(first.dtype, second.dtype)
    return float(torch.linalg.vecdot(first.to(dtype), second.to(dtype)).sum(dtype=torch.float64))


def cosine(dot: float, first_squared: float, second_squared: float) -> float:
    """Signed cosine from an inner product and two squared norms; 0 where either is 0."""
    length = math.sqrt(first_squared) * math.sqrt(second_squared)
    return dot / length if length else 0.0
