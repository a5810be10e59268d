"""A role's checkpoint as tensors on disk, and as a live model; a LoRA folder on top of the role that it adds to."""

from typing import Any

import torch

from safety_spaces.behaviour.live import load_model, load_tokenizer
from safety_spaces.experiments.checkpoints import adapted_role, finished_checkpoint
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import DTYPES, ready_device
from safety_spaces.folders import ADAPTER_CONFIG, TOKENIZERS
from safety_spaces.geometry.checkpoints import Checkpoint
from safety_spaces.geometry.notices import warn_once
from safety_spaces.geometry.opening import open_checkpoint
from safety_spaces.paths import resolve_path
from safety_spaces.store import read_json
from safety_spaces.study import Existing


def open_role(command: Command, role: str, seed: int) -> Checkpoint:
    """Open a role's checkpoint, to be read tensor by tensor.

    Raises:
        UserError: the checkpoint is missing or cannot be read.
    """
    parent = adapted_role(command, role, seed)
    if parent is not None:
        _warn_of_another_parent(command, role, seed, parent)
    return open_checkpoint(
        finished_checkpoint(command, role, seed),
        tied=command.study.projection.tied,
        parent=None if parent is None else open_role(command, parent, seed),
    )


def _warn_of_another_parent(command: Command, role: str, seed: int, parent: str) -> None:
    """Warn where a LoRA folder says that it was trained on another role: its sum would be a model that never was."""
    config = read_json(finished_checkpoint(command, role, seed) / ADAPTER_CONFIG) or {}
    trained_on = config.get("base_model_name_or_path")
    for other in ("base", "reference"):
        recipe = command.study.roles[other]
        if other != parent and isinstance(recipe, Existing) and trained_on in (recipe.path, _place(recipe.path)):
            warn_once(f"roles.{role}: a LoRA folder trained on {trained_on}; write adapter_of: {other}")


def _place(path: str) -> str:
    return str(resolve_path(path).resolve())


def role_tokenizer(command: Command, role: str, seed: int) -> Any:
    """Load a role's tokenizer; a LoRA folder without one has that of the role that it adds to.

    Raises:
        UserError: the checkpoint is missing, or its tokenizer can neither pad nor end a text.
    """
    folder = finished_checkpoint(command, role, seed)
    parent = adapted_role(command, role, seed)
    if parent is not None and not any((folder / name).is_file() for name in TOKENIZERS):
        return role_tokenizer(command, parent, seed)
    return load_tokenizer(folder)


def whole_role(command: Command, role: str, seed: int) -> str:
    """Return the role whose folder holds the whole model that a role's weights are or, by way of LoRA folders, add to.

    Raises:
        UserError: a checkpoint is missing.
    """
    while (parent := adapted_role(command, role, seed)) is not None:
        role = parent
    return role


def live_model(command: Command, role: str, seed: int) -> Any:
    """Load a role's model in the number format of the study's live models.

    Raises:
        UserError: the checkpoint is missing or cannot be read, or the device is not there.
    """
    dtype = DTYPES[command.study.projection.weights_dtype]
    return role_model(command, role, seed, device=ready_device(command), dtype=dtype)


def role_model(command: Command, role: str, seed: int, *, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a role's model; a LoRA folder is added to the role that it adds to.

    Raises:
        UserError: the checkpoint is missing or cannot be read.
    """
    whole = whole_role(command, role, seed)
    folder = finished_checkpoint(command, whole, seed)
    if whole == role:
        return load_model(folder, device=device, dtype=dtype)
    merged, loaded = open_role(command, role, seed), open_role(command, whole, seed)
    changed = (name for name in merged.names if merged.products(name) or merged.stored[name] != loaded.stored[name])
    weights = ((name, merged.tensor(name)) for name in changed)
    return load_model(folder, device=device, dtype=dtype, weights=weights)
