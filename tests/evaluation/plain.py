"""The slow twin of generation: no cache, no padding, no batch, one argmax after another."""

from collections.abc import Collection
from typing import Any

import torch


@torch.inference_mode()
def answer_of_one(
    model: Any, tokenizer: Any, prompt: str, max_new_tokens: int, ends: Collection[int] = ()
) -> list[int]:
    """Return the tokens of a greedy answer up to the first of `ends`, which is left out."""
    tokens = tokenizer(prompt)["input_ids"]
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        token = int(model(torch.tensor([[*tokens, *answer]]), use_cache=False).logits[0, -1].argmax())
        if token in ends:
            break
        answer.append(token)
    return answer
