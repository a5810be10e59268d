"""Sizes of a model's tensors, known before it is trained or downloaded. Reads no weights and no torch."""

import math
from pathlib import Path

from pydantic import ValidationError

from safety_spaces.errors import UserError
from safety_spaces.models.folders import CONFIG, is_adapter, is_checkpoint
from safety_spaces.models.headers import read_headers
from safety_spaces.models.roles import Roles, study_of
from safety_spaces.store import read_json
from safety_spaces.study import Architecture
from safety_spaces.tensors import HEAD, Side, faces_residual, kind, project_from

Shapes = dict[str, tuple[int, ...]]
FACTOR_BYTES = 4
"""Factors are float32."""


def model_shapes(roles: Roles) -> Shapes:
    """Return the shapes of the base's tensors by name, of a tied pair the embedding alone.

    Raises:
        UserError: they are not known: the base is not there, and the study does not say its architecture.
    """
    recipe = roles.study.roles["base"]
    folder = roles.folder("base", roles.study.seeds[0])
    if is_checkpoint(folder) and not is_adapter(folder):
        return stored_shapes(folder)
    if recipe.architecture is not None:
        return architecture_shapes(recipe.architecture)
    first = "run with --download first" if study_of(recipe) is None else roles.remedy(recipe)
    raise UserError(
        f"{folder}: expected the base checkpoint, found none; the plan needs its size: {first}, or write "
        "roles.base.architecture"
    )


def base_architecture(roles: Roles) -> Architecture | None:
    """Return the shape of the base: the study's, else what its folder says; None for a family that we do not know."""
    recipe = roles.study.roles["base"]
    if recipe.architecture is not None:
        return recipe.architecture
    config = read_json(roles.folder("base", roles.study.seeds[0]) / CONFIG) or {}
    try:
        return Architecture(
            family=config["model_type"],
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            layers=config["num_hidden_layers"],
            heads=config["num_attention_heads"],
            key_value_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
            intermediate=config["intermediate_size"],
            tied=bool(config.get("tie_word_embeddings")),
            positions=config["max_position_embeddings"],
        )
    except (KeyError, ValidationError):
        return None


def parameters(shapes: Shapes) -> int:
    """Return the number of weights."""
    return sum(map(math.prod, shapes.values()))


def factor_bytes(roles: Roles, shapes: Shapes) -> int:
    """Return the bytes of the factorised reference update of one seed, at full rank."""
    settings = roles.study.projection
    counted = list(shapes.items())
    if settings.tied == "twice" and "lm_head" not in map(kind, shapes):
        counted += [(HEAD, shape) for name, shape in counted if kind(name) == "embed_tokens"]
    return sum(factor_size(name, shape, side=settings.projected_side) for name, shape in counted) * FACTOR_BYTES


def factor_size(name: str, shape: tuple[int, ...], *, side: Side) -> int:
    """Return how many numbers the factor U of a tensor has, M min(M, N) with the projected side M, at full rank.

    At most as many where the model alone says which side faces the residual stream.
    """
    rows = shape[0] if shape else 1
    columns = math.prod(shape[1:])
    of = kind(name)
    if side == "residual" and len(shape) > 1 and (not faces_residual(of) or of.startswith("c_")):
        return max(rows, columns) * min(rows, columns)
    is_right = len(shape) > 1 and project_from(side, of) == "right"
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

    What they hold beyond the live model (old buffers, a copy of a head that its class ties) is counted: a bound.

    Raises:
        UserError: a file is cut short.
    """
    shapes = {name: header.shape for name, header in read_headers(folder) if header.is_floating}
    if (read_json(folder / CONFIG) or {}).get("tie_word_embeddings"):
        shapes.pop(HEAD, None)
    return shapes
