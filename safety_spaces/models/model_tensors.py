"""The tensors of the live model of a folder, as transformers builds it from config.json on the meta device.

What counts in a folder is what the live model takes from it: buffers of older versions are ignored, and a tensor has
the live model's name whatever the file calls it. No weights are read, and transformers is imported where it is asked.
"""

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safety_spaces.models.folders import CONFIG
from safety_spaces.store import read_json
from safety_spaces.tensors import POSITIONS, kind

UNUSABLE = (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What a family's own code raises on settings that no model can be built of."""


@dataclass(frozen=True)
class ModelTensors:
    """What a live model says of its tensors, by its own names; nothing where no model is known.

    tied names the tensor that another one is (a head its embedding), per_token those with a row per token, transposed
    the matrices stored as inputs x outputs. live_name maps a name in a file as transformers does: to a name of kinds,
    to None where the live model has no such tensor, to itself where the tensor becomes part of another (fused experts).
    """

    kinds: Mapping[str, str] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)
    per_token: frozenset[str] = frozenset()
    transposed: frozenset[str] = frozenset()
    live_name: Callable[[str], str | None] = lambda name: name

    @property
    def is_known(self) -> bool:
        """Whether transformers builds a causal model of the folder's configuration."""
        return bool(self.kinds)


UNKNOWN = ModelTensors()


def model_tensors(folder: Path) -> ModelTensors:
    """Return the tensors of a folder's live model; UNKNOWN where config.json is of no causal model of transformers."""
    config = read_json(folder / CONFIG) or {}
    # As text: whoever opens the folders of a study asks for one model many times.
    return _described(json.dumps(config, sort_keys=True)) if config.get("model_type") else UNKNOWN


@functools.cache
def _described(config: str) -> ModelTensors:
    from transformers.pytorch_utils import Conv1D

    model = _on_meta(json.loads(config))
    if model is None:
        return UNKNOWN
    modules = dict(model.named_modules(remove_duplicate=False))
    tensors = {name: of for name, of in model.state_dict(keep_vars=True).items() if of.is_floating_point()}
    owners = {name: modules[name.rpartition(".")[0]] for name in tensors}
    vocabulary = {"embed_tokens": model.get_input_embeddings(), "lm_head": model.get_output_embeddings()}
    tables = {name: of for name, owner in owners.items() for of, module in vocabulary.items() if module is owner}
    first: dict[int, str] = {}
    kinds = {name: _kind(name, owners[name], of.ndim, tables.get(name)) for name, of in tensors.items()}
    return ModelTensors(
        kinds=kinds,
        shapes={name: tuple(of.shape) for name, of in tensors.items()},
        tied={name: one for name, of in tensors.items() if (one := first.setdefault(id(of), name)) != name},
        per_token=frozenset(tables),
        transposed=frozenset(name for name, of in tensors.items() if of.ndim == 2 and isinstance(owners[name], Conv1D)),
        live_name=_mapping(model, kinds),
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


def _kind(name: str, module: Any, axes: int, table: str | None) -> str:
    """Kind of a tensor: positions are what is looked up and is no vocabulary table, norms are vectors."""
    import torch

    if not name.endswith(".weight"):
        return kind(name)
    if table is not None or isinstance(module, torch.nn.Embedding):
        return table or POSITIONS
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
