"""One tensor, every basis: each task update in its coordinates C = U'D, from one factorisation and one product a frame.

top_k and random_k take the columns of the same U in another order, so they share U and C; a random frame is drawn once
for all tasks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.bases import OrderedBasis, Rounding, directions, ordered_basis
from safety_spaces.geometry.projection import (
    coefficients,
    row_energies,
)
from safety_spaces.tensors import FIXED_BASES


@dataclass(frozen=True)
class Frames:
    """The given orthonormal columns of one tensor: U of the reference update, and a user's own where there are any."""

    U: Float[Tensor, "M r"]
    own: Float[Tensor, "M c"] | None = None

    def of(self, basis: str) -> Float[Tensor, "M n"]:
        """Columns that a basis takes its directions from. Raises ValueError for `file` where there is none."""
        if basis != "file":
            return self.U
        if self.own is None:
            raise ValueError("expected the columns of a user's own basis, got none")
        return self.own

    def size(self, shape: tuple[int, int]) -> tuple[int, int]:
        """What a fraction is a share of, and the most there are: min(M, N) and the rank, or a user's columns."""
        return (min(shape), self.U.shape[1]) if self.own is None else (self.own.shape[1], self.own.shape[1])

    def directions(
        self, fractions: Sequence[float], shape: tuple[int, int], *, rounding: Rounding = "floor"
    ) -> list[int]:
        """k of each fraction, the same for every basis."""
        return [directions(rho, *self.size(shape), rounding=rounding) for rho in fractions]


@dataclass(frozen=True)
class Coordinates:
    """The update of one task in one draw of a basis; C = frame'D and its row energies are in the frame's order."""

    task: str
    basis: str
    draw: int
    ordered: OrderedBasis
    C: Float[Tensor, "n N"]
    energies: Float64[Tensor, "n"]


def coordinates(
    name: str,
    frames: Frames,
    updates: Mapping[str, Float[Tensor, "M N"]],
    *,
    bases: Sequence[str],
    draws: int,
    seed: int,
    k: int,
) -> Iterator[Coordinates]:
    """Every task update of one tensor in every basis and draw, to k directions or more; FIXED_BASES have draw 0.

    A `Coordinates` is best used before the next is asked for: its C may be as large as the tensor.
    """
    drawn = [basis for basis in bases if basis != "random"]
    for task, D in updates.items():
        yield from _in_given_frames(name, frames, task, D, bases=drawn, draws=draws, seed=seed, k=k)
    for draw in range(draws if "random" in bases else 0):
        device = next(iter(updates.values())).device
        ordered = ordered_basis("random", frames.U, k=k, seed=seed, draw=draw, name=name, device=device)
        for task, D in updates.items():
            C = coefficients(ordered.frame.to(D), D)
            yield Coordinates(task, "random", draw, ordered, C, row_energies(C))


def _in_given_frames(
    name: str,
    frames: Frames,
    task: str,
    D: Float[Tensor, "M N"],
    *,
    bases: Sequence[str],
    draws: int,
    seed: int,
    k: int,
) -> Iterator[Coordinates]:
    for own in (False, True):
        taking = [basis for basis in bases if (basis == "file") == own]
        if not taking:
            continue
        frame = frames.of(taking[0]).to(D)
        C = coefficients(frame, D)
        energies = row_energies(C)
        for basis in taking:
            for draw in range(1 if basis in FIXED_BASES else draws):
                ordered = ordered_basis(basis, frame, k=k, seed=seed, draw=draw, name=name)
                yield Coordinates(task, basis, draw, ordered, C, energies)
