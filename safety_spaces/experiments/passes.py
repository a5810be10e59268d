"""A pass over the tensors of one seed's checkpoints: what is found of each is on disk before the next one is read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from safety_spaces.experiments.command import Command
from safety_spaces.geometry.updates import REFERENCE, Updates
from safety_spaces.models.device import ready_device
from safety_spaces.models.loading import open_role
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.store import Cells
from safety_spaces.tensors import Side

Measure = Callable[[str, dict[str, Float[Tensor, "M N"]]], dict[str, Any]]
"""From a tensor's name and its updates by role to what is stored of it."""


def open_updates(command: Command, seed: int, tasks: Sequence[str], *, side: Side = "left") -> Updates:
    """Open base, reference and tasks of one seed as updates.

    Raises:
        UserError: a checkpoint is missing or unlike the others, or base equals reference.
    """
    opened = {role: open_role(command.roles, role, seed) for role in ("base", REFERENCE, *tasks)}
    return Updates(
        opened.pop("base"),
        opened.pop(REFERENCE),
        opened,
        side=side,
        device=ready_device(command.device, threads=command.study.threads),
    )


def measure_tensors(
    updates: Updates, names: Sequence[str], roles: Iterable[str], measure: Measure, *, done: Cells, key: str, bar: str
) -> list[dict[str, Any]] | None:
    """Measure the tensors that are missing under `key`, of several processes each its share.

    Returns what is found of every tensor in order of the names; None while another process still has some to measure.

    Raises:
        UserError: a tensor is not finite, or the disk is full.
    """
    share = processes().share(names)
    missing = [name for name in share if done.get(f"{key}-{name}") is None]
    for name, D in progress(updates.each(missing, roles), total=len(missing), desc=bar):
        done.put(f"{key}-{name}", measure(name, D))
    found = [tensor for name in names if (tensor := done.get(f"{key}-{name}")) is not None]
    return found if len(found) == len(names) else None
