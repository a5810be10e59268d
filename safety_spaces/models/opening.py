"""How a folder becomes a checkpoint: its files, the tensors that count in them, and what a LoRA folder changes.

A folder in PEFT's format changes the tensors of a parent W, or puts others in their place:

    W + s B A,  s = alpha / r, or alpha / sqrt(r) when rank-stabilised
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from safety_spaces.errors import UserError, warn_once
from safety_spaces.models import folders
from safety_spaces.models.checkpoints import Checkpoint, LowRank, mapped
from safety_spaces.models.model_tensors import model_tensors
from safety_spaces.models.tensor_files import StoredTensor, stored_tensors
from safety_spaces.store import read_json
from safety_spaces.tensors import HEAD, kind, layer

Tied = Literal["once", "twice"]
Shapes = Mapping[str, tuple[int, ...]]

PREFIX = "base_model.model."
BASE_LAYER = ".base_layer."
"""What PEFT puts into the name of a tensor of a module that it wraps."""
FACTOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(?(table)|\.weight)")
HARMLESS_STARTS = (None, True, False, "gaussian", "eva", "orthogonal", "mica")
"""Values of init_lora_weights that leave the parent's weights as they are."""
REMEDY = "merge the adapter with PEFT's merge_and_unload and save the model"
KEYS_OF_TRAINING = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
    "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save", "peft_version", "qalora_group_size",
    "revision", "target_modules", "task_type",
})  # fmt: skip
"""Keys of adapter_config.json that say how it was trained; what was trained is in the file of its tensors."""


def open_checkpoint(folder: Path | str, *, tied: Tied = "once", parent: Checkpoint | None = None) -> Checkpoint:
    """List the tensors of a folder of safetensors files, whole, sharded or of an adapter.

    tied says how often an output head counts that the live model ties to the embedding: once, as the embedding, or
    twice, as in a state_dict (the published code). A LoRA folder needs its parent and counts the head as that does.
    Raises UserError when the folder or a shard is missing or unreadable, the model is quantised, or an adapter is not
    plain LoRA of the parent.
    """
    folder = Path(folder)
    # The tensors of a model without a configuration go by their names.
    folders.check_checkpoint(folder, needs_config=False)
    if folders.is_adapter(folder):
        return _adapted(folder, parent)
    folders.check_not_quantised(folder)
    model, files = model_tensors(folder), stored_tensors(*folders.weight_files(folder))
    stored = {live: place for name, place in files.items() if (live := model.live_name(name)) is not None}
    if not stored:
        raise UserError(f"{folder}: expected tensors of its model, found none; save it with save_pretrained")
    if model.is_known:
        # Like transformers, which unties what its files hold apart.
        shared = {name: source for name, source in model.tied.items() if not _differ(stored, name, source)}
        _warn_of_layers(folder, files.keys() - stored.keys(), model.kinds)
    else:
        is_tied = (read_json(folder / folders.CONFIG) or {}).get("tie_word_embeddings")
        table = _embedding(stored, model.kinds) if is_tied else None
        shared = {} if table is None else {HEAD: table}
    return Checkpoint(folder, _counted(stored, shared, tied), model=model, ties_head=bool(shared))


def _differ(stored: Mapping[str, StoredTensor], name: str, source: str) -> bool:
    """Whether two tensors are both in the files, and are not equal."""
    if not {name, source} <= stored.keys():
        return False
    one, other = (mapped(stored[key]) for key in (name, source))
    return not torch.equal(one, other.to(one.dtype))


def _warn_of_layers(folder: Path, left_out: set[str], kinds: Mapping[str, str]) -> None:
    """Warn where files hold more layers than config.json says: like transformers, we leave them out."""
    if beyond := sorted({number for number in map(layer, left_out) if number is not None} - set(map(layer, kinds))):
        warn_once(
            f"{folder}: the files hold layers that config.json does not count, left out: from layer {beyond[0]} on"
        )


def _counted(stored: Mapping[str, StoredTensor], shared: Mapping[str, str], tied: Tied) -> dict[str, StoredTensor]:
    counted = dict(stored)
    for name, source in shared.items():
        own = counted.pop(name, None)
        # Some files hold the head alone.
        if (place := counted.get(source, own)) is not None:
            counted |= {source: place} if tied == "once" else {source: place, name: place}
    return counted


def _embedding(stored: Iterable[str], kinds: Mapping[str, str]) -> str | None:
    return next((name for name in stored if kinds.get(name, kind(name)) == "embed_tokens"), None)


def _adapted(folder: Path, parent: Checkpoint | None) -> Checkpoint:
    """A parent's tensors with the changes of a LoRA folder: tensors in place of its own, and products added."""
    if parent is None:
        raise UserError(f"{folder}: expected a model, found a LoRA folder; name the model or role that it adds to")
    if any((folder / name).exists() for name in (folders.WHOLE, folders.INDEX)):
        raise UserError(f"{folder}: expected a model or a LoRA folder, found both; move one of them to its own folder")
    table = _embedding(parent.stored, parent.model.kinds) if parent.ties_head else None
    head = {} if table is None else {HEAD: parent.shape(table)}
    whole, products = _read_adapter(folder, {name: place.shape for name, place in parent.stored.items()} | head)
    if table is not None:
        _check_alike(folder, whole, products, table)
        whole.pop(HEAD, None)
        products.pop(HEAD, None)
    # PEFT saves the embedding below its product too: a copy of the parent's, which would only bring in rounding.
    copies = [name for name, place in whole.items() if name in products and _is_copy(parent, name, place)]
    stored = {**parent.stored, **{name: place for name, place in whole.items() if name not in copies}}
    low_rank = {name: below for name, below in parent.low_rank.items() if stored[name] is parent.stored[name]}
    for name, product in products.items():
        low_rank[name] = (*low_rank.get(name, ()), product)
    if table is not None and HEAD in stored:
        stored[HEAD], low_rank[HEAD] = stored[table], low_rank.get(table, ())
    return replace(parent, folder=folder, stored=stored, low_rank=low_rank)


def _is_copy(parent: Checkpoint, name: str, place: StoredTensor) -> bool:
    values = mapped(place)
    return parent.shape(name) == place.shape and torch.equal(parent.mapped(name).to(values.dtype), values)


def _check_alike(folder: Path, whole: Mapping[str, StoredTensor], products: Mapping[str, LowRank], table: str) -> None:
    """Raise UserError where an adapter changes a head in another way than the embedding that it is."""
    head, embedding = products.get(HEAD), products.get(table)
    is_alike = head is None
    if head is not None and embedding is not None:
        swapped = ((head.A, embedding.B), (head.B, embedding.A))
        is_alike = head.scale == embedding.scale and all(torch.equal(mapped(a), mapped(b).t()) for a, b in swapped)
    if {HEAD, table} <= whole.keys():
        is_alike &= torch.equal(mapped(whole[HEAD]), mapped(whole[table]))
    else:
        # Below a product the file repeats the tensor that the product is added to.
        is_alike &= all(name in products for name in (HEAD, table) if name in whole)
    if not is_alike:
        raise UserError(
            f"{folder}: expected {HEAD} and {table} to change alike, as the parent ties them; "
            "train with ensure_weight_tying, or train neither"
        )
    if embedding is not None and head is None:
        warn_once(f"{folder} adds to the embedding, which is the output head too: both change, as when PEFT merges")


def _read_adapter(folder: Path, shapes: Shapes) -> tuple[dict[str, StoredTensor], dict[str, LowRank]]:
    """List the whole tensors and the products of a LoRA folder on a parent of these shapes; nothing is computed."""
    config, path = _checked_config(folder / folders.ADAPTER_CONFIG), folder / folders.ADAPTER_WEIGHTS
    whole: dict[str, StoredTensor] = {}
    pairs: dict[tuple[str, bool], dict[str, StoredTensor]] = {}
    for key, place in stored_tensors(path, integers=True).items():
        name = key.removeprefix(PREFIX).replace(BASE_LAYER, ".")
        if place.is_floating and (match := FACTOR.fullmatch(key)):
            pairs.setdefault((match["module"], bool(match["table"])), {})[match["side"]] = place
        elif place.is_floating and key.startswith(PREFIX) and name in shapes:
            whole[name] = place
        else:
            raise UserError(
                f"{path}: expected LoRA matrices and tensors of the parent, {key} is neither; "
                f"correct the parent, or {REMEDY}"
            )
    shapes = {**shapes, **{name: place.shape for name, place in whole.items()}}
    products = {f"{of}.weight": _product(path, of, pair, config, shapes, table) for (of, table), pair in pairs.items()}
    return whole, products


def _product(
    path: Path, module: str, pair: Mapping[str, StoredTensor], config: Mapping[str, Any], shapes: Shapes, is_table: bool
) -> LowRank:
    """One pair of matrices, checked against the settings and the tensor that it is added to."""
    name, rank = f"{module}.weight", _of_module(config.get("rank_pattern"), module, config["r"])
    alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    is_pair = set(pair) == {"A", "B"} and all(len(place.shape) == 2 for place in pair.values())
    if not (is_pair and pair["A"].shape[0] == pair["B"].shape[1] == rank):
        raise UserError(
            f"{path}: expected matrices A and B of rank {rank} for {module}, as {folders.ADAPTER_CONFIG} says, got "
            f"{', '.join(f'{side} {place.shape}' for side, place in sorted(pair.items()))}; save the adapter again"
        )
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    product = LowRank(pair["A"], pair["B"], scale, is_table)
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
    known = KEYS_OF_TRAINING.union(folders.ADAPTER_KEYS_WITH_EFFECT)
    if unknown := sorted(key for key, value in config.items() if value and key not in known):
        raise UserError(f"{path}: expected plain LoRA, {unknown[0]} is not supported; {REMEDY}")
    for key in ("r", "lora_alpha"):
        if not isinstance(config.get(key), int | float):
            raise UserError(f"{path}: expected a number as {key}, got {config.get(key)}; save the adapter again")
    return config
