"""A pass over the tensors of one seed's checkpoints: what is found of each is on disk before the next one is read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.updates import REFERENCE, Updates
from safety_spaces.models.loading import open_role
from safety_spaces.models.roles import Roles
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.store import Cells, Layout, digest
from safety_spaces.tensors import Side

Measure = Callable[[str, dict[str, Float[Tensor, "M N"]]], dict[str, Any]]
"""From a tensor's name and its updates by role to what is stored of it."""


def open_updates(
    roles: Roles, seed: int, tasks: Sequence[str], *, device: torch.device, side: Side = "left"
) -> Updates:
    """Open base, reference and tasks of one seed as updates.

    Raises UserError when a checkpoint is missing or unlike the others, or base equals reference.
    """
    base, reference, *opened = (open_role(roles, role, seed) for role in ("base", REFERENCE, *tasks))
    return Updates(base, reference, dict(zip(tasks, opened, strict=True)), side=side, device=device)


def measure_tensors(
    layout: Layout,
    seed: int,
    updates: Updates,
    names: Sequence[str],
    roles: Iterable[str],
    measure: Measure,
    *,
    keys: Sequence[str],
    bar: str,
) -> list[dict[str, Any]] | None:
    """Measure the tensors that are missing, of several processes each its share; `keys` are of what they are part of.

    Returns what is found of every tensor in order of the names; None while another process still has some to measure.
    Raises UserError when a tensor is not finite, or the disk is full.
    """
    # The sources too: a pass that goes on under other code would carry the mark of the new code alone.
    done, key = Cells(layout.cells(seed)), digest([layout.sources, *keys])
    share = processes().share(names)
    missing = [name for name in share if done.get(f"{key}-{name}") is None]
    for name, D in progress(updates.each(missing, roles), total=len(missing), desc=bar):
        done.put(f"{key}-{name}", measure(name, D))
    found = [tensor for name in names if (tensor := done.get(f"{key}-{name}")) is not None]
    return found if len(found) == len(names) else None
