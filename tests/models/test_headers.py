"""Quantised folders are known by their configuration and by the types of their tensors; buffers are no codes."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from safety_spaces.errors import UserError
from safety_spaces.models.folders import check_not_quantised, weight_files
from safety_spaces.models.opening import open_checkpoint
from safety_spaces.models.tensor_files import StoredTensor, stored_tensors

QUERY = "model.layers.0.self_attn.q_proj"
PLAIN = {f"{QUERY}.weight": torch.ones(4, 4), "model.norm.weight": torch.ones(4)}


def folder_of(folder, tensors, config=None, weights="model.safetensors"):
    folder.mkdir()
    save_file({**PLAIN, **tensors}, folder / weights)
    (folder / "config.json").write_text(json.dumps(config or {}))
    return folder


def codes(*shape, dtype=torch.uint8):
    return torch.zeros(shape, dtype=dtype)


QUANTISED = {
    "fp8": {f"{QUERY}.weight": codes(4, 4, dtype=torch.float8_e4m3fn), f"{QUERY}.weight_scale_inv": torch.ones(1)},
    "fp8 e5m2": {f"{QUERY}.weight": codes(4, 4, dtype=torch.float8_e5m2)},
    "nf4": {
        f"{QUERY}.weight": codes(8, 1),
        f"{QUERY}.weight.absmax": codes(1),
        f"{QUERY}.weight.quant_map": torch.ones(16),
        f"{QUERY}.weight.quant_state.bitsandbytes__nf4": codes(70),
    },
    "int8": {f"{QUERY}.weight": codes(4, 4, dtype=torch.int8), f"{QUERY}.SCB": torch.ones(4)},
    "gptq": {f"{QUERY}.qweight": codes(1, 4, dtype=torch.int32), f"{QUERY}.scales": torch.ones(1, 4)},
    "compressed": {f"{QUERY}.weight_packed": codes(4, 1, dtype=torch.int32), f"{QUERY}.weight_scale": torch.ones(4)},
    "mxfp4": {"model.layers.0.mlp.experts.down_proj_blocks": codes(2, 4, 1, 16)},
    "hqq": {f"{QUERY}.W_q": codes(2, 4)},
}


@pytest.mark.parametrize("method", QUANTISED)
def test_quantised_weights_are_refused_by_type(tmp_path, method):
    folder = folder_of(tmp_path / "model", QUANTISED[method])
    for refusing in (check_not_quantised, open_checkpoint):
        with pytest.raises(UserError, match=r"model: expected weights in float32, .* got a quantised model") as found:
            refusing(folder)
        assert re.search(r"_proj[\w.]* of type (F8|U8|I8|I32)", str(found.value))


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", "SCB", "weight.absmax", "weight.quant_map"])
def test_codes_that_were_converted_to_floats_are_refused_by_their_scales(tmp_path, scale):
    folder = folder_of(tmp_path / "model", {f"{QUERY}.weight": torch.ones(4, 4), f"{QUERY}.{scale}": torch.ones(4)})
    with pytest.raises(UserError, match=rf"got a quantised model \(.*{scale} of type F32\); take the model before"):
        open_checkpoint(folder)


@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "quantization"])
def test_a_configuration_that_says_so_is_enough(tmp_path, key):
    folder = folder_of(tmp_path / "model", {}, {key: {"quant_method": "awq"}})
    with pytest.raises(UserError, match=rf"a quantised model \({key} in config.json\); take the model before quant"):
        open_checkpoint(folder)


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}, {"quantization_config": {}}])
def test_buffers_of_whole_numbers_are_no_codes(tmp_path, config):
    buffers = {
        "model.embeddings.position_ids": torch.arange(4),
        "h.0.attn.bias": codes(1, 1, 4, 4),
        "attn.weight_mask": torch.ones(4, dtype=torch.bool),
    }
    folder = folder_of(tmp_path / "model", buffers, config)
    check_not_quantised(folder)
    assert open_checkpoint(folder).names == tuple(sorted(PLAIN))


def test_an_adapter_of_codes_is_refused_and_one_trained_on_codes_is_not(tmp_path):
    quantised = {"quantization_config": {"quant_method": "bitsandbytes"}}
    plain = folder_of(tmp_path / "plain", {}, quantised, weights="adapter_model.safetensors")
    folder = folder_of(tmp_path / "adapter", QUANTISED["fp8"], weights="adapter_model.safetensors")
    for adapter in (plain, folder):
        (adapter / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    check_not_quantised(plain)
    with pytest.raises(UserError, match=r"adapter: expected weights in float32, .* of type F8_E4M3"):
        check_not_quantised(folder)


def test_headers_are_those_of_the_file(tmp_path):
    folder = folder_of(tmp_path / "model", {"x": torch.ones(2, 3, dtype=torch.bfloat16), "steps": torch.arange(2)})
    (path,) = weight_files(folder)
    headers = stored_tensors(path, integers=True)
    assert headers["x"] == StoredTensor(folder / "model.safetensors", "x", "BF16", (2, 3))
    assert {name for name, header in headers.items() if header.is_floating} == {*PLAIN, "x"}
    assert headers.keys() - stored_tensors(path).keys() == {"steps"}
