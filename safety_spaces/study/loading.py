"""From YAML files to a study, with a line about each thing that is wrong.

A file may extend another: mappings are merged key by key; lists, values and what stands behind `!replace` are replaced.
"""

import re
from collections.abc import Iterable
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from safety_spaces.errors import UserError
from safety_spaces.paths import ROOT, expanded, is_there
from safety_spaces.study.documents import Replacement, read_document
from safety_spaces.study.study import Study

EXPECTATIONS = {
    "missing": "missing; add it",
    "model_type": "expected a mapping of keys to values",
    "dict_type": "expected a mapping of keys to values",
    "tuple_type": "expected a list",
}
Chain = list[tuple[Path, dict[str, Any]]]
"""A study file and the files that it extends, itself first, with what each says."""


def load_study(path: Path) -> Study:
    """Read a study file and all that it extends.

    Raises UserError when a file is missing or is not YAML, or the study is wrong: each key, what came and what would be
    right.
    """
    chain = _read_chain(path)
    _check_name(chain)
    try:
        return Study.model_validate(reduce(_merge, (content for _, content in reversed(chain)), None))
    except ValidationError as error:
        files = _named(file for file, _ in chain)
        raise UserError(*(f"{files}: {problem}" for problem in _problems(error))) from error


def study_files(path: Path) -> tuple[Path, ...]:
    """Return a study file and the files that it extends, itself first.

    Raises UserError when a file is missing, is not YAML, or extends itself.
    """
    return tuple(file for file, _ in _read_chain(path))


def _read_chain(path: Path, below: tuple[Path, ...] = ()) -> Chain:
    # The file is read first: a link that leads to itself cannot be resolved.
    content = _read_mapping(path, _named((*below, path)))
    if path.resolve() in {file.resolve() for file in below}:
        raise UserError(f"{below[-1]}: extends: expected no circle, got {path}, which extends this file")
    parent = content.pop("extends", None)
    if not isinstance(parent, str | None) or parent == "":
        raise UserError(f"{path}: extends: expected the path of a study file, got {parent!r:.60}")
    extended = _read_chain(_extended(path, parent), (*below, path)) if parent else []
    return [(path, content), *extended]


def _named(files: Iterable[Path]) -> str:
    return " extending ".join(map(str, files))


def _check_name(chain: Chain) -> None:
    """Check that a study does not go by the name of one that it extends, whose results it would overwrite."""
    own, *extended = [content.get("name") for _, content in chain]
    if extended and (own is None or own in extended):
        came = "none" if own is None else f"{own}, the name of the study that it extends"
        expected = "expected a name of its own, since results lie below it"
        raise UserError(f"{chain[0][0]}: name: {expected}, got {came}; add name: ...")


def _extended(study: Path, parent: str) -> Path:
    """A study extends a file beside it, or, like every path in it, one of the clone."""
    beside, of_the_clone = (folder / expanded(parent) for folder in (study.parent, ROOT))
    return beside if is_there(beside) or not is_there(of_the_clone) else of_the_clone


def _read_mapping(path: Path, files: str) -> dict[str, Any]:
    try:
        content = read_document(path.read_bytes())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{files}: cannot be read ({reason}); give the path of a study file") from error
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise UserError(f"{files}: {line}not YAML that a study is written in: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{files}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{files}: expected a study, that is a mapping of keys to values, got {content!r:.60}")
    return content


def _merge(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    kept = old if isinstance(old, dict) and not isinstance(new, Replacement) else {}
    return {**kept, **{key: _merge(kept.get(key), value) for key, value in new.items()}}


def _problems(error: ValidationError) -> dict[str, None]:
    """Return what is wrong with a study, each key once, and nothing that only follows from something else."""
    errors = [(_key(one), one) for one in error.errors(include_url=False)]
    return {
        f"{key}: {_problem(one)}": None
        for key, one in errors
        # To pydantic a list is too short if one of its entries is wrong.
        if one["type"] != "too_short" or not any(other.startswith(f"{key}.") for other, _ in errors)
    }


def _key(error: ErrorDetails) -> str:
    # Among the keys pydantic puts the (form) of a recipe or corpus, and [key] where the key itself is wrong.
    return ".".join(part for part in (f"{one!s:.60}" for one in error["loc"]) if not part.startswith(("(", "[")))


def _problem(error: ErrorDetails) -> str:
    expected = re.sub(r"^(Input|Tuple|String|Dictionary) should (be |have )?", "expected ", error["msg"])
    expected = re.sub(r" after validation, not \d+$", "", expected)
    expected = EXPECTATIONS.get(error["type"], expected)
    return expected if error["type"] in {"refusal", "missing"} else f"{expected}, got {error['input']!r:.60}"
