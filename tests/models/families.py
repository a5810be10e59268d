"""Tiny models of many families, and by hand what is what in them: embeddings, and the modules that write."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models.models import randomised

HIDDEN, VOCABULARY, POSITIONS = 12, 29, 18
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 3,
    "max_position_embeddings": POSITIONS, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GATED = {**COMMON, "num_key_value_heads": 1, "intermediate_size": 20}
OLDER = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": 2, "n_head": 3, "n_positions": POSITIONS,
         "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
EXPERTS = {**GATED, "num_local_experts": 3, "num_experts": 3, "moe_intermediate_size": 20, "num_experts_per_tok": 2}


@dataclass(frozen=True)
class Family:
    """Settings of a family, its embeddings (the input's first, a head of its own last), and what its modules do."""

    settings: dict[str, Any]
    embeddings: tuple[str, ...]
    writes: frozenset[str] = frozenset({"o_proj", "down_proj"})
    is_transposed: bool = False
    is_tied: bool = False
    options: dict[str, Any] = field(default_factory=dict)


LLAMA = ("model.embed_tokens.weight", "lm_head.weight")
TABLE, GPT2 = LLAMA[:1], ("transformer.wte.weight", "transformer.wpe.weight")
FALCON = ("transformer.word_embeddings.weight",)
DENSE = frozenset({"dense", "dense_4h_to_h"})
PROJECTED, OUT = frozenset({"c_proj"}), frozenset({"out_proj", "fc2", "fc_out", "c_proj"})
FAMILIES = {
    "llama": Family(GATED, LLAMA),
    "mistral": Family(GATED, LLAMA),
    "qwen2": Family(GATED, TABLE, options={"tie_word_embeddings": True}, is_tied=True),
    "qwen3": Family({**GATED, "head_dim": 8}, LLAMA),
    "gemma": Family({**GATED, "head_dim": 8}, TABLE, is_tied=True),
    "gemma2": Family({**GATED, "head_dim": 8}, TABLE, is_tied=True),
    "olmo2": Family(GATED, LLAMA),
    "phi3": Family(GATED, LLAMA),
    "phi": Family(GATED, LLAMA, frozenset({"dense", "fc2"})),
    "gpt2": Family(OLDER, GPT2, PROJECTED, is_transposed=True, is_tied=True),
    "openai-gpt": Family(
        OLDER,
        ("transformer.tokens_embed.weight", "transformer.positions_embed.weight"),
        PROJECTED,
        is_transposed=True,
        is_tied=True,
    ),
    "gpt_bigcode": Family(OLDER, GPT2, PROJECTED, is_tied=True),
    "gptj": Family({**OLDER, "rotary_dim": 2}, ("transformer.wte.weight", "lm_head.weight"), OUT),
    "gpt_neox": Family({**COMMON, "intermediate_size": 20}, ("gpt_neox.embed_in.weight", "lm_head.weight"), DENSE),
    "opt": Family(
        {**COMMON, "ffn_dim": 20, "word_embed_proj_dim": HIDDEN},
        ("model.decoder.embed_tokens.weight", "model.decoder.embed_positions.weight"),
        OUT,
        is_tied=True,
    ),
    "falcon": Family(COMMON, FALCON, DENSE, is_tied=True),
    "bloom": Family({**OLDER, "hidden_size": HIDDEN}, FALCON, DENSE, is_tied=True),
}
FUSED = {"mixtral": Family(EXPERTS, LLAMA), "qwen3_moe": Family({**EXPERTS, "head_dim": 8}, LLAMA)}


def family_model(name: str, *, seed: int = 0, **changes: Any) -> Any:
    """A model of a family with random weights, biases and norms too."""
    family = (FAMILIES | FUSED)[name]
    config = AutoConfig.for_model(name, **{**family.settings, **family.options, **changes})
    return randomised(AutoModelForCausalLM.from_config(config, dtype=torch.float32), seed=seed)


def rewrite(folder: Path, change: Any) -> Path:
    """Change the tensors of a folder in its file: `change` returns the new ones."""
    path = folder / "model.safetensors"
    save_file({name: values.contiguous() for name, values in change(load_file(path)).items()}, path)
    return folder
