"""Checkpoints and states in, subspaces out: the linear algebra of the paper's Section 2.

Shapes: M rows (outputs) and N columns (inputs) of a tensor seen as a matrix, r its rank, k directions of a basis,
d hidden size, p prompts. A basis is a matrix "M r" of orthonormal columns in order: every fraction is a prefix of it.
"""

from safety_spaces.geometry.bases import (
    OrderedBasis,
    coinciding_fractions,
    directions,
    haar_frame,
    ordered_basis,
    orient,
)
from safety_spaces.geometry.coordinates import Coordinates, Frames, coordinates
from safety_spaces.geometry.energies import TensorEnergy, cell_energies, expected_energy, tensor_cells, totals
from safety_spaces.geometry.factor_cache import cached_factor
from safety_spaces.geometry.factorisation import Factors, factor, is_orthonormal, precision_on
from safety_spaces.geometry.moments import Moments, moment_factors, second_moment, state_moments
from safety_spaces.geometry.overlap import Overlap, modes, mso_curve, update_cosine, update_overlaps
from safety_spaces.geometry.own_basis import OwnBasis, open_basis
from safety_spaces.geometry.projection import (
    coefficients,
    cosine,
    energy_curve,
    inner,
    kept,
    parallel_parts,
    squared_norm,
)
from safety_spaces.geometry.sweep import Swept, merged, sweep
from safety_spaces.geometry.updates import Updates
from safety_spaces.models.checkpoints import (
    Checkpoint,
    as_matrix,
    check_differs,
    check_same_tensors,
    fitted,
    update,
)
from safety_spaces.models.opening import open_checkpoint

__all__ = [
    "Checkpoint",
    "Coordinates",
    "Factors",
    "Frames",
    "Moments",
    "OrderedBasis",
    "Overlap",
    "OwnBasis",
    "Swept",
    "TensorEnergy",
    "Updates",
    "as_matrix",
    "cached_factor",
    "cell_energies",
    "check_differs",
    "check_same_tensors",
    "coefficients",
    "coinciding_fractions",
    "coordinates",
    "cosine",
    "directions",
    "energy_curve",
    "expected_energy",
    "factor",
    "fitted",
    "haar_frame",
    "inner",
    "is_orthonormal",
    "kept",
    "merged",
    "modes",
    "moment_factors",
    "mso_curve",
    "open_basis",
    "open_checkpoint",
    "ordered_basis",
    "orient",
    "parallel_parts",
    "precision_on",
    "second_moment",
    "squared_norm",
    "state_moments",
    "sweep",
    "tensor_cells",
    "totals",
    "update",
    "update_cosine",
    "update_overlaps",
]
