"""Names tell kind and side."""

import pytest

from safety_spaces.tensors import faces_residual, kind, layer, project_from


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
        ("transformer.wte.weight", "embed_tokens", None),
        ("wpe.weight", "embed_positions", None),
        ("model.decoder.embed_positions.weight", "embed_positions", None),
        ("transformer.word_embeddings.weight", "embed_tokens", None),
        ("gpt_neox.embed_in.weight", "embed_tokens", None),
        ("embed_out.weight", "lm_head", None),
        ("transformer.h.5.ln_1.weight", "norm", 5),
        ("transformer.ln_f.weight", "norm", None),
        ("model.decoder.layers.1.final_layer_norm.weight", "norm", 1),
        ("transformer.h.1.attn.c_attn.weight", "c_attn", 1),
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


def test_a_transposed_matrix_faces_the_residual_stream_with_its_other_side() -> None:
    """As GPT-2 stores it: inputs x outputs."""
    assert [project_from("residual", of, is_transposed=True) for of in ("c_proj", "c_attn", "bias")] == [
        "right", "left", "left",
    ]  # fmt: skip
    assert project_from("left", "c_proj", is_transposed=True) == "left"
    assert [faces_residual(of) for of in ("c_proj", "c_attn", "embed_positions", "q_a_proj")] == [True] * 3 + [False]
