"""Energies of the task updates inside every basis: one pass over the tensors, one factorisation each (equation 7)."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from jaxtyping import Float
from torch import Tensor

from safety_spaces.experiments.cells import energy_key
from safety_spaces.experiments.checks import check_layers
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.passes import measure_tensors, open_updates
from safety_spaces.geometry.bases import coinciding_fractions
from safety_spaces.geometry.coordinates import Frames
from safety_spaces.geometry.energies import TensorEnergy, tensor_cells, totals
from safety_spaces.geometry.factor_cache import cached_factor
from safety_spaces.geometry.factorisation import factor, factor_precision
from safety_spaces.geometry.own_basis import open_basis
from safety_spaces.geometry.projection import Vectors, cosine, inner, squared_norm
from safety_spaces.geometry.updates import REFERENCE
from safety_spaces.models.device import ready_device
from safety_spaces.models.roles import basis_file
from safety_spaces.store import Cells, digest
from safety_spaces.tensors import layer

logger = logging.getLogger(__name__)


class Subspaces:
    """The updates of one seed and the directions they are projected onto."""

    def __init__(self, command: Command, seed: int, tasks: Sequence[str]) -> None:
        settings = command.study.projection
        side = settings.projected_side
        self.updates = open_updates(command, seed, tasks, side=side)
        if not command.geometry_only:
            self.updates.reference.check_is_live()
        # Where the shape of the model was not known before.
        check_layers(command.study, {number for name in self.updates.names if (number := layer(name)) is not None})
        self._own = None if settings.basis is None else open_basis(basis_file(settings.basis.file), self.updates)
        self._precision = factor_precision(ready_device(command.device, threads=command.study.threads))
        identities = [command.roles.identity(role, seed) for role in ("base", REFERENCE)]
        self._cache = command.layout.factors(seed) / digest([identities, side, settings.tied])
        # Without scores nothing needs the factors again.
        self._is_kept = command.keep_factors or not command.geometry_only

    def frames(self, name: str, D: Float[Tensor, "M N"] | None = None) -> Frames:
        """Directions of one tensor: U of the reference update D, read again where it is not given, and a user's own.

        U may be mapped from its file, on the CPU.
        """

        def compute() -> Float[Tensor, "M r"]:
            return factor(self.updates.of(REFERENCE, name) if D is None else D, precision=self._precision).U

        U = cached_factor(self._cache, name, compute) if self._is_kept else compute()
        return Frames(U, None if self._own is None else self._own.columns(name, self.updates.shape(name)[0]))


def measure_energies(command: Command, seed: int, tasks: Sequence[str]) -> dict[str, dict[str, Any]] | None:
    """Return, by task, the rows of energy.csv and the cosine of task update and reference update.

    None where other processes have not measured all of their tensors yet. A killed pass goes on with the next tensor.

    Raises:
        UserError: checkpoints differ in their tensors, base equals reference, or a tensor is not finite.
    """
    settings = command.study.projection
    subspaces = Subspaces(command, seed, tasks)
    # The sources too: a pass that goes on under other code would carry the mark of the new code alone.
    key = digest([command.layout.sources, *(energy_key(command, seed, task) for task in tasks)])
    tensors = measure_tensors(
        subspaces.updates,
        subspaces.updates.names,
        (REFERENCE, *tasks),
        functools.partial(_measure, command, subspaces, seed),
        done=Cells(command.layout.cells(seed)),
        key=key,
        bar=f"energies, seed {seed}",
    )
    if tensors is None:
        return None
    names = zip(subspaces.updates.names, tensors, strict=True)
    _warn_of_coinciding_fractions([name for name, tensor in names if tensor["fractions_coincide"]])
    return {task: _summed(tensors, task, settings.vectors) for task in tasks}


def _summed(tensors: Sequence[Mapping[str, Any]], task: str, vectors: Vectors) -> dict[str, Any]:
    """Totals of every draw, single tensors of draw 0 alone to keep the table readable, and the cosine over all."""
    energies = [TensorEnergy(**row) for tensor in tensors for row in tensor["energies"][task]]
    reported = [*totals(energies, vectors=vectors), *(energy for energy in energies if energy.draw == 0)]
    dots, squares, reference_squares = zip(*(tensor["products"][task] for tensor in tensors), strict=True)
    return {
        "rows": [_row(energy) for energy in reported],
        "cosine_task_reference": cosine(math.fsum(dots), math.fsum(squares), math.fsum(reference_squares)),
    }


def _measure(
    command: Command, subspaces: Subspaces, seed: int, name: str, D: dict[str, Float[Tensor, "M N"]]
) -> dict[str, Any]:
    """Measure one tensor: energies by task, and inner product and squared norms of task and reference update."""
    settings = command.study.projection
    shape = subspaces.updates.shape(name)
    # Taken out, so that the largest tensor of a model is in memory once less while frames are drawn.
    reference = D.pop(REFERENCE)
    reference_square = squared_norm(reference)
    products = {task: (inner(of, reference), squared_norm(of), reference_square) for task, of in D.items()}
    frames = subspaces.frames(name, reference)
    del reference
    energies: dict[str, list[TensorEnergy]] = {task: [] for task in D}
    cells = tensor_cells(
        name,
        frames,
        D,
        bases=settings.bases,
        fractions=settings.fractions,
        draws=settings.energy_draws,
        seed=seed,
        rounding=settings.rounding,
        vectors=settings.vectors,
        kind=subspaces.updates.reference.kind(name),
    )
    for found, rows in cells:
        energies[found.task] += rows
    size, limit = frames.size(shape)
    coinciding = coinciding_fractions(settings.fractions, size, limit, rounding=settings.rounding)
    return {
        "energies": {task: [asdict(energy) for energy in rows] for task, rows in energies.items()},
        "products": products,
        "fractions_coincide": shape[1] > 1 and bool(coinciding),
    }


def _warn_of_coinciding_fractions(names: Sequence[str]) -> None:
    """Warn once where the rank of the reference update, and not the fraction, decides the number of directions."""
    if names:
        logger.warning(
            "warning: the reference update has a low rank in %d tensors (%s ...): fractions coincide there",
            len(names),
            names[0],
        )


def _row(energy: TensorEnergy) -> dict[str, Any]:
    return {
        "basis": energy.basis,
        "fraction": energy.fraction,
        "draw": energy.draw,
        "tensor": energy.name,
        "layer": energy.layer,
        "kind": energy.kind,
        "rank": energy.rank,
        "k": energy.k,
        "energy_kept": energy.energy_kept,
        "energy_expected": energy.energy_expected,
        "update_norm": energy.update**0.5,
    }
