"""What a tensor is by its name: its kind, and the side that its subspace is taken from. No tensor is read for that."""

from typing import Literal

HEAD = "lm_head.weight"
VECTOR_KINDS = frozenset({"norm", "bias"})
WRITES_TO_RESIDUAL = frozenset({"o_proj", "down_proj"})

Side = Literal["left", "right", "residual"]
Projected = Literal["left", "right"]


def kind(name: str) -> str:
    """Kind of a tensor by its name: norm, bias, or its module (q_proj ... down_proj, embed_tokens, lm_head)."""
    module, _, leaf = name.rpartition(".")
    if leaf == "bias":
        return "bias"
    last = module.rpartition(".")[2] if leaf == "weight" and module else leaf
    return "norm" if "norm" in last else last


def layer(name: str) -> int | None:
    """0-based layer of a tensor by its name; None outside the layers."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), None)


def layer_total(number: int) -> str:
    """Name of the sum over the tensors of a layer, in the tables that hold single tensors too."""
    return f"layer:{number}"


def project_from(side: Side, kind: str) -> Projected:
    """Side on which a kind of tensor is projected.

    residual takes the side that faces the residual stream: the outputs of o_proj and down_proj, the inputs of all
    others. A vector has one side, the left.
    """
    if kind in VECTOR_KINDS:
        return "left"
    if side == "residual":
        return "left" if kind in WRITES_TO_RESIDUAL else "right"
    return side
