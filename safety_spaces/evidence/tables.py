"""The four tables of a study: their columns, their types, and how they are read.

Everything that the report says comes from these files, so a cell that is not what its column promises stops the reader
with the line it stands on. An empty cell means that the column does not apply to the row; it is never a zero.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.study import Study

PROJECTION = (
    "study", "model", "reference_kind", "precision", "task", "scheme", "basis", "fraction", "layers", "seed",
    "replicate", "draw", "energy_kept", "realised_energy", "realised_cosine", "cosine_task_reference",
    "metric", "judge", "value", "ci_low", "ci_high", "n", "n_unparsed", "others", "shots", "dose",
)  # fmt: skip
ENERGY = (
    "study", "task", "basis", "fraction", "seed", "replicate", "draw", "tensor", "layer", "kind", "rank", "k",
    "energy_kept", "energy_expected", "update_norm",
)  # fmt: skip
UPDATE_SPACES = (
    "study", "seed", "pair", "tensor", "layer", "kind", "eta", "k_first", "k_second", "dimension", "mso", "mso_chance",
    "cosine",
)  # fmt: skip
ACTIVATION_SPACES = (
    "study", "seed", "checkpoint", "pair", "layer", "depth", "position", "centred", "eta", "k_first", "k_second",
    "dimension", "n_first", "n_second", "mso", "mso_chance", "window_of", "window_start", "window_stop",
    "window_combine",
)  # fmt: skip

TEXTS = (
    "study", "model", "reference_kind", "precision", "task", "scheme", "basis", "layers", "metric", "judge",
    "tensor", "kind", "pair", "checkpoint", "position", "others", "window_of", "window_combine",
)  # fmt: skip
COUNTS = (
    "seed", "replicate", "draw", "n", "n_unparsed", "layer", "rank", "k", "k_first", "k_second", "dimension", "n_first",
    "n_second", "shots", "window_start", "window_stop",
)  # fmt: skip
# Every column that is neither text, count nor truth holds real numbers.
TRUTHS = {"true": True, "false": False}

JUDGE_AGREEMENT = ("study", "first", "second", "n", "n_unparsed", "kappa", "weighted_kappa", "spearman")
"""Of judge_agreement.csv, which no report needs."""

SCORES = (
    "seed", "task", "scheme", "basis", "fraction", "dose", "layers", "others", "replicate", "draw", "metric", "prompt",
    "cluster", "value",
)  # fmt: skip
"""Of scores.parquet: every prompt of every score."""
SCORES_FILE = "scores.parquet"
SELECTIVITY = (
    "study", "task", "scheme", "basis", "fraction", "draw", "outcomes", "seeds", "utility_dose", "harm_dose",
    "selectivity", "ci_low", "ci_high", "clamped", "harm_at_equal_utility", "utility_at_equal_harm",
)  # fmt: skip
PREMISES = ("study", "premise", "statistic", "value", "ci_low", "ci_high", "bound", "holds")
VERDICTS = (
    "study", "id", "experiment", "section", "says", "statistic", "positive", "task", "scheme", "basis", "control",
    "verdict", "paper", "fraction", "effect", "ci_low", "ci_high", "margin", "seeds", "prompts", "clusters",
    "minimum_detectable", "would_decide", "secondary", "secondary_low", "secondary_high", "about",
)  # fmt: skip

FILES = {
    "projection": (PROJECTION, "python scripts/projection.py"),
    "energy": (ENERGY, "python scripts/projection.py"),
    "update_spaces": (UPDATE_SPACES, "python exp-3-update_spaces/update_spaces.py"),
    "activation_spaces": (ACTIVATION_SPACES, "python exp-4-activation_spaces/activation_space.py"),
}

COLUMNS = {
    **{name: columns for name, (columns, _) in FILES.items()},
    "judge_agreement": JUDGE_AGREEMENT,
    "scores": SCORES,
    "selectivity": SELECTIVITY,
    "premises": PREMISES,
    "verdicts": VERDICTS,
}
"""Table -> its columns in order."""


def promised(study: Study) -> list[str]:
    """Return the tables that the commands of a study write."""
    found = {
        "energy": True,
        "projection": study.evaluation is not None,
        "scores": study.evaluation is not None,
        "update_spaces": bool(study.update_pairs),
        "activation_spaces": study.activation_spaces is not None,
    }
    return [name for name, is_written in found.items() if is_written]


def table_file(name: str) -> str:
    """Return the file of a table."""
    return SCORES_FILE if name == "scores" else f"{name}.csv"


@dataclass(frozen=True)
class Tables:
    """The four tables of one study, None where one is not there."""

    projection: pd.DataFrame | None
    energy: pd.DataFrame | None
    update_spaces: pd.DataFrame | None
    activation_spaces: pd.DataFrame | None

    def of(self, name: str) -> pd.DataFrame:
        """One table, `name` a key of FILES; UserError where it is not there."""
        table: pd.DataFrame | None = getattr(self, name)
        if table is None:
            raise _absent(f"{name}.csv", name)
        return table


def read_tables(results_folder: Path, names: Collection[str] = tuple(FILES)) -> Tables:
    """The named tables of a results folder, None for what is not there; raises as `read_table` does."""
    there = [name for name in names if (results_folder / f"{name}.csv").exists()]
    return Tables(**{name: read_table(results_folder, name) if name in there else None for name in FILES})


def read_scores(results_folder: Path) -> pd.DataFrame:
    """The score of every prompt; UserError when the file is missing or is not scores.parquet as it is declared."""
    path, command = results_folder / SCORES_FILE, FILES["projection"][1]
    if not path.is_file():
        raise _absent(path, "projection")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: not a readable parquet file; move it away and write it again with `{command}`"
        ) from error
    _check_columns(table, SCORES, path, command)
    return table


def _absent(path: Path | str, name: str) -> UserError:
    return UserError(f"{path}: no such table; write it with `{FILES[name][1]} STUDY.yaml`")


def read_table(results_folder: Path, name: str) -> pd.DataFrame:
    """One table, `name` a key of FILES, with text, nullable Int64, float64 and boolean columns.

    UserError when the file is missing or no CSV, when its columns are not the declared ones in their order, or when a
    cell does not read as its column's type.
    """
    columns, command = FILES[name]
    path = results_folder / f"{name}.csv"
    if not path.is_file():
        raise _absent(path, name)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not a readable CSV ({error}); move it away and write it again with `{command}`"
        ) from error
    _check_columns(table, columns, path, command)
    return pd.DataFrame({column: _typed(table[column], path) for column in columns})


def _check_columns(table: pd.DataFrame, columns: tuple[str, ...], path: Path, command: str) -> None:
    if tuple(table.columns) != columns:
        odd = sorted(set(table.columns) ^ set(columns)) or ["their order"]
        raise UserError(f"{path}: the columns differ from the declared ones in {', '.join(odd)}; run `{command}` again")


def _typed(cells: "pd.Series[str]", path: Path) -> "pd.Series":
    column = str(cells.name)
    if column in TEXTS:
        return cells
    if column == "centred":
        _refuse(cells, ~cells.isin(list(TRUTHS)), path, "true or false")
        return cells.map(TRUTHS).astype(bool)
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    empty = cells == ""
    _refuse(cells, ~empty & ~np.isfinite(numbers), path, "a number")
    if column not in COUNTS:
        return numbers
    _refuse(cells, ~empty & (numbers != np.floor(numbers)), path, "a whole number")
    return numbers.astype("Int64")


def _refuse(cells: "pd.Series[str]", wrong: "pd.Series[bool]", path: Path, expected: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise UserError(
            f"{path}, line {row + 2}: {cells.name} should be {expected} or empty, not {cells.iloc[row]!r}; "
            "tables are written by the scripts, not by hand"
        )
