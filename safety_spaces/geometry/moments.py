"""Hidden states as subspaces: no d x n matrix of them is held, since their second moment has its left singular vectors.

Memory is that of d x d numbers, however many prompts there are (equation 8, Section 6).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.factorisation import Factors, gram_factors

STATES_AT_ONCE = 1024
"""States read into memory at once; the result does not depend on it beyond rounding."""
SMALLEST_SPREAD = 1e-5
"""Of the states' size; what float32 states spread less is taken for rounding."""


@dataclass(frozen=True)
class Moments:
    """Number, mean and centred scatter of hidden states, in float64: all that MSO needs to know of them."""

    n: int
    mean: Float64[Tensor, "d"]
    scatter: Float64[Tensor, "d d"]

    @classmethod
    def empty(cls, d: int, *, device: torch.device | None = None) -> "Moments":
        """Moments of no states."""
        mean = torch.zeros(d, dtype=torch.float64, device=device)
        return cls(0, mean, torch.outer(mean, mean))

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
        scatter = self.scatter + other.scatter + torch.outer(gap, gap) * (self.n * other.n / n)
        return Moments(n, self.mean + gap * (other.n / n), scatter)


def second_moment(moments: Moments, *, centred: bool) -> Float64[Tensor, "d d"]:
    """X X' of the d x n matrix X of states, with their mean taken off or not (the paper's)."""
    return moments.scatter if centred else moments.scatter + moments.n * torch.outer(moments.mean, moments.mean)


def moment_factors(moments: Moments, *, centred: bool) -> Factors:
    """Left factors of the d x n matrix of states (equation 8), from its second moment.

    Centred states that differ by rounding alone have no directions: those of a template, the same in every prompt, come
    out of batches of other lengths with other last digits.
    """
    second = second_moment(moments, centred=centred)
    energy = second_moment(moments, centred=False).trace()
    return gram_factors(second if second.trace() > SMALLEST_SPREAD**2 * energy else torch.zeros_like(second))


def state_moments(path: Path, index: int, *, device: torch.device | None = None) -> Moments:
    """Moments of one layer's states from a file of an array "prompts states d", in shards of a fixed order."""
    states = np.load(path, mmap_mode="r")
    total = Moments.empty(states.shape[2], device=device)
    for start in range(0, len(states), STATES_AT_ONCE):
        total = total.update(torch.from_numpy(np.array(states[start : start + STATES_AT_ONCE, index])))
    return total
