"""A model that is trained from nothing: its configuration and its first, random weights."""

from typing import Any

import torch

from safety_spaces.models.roles import CONFIG_NAMES
from safety_spaces.study import Architecture


def new_model(architecture: Architecture, tokenizer: Any, *, seed: int) -> Any:
    """Return a causal language model with random float32 weights that depend on `seed` alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture.family,
        **{theirs: getattr(architecture, ours) for ours, theirs in CONFIG_NAMES.items()},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
