"""Sizes of a model's tensors, known before it is trained or downloaded. Reads no weights and no torch."""

import math
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.models.folders import CONFIG, is_adapter, is_checkpoint, weight_files
from safety_spaces.models.roles import Roles, study_of
from safety_spaces.models.tensor_files import stored_tensors
from safety_spaces.store import read_json
from safety_spaces.study import Architecture
from safety_spaces.tensors import HEAD, Side, faces_residual, kind, project_from

Shapes = dict[str, tuple[int, ...]]
FACTOR_BYTES = 4
"""Factors are float32."""


def model_shapes(roles: Roles) -> Shapes:
    """Return the shapes of the base's tensors by name, of a tied pair the embedding alone.

    Raises UserError when they are not known: the base is not there, and the study does not say its architecture.
    """
    recipe, folder = roles.study.roles["base"], roles.folder("base", roles.study.seeds[0])
    if is_checkpoint(folder) and not is_adapter(folder):
        return stored_shapes(folder)
    if recipe.architecture is not None:
        return architecture_shapes(recipe.architecture)
    first = "run with --download first" if study_of(recipe) is None else roles.remedy(recipe)
    raise UserError(
        f"{folder}: expected the base checkpoint, found none; the plan needs its size: {first}, or write "
        "roles.base.architecture"
    )


def parameters(shapes: Shapes) -> int:
    """Return the number of weights."""
    return sum(map(math.prod, shapes.values()))


def factor_bytes(roles: Roles, shapes: Shapes) -> int:
    """Return the bytes of the factorised reference update of one seed, at full rank."""
    settings, counted = roles.study.projection, list(shapes.items())
    if settings.tied == "twice" and "lm_head" not in map(kind, shapes):
        counted += [(HEAD, shape) for name, shape in counted if kind(name) == "embed_tokens"]
    return sum(factor_size(name, shape, side=settings.side) for name, shape in counted) * FACTOR_BYTES


def factor_size(name: str, shape: tuple[int, ...], *, side: Side) -> int:
    """Return how many numbers the factor U of a tensor has, M min(M, N) with the projected side M, at full rank.

    At most as many where the model alone says which side faces the residual stream.
    """
    if len(shape) < 2:
        return math.prod(shape)
    rows, columns, of = shape[0], math.prod(shape[1:]), kind(name)
    is_known = side != "residual" or (faces_residual(of) and not of.startswith("c_"))
    projected = (columns if project_from(side, of) == "right" else rows) if is_known else max(rows, columns)
    return projected * min(rows, columns)


def architecture_shapes(architecture: Architecture) -> Shapes:
    """Return the shapes of a Llama or Qwen2 model by the names that transformers gives its tensors."""
    d, width = architecture.hidden, architecture.intermediate
    narrow, table = architecture.key_value_heads * (d // architecture.heads), (architecture.vocabulary, d)
    attention = {"q_proj": (d, d), "k_proj": (narrow, d), "v_proj": (narrow, d), "o_proj": (d, d)}
    mlp = {"gate_proj": (width, d), "up_proj": (width, d), "down_proj": (d, width)}
    layer: Shapes = {f"self_attn.{name}.weight": shape for name, shape in attention.items()}
    layer |= {f"mlp.{name}.weight": shape for name, shape in mlp.items()}
    layer |= {f"{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
    if architecture.family == "qwen2":
        layer |= {f"self_attn.{name}.bias": attention[name][:1] for name in ("q_proj", "k_proj", "v_proj")}
    layers = {f"model.layers.{i}.{name}": shape for i in range(architecture.layers) for name, shape in layer.items()}
    head = {} if architecture.tied else {HEAD: table}
    return {"model.embed_tokens.weight": table, **layers, "model.norm.weight": (d,), **head}


def stored_shapes(folder: Path) -> Shapes:
    """Return the shapes of the floating-point tensors of a checkpoint, from the headers of its safetensors files.

    What they hold beyond the live model (old buffers, a copy of a head that its class ties) is counted: a bound. Raises
    UserError when a file is cut short.
    """
    shapes = {name: stored.shape for name, stored in stored_tensors(*weight_files(folder)).items()}
    if (read_json(folder / CONFIG) or {}).get("tie_word_embeddings"):
        shapes.pop(HEAD, None)
    return shapes
