"""Checkpoint folders: which files hold the weights, whether they are all there, and what identifies them.

Ordinary Hugging Face folders, single or sharded, or LoRA folders of PEFT. No tensor is read.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError, quote
from safety_spaces.paths import is_there
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
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})
LARGEST_HEADER = 100_000_000
"""Bytes that the library itself accepts: a file of another format may claim any number."""
LFS_POINTER = b"version https://git-lfs"
"""What a clone without Git LFS has in the place of a large file."""


def is_adapter(folder: Path) -> bool:
    """Say whether `folder` is a LoRA folder in PEFT's format, finished or not: it adds to the weights of a parent."""
    return (folder / ADAPTER_CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the files that hold a model's weights: the one, or those that the index names, there or not.

    Empty where there is neither; other safetensors files of a folder are not the model's.
    """
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    shards = (read_json(folder / INDEX) or {}).get("weight_map")
    return [folder / str(name) for name in sorted(set(shards.values()))] if isinstance(shards, dict) else []


def is_checkpoint(folder: Path) -> bool:
    """Say whether `folder` is a finished checkpoint: configuration and all weights, or those of an adapter."""
    return flaw(folder) is None


def check_checkpoint(
    folder: Path, *, expected: str = "a checkpoint", otherwise: str = "correct its path", needs_config: bool = True
) -> None:
    """Check that a path is a finished checkpoint; `otherwise` is what else a user may do about it.

    Raises:
        UserError: it is none; what was expected, what was found, and what to do.
    """
    if (wrong := flaw(folder, needs_config=needs_config)) is not None:
        raise UserError(f"{folder}: expected {expected}, {wrong}{', or' if ';' in wrong else ';'} {otherwise}")


def flaw(folder: Path, *, needs_config: bool = True) -> str | None:
    """Return why a path is no finished checkpoint: what was found, and what to do; None where it is one."""
    try:
        if not folder.is_dir():
            return _no_folder(folder)
        names = {path.name for path in folder.iterdir()}
        if is_adapter(folder):
            config, weights = ADAPTER_CONFIG, [folder / ADAPTER_WEIGHTS] if ADAPTER_WEIGHTS in names else []
        else:
            config, weights = CONFIG, weight_files(folder)
        if not weights:
            return _no_weights(folder, names)
        if config not in names and needs_config:
            return f"found no {config}; copy it from where the weights come from"
        if config in names and read_json(folder / config) is None:
            return f"found {config}, which is no JSON object; copy it again"
        return next(filter(None, map(file_flaw, weights)), None)
    except OSError as error:
        return f"found one that cannot be read ({error.strerror}); make it readable"


def _no_folder(path: Path) -> str:
    if not is_there(path):
        return "found none"
    if not path.exists():
        return "found a link that leads nowhere; link it again"
    if path.suffix == ".gguf":
        return "found a GGUF file; name the folder of safetensors files that it was made of"
    return f"found a file; name a folder: {path.parent}" if path.suffix == ".safetensors" else "found a file"


def _no_weights(folder: Path, names: Collection[str]) -> str:
    """Say what a folder holds in the place of weights."""
    suffixes = {Path(name).suffix: name for name in sorted(names, reverse=True) if name != "training_args.bin"}
    # Two levels: where a trainer and the cache of the hub put them, and no whole disk to search.
    kinds = (WHOLE, INDEX, ADAPTER_WEIGHTS)
    below = [path.parent for way in ("*", "*/*") for name in kinds for path in folder.glob(f"{way}/{name}")]
    if WHOLE in names and not (folder / WHOLE).is_file():
        return f"found a {WHOLE} that is no file, or a link to none; copy the file itself"
    if INDEX in names:
        return f"found a {INDEX} that names no files; copy it again"
    if ADAPTER_WEIGHTS in names:
        return f"found {ADAPTER_WEIGHTS} without {ADAPTER_CONFIG}; copy that too"
    if any(map(SHARD.fullmatch, names)):
        return f"found shards without {INDEX}; copy that too"
    if below:
        return f"found some below it; name one of these folders, as {max(below, key=lambda path: path.stat().st_mtime)}"
    if pickled := sorted(PICKLES & set(suffixes)):
        return f"found {suffixes[pickled[0]]}, a pickle, and none is read; save the model as safetensors"
    if ADAPTER_CONFIG in names:
        return f"found {ADAPTER_CONFIG} without {ADAPTER_WEIGHTS}; copy that too"
    if ".safetensors" in suffixes:
        return f"found {suffixes['.safetensors']} in the place of {WHOLE}; rename it, or save the model again"
    if ".gguf" in suffixes:
        return "found GGUF alone; name the folder of safetensors files that it was made of"
    return f"found no {WHOLE}" if names else "found an empty folder"


def file_flaw(path: Path) -> str | None:
    """Return why a path is no whole safetensors file, and what to do, as its size and its header say; else None.

    Raises:
        OSError: it cannot be read.
    """
    if not path.is_file():
        return f"found no {path.name}; copy it too"
    with path.open("rb") as file:
        start = file.read(8)
    if LFS_POINTER.startswith(start) and start:
        return f"found {path.name} as a pointer of Git LFS; run git lfs pull"
    whole = stored_header(path) is not None
    return None if whole else f"found {path}: half-written or unreadable; copy or write it again"


def stored_header(path: Path) -> dict[str, Any] | None:
    """Return what a safetensors file says of its tensors, by their names; None where it is none, or cut short.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size, length = path.stat().st_size, int.from_bytes(file.read(8), "little")
        try:
            tensors = json.loads(file.read(length) if 8 + length <= min(size, LARGEST_HEADER) else b"")
            tensors.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in tensors.values()]
            whole = 8 + length + max(ends, default=0) == size
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            return None
    return dict(tensors) if whole else None


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
                f"{folder / GENERATION}: expected a number as {key}, or a list of them, got {quote(repr(value))}; "
                "correct it there or in config.json"
            )
    return tokens


def checkpoint_identity(folder: Path) -> str:
    """Return the digest of a checkpoint's weights, configuration and tokenizer, whatever its path, age and writer.

    That of an adapter says nothing of its parent, to which it is added.

    Raises:
        UserError: the folder is not a finished checkpoint.
    """
    config = read_json(folder / (ADAPTER_CONFIG if is_adapter(folder) else CONFIG)) if is_checkpoint(folder) else None
    if config is None:
        raise UserError(
            f"{folder}: expected {CONFIG} and *.safetensors, or {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}; "
            f"train the checkpoint or correct its path ({flaw(folder)})"
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
