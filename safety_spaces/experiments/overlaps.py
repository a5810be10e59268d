"""Mode Subspace Overlap of weight updates (equations 9 to 11)."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jaxtyping import Float
from torch import Tensor

from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import factor_precision, ready_device
from safety_spaces.experiments.passes import measure_tensors, open_updates
from safety_spaces.geometry.overlap import Overlap, update_overlaps
from safety_spaces.geometry.updates import REFERENCE
from safety_spaces.store import Cells, digest
from safety_spaces.study import UpdateSpaces
from safety_spaces.tensors import layer


def weight_overlaps(
    command: Command, settings: UpdateSpaces, seed: int, *, done: Cells, key: str
) -> list[dict[str, Any]] | None:
    """Return the rows of update_spaces.csv of one seed; what is done of each tensor is kept under `key`.

    Vectors (1-D tensors) span one direction each and are left out. None where other processes have not measured all of
    their tensors yet.
    """
    roles = sorted({role for pair in settings.pairs for role in pair})
    # MSO compares the output sides, the paper's left singular vectors, whichever side is projected.
    updates = open_updates(command, seed, [role for role in roles if role != REFERENCE])
    tensors = measure_tensors(
        updates,
        [name for name in updates.names if len(updates.reference.shape(name)) > 1],
        roles,
        lambda name, D: {"rows": _tensor_overlaps(command, settings, name, updates.reference.kind(name), D)},
        done=done,
        # The sources too: a pass that goes on under other code would carry the mark of the new code alone.
        key=digest([command.sources, key]),
        bar=f"overlaps, seed {seed}",
    )
    return None if tensors is None else [row for tensor in tensors for row in tensor["rows"]]


def _tensor_overlaps(
    command: Command, settings: UpdateSpaces, name: str, kind: str, D: Mapping[str, Float[Tensor, "M N"]]
) -> list[dict[str, Any]]:
    precision = factor_precision(ready_device(command))
    place = {"tensor": name, "layer": layer(name), "kind": kind}
    return [
        {"pair": f"{first}-{second}", **place, **overlap_columns(overlap), "cosine": cosine}
        for first, second, cosine, curve in update_overlaps(D, settings.pairs, settings.etas, precision=precision)
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
