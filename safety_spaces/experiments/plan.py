"""What a study will take, before any work: checkpoints, cells, disk and memory. Reads no weights and no torch."""

import json
import math
import struct
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import baseline_roles, cells_per_seed
from safety_spaces.experiments.checkpoints import checkpoint_folder
from safety_spaces.experiments.command import Command
from safety_spaces.store import is_checkpoint
from safety_spaces.study import Architecture, Pretrained

BYTES = {"float32": 4, "fp32": 4, "bfloat16": 2, "bf16": 2, "float16": 2}
OPTIMISER_COPIES = 4
"""Weights, gradients and AdamW's two moments, each of the size of the model."""


def plan(command: Command) -> str:
    """Return the plan of a study as text, one line per stage.

    Raises:
        UserError: the size of the base is not known: it is neither pretrained here nor a local folder.
    """
    study = command.study
    parameters = _parameters(command)
    roles = [(role, seed) for seed in study.seeds for role in study.order_of_roles() if study.is_per_seed(role)]
    folders = {checkpoint_folder(command, role, seed) for role, seed in [("base", study.seeds[0]), *roles]}
    missing = sum(not is_checkpoint(folder) for folder in folders)
    cells, seeds = cells_per_seed(command), len(study.seeds)
    baselines = len(baseline_roles(command))
    stored = parameters * BYTES[study.training.precision]
    live = parameters * BYTES[study.projection.weights_dtype]
    settings = study.activation_spaces
    states = settings.prompts * len(settings.sets) * len(settings.checkpoints) * seeds
    lines = [
        f"study {study.name}: {parameters:,} parameters, {seeds} seeds",
        f"finetune: {len(folders)} checkpoints of {_size(stored)}, {missing} still to be made; "
        f"memory {_size(OPTIMISER_COPIES * stored)} for weights and optimiser, activations not counted",
        f"projection: {seeds * cells['energies']:,} energies, {seeds * (cells['models'] + baselines):,} models, "
        f"{seeds * (cells['scores'] + 2 * baselines):,} scores; memory {_size(live)} for the live model; "
        f"factors on disk at most {_size(4 * parameters)} a seed",
        f"update_spaces: {len(study.update_spaces.pairs)} pairs, {len(study.update_spaces.etas)} energy levels, "
        f"{seeds} seeds",
        f"activation_spaces: {states:,} prompts through the model; memory {_size(live)} for the live model",
        f"results: {command.layout.results_folder}; runs: {command.layout.runs / study.name}, "
        f"at most {_size(len(folders) * stored + seeds * 4 * parameters)} of checkpoints and factors",
    ]
    return "\n".join(lines)


def _parameters(command: Command) -> int:
    recipe = command.study.roles["base"]
    if isinstance(recipe, Pretrained):
        return architecture_parameters(recipe.architecture)
    folder = checkpoint_folder(command, "base", command.study.seeds[0])
    if not is_checkpoint(folder):
        raise UserError(
            f"{folder}: expected the base checkpoint, found none; the plan needs its size: download it first"
        )
    return sum(_stored_parameters(path) for path in folder.glob("*.safetensors"))


def architecture_parameters(shape: Architecture) -> int:
    """Return the number of parameters of a Llama or Qwen2 model, tied weights once."""
    d, head = shape.hidden, shape.hidden // shape.heads
    narrow = shape.key_value_heads * head
    attention = 2 * d * d + 2 * d * narrow + ((d + 2 * narrow) if shape.family == "qwen2" else 0)
    layer = attention + 3 * d * shape.intermediate + 2 * d
    return shape.vocabulary * d * (1 if shape.tied else 2) + shape.layers * layer + d


def _stored_parameters(path: Path) -> int:
    """Return the number of parameters of a safetensors file from its header alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _size(number: int | float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
