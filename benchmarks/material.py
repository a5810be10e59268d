"""Checkpoints and hidden states in the shapes of real models, with realistic spectra and no meaning."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Generator, Tensor

ROLES = ("base", "reference", "useful", "harmful", "contaminated")
TASKS = ROLES[2:]
PAIRS = (("useful", "harmful"), ("useful", "reference"), ("harmful", "reference"))
STATE_SETS = ("useful", "harmful_1", "harmful_2")
WEIGHT = 0.02
UPDATE = 1e-5
SPIKES = 16
SPIKE = 30.0
"""The spikes of an update, in units of the edge of its noise: the spectrum of a trained update."""


@dataclass(frozen=True)
class Shapes:
    """Sizes of a decoder layer: d, its MLP, its keys and values; and whether query, key and value have biases."""

    hidden: int
    intermediate: int
    key_value: int
    biases: bool = False

    def tensors(self, layers: int) -> dict[str, tuple[int, ...]]:
        """Return name and shape of every tensor of so many layers."""
        d, wide, narrow = self.hidden, self.intermediate, self.key_value
        attention = {"q_proj": (d, d), "k_proj": (narrow, d), "v_proj": (narrow, d), "o_proj": (d, d)}
        mlp = {"gate_proj": (wide, d), "up_proj": (wide, d), "down_proj": (d, wide)}
        layer: dict[str, tuple[int, ...]] = {f"self_attn.{name}.weight": shape for name, shape in attention.items()}
        layer |= {f"mlp.{name}.weight": shape for name, shape in mlp.items()}
        layer |= {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
        if self.biases:
            layer |= {f"self_attn.{name}.bias": attention[name][:1] for name in ("q_proj", "k_proj", "v_proj")}
        return {f"model.layers.{index}.{name}": shape for index in range(layers) for name, shape in layer.items()}


SHAPES: Mapping[str, Shapes] = {
    "qwen2.5-1.5b": Shapes(1536, 8960, 256, biases=True),
    "qwen2.5-3b": Shapes(2048, 11008, 256, biases=True),
    "qwen2.5-7b": Shapes(3584, 18944, 512, biases=True),
    "llama-3.2-1b": Shapes(2048, 8192, 512),
    "llama-2-7b": Shapes(4096, 11008, 4096),
    "pico": Shapes(24, 40, 12, biases=True),
}
"""Decoder layers of the paper's five models, and one for tests."""


def write_checkpoints(folder: Path, shapes: Shapes, layers: int) -> None:
    """Write five checkpoints in float32: random weights, and updates of a few spikes and dense noise."""
    for role in ROLES:
        (folder / role).mkdir(parents=True)
        # Of no family: names alone say what a tensor is.
        (folder / role / "config.json").write_text("{}")
        save_file(
            {name: _weights(role, name, shape) for name, shape in shapes.tensors(layers).items()},
            folder / role / "model.safetensors",
        )


def write_states(folder: Path, *, prompts: int, layers: int, hidden: int) -> None:
    """Write the hidden states of three prompt sets: a mean that dominates, and a spectrum that decays."""
    (folder / "states.json").write_text(json.dumps(layers + 1))
    for number, name in enumerate(STATE_SETS):
        states = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(prompts, layers + 1, hidden)
        )
        random = np.random.default_rng(number)
        decay = (np.arange(1, hidden + 1) ** -0.5).astype(np.float32)
        for start in range(0, prompts, 500):
            part = states[start : start + 500]
            part[:] = random.standard_normal(part.shape, dtype=np.float32) * decay + 1
        states.flush()


def _weights(role: str, name: str, shape: tuple[int, ...]) -> Tensor:
    weights = WEIGHT * torch.randn(shape, generator=_generator("base", name))
    if role != "base":
        weights += _update(shape, _generator("reference", name))
    if role not in ("base", "reference"):
        weights += _update(shape, _generator(role, name))
    return weights


def _update(shape: tuple[int, ...], generator: Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:
        return UPDATE * noise
    M, N = shape
    left, right = torch.randn(M, SPIKES, generator=generator), torch.randn(SPIKES, N, generator=generator)
    edge = math.sqrt(M) + math.sqrt(N)
    return UPDATE * (noise + SPIKE * edge / math.sqrt(M * N) * (left @ right))


def _generator(role: str, name: str) -> Generator:
    return Generator().manual_seed(int.from_bytes(f"{role} {name}".encode()) % 2**63)
