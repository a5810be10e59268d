"""Checkpoint folders: which files hold the weights, whether they are all there, and what identifies them.

Ordinary Hugging Face folders, single or sharded, or LoRA folders of PEFT. No tensor is read, and no torch.
"""

import fnmatch
import re
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError, quote
from safety_spaces.models.tensor_files import StoredTensor, file_flaw, stored_tensors
from safety_spaces.paths import is_there
from safety_spaces.store import digest, file_digest, read_json

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIG, GENERATION = "config.json", "generation_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_KEYS_WITH_EFFECT = (
    "alpha_pattern", "fan_in_fan_out", "lora_alpha", "peft_type", "r", "rank_pattern", "use_rslora",
)  # fmt: skip
"""What adapter_config.json says of an adapter's weights; what was trained is in the file of its tensors."""
KEYS_WITHOUT_EFFECT = frozenset({"_name_or_path", "name_or_path", "transformers_version", "backend", "is_local"})
"""What the JSON files of a folder say of their writer."""
SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
SETTINGS = (GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
INSTEAD_OF_WEIGHTS = {
    WHOLE: "a {} that is no file, or a link to none; copy the file itself",
    INDEX: "a {} that names no files; copy it again",
    ADAPTER_WEIGHTS: f"{{}} without {ADAPTER_CONFIG}; copy that too",
    "model-*-of-*.safetensors": f"shards without {INDEX}; copy that too",
    "*/*": "some below it; name one of these folders, as {}",
    **dict.fromkeys(
        ("*.bin", "*.ckpt", "*.pt", "*.pth"), "{}, a pickle, and none is read; save the model as safetensors"
    ),
    ADAPTER_CONFIG: f"{{}} without {ADAPTER_WEIGHTS}; copy that too",
    "*.safetensors": f"{{}} in the place of {WHOLE}; rename it, or save the model again",
    "*.gguf": "GGUF alone; name the folder of safetensors files that it was made of",
}
"""Names in a folder without weights, and paths of folders below it that have some, to what is said of the first."""
QUANTISED = re.compile(r"F[468](_\w+)?")
CODES = re.compile(r"weight|zeros|codes|packed|blocks|scales|g_idx|W_q|nf4|fp4")
"""What methods of quantisation call their integers; buffers of models (position_ids, masks) have other names."""
SCALES = re.compile(r"weight_scale(_inv)?|absmax|SCB|quant_map")
"""What they call the scales beside them: codes that were converted to a float type are codes still."""
QUANTISATION_SETTINGS = ("quantization_config", "compression_config", "quantization")


def is_adapter(folder: Path) -> bool:
    """Say whether `folder` is a LoRA folder in PEFT's format, finished or not: it adds to the weights of a parent."""
    return (folder / ADAPTER_CONFIG).is_file()


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a model's or an adapter's weights, the one or those of the index, there or not; else none."""
    whole = folder / (ADAPTER_WEIGHTS if is_adapter(folder) else WHOLE)
    if whole.is_file():
        return [whole]
    shards = None if is_adapter(folder) else (read_json(folder / INDEX) or {}).get("weight_map")
    return [folder / str(name) for name in sorted(set(shards.values()))] if isinstance(shards, dict) else []


def is_checkpoint(folder: Path) -> bool:
    """Say whether `folder` is a finished checkpoint: configuration and all weights, or those of an adapter."""
    return flaw(folder) is None


def check_checkpoint(
    folder: Path, *, expected: str = "a checkpoint", otherwise: str = "correct its path", needs_config: bool = True
) -> None:
    """Raise UserError unless a path is a finished checkpoint; `otherwise` is what else a user may do about it."""
    if (wrong := flaw(folder, needs_config=needs_config)) is not None:
        raise UserError(f"{folder}: expected {expected}, {wrong}{', or' if ';' in wrong else ';'} {otherwise}")


def flaw(folder: Path, *, needs_config: bool = True) -> str | None:
    """Return why a path is no finished checkpoint: what was found, and what to do; None where it is one."""
    try:
        if not folder.is_dir():
            return _no_folder(folder)
        names = sorted(path.name for path in folder.iterdir())
        weights, config = weight_files(folder), ADAPTER_CONFIG if is_adapter(folder) else CONFIG
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
    if not path.exists():
        return "found a link that leads nowhere; link it again" if is_there(path) else "found none"
    if path.suffix == ".gguf":
        return "found a GGUF file; name the folder of safetensors files that it was made of"
    return f"found a file; name a folder: {path.parent}" if path.suffix == ".safetensors" else "found a file"


def _no_weights(folder: Path, names: list[str]) -> str:
    """Say what a folder holds in the place of weights."""
    # Two levels: where a trainer and the cache of the hub put them, and no whole disk to search.
    ways = [f"{way}/{name}" for way in ("*", "*/*") for name in (WHOLE, INDEX, ADAPTER_WEIGHTS)]
    below = [path.parent for way in ways for path in folder.glob(way)]
    newest_first = sorted(below, key=lambda path: path.stat().st_mtime, reverse=True)
    no_weights = {"training_args.bin", *([WHOLE] if (folder / WHOLE).is_file() else [])}
    found = [*(name for name in names if name not in no_weights), *map(str, newest_first)]
    said = (
        what.format(first)
        for pattern, what in INSTEAD_OF_WEIGHTS.items()
        for first in fnmatch.filter(found, pattern)[:1]
    )
    return f"found {next(said, f'no {WHOLE}' if names else 'an empty folder')}"


def check_not_quantised(folder: Path) -> None:
    """Raise UserError where a folder holds a quantised model, whose differences mean nothing, or a file is cut."""
    # Beside an adapter lies the configuration of what it was trained on, which may have been quantised then.
    config = {} if is_adapter(folder) else read_json(folder / CONFIG) or {}
    found = next((f"{key} in {CONFIG}" for key in QUANTISATION_SETTINGS if config.get(key)), None)
    if found is None:
        tensors = stored_tensors(*weight_files(folder), integers=True)
        scales = (name for name in tensors if SCALES.fullmatch(name.rpartition(".")[2]))
        code = next((name for name, stored in tensors.items() if _is_code(stored)), next(scales, None))
        found = code and f"{code} of type {tensors[code].dtype}"
    if found is not None:
        raise UserError(
            f"{folder}: expected weights in float32, bfloat16, float16 or float64, got a quantised model ({found}); "
            "take the model before quantisation, or load it, call model.dequantize() and save_pretrained"
        )


def _is_code(stored: StoredTensor) -> bool:
    is_integer = stored.dtype != "BOOL" and not stored.is_floating
    return bool(QUANTISED.fullmatch(stored.dtype) or (is_integer and CODES.search(stored.key.rpartition(".")[2])))


def special_tokens(folder: Path) -> dict[str, Any]:
    """Return the ids of special tokens, of generation_config.json before config.json; UserError where they are none."""
    settings = read_json(folder / GENERATION)
    if settings is None and (folder / GENERATION).exists():
        raise UserError(f"{folder / GENERATION}: expected a JSON object, found none; mend or remove the file")
    said = [*(read_json(folder / CONFIG) or {}).items(), *(settings or {}).items()]
    # Files write -1 for a token that a model has not.
    tokens = {key: value for key, value in said if key in SPECIAL_TOKENS and value not in (None, -1)}
    for key, value in tokens.items():
        if any(type(token) is not int for token in (value if isinstance(value, list) else [value])):
            raise UserError(
                f"{folder / GENERATION}: expected a number as {key}, or a list of them, got {quote(repr(value))}; "
                "correct it there or in config.json"
            )
    return tokens


def checkpoint_identity(folder: Path) -> str:
    """Return the digest of a checkpoint's content, whatever its path, age and writer; UserError if unfinished."""
    if (wrong := flaw(folder)) is not None:
        raise UserError(
            f"{folder}: expected {CONFIG} and *.safetensors, or {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}; "
            f"train the checkpoint or correct its path ({wrong})"
        )
    settings = _effective(folder / (ADAPTER_CONFIG if is_adapter(folder) else CONFIG))
    if is_adapter(folder):
        settings = {key: settings.get(key) for key in ADAPTER_KEYS_WITH_EFFECT}
    others = {name: _effective(folder / name) for name in SETTINGS if (folder / name).is_file()}
    files = [*weight_files(folder), *(path for name in TOKENIZERS if (path := folder / name).is_file())]
    return digest([settings, others, [file_digest(path) for path in files]])


def _effective(path: Path) -> dict[str, Any]:
    return {key: value for key, value in (read_json(path) or {}).items() if key not in KEYS_WITHOUT_EFFECT}
