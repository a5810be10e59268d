"""Mode Subspace Overlap of weight updates (equations 9 to 11): those of a study, and of any two folders."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.experiments.passes import measure_tensors, open_updates
from safety_spaces.geometry.factorisation import Precision, precision_on
from safety_spaces.geometry.overlap import update_overlaps
from safety_spaces.geometry.updates import REFERENCE, Updates
from safety_spaces.models.checkpoints import check_differs
from safety_spaces.models.folders import check_checkpoint, is_adapter
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.roles import Roles, given_folder
from safety_spaces.progress import progress
from safety_spaces.study import UpdateSpaces
from safety_spaces.tensors import layer

FOLDERS = ("first", "second")
"""What the two updates of folders are called."""


def weight_overlaps(
    roles: Roles, settings: UpdateSpaces, seed: int, *, device: torch.device, key: str
) -> list[dict[str, Any]] | None:
    """Return the rows of update_spaces.csv of one seed; what is done of each tensor is kept under `key`.

    Vectors (1-D tensors) span one direction each and are left out. None where other processes have not measured all of
    their tensors yet.
    """
    pairs, precision = roles.study.update_pairs, precision_on(device)
    compared = sorted(set(chain(*pairs)))
    # MSO compares the output sides, the paper's left singular vectors, whichever side is projected.
    updates = open_updates(roles, seed, [role for role in compared if role != REFERENCE], device=device)

    def measure(name: str, D: dict[str, Float[Tensor, "M N"]]) -> dict[str, Any]:
        return {"rows": _tensor_overlaps(updates, name, D, pairs, settings.etas, precision)}

    names, bar = _matrices(updates), f"overlaps, seed {seed}"
    tensors = measure_tensors(roles.layout, seed, updates, names, compared, measure, keys=[key], bar=bar)
    return None if tensors is None else [row for tensor in tensors for row in tensor["rows"]]


def folder_overlaps(
    first: str, second: str, against: str, *, etas: Sequence[float], device: torch.device
) -> list[dict[str, Any]]:
    """Return the rows of update_spaces.csv, without study and seed, of first - against and second - against.

    Each is a folder or the id of a model of the hub; a LoRA folder adds to `against`. Raises UserError when two of them
    hold the same weights, they are not checkpoints of one model, or one cannot be had.
    """
    folders = [given_folder(path, None) for path in (first, second, against)]
    for folder in folders:
        check_checkpoint(folder)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"expected three different checkpoints, got {first}, {second} and {against}; correct one path")
    origin = open_checkpoint(folders[2])
    opened = [open_checkpoint(folder, parent=origin if is_adapter(folder) else None) for folder in folders[:2]]
    # The place of the base is taken by one of the two: it decides which rows are shared, nothing else.
    updates = Updates(opened[0], origin, dict(zip(FOLDERS, opened, strict=True)), device=device)
    check_differs(opened[1], origin)
    check_differs(*opened)
    names, precision = _matrices(updates), precision_on(device)
    bar = progress(updates.each(names, FOLDERS), total=len(names), desc="overlaps")
    return [row for name, D in bar for row in _tensor_overlaps(updates, name, D, [FOLDERS], etas, precision)]


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
        {"pair": f"{first}-{second}", **place, "eta": eta, **asdict(overlap), "cosine": cosine}
        for first, second, cosine, curve in update_overlaps(D, pairs, etas, precision=precision)
        for eta, overlap in curve.items()
    ]
