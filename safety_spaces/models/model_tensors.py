"""The tensors of the live model of a folder, as transformers builds it from config.json on the meta device.

What counts in a folder is what the live model takes from it: buffers of older versions are ignored, and a tensor has
the live model's name whatever the file calls it. No weights are read, and transformers is imported where it is asked.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safety_spaces.models.folders import CONFIG
from safety_spaces.store import read_json
from safety_spaces.tensors import POSITIONS, kind

UNUSABLE = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What a family's own code raises on settings that no model can be built of."""


@dataclass(frozen=True)
class ModelTensors:
    """What a live model says of its tensors, by its own names.

    tied names the tensor that another one is (a head its embedding), per_token those with a row per token, transposed
    the matrices stored as inputs x outputs. live_name maps a name in a file as transformers does: to a name of kinds,
    to None where the live model has no such tensor, to itself where the tensor becomes part of another (fused experts).
    """

    architecture: str
    kinds: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    tied: Mapping[str, str]
    per_token: frozenset[str]
    transposed: frozenset[str]
    live_name: Callable[[str], str | None]


def model_tensors(folder: Path) -> ModelTensors | None:
    """Return the tensors of a folder's live model; None where its config.json is of no causal model of transformers."""
    config = read_json(folder / CONFIG) or {}
    # As text: whoever opens the folders of a study asks for one model many times.
    is_known = config.get("model_type") and find_spec("transformers")
    return _described(json.dumps(config, sort_keys=True)) if is_known else None


@functools.cache
def _described(config: str) -> ModelTensors | None:
    from transformers.pytorch_utils import Conv1D

    model = _on_meta(json.loads(config))
    if model is None:
        return None
    modules = dict(model.named_modules(remove_duplicate=False))
    tables = {"embed_tokens": model.get_input_embeddings(), "lm_head": model.get_output_embeddings()}
    kinds: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    tied: dict[str, str] = {}
    first: dict[int, str] = {}
    per_token, transposed = set(), set()
    for name, values in model.state_dict(keep_vars=True).items():
        if not values.is_floating_point():
            continue
        path, _, leaf = name.rpartition(".")
        table = next((of for of, module in tables.items() if module is modules[path]), None)
        kinds[name], shapes[name] = kind(name), tuple(values.shape)
        if leaf == "weight":
            kinds[name] = table or _kind(name, modules[path], values.ndim)
        if table is not None:
            per_token.add(name)
        if isinstance(modules[path], Conv1D) and values.ndim == 2:
            transposed.add(name)
        if (source := first.setdefault(id(values), name)) != name:
            tied[name] = source
    live_name = _mapping(model, kinds)
    return ModelTensors(
        type(model).__name__, kinds, shapes, tied, frozenset(per_token), frozenset(transposed), live_name
    )


def _on_meta(config: Mapping[str, Any]) -> Any:
    """Return a model without weights; None of a family, or with settings, that transformers does not know."""
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    if config["model_type"] not in CONFIG_MAPPING:
        return None
    try:
        settings = CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
        if type(settings) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            return None
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(settings)
    except (StrictDataclassError, *UNUSABLE):
        return None


def _kind(name: str, module: Any, axes: int) -> str:
    """Kind of a weight of neither vocabulary table: positions are what is looked up, norms are vectors."""
    import torch

    if isinstance(module, torch.nn.Embedding):
        return POSITIONS
    return "norm" if axes == 1 else kind(name)


def _mapping(model: Any, kinds: Mapping[str, str]) -> Callable[[str], str | None]:
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, rename_source_key

    changes = get_model_conversion_mapping(model)
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    renamings = [change for change in changes if not isinstance(change, WeightConverter)]

    def live_name(name: str) -> str | None:
        live, converted = rename_source_key(name, renamings, converters, model.base_model_prefix, kinds)
        if converted is not None and live in kinds:
            return name
        return next((found for found in (live, name) if found in kinds), None)

    return live_name
