"""Task updates projected on a basis, and the energy that stays (equations 4 to 7).

With C = U'D the energies of all k are running sums of C's squared row norms, and the parallel part grows with k by
U[:, k0:k1] (U[:, k0:k1]' D); no M x M projector is ever formed. Tensors come oriented: the projected side is the left.

    P_k D = U_k U_k' D,  E_k = |P_k D|^2 / |D|^2,  E_k(orthogonal) = 1 - E_k
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.bases import VECTOR_KINDS, Rounding, directions, ordered_basis
from safety_spaces.geometry.checkpoints import kind, layer

Scheme = Literal["parallel", "orthogonal"]
Vectors = Literal["project", "keep", "drop"]
EMBEDDINGS = frozenset({"embed_tokens", "lm_head"})
REORDERED = frozenset({"top_k", "random_k"})
"""Bases that take the columns of U in another order and do nothing else."""


@dataclass(frozen=True)
class TensorEnergy:
    """Energy of one task update inside one basis, for one tensor or summed over several (tensor `all`, ...).

    energy is |P_k D|^2, update |D|^2, expected the closed form of energy for a random basis (None for top_k).
    """

    name: str
    layer: int | None
    kind: str
    basis: str
    fraction: float
    draw: int
    rank: int
    k: int
    energy: float
    update: float
    expected: float | None

    @property
    def energy_kept(self) -> float | None:
        """The energy-kept ratio (equation 7); None where there is no update to keep."""
        return self.energy / self.update if self.update else None

    @property
    def energy_expected(self) -> float | None:
        """The closed form of energy_kept for a random basis; None for top_k and where there is no update."""
        return self.expected / self.update if self.update and self.expected is not None else None


def coefficients(U: Float[Tensor, "M r"], D: Float[Tensor, "M N"]) -> Float[Tensor, "r N"]:
    """C = U'D: the update in the coordinates of the basis."""
    return U.T @ D


def energy_curve(C: Float[Tensor, "r N"]) -> Float64[Tensor, "r+1"]:
    """|P_k D|^2 at index k = 0 ... r (numerator of equation 7)."""
    return _running_sum(_row_energies(C))


def expected_energy(
    basis: str, k: int, shape: tuple[int, int], rank: int, *, span_energy: float, update_energy: float
) -> float | None:
    """Mean of |P_k D|^2 over draws of a basis: span_energy is |U'D|^2, update_energy |D|^2; None for top_k.

    random: (k/M) |D|^2, a k-dimensional Haar subspace of M dimensions. random_k: (k/r) |U'D|^2, k rows of r.
    """
    match basis:
        case "random":
            return k / shape[0] * update_energy
        case "random_k":
            return k / rank * span_energy if rank else 0.0
        case _:
            return None


def parallel_parts(
    D: Float[Tensor, "M N"], basis: Float[Tensor, "M r"], ks: Sequence[int], *, vectors: Vectors = "project"
) -> Iterator[Float[Tensor, "M N"]]:
    """P_k D for each k (equation 5), ascending; each yielded tensor is the caller's own.

    What precedes k is summed in the order of ks, so the same ks give the same bytes. Raises ValueError when ks descend.
    """
    if list(ks) != sorted(ks):
        raise ValueError(f"expected ascending numbers of directions, got {list(ks)}")
    share = vector_share(D, vectors)
    parallel, done = torch.zeros_like(D), 0
    for k in ks:
        added = basis[:, done:k]
        parallel.addmm_(added, added.T @ D)
        done = k
        yield parallel.clone() if share is None else share * D


def kept(
    D: Float[Tensor, "M N"], parallel: Float[Tensor, "M N"], scheme: Scheme, *, vectors: Vectors = "project"
) -> Float[Tensor, "M N"]:
    """The part of an update that a scheme keeps, given its parallel part (equations 5 and 6).

    A vector that a policy takes out of the projection is kept, or dropped, under both schemes alike.
    """
    return parallel if scheme == "parallel" or vector_share(D, vectors) is not None else D - parallel


def vector_share(D: Float[Tensor, "M N"], vectors: Vectors) -> float | None:
    """Share of a vector's update (N = 1) that counts as parallel by policy; None where the basis decides."""
    return None if D.shape[1] > 1 else {"project": None, "keep": 1.0, "drop": 0.0}[vectors]


def tensor_energies(
    name: str,
    U: Float[Tensor, "M r"],
    D: Float[Tensor, "M N"],
    *,
    bases: Sequence[str],
    fractions: Sequence[float],
    draws: int,
    seed: int,
    rounding: Rounding = "floor",
    vectors: Vectors = "project",
) -> list[TensorEnergy]:
    """Energies of one tensor's task update D at every basis, draw and fraction; top_k has draw 0 alone.

    U holds the left singular vectors of the reference update, oriented as D is.
    """
    shape, rank, update = (D.shape[0], D.shape[1]), U.shape[1], squared_norm(D)
    spanned = _row_energies(coefficients(U, D))
    span = float(spanned.sum())
    drawn = [(basis, draw) for basis in bases for draw in range(1 if basis == "top_k" else draws)]
    rows = []
    for basis, draw in drawn:
        curve = _running_sum(_direction_energies(basis, U, D, spanned, seed=seed, draw=draw, name=name))
        for fraction in fractions:
            k = directions(fraction, shape, rank, rounding=rounding)
            expected = expected_energy(basis, k, shape, rank, span_energy=span, update_energy=update)
            cell = (basis, fraction, draw, rank, k, float(curve[k]), update, expected)
            rows.append(TensorEnergy(name, layer(name), kind(name), *cell))
    share = vector_share(D, vectors)
    return rows if share is None else [_by_policy(row, share) for row in rows]


def totals(rows: Iterable[TensorEnergy], *, vectors: Vectors = "project") -> list[TensorEnergy]:
    """Sums over tensors per basis, fraction and draw, named `all`, `all_but_embeddings` and `kind:<kind>`.

    A total's energy_kept is thus that of the whole update, not a mean of ratios; its kind is empty except by kind.
    Vectors that a policy takes out of the projection are summed by kind alone, so that what a total keeps under the
    parallel scheme and under the orthogonal one still adds to 1.
    """
    groups: defaultdict[tuple[str, str, str, float, int], list[TensorEnergy]] = defaultdict(list)
    for row in rows:
        cell = (row.basis, row.fraction, row.draw)
        groups[f"kind:{row.kind}", row.kind, *cell].append(row)
        if vectors != "project" and row.kind in VECTOR_KINDS:
            continue
        groups["all", "", *cell].append(row)
        if row.kind not in EMBEDDINGS:
            groups["all_but_embeddings", "", *cell].append(row)
    return [_total(*key, members) for key, members in groups.items()]


def squared_norm(D: Float[Tensor, "..."]) -> float:
    """|D|^2, the squared Frobenius norm, summed in float64."""
    return float(torch.linalg.vector_norm(D, dtype=torch.float64)) ** 2


def inner(first: Float[Tensor, "M N"], second: Float[Tensor, "M N"]) -> float:
    """Frobenius inner product, rows summed in float64."""
    return float(torch.linalg.vecdot(first, second).sum(dtype=torch.float64))


def cosine(dot: float, first_squared: float, second_squared: float) -> float:
    """Signed cosine from an inner product and two squared norms; 0 where either is 0."""
    length = math.sqrt(first_squared) * math.sqrt(second_squared)
    return dot / length if length else 0.0


def _direction_energies(
    basis: str,
    U: Float[Tensor, "M r"],
    D: Float[Tensor, "M N"],
    spanned: Float64[Tensor, "r"],
    *,
    seed: int,
    draw: int,
    name: str,
) -> Float64[Tensor, "r"]:
    if basis in REORDERED:
        # Reordering the columns of U reorders their energies: no second product is needed.
        return ordered_basis(basis, spanned[None], seed=seed, draw=draw, name=name)[0]
    return _row_energies(coefficients(ordered_basis(basis, U, seed=seed, draw=draw, name=name), D))


def _by_policy(row: TensorEnergy, share: float) -> TensorEnergy:
    energy = share * row.update
    expected = None if row.expected is None else energy
    return replace(row, k=round(share * row.rank), energy=energy, expected=expected)


def _row_energies(C: Float[Tensor, "r N"]) -> Float64[Tensor, "r"]:
    norms: Tensor = torch.linalg.vector_norm(C, dim=1, dtype=torch.float64)
    return norms.square()


def _running_sum(energies: Float64[Tensor, "r"]) -> Float64[Tensor, "r+1"]:
    return torch.cat([energies.new_zeros(1), energies.cumsum(0)])


def _total(name: str, kind: str, basis: str, fraction: float, draw: int, members: list[TensorEnergy]) -> TensorEnergy:
    def over(number: Callable[[TensorEnergy], float]) -> float:
        # fsum rounds once, so a total does not depend on the order of the tensors.
        return math.fsum(map(number, members))

    return TensorEnergy(
        name=name,
        layer=None,
        kind=kind,
        basis=basis,
        fraction=fraction,
        draw=draw,
        rank=sum(row.rank for row in members),
        k=sum(row.k for row in members),
        energy=over(lambda row: row.energy),
        update=over(lambda row: row.update),
        expected=None if members[0].expected is None else over(lambda row: row.expected or 0.0),
    )
