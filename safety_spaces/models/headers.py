"""Types and shapes of a folder's tensors, from the headers of its files. Reads no weights and no torch."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safety_spaces.errors import UserError
from safety_spaces.models.folders import ADAPTER_WEIGHTS, CONFIG, is_adapter, stored_header, weight_files
from safety_spaces.store import read_json

FLOATING = frozenset({"F16", "BF16", "F32", "F64"})
"""Types whose numbers are the weights themselves."""
QUANTISED = re.compile(r"F[468](_\w+)?")
CODES = re.compile(r"weight|zeros|codes|packed|blocks|scales|g_idx|W_q|nf4|fp4")
"""What methods of quantisation call their integers; buffers of models (position_ids, masks) have other names."""
SCALES = re.compile(r"weight_scale(_inv)?|absmax|SCB|quant_map")
"""What they call the scales beside them: codes that were converted to a float type are codes still."""
SETTINGS = ("quantization_config", "compression_config", "quantization")


@dataclass(frozen=True)
class Header:
    """Type and shape of one stored tensor, as safetensors writes them, and its file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_floating(self) -> bool:
        """Whether the numbers are weights in floating point."""
        return self.dtype in FLOATING


def read_headers(folder: Path) -> Iterator[tuple[str, Header]]:
    """Yield name and header of every tensor of a folder with weights, its own or an adapter's.

    Raises:
        UserError: a file is cut short.
    """
    for path in [folder / ADAPTER_WEIGHTS] if is_adapter(folder) else weight_files(folder):
        yield from file_headers(path)


def file_headers(path: Path) -> Iterator[tuple[str, Header]]:
    """Yield name and header of every tensor of one safetensors file.

    Raises:
        UserError: it is cut short.
    """
    entries = stored_header(path)
    if entries is None:
        raise UserError(f"{path}: half-written or unreadable; copy or write it again")
    yield from ((name, Header(path, entry["dtype"], tuple(entry["shape"]))) for name, entry in entries.items())


def check_not_quantised(folder: Path) -> None:
    """Check that a folder holds weights, not the codes of a quantised model: their difference means nothing.

    Raises:
        UserError: its configuration or the type of a tensor says that it is quantised, or a file is cut short.
    """
    # Beside an adapter lies the configuration of what it was trained on, which may have been quantised then.
    config = {} if is_adapter(folder) else read_json(folder / CONFIG) or {}
    if settings := [key for key in SETTINGS if config.get(key)]:
        raise _quantised(folder, f"{settings[0]} in {CONFIG}")
    headers = dict(read_headers(folder))
    scales = (name for name in headers if SCALES.fullmatch(name.rpartition(".")[2]))
    found = next((name for name, header in headers.items() if _is_code(name, header)), next(scales, None))
    if found is not None:
        raise _quantised(folder, f"{found} of type {headers[found].dtype}")


def _is_code(name: str, header: Header) -> bool:
    is_integer = header.dtype != "BOOL" and not header.is_floating
    return bool(QUANTISED.fullmatch(header.dtype) or (is_integer and CODES.search(name.rpartition(".")[2])))


def _quantised(folder: Path, found: str) -> UserError:
    return UserError(
        f"{folder}: expected weights in float32, bfloat16, float16 or float64, got a quantised model ({found}); "
        "take the model before quantisation, or load it, call model.dequantize() and save_pretrained"
    )
