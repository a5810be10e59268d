"""All cells of a projection study in one pass over the tensors: energies and merged weights (equations 4 to 7).

One factorisation of the reference update serves every basis, fraction, scheme and task. Memory is that of a few copies
of the largest tensor, so a study that wants merged checkpoints writes them tensor by tensor.

    W_A + P_k D,  W_A + (I - P_k) D
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.bases import Rounding
from safety_spaces.geometry.coordinates import Coordinates, Frames
from safety_spaces.geometry.energies import TensorEnergy, tensor_cells
from safety_spaces.geometry.factorisation import Precision, factor
from safety_spaces.geometry.projection import Vectors, parallel_parts, vector_share
from safety_spaces.geometry.updates import REFERENCE, Updates


@dataclass(frozen=True)
class Swept:
    """One tensor of two cells, the parallel and the orthogonal one of a task, basis, draw and fraction.

    parallel and orthogonal are the merged weights, turned so that left is projected (`Updates.restored` turns them
    back). They are written over by the next cell: copy what is to be kept.
    """

    task: str
    energy: TensorEnergy
    parallel: Float[Tensor, "M N"]
    orthogonal: Float[Tensor, "M N"]


def sweep(
    updates: Updates,
    *,
    bases: Sequence[str],
    fractions: Sequence[float],
    draws: int,
    seed: int,
    precision: Precision = "float64",
    rounding: Rounding = "floor",
    vectors: Vectors = "project",
) -> Iterator[Swept]:
    """Every tensor in every cell, tensor after tensor; fractions ascend.

    Raises UserError when a tensor is not finite or its file is cut short.
    """
    for name, D in updates.each(updates.names, (REFERENCE, *updates.tasks)):
        frames, W = Frames(factor(D.pop(REFERENCE), precision=precision).U), updates.weights(name)
        dtype = functools.reduce(torch.promote_types, (update.dtype for update in D.values()), W.dtype)
        W, D = W.to(dtype), {task: update.to(dtype) for task, update in D.items()}
        space = Workspace.like(W)
        cells = tensor_cells(
            name,
            frames,
            D,
            bases=bases,
            fractions=fractions,
            draws=draws,
            seed=seed,
            rounding=rounding,
            vectors=vectors,
            kind=updates.reference.kind(name),
        )
        for found, energies in cells:
            weights = merged(W, D[found.task], found, [energy.k for energy in energies], space, vectors=vectors)
            for energy, (parallel, orthogonal) in zip(energies, weights, strict=True):
                yield Swept(found.task, energy, parallel, orthogonal)


@dataclass(frozen=True)
class Workspace:
    """Memory of the size of one tensor, three times over: allocated once, as fresh pages cost more than the sums."""

    parallel: Float[Tensor, "M N"]
    orthogonal: Float[Tensor, "M N"]
    both: Float[Tensor, "M N"]

    @classmethod
    def like(cls, W: Float[Tensor, "M N"]) -> "Workspace":
        """Memory for a tensor, of its dtype and on its device."""
        return cls(torch.empty_like(W), torch.empty_like(W), torch.empty_like(W))


def merged(
    W: Float[Tensor, "M N"],
    D: Float[Tensor, "M N"],
    found: Coordinates,
    ks: Sequence[int],
    space: Workspace,
    *,
    vectors: Vectors = "project",
) -> Iterator[tuple[Float[Tensor, "M N"], Float[Tensor, "M N"]]]:
    """W + P_k D and W + (I - P_k) D for each k, ascending, in two tensors that every k writes over.

    They add to 2 W + D, so the second is a difference of what is there; rounding is that of W's last digit per k.
    """
    is_projected = vector_share(D.shape, vectors) is None
    torch.add(D, W, alpha=2, out=space.both)
    onto = space.parallel.copy_(W)
    for parallel in parallel_parts(D, found.ordered, ks, C=found.C, onto=onto, vectors=vectors):
        if is_projected:
            torch.sub(space.both, parallel, out=space.orthogonal)
        else:
            # A vector that a policy takes out of the projection is the same under both schemes.
            space.orthogonal.copy_(parallel)
        yield parallel, space.orthogonal
