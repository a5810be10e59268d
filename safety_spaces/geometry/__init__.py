"""Checkpoints and states in, subspaces out: the linear algebra of the paper's Section 2.

Shapes: M rows (outputs) and N columns (inputs) of a tensor seen as a matrix, r its rank, k directions of a basis,
d hidden size, p prompts. A basis is a matrix "M r" of orthonormal columns in order: every fraction is a prefix of it.
"""

from safety_spaces.geometry.bases import (
    BASES,
    Factors,
    coinciding_fractions,
    directions,
    factor,
    ordered_basis,
    orient,
    project_from,
)
from safety_spaces.geometry.checkpoints import (
    Checkpoint,
    as_matrix,
    check_differs,
    check_same_tensors,
    kind,
    layer,
    open_checkpoint,
    update,
)
from safety_spaces.geometry.factors import cached_factor
from safety_spaces.geometry.overlap import (
    Moments,
    Overlap,
    modes,
    moment_factors,
    mso_curve,
    second_moment,
    update_cosine,
)
from safety_spaces.geometry.projection import (
    TensorEnergy,
    coefficients,
    cosine,
    energy_curve,
    expected_energy,
    inner,
    kept,
    parallel_parts,
    squared_norm,
    tensor_energies,
    totals,
)

__all__ = [
    "BASES",
    "Checkpoint",
    "Factors",
    "Moments",
    "Overlap",
    "TensorEnergy",
    "as_matrix",
    "cached_factor",
    "check_differs",
    "check_same_tensors",
    "coefficients",
    "coinciding_fractions",
    "cosine",
    "directions",
    "energy_curve",
    "expected_energy",
    "factor",
    "inner",
    "kept",
    "kind",
    "layer",
    "modes",
    "moment_factors",
    "mso_curve",
    "open_checkpoint",
    "ordered_basis",
    "orient",
    "parallel_parts",
    "project_from",
    "second_moment",
    "squared_norm",
    "tensor_energies",
    "totals",
    "update",
    "update_cosine",
]
