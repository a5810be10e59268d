"""What a study will take, before any work: checkpoints, cells, disk and memory. Reads no weights and no torch."""

import json
import math
import struct
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.experiments.cells import baseline_roles, cells_per_seed
from safety_spaces.experiments.checkpoints import checkpoint_folder
from safety_spaces.experiments.command import Command
from safety_spaces.store import is_checkpoint, read_json
from safety_spaces.study import Architecture, Pretrained
from safety_spaces.tensors import HEAD, Side, kind, project_from

Shapes = dict[str, tuple[int, ...]]
BYTES = {"float32": 4, "fp32": 4, "bfloat16": 2, "bf16": 2, "float16": 2}
FACTOR_BYTES = 4
"""Factors are float32."""
OPTIMISER_COPIES = 4
"""Weights, gradients and AdamW's two moments, each of the size of the model."""


def plan(command: Command) -> str:
    """Return the plan of a study as text, one line per stage.

    Raises:
        UserError: the size of the base is not known: it is neither pretrained here nor a local folder.
    """
    study = command.study
    shapes = _shapes(command)
    parameters = sum(map(math.prod, shapes.values()))
    factors = 0 if command.geometry_only and not command.keep_factors else _factor_bytes(command, shapes)
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
        f"factors on disk {_size(factors)} a seed, removed at the end unless --keep-factors",
        f"update_spaces: {len(study.update_spaces.pairs)} pairs, {len(study.update_spaces.etas)} energy levels, "
        f"{seeds} seeds",
        f"activation_spaces: {states:,} prompts through the model; memory {_size(live)} for the live model",
        f"results: {command.layout.results_folder}; runs: {command.layout.runs / study.name}, "
        f"at most {_size(len(folders) * stored + seeds * factors)} of checkpoints and factors",
    ]
    return "\n".join(lines)


def _shapes(command: Command) -> Shapes:
    """Shapes of the tensors by name, of a tied pair the embedding alone."""
    recipe = command.study.roles["base"]
    folder = checkpoint_folder(command, "base", command.study.seeds[0])
    if is_checkpoint(folder):
        return stored_shapes(folder)
    if isinstance(recipe, Pretrained):
        return architecture_shapes(recipe.architecture)
    raise UserError(f"{folder}: expected the base checkpoint, found none; the plan needs its size: download it first")


def _factor_bytes(command: Command, shapes: Shapes) -> int:
    settings = command.study.projection
    counted = list(shapes.items())
    if settings.tied == "twice" and HEAD not in shapes:
        counted += [(HEAD, shape) for name, shape in counted if kind(name) == "embed_tokens"]
    return sum(factor_size(name, shape, side=settings.projected_side) for name, shape in counted) * FACTOR_BYTES


def factor_size(name: str, shape: tuple[int, ...], *, side: Side) -> int:
    """Return how many numbers the factor U of a tensor has, M min(M, N) with the projected side M, at full rank."""
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    is_right = len(shape) > 1 and project_from(side, kind(name)) == "right"
    return (columns if is_right else rows) * min(rows, columns)


def architecture_shapes(architecture: Architecture) -> Shapes:
    """Return the shapes of a Llama or Qwen2 model by the names that transformers gives its tensors."""
    d, width = architecture.hidden, architecture.intermediate
    narrow = architecture.key_value_heads * (d // architecture.heads)
    embedding = (architecture.vocabulary, d)
    attention = {"q_proj": (d, d), "k_proj": (narrow, d), "v_proj": (narrow, d), "o_proj": (d, d)}
    layer: Shapes = {f"self_attn.{name}.weight": shape for name, shape in attention.items()}
    if architecture.family == "qwen2":
        layer |= {f"self_attn.{name}.bias": attention[name][:1] for name in ("q_proj", "k_proj", "v_proj")}
    layer |= {f"mlp.{name}.weight": (width, d) for name in ("gate_proj", "up_proj")}
    layer |= {
        "mlp.down_proj.weight": (d, width),
        "input_layernorm.weight": (d,),
        "post_attention_layernorm.weight": (d,),
    }
    layers = {f"model.layers.{i}.{name}": shape for i in range(architecture.layers) for name, shape in layer.items()}
    head = {} if architecture.tied else {HEAD: embedding}
    return {"model.embed_tokens.weight": embedding, **layers, "model.norm.weight": (d,), **head}


def stored_shapes(folder: Path) -> Shapes:
    """Return the shapes of the floating-point tensors of a checkpoint, from the headers of its safetensors files.

    Raises:
        UserError: a file is cut short.
    """
    shapes: Shapes = {}
    for path in folder.glob("*.safetensors"):
        try:
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
        except (struct.error, ValueError) as error:
            raise UserError(f"{path}: expected a safetensors header, found a part of one; download it again") from error
        header.pop("__metadata__", None)
        shapes |= {
            name: tuple(entry["shape"]) for name, entry in header.items() if entry["dtype"].startswith(("F", "BF"))
        }
    if (read_json(folder / "config.json") or {}).get("tie_word_embeddings"):
        shapes.pop(HEAD, None)
    return shapes


def _size(number: int | float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
