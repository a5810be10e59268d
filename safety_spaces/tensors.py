"""What a tensor is by its name: its kind, and the side that its subspace is taken from; and what bases are called.

No tensor is read for that.
"""

import re
from typing import Final, Literal

HEAD = "lm_head.weight"
VECTOR_KINDS = frozenset({"norm", "bias"})
VOCABULARY_KINDS = frozenset({"embed_tokens", "lm_head"})
"""Kinds of tensors with a row per token; padding and new tokens are rows at the end."""
POSITIONS = "embed_positions"
EMBEDDINGS = VOCABULARY_KINDS | {POSITIONS}
NORM = re.compile(r"norm|^ln")
SAME_KIND = {
    "wte": "embed_tokens",
    "word_embeddings": "embed_tokens",
    "embed_in": "embed_tokens",
    "embed_out": "lm_head",
    "wpe": POSITIONS,
}
"""Embeddings that GPT-2, Falcon, BLOOM and GPT-NeoX call by another name."""
WRITES_TO_RESIDUAL = frozenset({
    "o_proj", "down_proj", "out_proj", "dense", "dense_4h_to_h", "c_proj", "fc2", "fc_out", "w2", "wo", "project_in",
})  # fmt: skip
READS_FROM_RESIDUAL = EMBEDDINGS | {
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "Wqkv", "wqkv", "c_attn",
    "gate_proj", "up_proj", "gate_up_proj", "dense_h_to_4h", "c_fc", "fc1", "fc_in", "w1", "w3",
    "gate", "router", "shared_expert_gate", "project_out",
}  # fmt: skip
"""An embedding and a head face the residual stream with their columns, as what reads from it does."""

Side = Literal["left", "right", "residual"]
Projected = Literal["left", "right"]
Basis = Literal["file", "top_k", "random_k", "random"]
Rounding = Literal["floor", "round"]
"""How fraction times size becomes a number of directions."""
Vectors = Literal["project", "keep", "drop"]
"""What becomes of one-dimensional tensors."""

OWN_BASIS: Final = "file"
TOP_K: Final = "top_k"
RANDOM_K: Final = "random_k"
RANDOM: Final = "random"
"""The basis that the claim is held against."""
FIXED_BASES = frozenset({OWN_BASIS, TOP_K})
"""Bases that nothing is drawn for: one draw, and no closed form of their energy."""
NONE: Final = "none"
"""Basis and scheme of a checkpoint as it is."""
MATCHED: Final = "matched"
SCALED: Final = "scaled"
"""Controls that no directions span: each tensor's whole update at a dose of its own, and all at one dose."""


def kind(name: str) -> str:
    """Kind of a tensor by its name: norm, bias, or its module (q_proj ... down_proj, embed_tokens, lm_head)."""
    module, _, leaf = name.rpartition(".")
    if leaf == "bias":
        return "bias"
    last = module.rpartition(".")[2] if leaf == "weight" and module else leaf
    return "norm" if NORM.search(last) else SAME_KIND.get(last, last)


def layer(name: str) -> int | None:
    """0-based layer of a tensor by its name; None outside the layers."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def layer_total(number: int) -> str:
    """Name of the sum over the tensors of a layer, in the tables that hold single tensors too."""
    return f"layer:{number}"


def faces_residual(kind: str) -> bool:
    """Say whether a kind of matrix is known to read from the residual stream or to write to it."""
    return kind in WRITES_TO_RESIDUAL | READS_FROM_RESIDUAL


def project_from(side: Side, kind: str, *, is_transposed: bool = False) -> Projected:
    """Side on which a kind of tensor is projected.

    residual takes the side that faces the residual stream: the outputs of what writes to it (o_proj, down_proj), the
    inputs of all others; of a matrix that is stored as inputs x outputs the outputs are on the right. A vector has one
    side, the left.
    """
    if kind in VECTOR_KINDS:
        return "left"
    if side == "residual":
        return "left" if (kind in WRITES_TO_RESIDUAL) != is_transposed else "right"
    return side


def draws(basis: str, number: int) -> range:
    """Return the draws of a basis where random ones have `number`: one where nothing is drawn."""
    return range(1 if basis in {*FIXED_BASES, MATCHED} else number)
