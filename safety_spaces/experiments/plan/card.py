"""Whether every training, and the live model, fit on the card that a study is planned for, and what would make them."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from pydantic import ValidationError

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.experiments.plan.costs import activation_bytes, live_bytes, size, training_bytes
from safety_spaces.experiments.plan.sizes import Shapes, model_shapes, parameters
from safety_spaces.experiments.plan.work import Work, work_left
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import Roles
from safety_spaces.study import Architecture, Gpu, Study, Training

GIB = 2**30
TRAINING_CHOICES: Mapping[str, Sequence[Any]] = {
    "optimizer": ("adamw_8bit", "adamw_offload"),
    "gradient_checkpointing": (True,),
    "batch_size": (1,),
    "precision": ("bf16",),
}
"""Settings of a training that need less memory; what changes its numbers most stands last."""


@dataclass(frozen=True)
class Planned:
    """A study before its work, on a device: the size of its model, its card, and what is left to do."""

    roles: Roles
    texts: Texts
    device: str | None = None
    geometry_only: bool = False
    keep_factors: bool = False

    @property
    def study(self) -> Study:
        """The study."""
        return self.roles.study

    @cached_property
    def shapes(self) -> Shapes:
        """Shapes of the base's tensors; raises UserError when they are not known."""
        return model_shapes(self.roles)

    @property
    def weights(self) -> int:
        """Number of the model's weights."""
        return parameters(self.shapes)

    @cached_property
    def architecture(self) -> Architecture | None:
        """Shape of the base, None for a family that is not known here."""
        return self.roles.architecture

    @property
    def gpu(self) -> Gpu | None:
        """The card that is planned for; None where the study names none, or another device is asked for."""
        return self.study.gpu if (self.device or "cuda").startswith("cuda") else None

    @cached_property
    def left(self) -> Work:
        """What is left to do."""
        return work_left(self.roles, self.texts, geometry_only=self.geometry_only)

    @cached_property
    def trainings(self) -> dict[str, list[int]]:
        """The seeds whose checkpoint is still to be trained, by role."""
        study = self.study
        left: dict[str, list[int]] = {}
        for role in study.trained_roles:
            for seed in study.seeds:
                if not is_checkpoint(self.roles.folder(role, seed)):
                    left.setdefault(role, []).append(seed)
        return left

    def training_memory(self, method: str, training: Training) -> tuple[int, str]:
        """Return the bytes that a training needs on the card, and the sum as a text that can be checked."""
        of_weight, shape = training_bytes(training, method), self.architecture
        held = 0 if shape is None else activation_bytes(training, method, shape)
        total = sum(of_weight.values()) * self.weights + held
        parts = " + ".join(f"{number} {name}" for name, number in of_weight.items())
        counted = "activations not counted" if shape is None else f"about {size(held)} of activations"
        how = f"{training.optimizer} in {training.precision}, {counted}"
        return total, f"{size(total)}: ({parts}) bytes x {self.weights:,} parameters, {how}"

    def live_arithmetic(self) -> str:
        """Return what the live model needs on the card as a sum."""
        parts = live_bytes(self.study, self.shapes, self.architecture)
        return " + ".join(f"{size(number)} {name}" for name, number in parts.items()) + " for the live model"


def check_memory(planned: Planned) -> None:
    """Check that every training that is left, and the live model, fit on the card that the study is planned for.

    Raises UserError when one does not: what it needs, and which settings would make it fit.
    """
    gpu, study = planned.gpu, planned.study
    if gpu is None:
        return
    available = int(gpu.memory * GIB)
    expected = f"fits into {gpu.memory:g} GiB ({size(available)}) of {gpu.name}"
    for role in planned.trainings:
        recipe = study.trained_roles[role]
        training, method = recipe.training, recipe.method
        fits = partial(_training_fits, planned, method, training, available)
        if not fits({}):
            advice = _advice("training", TRAINING_CHOICES, fits)
            # A step stays as large as it is.
            step = f"batch_size to 1 and training.accumulation to {training.batch_size * training.accumulation}"
            _, needed = planned.training_memory(method, training)
            advice = advice.replace("batch_size to 1", step)
            raise UserError(f"roles.{role}: expected a training that {expected}, got {needed}; {advice}")
    live_fits = partial(_live_fits, planned, available)
    if study.evaluation is not None and not live_fits({}) and (planned.left.answers or planned.left.read):
        largest = study.evaluation.batch_size
        halves = [largest >> power for power in range(1, largest.bit_length())]
        choices: dict[str, Sequence[Any]] = {"evaluation.batch_size": halves, "projection.weights_dtype": ["bfloat16"]}
        needed, advice = planned.live_arithmetic(), _advice("", choices, live_fits)
        raise UserError(f"projection: expected a live model that {expected}, got {needed}; {advice}")


def _training_fits(planned: Planned, method: str, training: Training, available: int, changes: dict[str, Any]) -> bool:
    try:
        changed = Training.model_validate(training.model_dump() | changes)
    except ValidationError:
        # An optimiser that does not step weights in this precision.
        return False
    return planned.training_memory(method, changed)[0] <= available


def _live_fits(planned: Planned, available: int, changes: Mapping[str, Any]) -> bool:
    sections = {}
    for name, value in changes.items():
        section, key = name.split(".")
        sections[section] = getattr(planned.study, section).model_copy(update={key: value})
    changed = planned.study.model_copy(update=sections)
    return sum(live_bytes(changed, planned.shapes, planned.architecture).values()) <= available


def _advice(section: str, choices: Mapping[str, Sequence[Any]], fits: Callable[[dict[str, Any]], bool]) -> str:
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
