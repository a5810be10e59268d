"""Where the checkpoints of a study lie, and what identifies them."""

import functools
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command, resolve_path
from safety_spaces.store import checkpoint_identity, is_checkpoint, read_json
from safety_spaces.study import Existing, Pretrained

RECIPE_FILE = "recipe.json"
"""Beside the weights of a trained role: what they were trained from, and what the training did."""


def checkpoint_folder(command: Command, role: str, seed: int) -> Path:
    """Return the folder of a role's checkpoint, finished or not; a given one is used in place."""
    recipe = command.study.roles[role]
    return resolve_path(recipe.path) if isinstance(recipe, Existing) else command.layout.checkpoint(role, seed)


def finished_checkpoint(command: Command, role: str, seed: int) -> Path:
    """Return the folder of a finished checkpoint.

    Raises:
        UserError: the checkpoint is not there, only its half-written `.partial` folder is, or it was trained with other
            settings than the study's.
    """
    folder = checkpoint_folder(command, role, seed)
    given = isinstance(command.study.roles[role], Existing)
    if not is_checkpoint(folder):
        remedy = "correct its path in the study" if given else f"run bash scripts/finetune.sh {command.study_path}"
        raise UserError(f"{folder}: expected the finished checkpoint {role}, found none; {remedy}")
    if not given:
        check_recipe(folder, recipe_settings(command, role))
    return folder


def recipe_settings(command: Command, role: str) -> dict[str, Any]:
    """Return the settings of a study that determine a trained checkpoint; its rows and its parent are data."""
    recipe = command.study.roles[role]
    return {
        "training": command.study.training_of(role).model_dump(),
        "method": None if isinstance(recipe, Existing) else recipe.method,
        "architecture": recipe.architecture.model_dump() if isinstance(recipe, Pretrained) else None,
    }


def check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """Check that a checkpoint was trained from a recipe, or from the part of it that is given.

    Raises:
        UserError: something differs; it is named.
    """
    before = training_notes(folder)
    if changed := [key for key, value in recipe.items() if before.get(key) != value]:
        raise UserError(
            f"{folder}: expected a checkpoint trained from this study, its {', '.join(changed)} differ; "
            "move the folder away to train it again, or give the study another name"
        )


def training_notes(folder: Path) -> dict[str, Any]:
    """Return recipe.json of a trained checkpoint, empty where there is none or no whole one."""
    return read_json(folder / RECIPE_FILE) or {}


def identity(folder: Path) -> str:
    """Return the digest of a checkpoint's content; read once per process, since a run never changes a finished one."""
    return _identity(folder.resolve())


@functools.cache
def _identity(folder: Path) -> str:
    return checkpoint_identity(folder)
