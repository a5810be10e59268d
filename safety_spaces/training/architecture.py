"""A model that is trained from nothing: its configuration and its first, random weights."""

from typing import Any

import torch

from safety_spaces.study import Architecture


def new_model(architecture: Architecture, tokenizer: Any, *, seed: int) -> Any:
    """Return a causal language model with random float32 weights that depend on `seed` alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture.family,
        vocab_size=architecture.vocabulary,
        hidden_size=architecture.hidden,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.key_value_heads,
        intermediate_size=architecture.intermediate,
        max_position_embeddings=architecture.positions,
        tie_word_embeddings=architecture.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
