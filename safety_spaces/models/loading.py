"""A role's checkpoint as tensors on disk, and as a live model; a LoRA folder on top of the role that it adds to."""

from pathlib import Path
from typing import Any

import torch

from safety_spaces.errors import warn_once
from safety_spaces.models.checkpoints import Checkpoint
from safety_spaces.models.device import DTYPES
from safety_spaces.models.folders import ADAPTER_CONFIG, TOKENIZERS
from safety_spaces.models.live import load_model, load_tokenizer
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.roles import Roles
from safety_spaces.paths import resolve_path
from safety_spaces.store import read_json
from safety_spaces.study import Existing


def open_role(roles: Roles, role: str, seed: int) -> Checkpoint:
    """Open a role's checkpoint, to be read tensor by tensor; raises UserError when it is missing or cannot be read."""
    folder, parent = roles.finished(role, seed), roles.adapted(role, seed)
    if parent is not None:
        _warn_of_another_parent(roles, role, folder, parent)
    opened = None if parent is None else open_role(roles, parent, seed)
    return open_checkpoint(folder, tied=roles.study.projection.tied, parent=opened)


def _warn_of_another_parent(roles: Roles, role: str, folder: Path, parent: str) -> None:
    """Warn where a LoRA folder says that it was trained on another role: its sum would be a model that never was."""
    trained_on = (read_json(folder / ADAPTER_CONFIG) or {}).get("base_model_name_or_path")
    for other in ("base", "reference"):
        recipe = roles.study.roles[other]
        paths = [recipe.path, str(resolve_path(recipe.path).resolve())] if isinstance(recipe, Existing) else []
        if other != parent and trained_on in paths:
            warn_once(f"roles.{role}: a LoRA folder trained on {trained_on}; write adapter_of: {other}")


def role_tokenizer(roles: Roles, role: str, seed: int) -> Any:
    """Load a role's tokenizer, as `load_tokenizer` does; a LoRA folder without one has that of what it adds to."""
    folder, parent = roles.finished(role, seed), roles.adapted(role, seed)
    if parent is not None and not any((folder / name).is_file() for name in TOKENIZERS):
        return role_tokenizer(roles, parent, seed)
    return load_tokenizer(folder)


def live_model(roles: Roles, role: str, seed: int, *, device: torch.device) -> Any:
    """Load a role's model in the number format of the study's live models."""
    return role_model(roles, role, seed, device=device, dtype=DTYPES[roles.study.projection.weights_dtype])


def role_model(roles: Roles, role: str, seed: int, *, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a role's model, a LoRA folder with what it adds to; raises UserError when one is missing or unreadable."""
    whole = roles.whole(role, seed)
    folder = roles.finished(whole, seed)
    if whole == role:
        return load_model(folder, device=device, dtype=dtype)
    merged, loaded = open_role(roles, role, seed), open_role(roles, whole, seed)
    changed = [name for name in merged.names if merged.products(name) or merged.stored[name] != loaded.stored[name]]
    return load_model(folder, device=device, dtype=dtype, weights=((name, merged.tensor(name)) for name in changed))
