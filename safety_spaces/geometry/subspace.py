"""The span of orthonormal directions: projection, energy and overlap, without any M x M projector (equations 3 to 11).

A tensor comes as a matrix D "M N", turned so that the projected side is the left.

    P_k D = U_k U_k' D,  E_k = |P_k D|^2 / |D|^2,  MSO = |U_k' W_l|^2 / min(k, l)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """MSO of two subspaces of a space of d dimensions, and its mean over random ones, max(k_first, k_second) / d.

    Both are None where a side has no directions: there is no overlap to speak of, not an overlap of zero.
    """

    k_first: int
    k_second: int
    dimension: int
    mso: float | None
    mso_chance: float | None


@dataclass(frozen=True)
class Subspace:
    """The span of k orthonormal directions: the columns of a frame in their order, or those that `order` names in its.

    Its first directions span a subspace too (equation 3), so one factorisation serves every fraction, and a control
    that takes the columns of U in another order shares U, and U'D, with the leading directions.
    """

    frame: Float[Tensor, "M n"]
    order: Int[Tensor, "k"] | None = None

    def __len__(self) -> int:
        """Number of directions k."""
        return self.frame.shape[1] if self.order is None else len(self.order)

    def first(self, k: int) -> "Subspace":
        """The span of the first k directions."""
        return Subspace(self.frame[:, :k]) if self.order is None else Subspace(self.frame, self.order[:k])

    def directions(self, start: int = 0, stop: int | None = None) -> Float[Tensor, "M k"]:
        """Directions start ... stop - 1, as columns."""
        # Rows of the transpose: a frame lies in memory direction by direction.
        rows = self.frame.T
        return (rows[start:stop] if self.order is None else rows[self.order[start:stop].to(rows.device)]).T

    def project(self, D: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
        """P_k D, the part of an update inside (equation 5); D less this part is the one outside (equation 6)."""
        return self.add_part(torch.zeros_like(D), D)

    def add_part(
        self, total: Float[Tensor, "M N"], D: Float[Tensor, "M N"], start: int = 0, stop: int | None = None
    ) -> Float[Tensor, "M N"]:
        """Add to `total`, in place, what directions start ... stop - 1 hold of D; so P_k D grows with k."""
        U = self.directions(start, stop).to(D)
        return total.addmm_(U, U.T @ D)

    def energy(self, D: Float[Tensor, "M N"]) -> float:
        """|P_k D|^2 (numerator of equation 7)."""
        return squared_norm(self.directions().to(D).T @ D)

    def running_energies(self, held: Float64[Tensor, "n"]) -> list[float]:
        """|P_k D|^2 of the first 0, 1 ... k directions, from the energy |u'D|^2 that each column u of the frame holds."""
        ordered = held if self.order is None else held[self.order.to(held.device)]
        return [0.0, *ordered.cumsum(0).tolist()]

    def expected_energy(self, D: Float[Tensor, "M N"], *, within: "Subspace | None" = None) -> float:
        """Mean of |P D|^2 over random subspaces of k dimensions: (k/M) |D|^2; inside one of r, (k/r) |P_r D|^2."""
        if within is None:
            return chance_energy(len(self), len(D), squared_norm(D))
        return chance_energy(len(self), len(within), within.energy(D))

    def overlap(self, other: "Subspace") -> Overlap:
        """MSO with another subspace (equations 9 to 11)."""
        (found,) = prefix_overlaps(self.directions(), other.directions(), [(len(self), len(other))])
        return found


def chance_energy(k: int, dimension: int, energy: float) -> float:
    """Mean energy in k dimensions at random of all those that an energy lies in."""
    return k / dimension * energy if dimension else 0.0


def prefix_overlaps(U: Float[Tensor, "d m"], W: Float[Tensor, "d n"], ks: Sequence[tuple[int, int]]) -> list[Overlap]:
    """MSO of the first k columns of U and the first l of W for each (k, l), all from one product U'W."""
    d, table = len(U), _summed_squares(U, W.to(U), *zip(*ks, strict=True))
    return [
        Overlap(k, l, d, table[k, l] / min(k, l), max(k, l) / d) if min(k, l) else Overlap(k, l, d, None, None)
        for k, l in ks
    ]


def _summed_squares(
    U: Float[Tensor, "d m"], W: Float[Tensor, "d n"], firsts: Sequence[int], seconds: Sequence[int]
) -> dict[tuple[int, int], float]:
    """|U_k' W_l|^2 for every k of firsts and l of seconds: sums between one cut and the next."""
    first_cuts, second_cuts = (sorted({0, *ks}) for ks in (firsts, seconds))
    squares = (U[:, : first_cuts[-1]].T @ W[:, : second_cuts[-1]]).square_()
    rows = torch.stack([squares[:0].sum(0), *(squares[a:b].sum(0) for a, b in pairwise(first_cuts))]).double().cumsum(0)
    table = torch.stack([rows[:, :0].sum(1), *(rows[:, a:b].sum(1) for a, b in pairwise(second_cuts))], dim=1).cumsum(1)
    return dict(zip(product(first_cuts, second_cuts), table.flatten().tolist(), strict=True))


def row_energies(C: Float[Tensor, "r N"]) -> Float64[Tensor, "r"]:
    """Squared norm of each row; of C = U'D what each direction holds of an update."""
    norms: Tensor = torch.linalg.vector_norm(C, dim=1)
    return norms.double().square()


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
