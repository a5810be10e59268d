"""Mode Subspace Overlap of two updates or of two sets of states (equations 8 to 11).

The etas of a pair all come from one table, the squared entries of S = U'W summed along both axes. Activations need no
d x n matrix of states: their left singular vectors are the eigenvectors of a d x d second moment.

    MSO = |Q_V' Q_W|^2 / min(k_V, k_W),  E[MSO of random spans] = max(k_V, k_W) / d
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.bases import Factors, numerical_rank
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
    ks = [tuple(modes(side.sigma.square(), eta, side.rank) for side in (first, second)) for eta in etas]
    widest_first, widest_second = (max(k[side] for k in ks) for side in (0, 1))
    S = first.U[:, :widest_first].T @ second.U[:, :widest_second].to(first.U)
    table = S.double().square().cumsum(0).cumsum(1)
    return [
        Overlap(eta, k1, k2, d, float(table[k1 - 1, k2 - 1]) / min(k1, k2), max(k1, k2) / d)
        if min(k1, k2)
        else Overlap(eta, k1, k2, d, 0.0, 0.0)
        for eta, (k1, k2) in zip(etas, ks, strict=True)
    ]


@dataclass(frozen=True)
class Moments:
    """Number, mean and centred scatter of hidden states, in float64: all that MSO needs to know of them."""

    n: int
    mean: Float64[Tensor, "d"]
    scatter: Float64[Tensor, "d d"]

    @classmethod
    def empty(cls, d: int) -> "Moments":
        """Moments of no states."""
        return cls(0, torch.zeros(d, dtype=torch.float64), torch.zeros(d, d, dtype=torch.float64))

    def update(self, states: Float[Tensor, "p d"]) -> "Moments":
        """Moments of what was seen and these states."""
        if len(states) == 0:
            return self
        states = states.to(self.mean)
        mean = states.mean(0)
        centred = states - mean
        return self.merge(Moments(len(states), mean, centred.T @ centred))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of two sets together (Chan, Golub and LeVeque 1979): exact, so shards equal one pass."""
        n = self.n + other.n
        if n == 0:
            return self
        gap = other.mean - self.mean
        return Moments(
            n,
            self.mean + gap * (other.n / n),
            self.scatter + other.scatter + torch.outer(gap, gap) * (self.n * other.n / n),
        )


def second_moment(moments: Moments, *, centred: bool) -> Float64[Tensor, "d d"]:
    """X X' of the d x n matrix X of states, with their mean taken off or not (the paper's)."""
    return moments.scatter if centred else moments.scatter + moments.n * torch.outer(moments.mean, moments.mean)


def moment_factors(moments: Moments, *, centred: bool) -> Factors:
    """Left factors of the d x n matrix of states (equation 8), from its second moment.

    The squared condition is harmless in float64: what it blurs lies below the rank's 1e-6 of the largest.
    """
    squared, vectors = torch.linalg.eigh(second_moment(moments, centred=centred))
    sigma = squared.flip(0).clamp(min=0).sqrt()
    rank = numerical_rank(sigma)
    return Factors(vectors.flip(1)[:, :rank], sigma[:rank])


def update_cosine(first: Float[Tensor, "M N"], second: Float[Tensor, "M N"]) -> float:
    """Signed cosine of two updates; MSO cannot tell an update from its negative, this can."""
    return cosine(inner(first, second), squared_norm(first), squared_norm(second))
