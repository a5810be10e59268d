"""One training of a study, from rows to a checkpoint that appears under its name only when it is whole."""

import json
import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from safety_spaces.experiments.command import Command
from safety_spaces.experiments.finetune import state_folder
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.models.device import ready_device
from safety_spaces.models.folders import GENERATION, special_tokens
from safety_spaces.models.live import greedy_model
from safety_spaces.models.loading import open_role, role_model, role_tokenizer
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.roles import RECIPE_FILE
from safety_spaces.processes import processes
from safety_spaces.record import Stage
from safety_spaces.store import digest, partial_folder, read_json, write_atomically, write_json, writing
from safety_spaces.study import FineTuned, Pretrained
from safety_spaces.training import dpo, sft
from safety_spaces.training.architecture import new_model
from safety_spaces.training.states import drop_states
from safety_spaces.training.together import from_first
from safety_spaces.training.trainer import DTYPES, Resumption, Trained

FEW_CHANGED = 0.5
"""Share of weights below which a training in bf16 is said to have rounded its steps away."""

logger = logging.getLogger(__name__)


def train_role(command: Command, role: str, seed: int, rows: list[dict[str, str]], *, recipe: dict[str, Any]) -> None:
    """Train one role and write its checkpoint with recipe.json in it: what it was trained from, what the training did.

    An interrupted training leaves `<role>.partial`, which nothing takes for finished, and, where the study saves
    states, `<role>.state`, from which the next one goes on. Of several processes all train and the first writes.

    Raises:
        UserError: the device is not there, the parent is not finished, or the folder cannot be written.
    """
    final = command.roles.folder(role, seed)
    with ExitStack() as stack:
        folder = from_first(lambda: _opened(command, final, stack), cpu=command.device == "cpu")
        with Stage() as stage:
            trained = _train(command, role, seed, rows, recipe=recipe, folder=folder)
        if processes().is_first:
            notes = {
                **recipe,
                "sources": command.layout.sources,
                "steps": trained.steps,
                "loss": trained.loss,
                "loss_by_tenth": trained.loss_by_tenth,
                "seconds": round(stage.seconds, 1),
                "share_of_weights_changed": _share_changed(command, role, seed, folder),
            }
            _keep_generation_settings(command, role, seed, folder)
            write_atomically(folder / RECIPE_FILE, (json.dumps(notes, indent=1) + "\n").encode())
    if processes().is_first:
        drop_states(state_folder(final))


def _opened(command: Command, final: Path, stack: ExitStack) -> Path:
    """Return the folder to write to, renamed to `final` when the stack ends well; a missing device leaves none."""
    ready_device(command.device, threads=command.study.threads)
    return stack.enter_context(partial_folder(final))


def _train(
    command: Command, role: str, seed: int, rows: list[dict[str, str]], *, recipe: dict[str, Any], folder: Path
) -> Trained:
    settings = command.study.training_of(role)
    device = ready_device(command.device, threads=command.study.threads)
    model, tokenizer = _start(command, role, seed, training_seed=recipe["seed"])
    # Rows and random numbers are shared out by number, and the claim of recipe.json is that these sources trained it.
    made_by = digest([recipe, command.layout.sources, processes().count])
    states = Resumption(state_folder(command.roles.folder(role, seed)), made_by)
    with writing(folder):
        return _method(command, role)(
            model.to(DTYPES[settings.precision]),
            tokenizer,
            rows,
            settings=settings,
            seed=recipe["seed"],
            output=folder,
            name=f"{role}, seed {seed}",
            device=device,
            resumption=states if settings.save_every else None,
        )


def _keep_generation_settings(command: Command, role: str, seed: int, folder: Path) -> None:
    """Write what the parent recommends for generation, with the special tokens of the training: no other field acts."""
    if (parent := command.study.parent(role)) is None:
        return
    recommended = read_json(command.roles.finished(command.roles.whole(parent, seed), seed) / GENERATION)
    if recommended is not None:
        write_json(folder / GENERATION, recommended | special_tokens(folder))


def _method(command: Command, role: str) -> Callable[..., Trained]:
    recipe = command.study.roles[role]
    if isinstance(recipe, FineTuned) and recipe.beta is not None:
        return partial(dpo.train, beta=recipe.beta)
    return sft.train


def _start(command: Command, role: str, seed: int, *, training_seed: int) -> tuple[Any, Any]:
    """Return the weights and the tokenizer that a training starts from."""
    recipe = command.study.roles[role]
    if isinstance(recipe, Pretrained):
        tokenizer = wrap_tokenizer(_tokenizer_texts(command, role), vocabulary=recipe.architecture.vocabulary)
        return new_model(recipe.architecture, tokenizer, seed=training_seed), tokenizer
    parent, dtype = str(command.study.parent(role)), DTYPES[command.study.training_of(role).precision]
    # The library would draw what is missing at random.
    open_role(command.roles, parent, seed).check_is_whole()
    tokenizer = role_tokenizer(command.roles, parent, seed)
    if command.roles.adapted(parent, seed) is not None:
        return role_model(command.roles, parent, seed, device=torch.device("cpu"), dtype=dtype), tokenizer
    # Where processes share a model, the library itself reads it in one of them.
    return greedy_model(command.roles.finished(parent, seed), dtype=dtype), tokenizer


def _tokenizer_texts(command: Command, role: str) -> list[str]:
    return [" ".join(row.values()) for row in command.texts.role_rows(role)]


def _share_changed(command: Command, role: str, seed: int, folder: Path) -> float | None:
    """Return the share of weights that differ from the parent's; None for a model trained from nothing."""
    parent_role = command.study.parent(role)
    if parent_role is None:
        return None
    precision = command.study.training_of(role).precision
    parent, child = open_role(command.roles, parent_role, seed), open_checkpoint(folder)
    # What reading the parent in the precision of the training rounds is no change of the training.
    changed = sum(int((parent.tensor(name).to(DTYPES[precision]) != child.tensor(name)).sum()) for name in child.names)
    share = changed / sum(math.prod(child.shape(name)) for name in child.names)
    if precision == "bf16" and share < FEW_CHANGED:
        logger.warning(
            "%s, seed %d: only %.0f %% of the weights changed, bf16 rounded the rest away; see training.precision",
            role,
            seed,
            100 * share,
        )
    return share
