"""One training of a study, from rows to a checkpoint that appears under its name only when it is whole."""

import json
import logging
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from safety_spaces.data.texts import Texts
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.models.device import ready_device
from safety_spaces.models.folders import GENERATION, special_tokens
from safety_spaces.models.live import greedy_model
from safety_spaces.models.loading import open_role, role_model, role_tokenizer
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.roles import RECIPE_FILE, Roles, state_folder
from safety_spaces.processes import processes
from safety_spaces.record import Stage
from safety_spaces.store import digest, partial_folder, read_json, write_atomically, write_json, writing
from safety_spaces.study import Pretrained
from safety_spaces.training.architecture import new_model
from safety_spaces.training.states import drop_states
from safety_spaces.training.together import from_first
from safety_spaces.training.train import train
from safety_spaces.training.trainer import DTYPES, Resumption, Trained

Rows = list[dict[str, str]]
Recipe = dict[str, Any]
"""What recipe.json says that a role was trained from."""

FEW_CHANGED = 0.5
"""Share of weights below which a training in bf16 is said to have rounded its steps away."""

logger = logging.getLogger(__name__)


def train_role(
    roles: Roles, texts: Texts, role: str, seed: int, rows: Rows, *, recipe: Recipe, device_name: str | None
) -> None:
    """Train one role and write its checkpoint with recipe.json in it: what it was trained from, what the training did.

    An interrupted training leaves `<role>.partial`, which nothing takes for finished, and, where the study saves
    states, `<role>.state`, from which the next one goes on. Of several processes all train and the first writes.

    Raises UserError when the device is not there, the parent is not finished, or the folder cannot be written.
    """
    final, threads = roles.folder(role, seed), roles.study.threads
    with ExitStack() as stack:

        def opened() -> Path:
            # A missing device leaves no folder.
            ready_device(device_name, threads=threads)
            return stack.enter_context(partial_folder(final))

        folder = from_first(opened, cpu=device_name == "cpu")
        device = ready_device(device_name, threads=threads)
        with Stage() as stage:
            trained = _train(roles, texts, role, seed, rows, recipe=recipe, folder=folder, device=device)
        if processes().is_first:
            notes = {
                **recipe,
                "sources": roles.layout.sources,
                "steps": trained.steps,
                "loss": trained.loss,
                "loss_by_tenth": trained.loss_by_tenth,
                "seconds": round(stage.seconds, 1),
                "share_of_weights_changed": _share_changed(roles, role, seed, folder),
            }
            _keep_generation_settings(roles, role, seed, folder)
            write_atomically(folder / RECIPE_FILE, (json.dumps(notes, indent=1) + "\n").encode())
    if processes().is_first:
        drop_states(state_folder(final))


def _train(
    roles: Roles, texts: Texts, role: str, seed: int, rows: Rows, *, recipe: Recipe, folder: Path, device: torch.device
) -> Trained:
    own = roles.study.trained_roles[role]
    model, tokenizer = _start(roles, texts, role, seed, training_seed=recipe["seed"])
    # Rows and random numbers are shared out by number, and the claim of recipe.json is that these sources trained it.
    made_by = digest([recipe, roles.layout.sources, processes().count])
    states = Resumption(state_folder(roles.folder(role, seed)), made_by)
    with writing(folder):
        return train(
            model.to(DTYPES[own.training.precision]),
            tokenizer,
            rows,
            settings=own.training,
            seed=recipe["seed"],
            output=folder,
            name=f"{role}, seed {seed}",
            device=device,
            beta=own.beta,
            resumption=states if own.training.save_every else None,
        )


def _start(roles: Roles, texts: Texts, role: str, seed: int, *, training_seed: int) -> tuple[Any, Any]:
    """Return the weights and the tokenizer that a training starts from."""
    recipe = roles.study.roles[role]
    if isinstance(recipe, Pretrained):
        words = [" ".join(row.values()) for row in texts.role_rows(role, seed)]
        tokenizer = wrap_tokenizer(words, vocabulary=recipe.architecture.vocabulary)
        return new_model(recipe.architecture, tokenizer, seed=training_seed), tokenizer
    parent, dtype = str(roles.study.parent(role)), DTYPES[roles.study.training_of(role).precision]
    # The library would draw what is missing at random.
    open_role(roles, parent, seed).check_is_whole()
    tokenizer = role_tokenizer(roles, parent, seed)
    if roles.adapted(parent, seed) is not None:
        return role_model(roles, parent, seed, device=torch.device("cpu"), dtype=dtype), tokenizer
    # Where processes share a model, the library itself reads it in one of them.
    return greedy_model(roles.finished(parent, seed), dtype=dtype), tokenizer


def _keep_generation_settings(roles: Roles, role: str, seed: int, folder: Path) -> None:
    """Write what the parent recommends for generation, with the special tokens of the training: no other field acts."""
    if (parent := roles.study.parent(role)) is None:
        return
    recommended = read_json(roles.finished(roles.whole(parent, seed), seed) / GENERATION)
    if recommended is not None:
        write_json(folder / GENERATION, recommended | special_tokens(folder))


def _share_changed(roles: Roles, role: str, seed: int, folder: Path) -> float | None:
    """Return the share of weights that differ from the parent's; None for a model trained from nothing."""
    recipe = roles.study.trained_roles[role]
    if recipe.parent is None:
        return None
    precision = recipe.training.precision
    parent, child = open_role(roles, recipe.parent, seed), open_checkpoint(folder)
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
