"""Energies of the task updates inside every basis: one pass over the tensors, one factorisation each (equation 7)."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from safety_spaces.experiments.checkpoints import finished_checkpoint, identity
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import ready_device
from safety_spaces.geometry.bases import coinciding_fractions, factor, orient, project_from
from safety_spaces.geometry.checkpoints import (
    check_differs,
    check_same_tensors,
    kind,
    open_checkpoint,
    update,
)
from safety_spaces.geometry.factors import cached_factor
from safety_spaces.geometry.projection import (
    TensorEnergy,
    Vectors,
    cosine,
    inner,
    squared_norm,
    tensor_energies,
    totals,
)
from safety_spaces.store import digest

logger = logging.getLogger(__name__)


class Updates:
    """The reference update and the task updates of one seed, tensor by tensor, turned so that left is projected."""

    def __init__(self, command: Command, seed: int, tasks: Sequence[str]) -> None:
        settings = command.study.projection
        self._side = settings.side
        folders = {role: finished_checkpoint(command, role, seed) for role in ("base", "reference", *tasks)}
        self.checkpoints = {role: open_checkpoint(folder, tied=settings.tied) for role, folder in folders.items()}
        self.base, self.reference = self.checkpoints["base"], self.checkpoints["reference"]
        for other in self.checkpoints.values():
            check_same_tensors(self.reference, other)
        check_differs(self.base, self.reference)
        identities = [identity(folders[role]) for role in ("base", "reference")]
        self._factors = command.layout.factors(seed) / digest([identities, settings.side, settings.tied])

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors."""
        return self.reference.names

    def of_reference(self, name: str) -> Float[Tensor, "M N"]:
        """The reference update of one tensor."""
        return self._turned(name, self.plain("reference", name))

    def of_task(self, task: str, name: str) -> Float[Tensor, "M N"]:
        """The task update of one tensor."""
        return self._turned(name, self.plain(task, name))

    def plain(self, role: str, name: str) -> Float[Tensor, "M N"]:
        """The reference update or a task update of one tensor, as it is."""
        first = self.base if role == "reference" else self.reference
        return update(first, self.checkpoints[role], name)

    def turned_back(self, name: str, D: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A projected update in the shape of its tensor."""
        return self._turned(name, D).reshape(self.reference.shape(name))

    def subspace(self, name: str) -> Float[Tensor, "M r"]:
        """U of the reference update, from the store of factors or computed into it."""
        return cached_factor(self._factors, name, lambda: factor(self.of_reference(name)).U)

    def _turned(self, name: str, D: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return orient(D, project_from(self._side, kind(name)))


def measure_energies(command: Command, seed: int, tasks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return, by task, the rows of energy.csv and the cosine of task update and reference update.

    Raises:
        UserError: checkpoints differ in their tensors, base equals reference, or a tensor is not finite.
    """
    ready_device(command)
    settings = command.study.projection
    updates = Updates(command, seed, tasks)
    measure = functools.partial(
        tensor_energies,
        bases=settings.bases,
        fractions=settings.fractions,
        draws=settings.energy_draws,
        seed=seed,
        rounding=settings.rounding,
        vectors=settings.vectors,
    )
    energies: dict[str, list[TensorEnergy]] = {task: [] for task in tasks}
    products: dict[str, list[tuple[float, float, float]]] = {task: [] for task in tasks}
    for name in tqdm(updates.names, desc=f"energies, seed {seed}", disable=None):
        reference, U = updates.of_reference(name), updates.subspace(name)
        for task in tasks:
            D = updates.of_task(task, name)
            energies[task] += measure(name, U, D)
            products[task].append((inner(D, reference), squared_norm(D), squared_norm(reference)))
    _warn_of_coinciding_fractions(command, updates)
    return {
        task: {
            "rows": [_row(energy) for energy in _reported(energies[task], settings.vectors)],
            "cosine_task_reference": cosine(*(sum(column) for column in zip(*products[task], strict=True))),
        }
        for task in tasks
    }


def _warn_of_coinciding_fractions(command: Command, updates: Updates) -> None:
    """Warn once where the rank of the reference update, and not the fraction, decides the number of directions."""
    settings = command.study.projection
    coinciding = []
    for name in updates.names:
        M, N = updates.of_reference(name).shape
        rank = updates.subspace(name).shape[1]
        if N > 1 and coinciding_fractions(settings.fractions, (M, N), rank, rounding=settings.rounding):
            coinciding.append(name)
    if coinciding:
        logger.warning(
            "warning: the reference update has a low rank in %d tensors (%s ...): fractions coincide there",
            len(coinciding),
            coinciding[0],
        )


def _reported(energies: list[TensorEnergy], vectors: Vectors) -> list[TensorEnergy]:
    """Totals of every draw; single tensors of draw 0 alone, to keep the table readable."""
    return [*totals(energies, vectors=vectors), *(energy for energy in energies if energy.draw == 0)]


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
