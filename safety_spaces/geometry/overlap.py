"""Mode Subspace Overlap of two updates or of two sets of states (equations 8 to 11).

The etas of a pair all come from one table, the squared entries of S = U'W summed along both axes.

    MSO = |Q_V' Q_W|^2 / min(k_V, k_W),  E[MSO of random spans] = max(k_V, k_W) / d
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.factorisation import Factors, Precision, factor
from safety_spaces.geometry.projection import cosine, inner, squared_norm

# Room for the rounding of eta times the total: 0.07 of 100 equal modes are 7 modes, not 8.
RELATIVE_ROUNDING = 1e-12


@dataclass(frozen=True)
class Overlap:
    """MSO of two subspaces of a space of the given dimension, beside the value expected by chance.

    No modes on either side (a zero update) count as no overlap: mso and chance are 0.
    """

    eta: float
    k_first: int
    k_second: int
    dimension: int
    mso: float
    chance: float


def modes(sigma_squared: Float[Tensor, "n"], eta: float, rank: int) -> int:
    """Smallest number of modes whose energy reaches eta of the total (Section 2), at most the rank."""
    if rank == 0:
        return 0
    cumulative = sigma_squared.double().cumsum(0)
    reached = cumulative >= eta * cumulative[-1] * (1 - RELATIVE_ROUNDING)
    return min(rank, int((~reached).sum()) + 1)


def mso_curve(first: Factors, second: Factors, etas: Sequence[float]) -> list[Overlap]:
    """MSO at each eta (equations 8 to 11) of two factorisations with the same number of rows d."""
    d = first.U.shape[0]
    firsts, seconds = ([modes(side.sigma.square(), eta, side.rank) for eta in etas] for side in (first, second))
    table = _summed_squares(first.U, second.U.to(first.U), firsts, seconds)
    return [
        Overlap(eta, k1, k2, d, table[k1, k2] / min(k1, k2), max(k1, k2) / d)
        if min(k1, k2)
        else Overlap(eta, k1, k2, d, 0.0, 0.0)
        for eta, k1, k2 in zip(etas, firsts, seconds, strict=True)
    ]


def update_overlaps(
    D: Mapping[str, Float[Tensor, "M N"]],
    pairs: Iterable[tuple[str, str]],
    etas: Sequence[float],
    *,
    precision: Precision = "float64",
) -> Iterator[tuple[str, str, float, list[Overlap]]]:
    """Each pair of updates of one tensor: its signed cosine and its MSO curve; every update is factored once."""
    factors = {role: factor(matrix, precision=precision) for role, matrix in D.items()}
    for first, second in pairs:
        yield first, second, update_cosine(D[first], D[second]), mso_curve(factors[first], factors[second], etas)


def _summed_squares(
    U: Float[Tensor, "d r1"], W: Float[Tensor, "d r2"], firsts: Sequence[int], seconds: Sequence[int]
) -> dict[tuple[int, int], float]:
    """|U_k1' W_k2|^2 for every k1 of firsts and k2 of seconds, from one product: sums between one cut and the next."""
    first_cuts, second_cuts = (sorted({0, *ks}) for ks in (firsts, seconds))
    squares = (U[:, : first_cuts[-1]].T @ W[:, : second_cuts[-1]]).square_()
    rows = torch.stack([squares[:0].sum(0), *(squares[a:b].sum(0) for a, b in pairwise(first_cuts))]).double().cumsum(0)
    table = torch.stack([rows[:, :0].sum(1), *(rows[:, a:b].sum(1) for a, b in pairwise(second_cuts))], dim=1).cumsum(1)
    return dict(zip(product(first_cuts, second_cuts), table.flatten().tolist(), strict=True))


def update_cosine(first: Float[Tensor, "M N"], second: Float[Tensor, "M N"]) -> float:
    """Signed cosine of two updates; MSO cannot tell an update from its negative, this can."""
    return cosine(inner(first, second), squared_norm(first), squared_norm(second))
