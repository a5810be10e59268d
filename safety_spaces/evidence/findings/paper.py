"""This study next to the paper: the numbers of its Tables 4 and 5, line by line, where it has the same model.

Accuracy is the same measure in both. A mean judge score is one only under the paper's rubric; under another rubric the
scale is another, and nothing but the order of the lines can be compared.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files

import pandas as pd

from safety_spaces.evaluation.intervals import Estimate
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.selection import baseline, mean_score, scores
from safety_spaces.evidence.statistics import rank_correlation

UNPROJECTED = "none"


@dataclass(frozen=True)
class Line:
    """One number of the paper, as it prints it, beside what this study measured; fraction is None for a checkpoint."""

    task: str
    basis: str
    fraction: float | None
    metric: str
    published: Decimal
    measured: Estimate
    same_scale: bool

    @property
    def difference(self) -> float | None:
        """Measured here minus published; None where the scales differ."""
        return self.measured.value - float(self.published) if self.same_scale else None

    @property
    def inside(self) -> bool | None:
        """Whether the published number lies in the 95 % interval of this study; None where the scales differ."""
        return self.measured.ci_low <= float(self.published) <= self.measured.ci_high if self.same_scale else None


@dataclass(frozen=True)
class Order:
    """How alike n lines of one task are ordered here and in the paper; None where ranks are undefined."""

    task: str
    metric: str
    n: int
    correlation: float | None


@dataclass(frozen=True)
class PaperFinding:
    """Every number of the paper that this study measured too, and the order of those of each task."""

    lines: tuple[Line, ...]
    orders: tuple[Order, ...]


def find_next_to_paper(projection: pd.DataFrame, grid: Grid) -> PaperFinding | None:
    """The paper's numbers beside those of this study, means over seeds and draws; None for a model it does not have.

    Raises:
        UserError: the table lacks a cell that the study promises.
    """
    rows = [row for row in published(grid.model, grid.reference_kind) if _is_measured(row, grid)]
    if not rows:
        return None
    lines = tuple(_line(projection, grid, row) for row in rows)
    projected = dict.fromkeys((line.task, line.metric) for line in lines if line.fraction is not None)
    return PaperFinding(lines, tuple(_order(lines, task=task, metric=metric) for task, metric in projected))


def published(model: str, reference_kind: str) -> list[dict[str, str]]:
    """The rows of paper.csv on one model, as they are written there; none for a model that the paper does not have.

    A number that both tables print, that of base and of reference, stands under Table 4 alone.
    """
    wanted = {"model": model, "reference_kind": reference_kind}
    return [row for row in _rows() if row.items() >= wanted.items()]


def models_of_paper() -> frozenset[str]:
    """The models that the paper has, as the studies name them."""
    return frozenset(row["model"] for row in _rows())


def _rows() -> list[dict[str, str]]:
    text = files("safety_spaces.evidence").joinpath("paper.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _is_measured(row: Mapping[str, str], grid: Grid) -> bool:
    if row["scheme"] == UNPROJECTED:
        return row["task"] in ("base", "reference", *grid.tasks)
    scored = (row["task"], row["scheme"], row["metric"]) in grid.scored
    return scored and row["basis"] in grid.bases and float(row["fraction"]) in grid.fractions


def _line(projection: pd.DataFrame, grid: Grid, row: Mapping[str, str]) -> Line:
    task, basis, metric = row["task"], row["basis"], row["metric"]
    if row["scheme"] == UNPROJECTED:
        fraction = None
        rows = baseline(projection, grid, checkpoint=task, metric=metric)
    else:
        fraction = float(row["fraction"])
        rows = scores(projection, grid, line=(task, row["scheme"], metric), basis=basis)
        rows = rows[rows.fraction == fraction]
    return Line(
        task=task,
        basis=basis,
        fraction=fraction,
        metric=metric,
        published=Decimal(row["value"]),
        measured=mean_score(rows),
        same_scale=metric == "utility" or grid.published_rubric,
    )


def _order(lines: tuple[Line, ...], *, task: str, metric: str) -> Order:
    """The order of a task: its projected models and the fine-tuned one."""
    chosen = [line for line in lines if (line.task, line.metric) == (task, metric)]
    here = [round(line.measured.value, 6) for line in chosen]  # the tables carry 6 digits
    paper = [float(line.published) for line in chosen]
    return Order(task, metric, len(chosen), rank_correlation(here, paper))
