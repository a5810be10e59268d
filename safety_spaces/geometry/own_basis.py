"""A user's own basis: the subspace that somebody claims, put in the place of top_k.

One safetensors file holds a matrix for each tensor that the claim is about, under the tensor's name: orthonormal
columns in order, as tall as the tensor's projected side. A tensor without a matrix has no directions: all of its update
is outside the subspace.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.geometry.factorisation import deviation
from safety_spaces.geometry.updates import Updates
from safety_spaces.models.checkpoints import Checkpoint, as_matrix
from safety_spaces.models.tensor_files import stored_tensors

ACCEPTED_DEVIATION = 1e-4


@dataclass(frozen=True)
class OwnBasis:
    """The matrices of one file, of which names and shapes fit the updates."""

    path: Path
    matrices: Checkpoint

    def columns(self, name: str, height: int) -> Float[Tensor, "M c"]:
        """Directions of one tensor, of the height given; none where the file has none.

        Raises UserError when they are not orthonormal to 1e-4.
        """
        if name not in self.matrices.stored:
            return torch.zeros(height, 0)
        U = as_matrix(self.matrices.tensor(name)).float()
        if (largest := deviation(U)) > ACCEPTED_DEVIATION:
            raise UserError(
                f"{self.path}: expected orthonormal columns of {name}, U'U differs from I by {largest:.2g}; "
                "write the Q of torch.linalg.qr(U) in float32"
            )
        return U


def open_basis(path: Path, updates: Updates) -> OwnBasis:
    """List the matrices of a user's file.

    Raises UserError when a name is no tensor of the model, a matrix has another height than the projected side of its
    tensor, or more columns than rows.
    """
    matrices = Checkpoint(path, stored_tensors(path))
    if not matrices.names:
        raise UserError(f"{path}: expected a matrix for one tensor or more, found none; write it with save_file")
    if unknown := sorted(set(matrices.names) - set(updates.names)):
        raise UserError(
            f"{path}: expected names of tensors of {updates.reference.folder}, {unknown[0]} is none; "
            f"names look like {updates.names[0]}"
        )
    for name in matrices.names:
        shape, height = matrices.shape(name), updates.shape(name)[0]
        if len(shape) not in (1, 2) or shape[0] != height or (shape[1:] or (1,))[0] > height:
            raise UserError(
                f"{path}: expected {name} to have {height} rows and at most as many columns, got {shape}; "
                "correct the matrix or projection.basis.side"
            )
    return OwnBasis(path, matrices)
