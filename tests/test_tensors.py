"""Names tell kind and side."""

import pytest

from safety_spaces.tensors import kind, layer, project_from


@pytest.mark.parametrize(
    ("name", "kind_of", "layer_of"),
    [
        ("model.embed_tokens.weight", "embed_tokens", None),
        ("lm_head.weight", "lm_head", None),
        ("model.norm.weight", "norm", None),
        ("model.layers.3.self_attn.q_proj.weight", "q_proj", 3),
        ("model.layers.12.self_attn.q_proj.bias", "bias", 12),
        ("model.layers.0.self_attn.k_norm.weight", "norm", 0),
        ("model.layers.7.post_attention_layernorm.weight", "norm", 7),
        ("model.layers.2.mlp.experts.5.down_proj.weight", "down_proj", 2),
        ("model.layers.4.linear_attn.A_log", "A_log", 4),
        ("weight", "weight", None),
    ],
)
def test_names_are_parsed(name, kind_of, layer_of):
    assert (kind(name), layer(name)) == (kind_of, layer_of)


def test_a_matrix_is_projected_on_its_side_and_a_vector_on_the_left() -> None:
    sides = {side: [project_from(side, of) for of in ("o_proj", "down_proj", "q_proj", "lm_head", "norm", "bias")]
             for side in ("left", "right", "residual")}  # fmt: skip
    assert sides["left"] == ["left"] * 6
    assert sides["right"] == ["right"] * 4 + ["left"] * 2
    assert sides["residual"] == ["left"] * 2 + ["right"] * 2 + ["left"] * 2
