"""One live model whose weights are changed in place: a cell of the sweep costs no checkpoint.

The model is loaded once. For each cell the wanted update is added to the reference weights inside it; afterwards the
reference weights are written back from their file, so they come back exactly, whatever the dtype. Tied weights are one
tensor under two names and are written wherever either name is.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.models.folders import special_tokens

ROWS_AT_ONCE = 4096
"""Rows of a tensor that are in float64 at a time."""

CausalModel = Any
"""A transformers causal language model; its library ships no types."""


@dataclass(frozen=True)
class WeightEdit:
    """One tensor of a cell: its reference weights and the update that is to be added, of the same shape."""

    name: str
    reference: Float[Tensor, "..."]
    update: Float[Tensor, "..."]


@dataclass(frozen=True)
class Delivered:
    """What rounding left of an update: ratio of squared norms and cosine of the update in the weights to the intended.

    Both are None where nothing was intended (a cell that keeps no energy); the cosine also where nothing arrived.
    """

    realised_energy: float | None
    realised_cosine: float | None


def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    weights: Iterable[tuple[str, Float[Tensor, "..."]]] | None = None,
) -> CausalModel:
    """Load a causal language model for evaluation, in the dtype asked for whatever its checkpoint says.

    weights, those of an adapter's sum for example, are written over the folder's, one tensor at a time.

    Raises:
        UserError: a tensor of weights has more rows than the model, as after new tokens, or generation_config.json
            cannot be read.
    """
    # The map brings each tensor straight to its device, without a model on the CPU first.
    model = greedy_model(folder, dtype=dtype, device_map={"": device})
    if weights is not None:
        _write_over(model, weights, folder)
    return model.eval()


def greedy_model(folder: Path, **settings: Any) -> CausalModel:
    """Load a causal language model as transformers does, but for how it generates: greedily, to the end of the text.

    Of generation_config.json the ids of special tokens alone are taken. `generate` lets every other field of the file
    act where its caller leaves one out, lm-eval's call too, and a file may hold what the library refuses to save.

    Raises:
        UserError: generation_config.json cannot be read.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    greedy = GenerationConfig(**special_tokens(folder))
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, generation_config=greedy, **settings)


def _write_over(model: CausalModel, weights: Iterable[tuple[str, Float[Tensor, "..."]]], folder: Path | str) -> None:
    own = model.state_dict()
    with torch.no_grad():
        for name, values in weights:
            weight = own[name]
            if values.ndim and len(values) > len(weight):
                raise UserError(
                    f"{folder}: expected {name} of {len(values)} rows or more, found {len(weight)}; "
                    "save the model with the tokens that its adapter adds, or merge them with PEFT"
                )
            (weight[: len(values)] if values.ndim else weight).copy_(values)


def load_tokenizer(folder: Path | str) -> Any:
    """Load a tokenizer that pads on the left, as greedy generation in batches needs.

    Raises:
        UserError: there is none, or it has neither a padding token nor one that ends a text.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except (OSError, ValueError) as error:
        raise _no_tokenizer(folder) from error
    # Without its files the library makes an empty one.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise _no_tokenizer(folder)
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"{folder}: expected a tokenizer with a pad or eos token, found neither; "
                "name eos_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _no_tokenizer(folder: Path | str) -> UserError:
    return UserError(
        f"{folder}: expected the files of a tokenizer, found none that can be read; copy them from the model that this "
        "one was trained from"
    )


@contextmanager
def edited_weights(
    model: CausalModel, edits: Iterable[WeightEdit], *, restore: Callable[[str], Float[Tensor, "..."]]
) -> Iterator[Delivered]:
    """Add updates to the weights of `model` in place; on leaving, `restore(name)` gives each touched weight back.

    The edits are consumed one tensor at a time, so no second model is in memory.
    """
    weights = model.state_dict()
    touched: list[str] = []
    sums = [0.0, 0.0, 0.0]
    try:
        with torch.no_grad():
            for edit in edits:
                touched.append(edit.name)
                parts = _write(weights[edit.name], edit)
                sums = [total + part for total, part in zip(sums, parts, strict=True)]
        yield _delivered(*sums)
    finally:
        with torch.no_grad():
            for name in touched:
                weights[name].copy_(restore(name))


def _write(weight: Tensor, edit: WeightEdit) -> tuple[float, float, float]:
    """Write one merged tensor; return squared norms of realised and intended update and their inner product."""
    sums = torch.zeros(3, dtype=torch.float64)
    whole = (values.reshape(len(values) if values.ndim else 1, -1) for values in (weight, edit.reference, edit.update))
    # By rows: float64 copies of the largest tensor would need as much memory again as the model.
    for part, reference, intended in zip(*(torch.split(values, ROWS_AT_ONCE) for values in whole), strict=True):
        reference, intended = (values.to(weight.device, torch.float32) for values in (reference, intended))
        part.copy_(reference + intended)
        realised = (part.float() - reference.to(weight.dtype).float()).flatten().double()
        intended = intended.flatten().double()
        sums += torch.stack([realised @ realised, intended @ intended, realised @ intended]).cpu()
    squared, wanted, dot = sums.tolist()
    return squared, wanted, dot


def _delivered(realised: float, intended: float, dot: float) -> Delivered:
    if intended == 0:
        return Delivered(None, None)
    cosine = dot / math.sqrt(realised * intended) if realised else None
    return Delivered(realised / intended, cosine)
