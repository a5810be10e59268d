"""Checkpoint folders: which files hold the weights, whether they are all there, and what identifies them.

Ordinary Hugging Face folders, single or sharded, or LoRA folders of PEFT. No tensor is read.
"""

import reprlib
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.store import digest, file_digest, read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG = "config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_KEYS_WITH_EFFECT = (
    "alpha_pattern",
    "fan_in_fan_out",
    "lora_alpha",
    "peft_type",
    "r",
    "rank_pattern",
    "use_rslora",
)
"""What adapter_config.json says of an adapter's weights; what was trained is in the file of its tensors."""
KEYS_WITHOUT_EFFECT = frozenset({"_name_or_path", "name_or_path", "transformers_version", "backend", "is_local"})
"""What the JSON files of a folder say of their writer."""
GENERATION = "generation_config.json"
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
SETTINGS = (GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")


def is_adapter(folder: Path) -> bool:
    """Say whether `folder` is a LoRA folder in PEFT's format, finished or not: it adds to the weights of a parent."""
    return (folder / ADAPTER_CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights: the one, or those that the index names, there or not.

    Empty where there is neither; other safetensors files of a folder are not the model's.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    shards = (read_json(folder / INDEX) or {}).get("weight_map", {}).values()
    return [folder / name for name in sorted(set(shards))]


def is_checkpoint(folder: Path) -> bool:
    """Say whether `folder` is a finished checkpoint: configuration and all weights, or those of an adapter."""
    if is_adapter(folder):
        return (folder / ADAPTER_WEIGHTS).is_file()
    files = weight_files(folder)
    return (folder / CONFIG).is_file() and bool(files) and all(path.is_file() for path in files)


def special_tokens(folder: Path) -> dict[str, Any]:
    """Return the ids of the tokens that begin, end and pad a text: of generation_config.json, else of config.json.

    Raises:
        UserError: generation_config.json cannot be read, or an id is no token's.
    """
    settings = read_json(folder / GENERATION)
    if settings is None and (folder / GENERATION).exists():
        raise UserError(f"{folder / GENERATION}: expected a JSON object, found none; mend or remove the file")
    known = [*(read_json(folder / CONFIG) or {}).items(), *(settings or {}).items()]
    # Files write -1 for a token that a model has not.
    tokens = {key: value for key, value in known if key in SPECIAL_TOKENS and value not in (None, -1)}
    for key, value in tokens.items():
        if any(type(token) is not int for token in (value if isinstance(value, list) else [value])):
            raise UserError(
                f"{folder / GENERATION}: expected a number as {key}, or a list of them, got {reprlib.repr(value)}; "
                "correct it there or in config.json"
            )
    return tokens


def checkpoint_identity(folder: Path) -> str:
    """Return the digest of a checkpoint's weights, configuration and tokenizer, whatever its path, age and writer.

    That of an adapter says nothing of its parent, to which it is added.

    Raises:
        UserError: the folder is not a finished checkpoint.
    """
    config = read_json(folder / (ADAPTER_CONFIG if is_adapter(folder) else CONFIG))
    if config is None or not is_checkpoint(folder):
        raise UserError(
            f"{folder}: expected {CONFIG} and *.safetensors, or {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}; "
            "train the checkpoint or correct its path"
        )
    if is_adapter(folder):
        settings: dict[str, Any] = {key: config.get(key) for key in ADAPTER_KEYS_WITH_EFFECT}
        weights = [folder / ADAPTER_WEIGHTS]
    else:
        settings, weights = _effective(config), weight_files(folder)
    others = {name: _effective(read_json(folder / name) or {}) for name in SETTINGS if (folder / name).is_file()}
    files = [*weights, *(path for name in TOKENIZERS if (path := folder / name).is_file())]
    return digest([settings, others, [file_digest(path) for path in files]])


def _effective(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in KEYS_WITHOUT_EFFECT}
