"""Energies of the task updates inside every basis: one pass over the tensors, one factorisation each (equation 7)."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.experiments.passes import measure_tensors, open_updates
from safety_spaces.experiments.projection.cells import check_layers
from safety_spaces.geometry.bases import Bases, open_basis, own_columns
from safety_spaces.geometry.energies import TensorEnergy, matched_energies, tensor_energies, totals
from safety_spaces.geometry.factor_cache import cached_factor
from safety_spaces.geometry.factorisation import factor, precision_on
from safety_spaces.geometry.subspace import cosine, inner, squared_norm
from safety_spaces.geometry.updates import REFERENCE
from safety_spaces.models.roles import Roles, basis_file
from safety_spaces.store import digest
from safety_spaces.study import Projection
from safety_spaces.tensors import layer

logger = logging.getLogger(__name__)


class Subspaces:
    """The updates of one seed and the bases that they are projected onto.

    Factors are kept on disk where they are read again, as scoring does. Raises UserError when a checkpoint is missing
    or unlike the others, base equals reference, or the study names a layer that the model lacks.
    """

    def __init__(
        self, roles: Roles, seed: int, tasks: Sequence[str], *, device: torch.device, keep_factors: bool
    ) -> None:
        settings = roles.study.projection
        self.settings, self.seed = settings, seed
        self.updates = open_updates(roles, seed, tasks, side=settings.side, device=device)
        # Where the shape of the model was not known before.
        check_layers(roles.study, {number for name in self.updates.names if (number := layer(name)) is not None})
        self._own = None if settings.basis is None else open_basis(basis_file(settings.basis.file), self.updates)
        self._precision = precision_on(device)
        identities = [roles.identity(role, seed) for role in ("base", REFERENCE)]
        folder = roles.layout.factors(seed) / digest([identities, settings.side, settings.tied])
        self._cache = folder if keep_factors else None

    def bases(self, name: str, D: Float[Tensor, "M N"] | None = None) -> Bases:
        """The bases of one tensor; the reference update D is read again where it is not given, and U not kept.

        U may be mapped from its file, on the CPU.
        """

        def compute() -> Float[Tensor, "M r"]:
            return factor(self.updates.of(REFERENCE, name) if D is None else D, precision=self._precision).U

        U, shape = cached_factor(self._cache, name, compute), self.updates.shape(name)
        own = None if self._own is None else own_columns(self._own, name, shape[0])
        return Bases(name, shape, U, own, self.seed)


def measure_energies(
    roles: Roles, seed: int, tasks: Sequence[str], *, keys: Sequence[str], device: torch.device, keep_factors: bool
) -> dict[str, dict[str, Any]] | None:
    """Return, by task, the rows of energy.csv and the cosine of task update and reference update.

    None where other processes have not measured all of their tensors yet. A killed pass goes on with the next tensor,
    found by the keys of the tasks. Raises UserError when checkpoints differ in their tensors, base equals reference, or
    a tensor is not finite.
    """
    subspaces = Subspaces(roles, seed, tasks, device=device, keep_factors=keep_factors)
    updates, measure, bar = subspaces.updates, partial(_measure, subspaces), f"energies, seed {seed}"
    names, of = updates.names, (REFERENCE, *tasks)
    tensors = measure_tensors(roles.layout, seed, updates, names, of, measure, keys=keys, bar=bar)
    if tensors is None:
        return None
    # There the rank of the reference update, and not the fraction, decides the number of directions.
    if coinciding := [name for name, one in zip(names, tensors, strict=True) if one["fractions_coincide"]]:
        logger.warning(
            "warning: the reference update has a low rank in %d tensors (%s ...): fractions coincide there",
            len(coinciding),
            coinciding[0],
        )
    return {task: _summed(tensors, task, subspaces.settings) for task in tasks}


def _measure(subspaces: Subspaces, name: str, D: dict[str, Float[Tensor, "M N"]]) -> dict[str, Any]:
    """Measure one tensor: energies by task, and inner product and squared norms of task and reference update."""
    settings = subspaces.settings
    # Taken out, so that the largest tensor of a model is in memory once less while frames are drawn.
    reference = D.pop(REFERENCE)
    reference_square = squared_norm(reference)
    products = {task: (inner(of, reference), squared_norm(of), reference_square) for task, of in D.items()}
    bases = subspaces.bases(name, reference)
    del reference
    energies = tensor_energies(
        bases,
        D,
        names=settings.bases,
        fractions=settings.fractions,
        number_of_draws=settings.energy_draws,
        rounding=settings.rounding,
        vectors=settings.vectors,
        of_kind=subspaces.updates.reference.kind(name),
    )
    coinciding = bases.shape[1] > 1 and bases.has_coinciding(settings.fractions, rounding=settings.rounding)
    rows = {task: [asdict(energy) for energy in found] for task, found in energies.items()}
    return {"energies": rows, "products": products, "fractions_coincide": coinciding}


def _summed(tensors: Sequence[Mapping[str, Any]], task: str, settings: Projection) -> dict[str, Any]:
    """Totals of every draw, single tensors of draw 0 alone to keep the table readable, and the cosine over all."""
    energies = [TensorEnergy(**row) for tensor in tensors for row in tensor["energies"][task]]
    reported = [*totals(energies, vectors=settings.vectors), *(energy for energy in energies if energy.draw == 0)]
    dots, squares, reference_squares = zip(*(tensor["products"][task] for tensor in tensors), strict=True)
    angle = cosine(math.fsum(dots), math.fsum(squares), math.fsum(reference_squares))
    claim = [energy for energy in energies if (energy.basis, energy.draw) == (settings.claim, 0)]
    matched = matched_energies(claim, vectors=settings.vectors)
    rows = [_row(energy) for energy in reported]
    return {"rows": rows, "matched": [[rho, *kept] for rho, kept in matched.items()], "cosine_task_reference": angle}


def _row(energy: TensorEnergy) -> dict[str, Any]:
    same = {name: getattr(energy, name) for name in ("basis", "fraction", "draw", "layer", "kind", "rank", "k")}
    shares = {"energy_kept": energy.energy_kept, "energy_expected": energy.energy_expected}
    return {**same, "tensor": energy.name, **shares, "update_norm": energy.update**0.5}
