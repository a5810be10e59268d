"""Greedy generation in batches: the same model and prompts give the same texts."""

from collections.abc import Sequence
from typing import Any

import torch

from safety_spaces.behaviour.live import CausalModel


def generate(
    model: CausalModel, tokenizer: Any, prompts: Sequence[str], *, max_new_tokens: int, batch_size: int
) -> list[str]:
    """Return the greedy continuation of each prompt, without special tokens, in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    responses = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        texts = _generate_batch(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        for index, text in zip(batch, texts, strict=True):
            responses[index] = text
    return responses


@torch.inference_mode()
def _generate_batch(model: CausalModel, tokenizer: Any, prompts: list[str], max_new_tokens: int) -> list[str]:
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left").to(model.device)
    output = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )
    new_tokens = output[:, encoded["input_ids"].shape[1] :]
    texts: list[str] = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return texts
