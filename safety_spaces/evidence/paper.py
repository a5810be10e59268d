"""What the paper prints in Tables 1, 2, 4 and 5, where it contradicts itself, and what its sizes can decide.

The numbers are typed as printed into paper_tables.csv, one a row; everything said about them is computed here.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

PROMPTS = {"utility": 1319, "harmfulness": 520}
"""Prompts of GSM8K's test set and of AdvBench as published (the paper's Appendix M says 500)."""
CHECKPOINT = ["model", "reference_kind"]
CELL = [*CHECKPOINT, "task", "scheme", "metric", "basis", "fraction"]
COLUMNS = ("kind", "tables", *CHECKPOINT, "task", "metric", "basis", "fraction", "numbers")
RISE = "rise from fraction 0.01 to 0.99 in {} of {} rows"


def printed() -> pd.DataFrame:
    """Return every number as text, as the paper prints it, with the columns `table`, `CELL` and `value`.

    A checkpoint has scheme none; Tables 1 and 2 print it beside each basis, which `basis` then names.
    """
    with files("safety_spaces.evidence").joinpath("paper_tables.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def models() -> frozenset[str]:
    """Return the models that the paper has, as the studies name them."""
    return frozenset(printed()["model"])


def published(model: str, reference_kind: str = "aligned", *, tables: Iterable[int] = (4, 5)) -> pd.DataFrame:
    """Return the numbers of one model, `fraction` and `value` as floats; no rows for a model that the paper lacks."""
    rows = printed()
    wanted = (rows.model == model) & (rows.reference_kind == reference_kind) & rows.table.isin([str(t) for t in tables])
    rows = rows[wanted].reset_index(drop=True)
    return rows.assign(
        table=rows.table.astype(int), fraction=pd.to_numeric(rows.fraction), value=rows.value.astype(float)
    )


def contradictions(table: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return what cannot be right as printed, one finding a row with the columns `COLUMNS`.

    Kinds: `two values` of one cell; `identical rows`, five equal numbers of different bases, tasks or models;
    `caption`, a table whose caption says parallel and whose scores rise with the fraction, while Section 4 cites it for
    a fall under orthogonal projection. `table` is another one in the form of `printed`.
    """
    rows = printed() if table is None else table
    found = [*_two_values(rows), *_identical_rows(rows), *_captions(rows)]
    return pd.DataFrame(found, columns=list(COLUMNS)).fillna("")


def power(*, margin: float = 0.15, spread: float = 0.75, correlation: float = 0.5, wanted: float = 0.9) -> pd.DataFrame:
    """Return, one row a model of Table 5, what a contrast of two cells of contaminated fine-tuning can show.

    Selectivity is alpha_u - alpha_h; to first order alpha_m moves by (change of m)/gap_m, gap_m the score of the
    fine-tuned model minus that of the reference. With p_m the middle of that gap, n_m prompts and `correlation` r of
    a prompt's two scores,

        se^2 = 2 (1 - r) (s_u^2/(n_u gap_u^2) + s_h^2/(n_h gap_h^2)),   s_u^2 = p_u (1 - p_u),

    and s_h is `spread` times the largest standard deviation that a mean on [1, 5] allows, sqrt((p_h - 1) (5 - p_h)).
    Only prompts vary: the paper has one training run, so the variance between runs is not in it. The columns are the
    gaps, the three standard errors, `minimum_detectable` (two-sided 5 %, power `wanted`), `equivalence_power` of two
    one-sided tests at 5 % where the truth is 0, whether it reaches `wanted`, and how many times the prompts it takes.
    """
    rows = printed()
    rows = rows[(rows.table == "5") & (rows.scheme == "none")]
    scores = rows.assign(value=rows.value.astype(float)).pivot(
        index=CHECKPOINT, columns=["task", "metric"], values="value"
    )
    low, high = scores["reference"], scores["contaminated"]
    gap, middle = high - low, (high + low) / 2
    errors = {m: contrast_error(m, gap[m], middle[m], PROMPTS[m], spread, correlation) for m in PROMPTS}
    se = np.sqrt(errors["utility"] ** 2 + errors["harmfulness"] ** 2)
    one_sided = norm.ppf(0.95)
    equivalence = np.maximum(0, 2 * norm.cdf(margin / se - one_sided) - 1)
    needed = margin / (one_sided + norm.ppf((1 + wanted) / 2))
    columns = {
        "utility_gap": gap["utility"], "harm_gap": gap["harmfulness"],
        "se_utility": errors["utility"], "se_harm": errors["harmfulness"], "se": se,
        "minimum_detectable": se * detectable(wanted),
        "equivalence_power": equivalence, "equivalence_shown": equivalence >= wanted,
        "prompts_times": np.maximum(1, (se / needed) ** 2),
    }  # fmt: skip
    return pd.DataFrame(columns).reset_index()


def contrast_error(
    metric: str, gap: Any, middle: Any, prompts: int, spread: float = 0.75, correlation: float = 0.5
) -> Any:
    """Return the standard error of alpha_m(first cell) - alpha_m(second cell), as `power` says; numbers or columns."""
    variance = middle * (1 - middle) if metric == "utility" else spread**2 * (middle - 1) * (5 - middle)
    return np.sqrt(2 * (1 - correlation) * variance / prompts) / gap


def detectable(wanted: float = 0.9) -> float:
    """Return how many standard errors an effect has that is found with this power, two-sided at 5 %."""
    return float(norm.ppf(0.975) + norm.ppf(wanted))


def markdown(table: pd.DataFrame) -> str:
    """Return a table in Markdown, numbers to 3 significant digits, as docs/paper.md shows it."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(_text(cell) for cell in line)} |" for line in lines)


def _text(cell: object) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    return f"{cell:#.3g}".rstrip(".") if isinstance(cell, float) and math.isfinite(cell) else str(cell)


def _two_values(rows: pd.DataFrame) -> Iterable[Mapping[str, str]]:
    # The score of a checkpoint does not depend on the basis beside which Tables 1 and 2 print it.
    cells = rows.assign(basis=rows.basis.where(rows.scheme != "none", "none"))
    for key, group in cells.groupby(CELL, sort=False):
        if group.value.nunique() > 1:
            where = group.groupby("value", sort=False).table.agg(_joined)
            values = "; ".join(f"{value} in {tables}" for value, tables in where.items())
            yield _finding("two values", group, dict(zip(CELL, _cells(key), strict=True)) | {"numbers": values})


def _identical_rows(rows: pd.DataFrame) -> Iterable[Mapping[str, str]]:
    line = ["table", *CHECKPOINT, "task", "metric", "basis"]
    lines = rows[rows.scheme != "none"].groupby(line, sort=False).value.agg(" ".join).reset_index()
    for _, group in lines.groupby(["metric", "value"], sort=False):
        names = [*CHECKPOINT, "task", "basis"]
        if len(group[names].drop_duplicates()) > 1:
            shared = {name: _joined(group[name]) for name in [*names, "metric"]}
            yield _finding("identical rows", group, shared | {"numbers": group.value.iloc[0]})


def _captions(rows: pd.DataFrame) -> Iterable[Mapping[str, str]]:
    lines = rows[(rows.task == "contaminated") & (rows.scheme == "parallel")]
    for (_, metric), group in lines.groupby(["table", "metric"], sort=False):
        ends = group.groupby([*CHECKPOINT, "basis"]).value.agg(["first", "last"]).astype(float)
        if rising := int((ends["last"] > ends["first"]).sum()):
            facts = {"task": "contaminated", "metric": str(metric), "numbers": RISE.format(rising, len(ends))}
            yield _finding("caption", group, facts)


def _finding(kind: str, group: pd.DataFrame, facts: Mapping[str, str]) -> Mapping[str, str]:
    kept = {name: value for name, value in facts.items() if name in COLUMNS}
    return {"kind": kind, "tables": _joined(group.table)} | kept


def _cells(key: Hashable) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (str(key),)


def _joined(values: "pd.Series[str]") -> str:
    return ", ".join(dict.fromkeys(values))
