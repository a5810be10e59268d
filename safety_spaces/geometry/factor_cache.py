"""The resumable store of factorisations: one file per tensor of a reference update, holding U alone.

The factorisation of the reference is the dearest step of a projection study and the same for every task and cell, so
its U is kept. A file appears under its name only when it is whole; whatever else lies there is computed again, not
trusted. What is read is mapped: a cell of k directions reads k columns.
"""

import os
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from safety_spaces.errors import UserError

# Stored transposed: a prefix of columns of U, which is what every fraction takes, is then one piece of the file.
KEY = "U_transposed"


def cached_factor(folder: Path | None, name: str, compute: Callable[[], Float[Tensor, "M r"]]) -> Float[Tensor, "M r"]:
    """U of one tensor: mapped from folder, or computed and kept there; on the CPU either way, in the same layout.

    A folder belongs to one reference update and one side; without one nothing is kept, and U stays where it is. Raises
    UserError when the file cannot be written.
    """
    if folder is None:
        return compute()
    path = folder / f"{name}.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            if file.metadata() == {"tensor": name}:
                stored: Tensor = file.get_tensor(KEY)
                return stored.T
    except (SafetensorError, OSError):
        pass
    transposed = compute().cpu().T.contiguous()
    # The process in the name: two processes that share a folder never write one file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({KEY: transposed}, partial, metadata={"tensor": name})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{folder}: could not write {path.name} ({error}); "
            "free disk space or make the folder writable, then run again"
        ) from error
    return transposed.T
