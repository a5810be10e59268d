"""Checkpoints and states in, subspaces out: the linear algebra of the paper's Section 2.

Shapes: M rows (outputs) and N columns (inputs) of a tensor seen as a matrix, r its rank, k directions of a subspace, d
hidden size, p prompts.
"""

from safety_spaces.geometry.bases import Bases, open_basis
from safety_spaces.geometry.energies import TensorEnergy, tensor_energies, totals
from safety_spaces.geometry.factorisation import Factors, factor, precision_on
from safety_spaces.geometry.moments import Moments, moment_factors, state_moments
from safety_spaces.geometry.overlap import mso_curve, update_cosine, update_overlaps
from safety_spaces.geometry.subspace import Overlap, Subspace
from safety_spaces.geometry.updates import Updates
from safety_spaces.models.checkpoints import Checkpoint, update
from safety_spaces.models.opening import open_checkpoint
