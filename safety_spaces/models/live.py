"""One live model whose weights are changed in place: a cell of the sweep costs no checkpoint.

The model is loaded once. Each cell writes reference + update, computed from the reference's file whatever the cell
before has left; in the end the reference weights are written back, exactly and in any dtype. Tied weights are one
tensor under two names and are written wherever either name is.
"""

import math
from collections.abc import Callable, Iterable
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


@torch.no_grad()
def load_model(
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    weights: Iterable[tuple[str, Float[Tensor, "..."]]] = (),
) -> CausalModel:
    """Load a causal language model for evaluation, in the dtype asked for whatever its checkpoint says.

    weights, those of an adapter's sum for example, are written over the folder's, one tensor at a time. Raises
    UserError when one has more rows than the model, as after new tokens, or generation_config.json cannot be read.
    """
    # The map brings each tensor straight to its device, without a model on the CPU first.
    model = greedy_model(folder, dtype=dtype, device_map={"": device}).eval()
    own = model.state_dict()
    for name, values in weights:
        if values.ndim and len(values) > len(own[name]):
            raise UserError(
                f"{folder}: expected {name} of {len(values)} rows or more, found {len(own[name])}; "
                "save the model with the tokens that its adapter adds, or merge them with PEFT"
            )
        (own[name][: len(values)] if values.ndim else own[name]).copy_(values)
    return model


def greedy_model(folder: Path, **settings: Any) -> CausalModel:
    """Load a causal language model as transformers does, but for how it generates: greedily, to the end of the text.

    Of generation_config.json the ids of special tokens alone are taken, since `generate` lets every other field act
    where its caller, lm-eval too, leaves one out. Raises UserError when the file cannot be read.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    greedy = GenerationConfig(**special_tokens(folder))
    return AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, generation_config=greedy, **settings)


def load_tokenizer(folder: Path | str) -> Any:
    """Load a tokenizer that pads on the left, as greedy batches need; raises UserError without one, or a pad token."""
    from transformers import AutoTokenizer

    try:
        tokenizer, reason = AutoTokenizer.from_pretrained(folder, padding_side="left"), None
    except (OSError, ValueError) as error:
        tokenizer, reason = None, error
    # Without its files the library makes an empty one.
    if tokenizer is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"{folder}: expected the files of a tokenizer, found none that can be read; copy them from the model that "
            "this one was trained from"
        ) from reason
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise UserError(
                f"{folder}: expected a tokenizer with a pad or eos token, found neither; "
                "name eos_token in tokenizer_config.json"
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


class LiveWeights:
    """The weights of a live model, written cell after cell; they are the reference's again when the block ends.

    `reference` gives the reference's values of a tensor by its name. What two cells write one after the other is not
    restored in between: each writes reference + update whole.
    """

    def __init__(self, model: CausalModel, reference: Callable[[str], Float[Tensor, "..."]]) -> None:
        self._weights: dict[str, Tensor] = model.state_dict()
        self._reference = reference
        self._changed: dict[int, str] = {}
        """Names of the tensors that are not the reference's, by their memory: tied ones are one."""

    def __enter__(self) -> "LiveWeights":
        return self

    def __exit__(self, *_: object) -> None:
        self.write(())

    @torch.no_grad()
    def write(self, edits: Iterable[WeightEdit]) -> Delivered:
        """Make the weights reference + update where there is an edit, else the reference's; tensor by tensor."""
        stale, sums = dict(self._changed), torch.zeros(3, dtype=torch.float64)
        for edit in edits:
            weight = self._weights[edit.name]
            stale.pop(weight.data_ptr(), None)
            self._changed[weight.data_ptr()] = edit.name
            sums += _write(weight, edit)
        for place, name in stale.items():
            self._weights[name].copy_(self._reference(name))
            del self._changed[place]
        realised, intended, dot = sums.tolist()
        if intended == 0:
            return Delivered(None, None)
        return Delivered(realised / intended, dot / math.sqrt(realised * intended) if realised else None)


def _write(weight: Tensor, edit: WeightEdit) -> Float[Tensor, "3"]:
    """Write one merged tensor; return squared norms of realised and intended update and their inner product."""
    sums = torch.zeros(3, dtype=torch.float64, device=weight.device)
    whole = (values.reshape(len(values) if values.ndim else 1, -1) for values in (weight, edit.reference, edit.update))
    # By rows: float64 copies of the largest tensor would need as much memory again as the model.
    for part, reference, intended in zip(*(torch.split(values, ROWS_AT_ONCE) for values in whole), strict=True):
        reference, intended = (values.to(weight.device, torch.float32) for values in (reference, intended))
        part.copy_(reference + intended)
        realised = (part.float() - reference.to(weight.dtype).float()).flatten().double()
        intended = intended.flatten().double()
        sums += torch.stack([realised @ realised, intended @ intended, realised @ intended])
    return sums.cpu()
