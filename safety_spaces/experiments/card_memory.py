"""Whether every training, and the live model, fit on the card that a study is planned for, and what would make them."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from safety_spaces.errors import UserError
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.costs import activation_bytes, live_bytes, size, training_bytes
from safety_spaces.experiments.remaining import work_left
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.sizes import base_architecture, model_shapes, parameters
from safety_spaces.study import Existing, Gpu, Training

GIB = 2**30
TRAINING_CHOICES: Mapping[str, Sequence[Any]] = {
    "optimizer": ("adamw_8bit", "adamw_offload"),
    "gradient_checkpointing": (True,),
    "batch_size": (1,),
    "precision": ("bf16",),
}
"""Settings of a training that need less memory; what changes its numbers most stands last."""


def card(command: Command) -> Gpu | None:
    """Return the card that the work is planned for; None where the study names none, or another device is asked for."""
    return command.study.gpu if (command.device or "cuda").startswith("cuda") else None


def trainings_left(command: Command) -> dict[str, list[int]]:
    """Return the seeds whose checkpoint is still to be trained, by role."""
    study = command.study
    left = {
        role: [
            seed
            for seed in (study.seeds if study.is_per_seed(role) else study.seeds[:1])
            if not is_checkpoint(command.roles.folder(role, seed))
        ]
        for role, recipe in study.roles.items()
        if not isinstance(recipe, Existing)
    }
    return {role: seeds for role, seeds in left.items() if seeds}


def training_memory(command: Command, method: str, training: Training, weights: int) -> int:
    """Return the bytes that a training needs on the card."""
    shape = base_architecture(command.roles)
    activations = 0 if shape is None else activation_bytes(training, method, shape)
    return sum(training_bytes(training, method).values()) * weights + activations


def check_memory(command: Command) -> None:
    """Check that every training that is left, and the live model, fit on the card that the study is planned for.

    Raises:
        UserError: one does not; what it needs, and which settings would make it fit.
    """
    gpu = card(command)
    if gpu is None:
        return
    available, shapes = int(gpu.memory * GIB), model_shapes(command.roles)
    expected = f"fits into {gpu.memory:g} GiB ({size(available)}) of {gpu.name}"
    weights = parameters(shapes)
    for role in trainings_left(command):
        training, method = command.study.training_of(role), command.study.roles[role].method  # type: ignore[union-attr]
        fits = partial(_training_fits, command, method, training, weights, available)
        if not fits({}):
            needed = training_arithmetic(command, method, training, weights)
            advice = _advice("training", TRAINING_CHOICES, fits)
            # A step stays as large as it is.
            step = f"batch_size to 1 and training.accumulation to {training.batch_size * training.accumulation}"
            advice = advice.replace("batch_size to 1", step)
            raise UserError(f"roles.{role}: expected a training that {expected}, got {needed}; {advice}")
    if not command.geometry_only and not _live_fits(command, available, {}) and _asks_models(command):
        study = command.study
        halves = [study.evaluation.batch_size >> power for power in range(1, study.evaluation.batch_size.bit_length())]
        choices: dict[str, Sequence[Any]] = {"evaluation.batch_size": halves, "projection.weights_dtype": ["bfloat16"]}
        advice = _advice("", choices, partial(_live_fits, command, available))
        raise UserError(f"projection: expected a live model that {expected}, got {live_arithmetic(command)}; {advice}")


def _asks_models(command: Command) -> bool:
    left = work_left(command)
    return bool(left.answers or left.read)


def _training_fits(
    command: Command, method: str, training: Training, weights: int, available: int, changes: dict[str, Any]
) -> bool:
    try:
        changed = Training.model_validate(training.model_dump() | changes)
    except ValidationError:
        # An optimiser that does not step weights in this precision.
        return False
    return training_memory(command, method, changed, weights) <= available


def _live_fits(command: Command, available: int, changes: Mapping[str, Any]) -> bool:
    sections = {}
    for name, value in changes.items():
        section, key = name.split(".")
        # The field behind the key of the study file, which may be null.
        field = "evaluation" if section == "evaluation" else section
        sections[field] = getattr(command.study, field).model_copy(update={key: value})
    changed = replace(command, study=command.study.model_copy(update=sections))
    return sum(live_memory(changed).values()) <= available


def training_arithmetic(command: Command, method: str, training: Training, weights: int) -> str:
    """Return what a training needs on the card as a sum that can be checked."""
    parts = " + ".join(f"{number} {name}" for name, number in training_bytes(training, method).items())
    shape = base_architecture(command.roles)
    held = None if shape is None else activation_bytes(training, method, shape)
    counted = "activations not counted" if held is None else f"about {size(held)} of activations"
    total, how = (
        size(training_memory(command, method, training, weights)),
        f"{training.optimizer} in {training.precision}",
    )
    return f"{total}: ({parts}) bytes x {weights:,} parameters, {how}, {counted}"


def live_memory(command: Command) -> dict[str, int]:
    """Return the bytes that the live model needs on the card, by what they are for."""
    return live_bytes(command, model_shapes(command.roles), base_architecture(command.roles))


def live_arithmetic(command: Command) -> str:
    """Return what the live model needs on the card as a sum."""
    return " + ".join(f"{size(number)} {name}" for name, number in live_memory(command).items()) + " for the live model"


def _advice(
    section: str,
    choices: Mapping[str, Sequence[Any]],
    fits: Callable[[dict[str, Any]], bool],
) -> str:
    """Return the fewest changes that make it fit: any value of the first of them, the largest of numbers."""
    # The fewest hold no value that is there already: without it they would be fewer.
    for number in range(1, len(choices) + 1):
        for keys in itertools.combinations(choices, number):
            changes = itertools.product(*(choices[key] for key in keys))
            fitting = [values for values in changes if fits(dict(zip(keys, values, strict=True)))]
            if fitting:
                return f"set {_wording(section, keys, fitting)}, or gpu to the card that there is"
    return "no setting of the study makes it fit: set gpu to a larger card, or take a smaller model"


def _wording(section: str, keys: Sequence[str], fitting: Sequence[Sequence[Any]]) -> str:
    first, *others = fitting[0]
    values = [first] if isinstance(first, int) else [value for value, *rest in fitting if rest == others]
    named = zip(keys, (" or ".join(map(str, values)), *others), strict=True)
    return " and ".join(f"{f'{section}.{key}'.lstrip('.')} to {str(value).lower()}" for key, value in named)
