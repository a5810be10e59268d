"""One training of a study, from rows to a checkpoint that appears under its name only when it is whole."""

import json
from pathlib import Path
from typing import Any

from safety_spaces.behaviour.live import load_tokenizer
from safety_spaces.experiments.checkpoints import RECIPE_FILE, checkpoint_folder, finished_checkpoint
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import ready_device
from safety_spaces.experiments.texts import role_rows
from safety_spaces.geometry.checkpoints import open_checkpoint
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.record import Stage
from safety_spaces.store import partial_folder, write_atomically, writing
from safety_spaces.study import Pretrained
from safety_spaces.training.architecture import new_model
from safety_spaces.training.sft import DTYPES, train


def train_role(command: Command, role: str, seed: int, rows: list[dict[str, str]], *, recipe: dict[str, Any]) -> None:
    """Train one role and write its checkpoint with recipe.json in it: what it was trained from, what the training did.

    An interrupted training leaves `<role>.partial`, which nothing takes for finished.

    Raises:
        UserError: the device is not there, the parent is not finished, or the folder cannot be written.
    """
    settings = command.study.training_of(role)
    device = ready_device(command)
    model, tokenizer = _start(command, role, seed, training_seed=recipe["seed"])
    with partial_folder(checkpoint_folder(command, role, seed)) as folder, writing(folder):
        with Stage() as stage:
            trained = train(
                model.to(DTYPES[settings.precision]),
                tokenizer,
                rows,
                settings=settings,
                seed=recipe["seed"],
                output=folder,
                name=f"{role}, seed {seed}",
                device=device,
            )
        notes = {
            **recipe,
            "sources": command.sources,
            "steps": trained.steps,
            "loss": trained.loss,
            "seconds": round(stage.seconds, 1),
            "share_of_weights_changed": _share_changed(command, role, seed, folder),
        }
        write_atomically(folder / RECIPE_FILE, (json.dumps(notes, indent=1) + "\n").encode())


def _start(command: Command, role: str, seed: int, *, training_seed: int) -> tuple[Any, Any]:
    """Return the weights and the tokenizer that a training starts from."""
    from transformers import AutoModelForCausalLM

    recipe = command.study.roles[role]
    if isinstance(recipe, Pretrained):
        tokenizer = wrap_tokenizer(_tokenizer_texts(command, role), vocabulary=recipe.architecture.vocabulary)
        return new_model(recipe.architecture, tokenizer, seed=training_seed), tokenizer
    parent = finished_checkpoint(command, str(command.study.parent(role)), seed)
    dtype = DTYPES[command.study.training_of(role).precision]
    model = AutoModelForCausalLM.from_pretrained(parent, dtype=dtype, use_safetensors=True)
    return model, load_tokenizer(parent)


def _tokenizer_texts(command: Command, role: str) -> list[str]:
    return [" ".join(row.values()) for row in role_rows(command, role)]


def _share_changed(command: Command, role: str, seed: int, folder: Path) -> float | None:
    """Return the share of weights that differ from the parent's; None for a model trained from nothing."""
    parent_role = command.study.parent(role)
    if parent_role is None:
        return None
    parent, child = open_checkpoint(finished_checkpoint(command, parent_role, seed)), open_checkpoint(folder)
    changed = sum(int((parent.tensor(name) != child.tensor(name)).sum()) for name in child.names)
    return changed / sum(child.tensor(name).numel() for name in child.names)
