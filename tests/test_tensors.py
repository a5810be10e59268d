"""Names tell kind and side."""

import pytest

from safety_spaces.tensors import kind, project_from


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "q_proj"),
        ("model.layers.3.self_attn.q_proj.bias", "bias"),
        ("model.layers.3.post_attention_layernorm.weight", "norm"),
        ("model.norm.weight", "norm"),
        ("model.embed_tokens.weight", "embed_tokens"),
        ("lm_head.weight", "lm_head"),
        ("weight", "weight"),
    ],
)
def test_the_kind_is_the_module_or_norm_or_bias(name: str, expected: str) -> None:
    assert kind(name) == expected


def test_a_matrix_is_projected_on_its_side_and_a_vector_on_the_left() -> None:
    sides = {side: [project_from(side, of) for of in ("o_proj", "down_proj", "q_proj", "lm_head", "norm", "bias")]
             for side in ("left", "right", "residual")}  # fmt: skip
    assert sides["left"] == ["left"] * 6
    assert sides["right"] == ["right"] * 4 + ["left"] * 2
    assert sides["residual"] == ["left"] * 2 + ["right"] * 2 + ["left"] * 2
