"""Mode Subspace Overlap of weight updates (equations 9 to 11): those of a study, and of any two folders."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.passes import measure_tensors, open_updates
from safety_spaces.geometry.factorisation import Precision, factor_precision
from safety_spaces.geometry.overlap import Overlap, update_overlaps
from safety_spaces.geometry.updates import REFERENCE, Updates
from safety_spaces.models.checkpoints import Checkpoint, check_differs
from safety_spaces.models.device import ready_device
from safety_spaces.models.folders import check_checkpoint, is_adapter
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.roles import given_folder
from safety_spaces.progress import progress
from safety_spaces.store import Cells, digest
from safety_spaces.study import UpdateSpaces
from safety_spaces.tensors import layer

FOLDERS = ("first", "second")
"""What the two updates of folders are called."""


def weight_overlaps(
    command: Command, settings: UpdateSpaces, seed: int, *, done: Cells, key: str
) -> list[dict[str, Any]] | None:
    """Return the rows of update_spaces.csv of one seed; what is done of each tensor is kept under `key`.

    Vectors (1-D tensors) span one direction each and are left out. None where other processes have not measured all of
    their tensors yet.
    """
    pairs = command.study.update_pairs
    roles = sorted({role for pair in pairs for role in pair})
    # MSO compares the output sides, the paper's left singular vectors, whichever side is projected.
    updates = open_updates(command, seed, [role for role in roles if role != REFERENCE])
    precision = factor_precision(ready_device(command.device, threads=command.study.threads))
    tensors = measure_tensors(
        updates,
        _matrices(updates),
        roles,
        lambda name, D: {"rows": _tensor_overlaps(updates, name, D, pairs, settings.etas, precision)},
        done=done,
        # The sources too: a pass that goes on under other code would carry the mark of the new code alone.
        key=digest([command.layout.sources, key]),
        bar=f"overlaps, seed {seed}",
    )
    return None if tensors is None else [row for tensor in tensors for row in tensor["rows"]]


def folder_overlaps(
    first: str, second: str, against: str, *, etas: Sequence[float], device: torch.device
) -> list[dict[str, Any]]:
    """Return the rows of update_spaces.csv, without study and seed, of first - against and second - against.

    Each is a folder or the id of a model of the hub; a LoRA folder adds to `against`.

    Raises:
        UserError: two of them hold the same weights, they are not checkpoints of one model, or one cannot be had.
    """
    folders = [given_folder(path, None) for path in (first, second, against)]
    for folder in folders:
        check_checkpoint(folder)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"expected three different checkpoints, got {first}, {second} and {against}; correct one path")
    origin = open_checkpoint(folders[2])
    opened = [_open_on(folder, origin) for folder in folders[:2]]
    # The place of the base is taken by one of the two: it decides which rows are shared, nothing else.
    updates = Updates(opened[0], origin, dict(zip(FOLDERS, opened, strict=True)), device=device)
    check_differs(opened[1], origin)
    check_differs(*opened)
    names, precision = _matrices(updates), factor_precision(device)
    bar = progress(updates.each(names, FOLDERS), total=len(names), desc="overlaps")
    return [row for name, D in bar for row in _tensor_overlaps(updates, name, D, [FOLDERS], etas, precision)]


def _open_on(folder: Path, origin: Checkpoint) -> Checkpoint:
    return open_checkpoint(folder, parent=origin if is_adapter(folder) else None)


def _matrices(updates: Updates) -> list[str]:
    return [name for name in updates.names if len(updates.reference.shape(name)) > 1]


def _tensor_overlaps(
    updates: Updates,
    name: str,
    D: Mapping[str, Float[Tensor, "M N"]],
    pairs: Sequence[tuple[str, str]],
    etas: Sequence[float],
    precision: Precision,
) -> list[dict[str, Any]]:
    place = {"tensor": name, "layer": layer(name), "kind": updates.reference.kind(name)}
    return [
        {"pair": f"{first}-{second}", **place, **overlap_columns(overlap), "cosine": cosine}
        for first, second, cosine, curve in update_overlaps(D, pairs, etas, precision=precision)
        for overlap in curve
    ]


def overlap_columns(overlap: Overlap) -> dict[str, Any]:
    """Return the columns that both tables of overlaps share."""
    columns = asdict(overlap)
    columns["mso_chance"] = columns.pop("chance")
    if min(overlap.k_first, overlap.k_second) == 0:
        # A side that does not vary spans nothing: there is no overlap to speak of, not an overlap of zero.
        columns |= {"mso": None, "mso_chance": None}
    return columns
