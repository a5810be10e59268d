"""LoRA folders in PEFT's format: what they add to the tensors of a parent, and what they put in their place.

    W + s B A,  s = alpha / r, or alpha / sqrt(r) when rank-stabilised

The product is made tensor by tensor where it is needed, so an adapter costs no second model.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError, warn_once
from safety_spaces.models.folders import ADAPTER_CONFIG, ADAPTER_KEYS_WITH_EFFECT, ADAPTER_WEIGHTS
from safety_spaces.models.tensor_files import StoredTensor, computed_in, stored_tensors
from safety_spaces.store import read_json
from safety_spaces.tensors import HEAD

PREFIX = "base_model.model."
BASE_LAYER = ".base_layer."
"""What PEFT puts into the name of a tensor of a module that it wraps."""
FACTOR = re.compile(
    r"base_model\.model\.(?P<module>.+)\.(?:lora_(?P<side>[AB])\.weight|lora_embedding_(?P<table>[AB]))"
)
HARMLESS_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that leave the parent's weights as they are."""
REMEDY = "merge the adapter with PEFT's merge_and_unload and save the model"
KEYS_WITHOUT_EFFECT = frozenset({
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_version",
    "qalora_group_size",
    "revision",
    "target_modules",
    "task_type",
})  # fmt: skip
"""Keys of adapter_config.json that say how it was trained; what was trained is in the file of its tensors."""


@dataclass(frozen=True)
class LowRank:
    """What a pair of LoRA matrices adds to one tensor: scale B A, transposed for a table of embeddings.

    A has r rows, B r columns.
    """

    A: StoredTensor
    B: StoredTensor
    scale: float
    is_transposed: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        outputs, inputs = self.B.shape[0], self.A.shape[1]
        return (inputs, outputs) if self.is_transposed else (outputs, inputs)

    @property
    def dtype(self) -> torch.dtype:
        """The type that the product is computed in."""
        return torch.promote_types(*(computed_in(place.mapped()) for place in (self.A, self.B)))

    def add_to(self, W: Float[Tensor, "M N"], *, sign: int = 1) -> None:
        """Add the product, or its first M rows, to W in place."""
        A, B = (place.mapped().to(W) for place in (self.A, self.B))
        left, right = (A.t(), B.t()) if self.is_transposed else (B, A)
        W.addmm_(left[: W.shape[0]], right, alpha=sign * self.scale)


@dataclass(frozen=True)
class Adapter:
    """The changes of one LoRA folder, by the parent's names: tensors in place of its own, and products added."""

    folder: Path
    whole: Mapping[str, StoredTensor]
    low_rank: Mapping[str, LowRank]

    def without_head(self, embedding: str) -> "Adapter":
        """The changes to a parent whose output head is its embedding.

        Raises UserError when the adapter changes the head in another way than the embedding: that model is not tied.
        """
        if not (self._same_products(embedding) and self._same_tensors(embedding)):
            raise UserError(
                f"{self.folder}: expected {HEAD} and {embedding} to change alike, as the parent ties them; "
                "train with ensure_weight_tying, or train neither"
            )
        if embedding in self.low_rank and HEAD not in self.low_rank:
            warn_once(
                f"{self.folder} adds to the embedding, which is the output head too: both change, as when PEFT merges"
            )
        whole = {name: place for name, place in self.whole.items() if name != HEAD}
        return Adapter(self.folder, whole, {name: of for name, of in self.low_rank.items() if name != HEAD})

    def _same_products(self, embedding: str) -> bool:
        head, table = self.low_rank.get(HEAD), self.low_rank.get(embedding)
        if head is None:
            return True
        if table is None or head.scale != table.scale:
            return False
        swapped = ((head.A, table.B), (head.B, table.A))
        return all(torch.equal(one.mapped(), other.mapped().t()) for one, other in swapped)

    def _same_tensors(self, embedding: str) -> bool:
        head, table = self.whole.get(HEAD), self.whole.get(embedding)
        if head is None or table is None:
            # Below a product the file repeats the tensor that the product is added to.
            return (head is None or HEAD in self.low_rank) and (table is None or embedding in self.low_rank)
        return torch.equal(head.mapped(), table.mapped())


def read_adapter(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> Adapter:
    """List what a LoRA folder changes in a parent with tensors of these shapes; nothing is computed.

    Raises UserError when the folder is not LoRA alone (DoRA, other methods of PEFT), a tensor of it has no place in
    the parent, or its matrices fit neither the parent nor adapter_config.json.
    """
    config, path = _checked_config(folder / ADAPTER_CONFIG), folder / ADAPTER_WEIGHTS
    pairs: dict[str, dict[str, StoredTensor]] = {}
    whole, tables, floating = {}, set(), stored_tensors(path)
    for key, place in stored_tensors(path, integers=True).items():
        name = key.removeprefix(PREFIX).replace(BASE_LAYER, ".")
        if key in floating and (match := FACTOR.fullmatch(key)):
            pairs.setdefault(match["module"], {})[match["side"] or match["table"]] = place
            tables |= {match["module"]} if match["table"] else set()
        elif key in floating and key.startswith(PREFIX) and name in shapes:
            whole[name] = place
        else:
            raise UserError(
                f"{path}: expected LoRA matrices and tensors of the parent, {key} is neither; "
                f"correct the parent, or {REMEDY}"
            )
    shapes = {**shapes, **{name: place.shape for name, place in whole.items()}}
    low_rank = {
        f"{module}.weight": _low_rank(path, module, pair, config, shapes, is_table=module in tables)
        for module, pair in pairs.items()
    }
    return Adapter(folder, whole, low_rank)


def _low_rank(
    path: Path,
    module: str,
    pair: Mapping[str, StoredTensor],
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    is_table: bool,
) -> LowRank:
    """One pair of matrices, checked against the settings and the tensor that it is added to."""
    name, rank = f"{module}.weight", _of_module(config.get("rank_pattern"), module, config["r"])
    alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    is_pair = set(pair) == {"A", "B"} and all(len(place.shape) == 2 for place in pair.values())
    if not (is_pair and pair["A"].shape[0] == pair["B"].shape[1] == rank):
        raise UserError(
            f"{path}: expected matrices A and B of rank {rank} for {module}, as {ADAPTER_CONFIG} says, got "
            f"{', '.join(f'{side} {place.shape}' for side, place in sorted(pair.items()))}; save the adapter again"
        )
    product = LowRank(
        pair["A"], pair["B"], alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank, is_table
    )
    # PEFT leaves the flag without effect where a module is not stored as inputs x outputs.
    if config.get("fan_in_fan_out") and shapes.get(name) == product.shape[::-1]:
        product = replace(product, is_transposed=True)
    if shapes.get(name) != product.shape:
        raise UserError(
            f"{path}: expected a product of the shape of the parent's {name}, {shapes.get(name)}, got {product.shape}; "
            "correct the parent"
        )
    return product


def _of_module(pattern: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """The value of the first pattern that is the module's name or what it ends in after a dot, as PEFT matches."""
    return next((of for key, of in (pattern or {}).items() if re.match(rf"(.*\.)?({key})$", module)), otherwise)


def _checked_config(path: Path) -> dict[str, Any]:
    """Read adapter_config.json; raise UserError unless every key that is set is one that we know how to follow."""
    config = read_json(path) or {}
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: expected peft_type LORA, got {config.get('peft_type')}; {REMEDY}")
    if (start := config.get("init_lora_weights")) not in HARMLESS_STARTS:
        raise UserError(
            f"{path}: expected an adapter of the parent's own weights, init_lora_weights {start} changes them; "
            "save it with path_initial_model_for_weight_conversion"
        )
    known = KEYS_WITHOUT_EFFECT.union(ADAPTER_KEYS_WITH_EFFECT)
    if unknown := sorted(key for key, value in config.items() if value and key not in known):
        raise UserError(f"{path}: expected plain LoRA, {unknown[0]} is not supported; {REMEDY}")
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            raise UserError(f"{path}: expected a number as {key}, got {config.get(key)}; save the adapter again")
    return config
