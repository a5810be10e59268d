"""How a folder becomes a checkpoint: its files, the tensors that count in them, and what an adapter changes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from safety_spaces.errors import UserError
from safety_spaces.models.adapters import Adapter, read_adapter
from safety_spaces.models.checkpoints import Checkpoint
from safety_spaces.models.folders import CONFIG, check_checkpoint, is_adapter, weight_files
from safety_spaces.models.headers import check_not_quantised
from safety_spaces.models.model_tensors import model_tensors
from safety_spaces.models.tensor_files import StoredTensor, stored_tensors
from safety_spaces.store import read_json
from safety_spaces.tensors import HEAD

Tied = Literal["once", "twice"]


def open_checkpoint(folder: Path | str, *, tied: Tied = "once", parent: Checkpoint | None = None) -> Checkpoint:
    """List the tensors of a folder with model.safetensors or a sharded model.safetensors.index.json, or of an adapter.

    tied says how often an output head counts that the live model ties to the embedding: once, as the embedding, or
    twice, as in a state_dict (the published code). A LoRA folder in PEFT's format needs its parent, the model that it
    adds to, and counts the head as the parent does. Raises UserError when the folder or a shard is missing or
    unreadable, the model is quantised, or an adapter is not plain LoRA of the parent.
    """
    folder = Path(folder)
    # The tensors of a model without a configuration go by their names.
    check_checkpoint(folder, needs_config=False)
    if is_adapter(folder):
        return _adapted(folder, parent)
    check_not_quantised(folder)
    stored = {name: place for path in weight_files(folder) for name, place in stored_tensors(path).items()}
    model = model_tensors(folder)
    if model is None:
        embedding = _embedding(Checkpoint(folder, stored))
        shared = (
            {HEAD: embedding}
            if embedding is not None and (read_json(folder / CONFIG) or {}).get("tie_word_embeddings")
            else {}
        )
    else:
        stored = {live: place for name, place in stored.items() if (live := model.live_name(name)) is not None}
        # Like transformers, which unties what its files hold apart.
        shared = {name: source for name, source in model.tied.items() if not _differ(stored, name, source)}
    if not stored:
        raise UserError(f"{folder}: expected tensors of its model, found none; save it with save_pretrained")
    return Checkpoint(folder, _counted(stored, shared, tied), model=model, ties_head=bool(shared))


def _differ(stored: Mapping[str, StoredTensor], name: str, source: str) -> bool:
    """Whether two tensors are both in the files, and are not equal."""
    if not {name, source} <= stored.keys():
        return False
    one, other = (stored[key].mapped() for key in (name, source))
    return not torch.equal(one, other.to(one.dtype))


def _counted(stored: Mapping[str, StoredTensor], shared: Mapping[str, str], tied: Tied) -> dict[str, StoredTensor]:
    """Tensors of which one that is shared counts once, under the name of its source, or twice."""
    counted = dict(stored)
    for name, source in shared.items():
        own = counted.pop(name, None)
        # Some files hold the head alone.
        place = counted.get(source, own)
        if place is not None:
            counted |= {source: place} if tied == "once" else {source: place, name: place}
    return counted


def _adapted(folder: Path, parent: Checkpoint | None) -> Checkpoint:
    """A parent's tensors with the changes of a LoRA folder."""
    if parent is None:
        raise UserError(f"{folder}: expected a model, found a LoRA folder; name the model or role that it adds to")
    if weight_files(folder):
        raise UserError(f"{folder}: expected a model or a LoRA folder, found both; move one of them to its own folder")
    embedding = _embedding(parent)
    shapes = {name: place.shape for name, place in parent.stored.items()}
    if embedding is None or not parent.ties_head:
        return _changed(parent, read_adapter(folder, shapes))
    adapter = read_adapter(folder, {**shapes, HEAD: shapes[embedding]}).without_head(embedding)
    changed = _changed(parent, adapter)
    if HEAD not in parent.stored:
        return changed
    twice = {**changed.stored, HEAD: changed.stored[embedding]}
    return replace(changed, stored=twice, low_rank={**changed.low_rank, HEAD: changed.products(embedding)})


def _changed(parent: Checkpoint, adapter: Adapter) -> Checkpoint:
    # PEFT saves the embedding below its product too: a copy of the parent's, which would only bring in rounding.
    whole = {
        name: place
        for name, place in adapter.whole.items()
        if name not in adapter.low_rank or not _is_copy(parent, name, place)
    }
    low_rank = {name: products for name, products in parent.low_rank.items() if name not in whole}
    for name, product in adapter.low_rank.items():
        low_rank[name] = (*low_rank.get(name, ()), product)
    return replace(parent, folder=adapter.folder, stored={**parent.stored, **whole}, low_rank=low_rank)


def _is_copy(parent: Checkpoint, name: str, place: StoredTensor) -> bool:
    values = place.mapped()
    return parent.shape(name) == place.shape and torch.equal(parent.mapped(name).to(values.dtype), values)


def _embedding(checkpoint: Checkpoint) -> str | None:
    return next((name for name in checkpoint.stored if checkpoint.kind(name) == "embed_tokens"), None)
