"""Checkpoint folders of a few small tensors, of other sizes on every axis."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from safety_spaces.models.opening import open_checkpoint
from tests.geometry.dense import gaussian

EMBEDDING, NORM, BIAS = "model.embed_tokens.weight", "model.norm.weight", "model.layers.0.self_attn.q_proj.bias"
QUERY, DOWN = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"
SHAPES = {EMBEDDING: (29, 10), QUERY: (14, 10), BIAS: (14,), DOWN: (10, 23), NORM: (10,)}


def weights(seed=0, dtype=torch.float32):
    return {name: gaussian(*shape, seed=100 * seed + i).to(dtype) for i, (name, shape) in enumerate(SHAPES.items())}


def save(folder, tensors, config=None):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def opened(folder, tensors):
    """The checkpoint of a folder just written."""
    return open_checkpoint(save(folder, tensors))


def is_mapped(path):
    """Whether a file is mapped into this process's memory."""
    return str(path) in Path("/proc/self/maps").read_text()
