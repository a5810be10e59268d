"""Hidden states of named positions, one forward pass per checkpoint and prompt set for all of them (paper, Section 6).

State 0 is the embedding and state L follows the last norm, as transformers returns them. Texts are padded on the right
and their own tokens counted from the left, so neither padding nor the company in a batch changes which token is read.
The states go to memory-mapped files: memory does not grow with the number of prompts.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.evaluation.generation import Tokens
from safety_spaces.evaluation.memory import in_batches
from safety_spaces.models.live import CausalModel
from safety_spaces.progress import progress
from safety_spaces.store import writing
from safety_spaces.study import Position


def write_states(
    paths: Mapping[Position, Path],
    model: CausalModel,
    tokenizer: Any,
    texts: Sequence[Tokens],
    *,
    batch_size: int,
    name: str,
) -> None:
    """Write the states of each position as a float32 array (n, L+1, d) that `numpy.load(..., mmap_mode="r")` opens.

    The files appear under their names only when all are complete. Which positions are asked for changes no byte of any.
    `batch_size` is halved where memory does not suffice. `name` is that of the texts, for the bar and errors. Raises
    UserError when a prompt has no tokens, no text has a token at a position, a file cannot be written, or memory does
    not hold even one text.
    """
    shape = (model.config.num_hidden_layers + 1, model.config.hidden_size)
    numbers = {position: _checked_number(position, texts, name) for position in paths}
    files = {position: _reserved(path, (numbers[position], *shape)) for position, path in paths.items()}
    ends = dict.fromkeys(paths, 0)
    read = in_batches(texts, partial(_batch_states, model, tokenizer, tuple(paths)), batch_size=batch_size)
    for parts in progress(read, total=len(texts), desc=f"states of {name}", inner=True):
        for position, part in zip(paths, parts, strict=True):
            start, ends[position] = ends[position], ends[position] + len(part)
            files[position][start : ends[position]] = part
    for position, path in paths.items():
        with writing(path):
            files[position].flush()
            _unfinished(path).replace(path)


def _checked_number(position: Position, texts: Sequence[Tokens], name: str) -> int:
    for index, text in enumerate(texts):
        if not text.prompt:
            raise UserError(f"{name}: expected prompts of at least one token, got none in prompt {index}; leave it out")
    number = number_of_states(position, texts)
    if texts and number == 0:
        raise UserError(
            f"activation_spaces.positions: expected a token of {position.name} in some text of {name}, found "
            "none; start the window earlier"
        )
    return number


def number_of_states(position: Position, texts: Iterable[Tokens]) -> int:
    """Return how many states a position has in texts: one for each token, or one for each text that has any."""
    counts = (len(_columns(text, position, width=len(text.all))) for text in texts)
    return sum(min(count, 1) if position.is_averaged else count for count in counts)


def _columns(text: Tokens, position: Position, *, width: int) -> range:
    """The columns of a text, padded on the right to `width`, that a position names."""
    return position.span(len(text.prompt), len(text.all), width)


def _unfinished(path: Path) -> Path:
    return path.with_suffix(".partial")


def _reserved(path: Path, shape: tuple[int, int, int]) -> Any:
    """Open an unfinished file and take its disk space now: where it ran out later, writing would kill the process."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _unfinished(path)
        states = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with unfinished.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, unfinished.stat().st_size)
    return states


@torch.inference_mode()
def _batch_states(
    model: CausalModel, tokenizer: Any, positions: Sequence[Position], texts: Sequence[Tokens]
) -> list[tuple[Float[np.ndarray, "_ L d"], ...]]:
    """States of each text at each position; a batch is padded on the right, as last_column was published."""
    tokens = {"input_ids": [text.all for text in texts]}
    padded = tokenizer.pad(tokens, padding_side="right", return_attention_mask=True, return_tensors="pt")
    # The model below its head: logits of every token would be the largest tensor of all.
    output = model.base_model(**padded.to(model.device), output_hidden_states=True, use_cache=False)
    return list(zip(*(_read(output.hidden_states, position, texts) for position in positions), strict=True))


def _read(
    states: Sequence[Float[Tensor, "p tokens d"]], position: Position, texts: Sequence[Tokens]
) -> list[Float[np.ndarray, "_ L d"]]:
    """Take one position's tokens from all states, and only these from the device; one array for each text."""
    device, width = states[0].device, states[0].shape[1]
    spans = [_columns(text, position, width=width) for text in texts]
    rows = torch.tensor([row for row, span in enumerate(spans) for _ in span], dtype=torch.long, device=device)
    columns = torch.tensor([column for span in spans for column in span], dtype=torch.long, device=device)
    taken = torch.stack([state[rows, columns] for state in states], dim=1).float()
    parts = torch.split(taken, [len(span) for span in spans])
    if position.is_averaged:
        # A text without tokens has no mean: of its row nothing is kept.
        parts = tuple(part.mean(0, keepdim=True)[: len(part)] for part in parts)
    return [part.numpy() for part in torch.split(torch.cat(parts).cpu(), [len(part) for part in parts])]
