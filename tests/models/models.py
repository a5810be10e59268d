"""Real model classes of a few small tensors, of another size on every axis, and PEFT's adapters on them."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

CLASSES = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
FAMILIES = tuple(CLASSES)
ATTENTION, EMBEDDING = "model.layers.1.self_attn.q_proj.weight", "model.embed_tokens.weight"


def tiny_model(family="qwen2", *, tied=False, seed=0, vocabulary=29):
    """A model with random weights, biases and norms too."""
    config, model_class = CLASSES[family]
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    model = model_class(config(vocab_size=vocabulary, num_key_value_heads=1, tie_word_embeddings=tied, **sizes))
    return randomised(model, seed=seed)


def randomised(model, *, seed, trained_only=False):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad or not trained_only:
                weight.copy_(torch.randn(weight.shape, generator=generator))
    return model


@dataclass(frozen=True)
class Trained:
    """An adapter as PEFT saves it, and what it was trained on."""

    parent: Path
    folder: Path

    @functools.cached_property
    def merged(self):
        """The sum as PEFT makes it of the two folders, in float64."""
        parent = AutoModelForCausalLM.from_pretrained(self.parent, dtype=torch.float64)
        return PeftModel.from_pretrained(parent, self.folder).double().merge_and_unload().state_dict()


def trained_adapter(folder, model, *, seed=7, dtype=torch.float32, **config):
    """Save a model and an adapter of it below `folder`."""
    model = model.to(dtype)
    model.save_pretrained(folder / "parent")
    add_adapter(folder / "adapter", model, seed=seed, **config)
    return Trained(folder / "parent", folder / "adapter")


def add_adapter(folder, model, *, seed, **config):
    """Draw an adapter of `model` and save it in `folder`; return PEFT's model."""
    adapter = get_peft_model(model, LoraConfig(**{"task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 5, **config}))
    randomised(adapter, seed=seed, trained_only=True).save_pretrained(folder)
    return adapter


def linked(folder, source):
    """A snapshot as the hub's cache has it: symbolic links to files of other names."""
    folder.mkdir()
    for number, path in enumerate(sorted(source.iterdir())):
        blob = folder.parent / f"{folder.name}-blob-{number}"
        blob.write_bytes(path.read_bytes())
        (folder / path.name).symlink_to(os.path.relpath(blob, folder))
    return folder
