"""Where the checkpoints of a study lie, and what identifies them."""

import functools
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command, resolve_path
from safety_spaces.store import checkpoint_identity, is_checkpoint
from safety_spaces.study import Existing

RECIPE_FILE = "recipe.json"
"""Beside the weights of a trained role: what they were trained from, and what the training did."""


def checkpoint_folder(command: Command, role: str, seed: int) -> Path:
    """Return the folder of a role's checkpoint, finished or not; a given one is used in place."""
    recipe = command.study.roles[role]
    return resolve_path(recipe.path) if isinstance(recipe, Existing) else command.layout.checkpoint(role, seed)


def finished_checkpoint(command: Command, role: str, seed: int) -> Path:
    """Return the folder of a finished checkpoint.

    Raises:
        UserError: the checkpoint is not there, or only its half-written `.partial` folder is.
    """
    folder = checkpoint_folder(command, role, seed)
    if not is_checkpoint(folder):
        raise UserError(
            f"{folder}: expected the finished checkpoint {role}, found none; "
            f"run bash scripts/finetune.sh {command.study_path}"
        )
    return folder


def identity(folder: Path) -> str:
    """Return the digest of a checkpoint's content; read once per process, since a run never changes a finished one."""
    return _identity(folder.resolve())


@functools.cache
def _identity(folder: Path) -> str:
    return checkpoint_identity(folder)
