"""Paths as people write them: with `~` and environment variables, from the working directory or from the clone."""

import os
import re
from pathlib import Path

from safety_spaces.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
"""The clone that this code lies in."""
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))", re.ASCII)


def expanded(path: str) -> Path:
    """Return a path with `~` and environment variables written out; one that is there as it stands is left alone.

    Raises UserError when it is empty, or names a variable that is not set or a user whom this machine does not know.
    """
    if not path.strip():
        raise UserError("expected a path, got an empty one; name a file or a folder")
    if is_there(Path(path)):
        return Path(path)
    for name in (braced or plain for braced, plain in VARIABLE.findall(path)):
        if not os.environ.get(name):
            raise UserError(f"{path}: expected the environment variable {name}, found none; set it or write it out")
    try:
        return Path(os.path.expandvars(path)).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: expected the home folder of a user, found none; write it out") from error


def resolve_path(path: str) -> Path:
    """Return a path of a study: from the root of the clone where it is there alone, else from the working directory."""
    given = expanded(path)
    return ROOT / given if is_there(ROOT / given) and not is_there(given) else Path.cwd() / given


def is_there(path: Path) -> bool:
    """Say whether a file, a folder or a link has this path, a link that leads nowhere too; never raises."""
    return os.path.lexists(path)
