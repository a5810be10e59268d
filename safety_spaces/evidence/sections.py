"""What a report says, as plain sections of tables and figures that a Markdown file and a page are both made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from safety_spaces.study import OUTCOMES

MINUS, UNBROKEN = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
PARTS = {
    "3": "Keeping directions: parallel projection (Section 3 of the paper)",
    "4": "Removing directions: orthogonal projection (Section 4)",
    "5": "Overlap of updates (Section 5)",
    "6": "Overlap of activations (Section 6)",
}
"""Section of the paper -> title of the report's section on it."""
MOST_ROWS = 16
"""Rows of a table that is not folded away."""


@dataclass(frozen=True)
class Table:
    """A table of texts with its caption; `cards` says that a narrow page shows each row as a card of its own."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cards: bool = False

    @property
    def is_long(self) -> bool:
        """Whether it is folded away."""
        return len(self.rows) > MOST_ROWS


@dataclass(frozen=True)
class Picture:
    """A figure by its file without ending, with its text alternative, its caption, and as an SVG element."""

    name: str
    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Section:
    """A part of a report: remarks, then tables, then figures."""

    title: str
    remarks: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What one model answered, with its score; None where it is not scored or not parsed."""

    model: str
    response: str
    score: float | None


@dataclass(frozen=True)
class Answers:
    """One prompt, with the answers of several models side by side: base, reference, fine-tuned, projected."""

    metric: str
    prompt: str
    replies: tuple[Reply, ...]


def verdict_table(verdicts: pd.DataFrame) -> Table:
    """The table of claims; `verdicts` has the columns of verdicts.csv, one row for each claim."""
    return _table(
        "Verdicts. What a positive effect means is said below with each experiment.",
        verdicts,
        {
            "experiment": lambda row: f"{row.experiment}: {row.task}" if _text(row.task) else row.experiment,
            "what the paper says": "says",
            "verdict": "verdict",
            "effect [interval]": _effect,
            "paper": "paper",
            "about": "about",
        },
        cards=True,
    )


def decided_by(verdicts: pd.DataFrame) -> Table:
    """How each verdict was reached; `verdicts` has the columns of verdicts.csv."""
    return _table(
        "On how much the verdict rests. Detectable is the smallest effect that this much would find; the outcomes "
        "without a judge are log-likelihoods.",
        verdicts,
        {
            "claim": "id",
            "of": "task",
            "verdict": "verdict",
            "effect [interval]": _effect,
            "margin": "margin",
            "detectable": "minimum_detectable",
            "seeds": "seeds",
            "prompts": "prompts",
            "clusters": "clusters",
            "without a judge": lambda row: interval(row.secondary, row.secondary_low, row.secondary_high, sign=True),
            "would decide": "would_decide",
        },
        cards=True,
    )


def premise_table(premises: pd.DataFrame) -> Table:
    """What the experiments presuppose and whether it holds; `premises` has the columns of premises.csv."""
    return _table(
        "Premises. Where one fails there is nothing to separate.",
        premises,
        {
            "premise": "premise",
            "measured": "statistic",
            "value [interval]": lambda row: interval(row.value, row.ci_low, row.ci_high, sign=True),
            "bound": "bound",
            "holds": lambda row: "yes" if str(row.holds).lower() == "true" else "no",
        },
        cards=True,
    )


def selectivity_table(selectivity: pd.DataFrame) -> Table:
    """One row for each scored cell; `selectivity` has the columns of selectivity.csv."""
    return _table(
        "Selectivity: the dose of the whole update that has the cell's utility, minus the dose that has its "
        "harmfulness. Clamped is the share of resamples in which a dose could not be read off.",
        selectivity,
        {
            **{name: name for name in ("task", "scheme", "basis")},
            "ρ": "fraction",
            **{name: name for name in ("draw", "outcomes")},
            "selectivity [interval]": lambda row: interval(row.selectivity, row.ci_low, row.ci_high, sign=True),
            "dose by utility": "utility_dose",
            "dose by harm": "harm_dose",
            "clamped": "clamped",
            "harm at equal utility": "harm_at_equal_utility",
            "utility at equal harm": "utility_at_equal_harm",
        },
    )


def checkpoint_table(projection: pd.DataFrame) -> Table:
    """Scores of the models that nothing is projected of; `projection` has the columns of projection.csv."""
    rows = projection[(projection.scheme == "none") & (projection.basis == "none")]
    metrics = [*OUTCOMES, *sorted({*rows.metric} - {*OUTCOMES})]
    cells = rows.groupby(["task", "metric"])[["value", "ci_low", "ci_high"]].mean()
    tasks = dict.fromkeys(task for task in ("base", "reference", *rows.task) if task in {*rows.task})
    return Table(
        "Models that nothing is projected of: means over seeds, with the mean of their 95 % intervals over prompts.",
        ("checkpoint", *(metric.replace("_", " ") for metric in metrics)),
        tuple(
            (task, *(interval(*cells.loc[(task, one)]) if (task, one) in cells.index else "" for one in metrics))
            for task in tasks
        ),
    )


def by_part(verdicts: pd.DataFrame, pictures: Mapping[str, Sequence[Picture]]) -> list[Section]:
    """A section for each section of the paper that has a claim or a figure, by the first digit of its number."""
    digits = verdicts.section.astype(str).str.extract(r"(\d)", expand=False).fillna("")
    sections = []
    for part, title in {**PARTS, "": "Further claims"}.items():
        claims = verdicts[digits == part if part else ~digits.isin(list(PARTS))]
        # A claim that is measured of several tasks is explained once.
        remarks = dict.fromkeys(
            f"{row.says} Measured is {row.statistic}; a positive effect says that {row.positive}."
            for row in claims.itertuples()
        )
        sections.append(Section(title, tuple(remarks), (decided_by(claims),), tuple(pictures.get(part, ()))))
    return [section for section in sections if section.remarks or section.pictures]


def paper_section(published: pd.DataFrame, projection: pd.DataFrame, *, published_rubric: bool) -> list[Section]:
    """The paper's numbers of a model beside those measured here; none for a model that the paper lacks.

    `published` has the columns of the paper's Tables 4 and 5, `projection` those of projection.csv.
    """
    cell = ["task", "scheme", "metric", "basis", "fraction"]
    rows = projection[(projection.layers == "all") & (projection.replicate.fillna(0) == 0)]
    here = rows.groupby(cell, dropna=False)[["value", "ci_low", "ci_high"]].mean().reset_index()
    both = published.assign(basis=published.basis.where(published.scheme != "none", "none")).drop_duplicates(cell)
    both = both.merge(here, on=cell, suffixes=("_paper", ""))
    if both.empty:
        return []
    scale = "" if published_rubric else " Under another rubric harmfulness has another scale: only its order compares."
    table = _table(
        "Numbers as printed in Tables 4 and 5, and here with intervals over prompts: training again would move both.",
        both,
        {
            **{name: name for name in cell},
            "paper": "value_paper",
            "here": lambda row: interval(row.value, row.ci_low, row.ci_high),
            "here minus paper": lambda row: number(row.value - row.value_paper),
        },
    )
    said = f"What the paper's own sizes can decide is computed in docs/paper.md.{scale}"
    return [Section("Next to the paper", (said,), (table,))]


def cost_section(record: Mapping[str, Any]) -> Section:
    """What run.json says of stages and machine."""
    stages = tuple(
        (name, f"{cost['seconds']:.0f}", f"{cost['peak_memory_bytes'] / 2**20:.0f}")
        for name, cost in record.get("stages", {}).items()
    )
    facts = []
    for name in ("versions", "device", "threads", "rows", "weights_changed"):
        fact = record.get(name)
        if isinstance(fact, Mapping):
            shown = {key: f"{one:.6g}" if isinstance(one, float) else one for key, one in fact.items()}
            facts.append((name.replace("_", " "), ", ".join(f"{key} {one}" for key, one in shown.items())))
        elif fact is not None:
            facts.append((name.replace("_", " "), str(fact)))
    cost = Table("What each stage cost.", ("stage", "wall time, s", "peak memory, MiB"), stages)
    return Section(
        "How it was made", (), (cost, Table("The machine and what it ran.", ("fact", "value"), tuple(facts)))
    )


def number(value: Any) -> str:
    """A number in at most three digits after the point, empty where there is none."""
    if pd.isna(value):
        return ""
    shown = f"{float(value):.3f}".rstrip("0").rstrip(".") if float(value) % 1 else f"{float(value):.0f}"
    return shown.replace("-", MINUS)


def interval(value: Any, low: Any, high: Any, *, sign: bool = False) -> str:
    """A value with its interval, where it has one."""
    shown = [
        f"{float(one):{'+' if sign else ''}.2f}".replace("-", MINUS) for one in (value, low, high) if pd.notna(one)
    ]
    return f"{shown[0]} [{shown[1]},{UNBROKEN}{shown[2]}]" if len(shown) == 3 else "".join(shown[:1])


def _table(
    caption: str, rows: pd.DataFrame, cells: Mapping[str, str | Callable[[Any], str]], *, cards: bool = False
) -> Table:
    """A table whose cells are a column, or a function of the row."""
    return Table(
        caption,
        tuple(cells),
        tuple(
            tuple(cell(row) if callable(cell) else _text(getattr(row, cell)) for cell in cells.values())
            for row in rows.itertuples()
        ),
        cards,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else number(value)


def _effect(row: Any) -> str:
    at = f" at ρ{UNBROKEN}={UNBROKEN}{number(row.fraction)}" if pd.notna(row.fraction) else ""
    return f"{interval(row.effect, row.ci_low, row.ci_high, sign=True)}{at}"
