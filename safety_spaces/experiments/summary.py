"""The few numbers that a command says at its end, read from the files that it wrote: means over seeds and draws."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from safety_spaces.evaluation.metrics import METRICS
from safety_spaces.evidence.claims import CLAIMS, gather, verdict_rows
from safety_spaces.evidence.tables import FILES, read_scores, read_table, read_tables
from safety_spaces.models.roles import training_notes
from safety_spaces.study import Study

LINES, WIDTH, WIDEST = 17, 100, 45


def summary(written: Sequence[Path], study: Study) -> str:
    """Return a short table of the numbers in the files, and the verdicts that they give; empty where they hold none."""
    names = {path.stem for path in written if path.suffix in (".csv", ".parquet")}
    claims = [claim for claim in CLAIMS if claim.table in names]
    if "verdicts" in names or not claims:
        return _numbers(written)
    folder = written[0].parent
    tables = read_tables(folder, [name for name in FILES if name in names])
    evidence = gather(study, tables, read_scores(folder) if "scores" in names else None)
    # A verdict on scores that are missing is said by the report.
    return f"{_numbers(written)}{verdict_table(pd.DataFrame(verdict_rows(evidence, claims)))}"


def _numbers(written: Sequence[Path]) -> str:
    if trained := [path for path in written if path.is_dir() and training_notes(path)]:
        return _text(pd.DataFrame([_training(folder) for folder in trained]))
    # Scores stand beside the energies of their models.
    last = written[-1] if written else Path()
    if verdicts := [path for path in written if path.name == "verdicts.csv"]:
        said = verdict_table(pd.read_csv(verdicts[0], keep_default_na=False))
        return f"{said}{_lacking(verdicts[0].with_name('README.md'))}"
    if last.suffix != ".csv":
        return ""
    tables = {"projection": _scores, "energy": _energies, "update_spaces": _updates, "activation_spaces": _states}
    if last.stem not in tables:
        return _text(pd.read_csv(last))
    table = read_table(last.parent, last.stem)
    return "" if table.empty else _text(tables[last.stem](table))


def overlap_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return overlaps of update_spaces.csv as a table: means over all matrices, by kind, and by layer."""
    table = pd.DataFrame(rows).sort_values("layer", kind="stable")
    etas, layers = sorted(set(table.eta)), table.layer.map("layer {:g}".format, na_action="ignore")
    parts = [_over_etas(table.assign(tensors=of), "tensors", etas) for of in ("all", table.kind, layers)]
    return _text(pd.concat(parts), lines=None)


def _training(folder: Path) -> dict[str, Any]:
    notes = training_notes(folder)
    return {
        "role": folder.name,
        "seed": folder.parents[1].name.removeprefix("seed-"),
        "steps": notes.get("steps"),
        "last loss": (notes.get("loss_by_tenth") or [None])[-1],
        "share changed": notes.get("share_of_weights_changed"),
    }


def _scores(table: pd.DataFrame) -> pd.DataFrame:
    """Energy kept and scores of each projected model, baselines first; of many fractions the middle one."""
    fractions = sorted(set(table.fraction.dropna()))
    keys = ["task", "scheme", "basis", "fraction", *(["layers"] if set(table.layers) != {"all"} else [])]
    table = table.assign(layers=table.layers.where(table.layers == "all", "one, " + table.others)).rename(
        columns={"energy_kept": "energy"}
    )
    if table.groupby(keys, dropna=False).ngroups > LINES:
        table = table[table.fraction.isna() | (table.fraction == fractions[len(fractions) // 2])]
    table = table.assign(fraction=table.fraction.map("{:g}".format).replace("nan", ""))
    groups = [table.scheme != "none", *(table[key] for key in keys)]
    means = [table.energy.groupby(groups).mean(), *(
        rows.value.groupby([group.loc[rows.index] for group in groups]).mean().rename(METRICS[str(metric)].short)
        for metric, rows in table.groupby("metric")
    )]  # fmt: skip
    return pd.concat(means, axis=1).sort_index().droplevel(0).reset_index()


def _energies(table: pd.DataFrame) -> pd.DataFrame:
    """Energy kept of whole updates, a column for each fraction."""
    whole = table[table.tensor == "all"]
    kept = whole.groupby(["task", "basis", "fraction"]).energy_kept.mean().unstack("fraction")
    return kept.rename(columns="kept at {:g}".format).reset_index()


def _updates(table: pd.DataFrame) -> pd.DataFrame:
    """Overlap of each pair at a low, a middle and a high energy level, and the signed cosine."""
    etas = sorted(set(table.eta))
    return _over_etas(table, "pair", [etas[0], etas[len(etas) // 2], etas[-1]])


def _over_etas(table: pd.DataFrame, key: str, etas: Sequence[float]) -> pd.DataFrame:
    # An update that is zero has no direction, as it has no overlap.
    cosine = table.cosine.where(table.mso.notna()).groupby(table[key]).mean()
    means = _overlaps(table, [key], "eta", {eta: f"{eta:g}" for eta in etas}).assign(cosine=cosine)
    return means.reindex(table[key].dropna().unique()).reset_index()


def _states(table: pd.DataFrame) -> pd.DataFrame:
    """Overlap of each pair of prompt sets at the middle energy level, over all layers of the first position."""
    positions, etas = table.position.unique().tolist(), sorted(set(table.eta))
    first = "last_prompt_token" if "last_prompt_token" in positions else positions[0]
    table = table[(table.position == first) & (table.eta == etas[len(etas) // 2])]
    return _overlaps(table, ["checkpoint", "pair"], "centred", {False: "uncentred", True: "centred"}).reset_index()


def _overlaps(table: pd.DataFrame, by: list[str], column: str, values: Mapping[Any, str]) -> pd.DataFrame:
    """Mean overlap and chance level of each group, side by side for the values of a column, each under its name."""
    shown = {"mso": "mso", "chance": "mso_chance"}
    return pd.DataFrame({
        f"{name} {said}": table[table[column] == value].groupby(by)[of].mean()
        for value, said in values.items() for name, of in shown.items()
    })  # fmt: skip


def verdict_table(rows: pd.DataFrame) -> str:
    """Return verdicts.csv as a short table: experiment, verdict, effect and interval."""
    if rows.empty:
        return ""
    order = {claim.id: number for number, claim in enumerate(CLAIMS)}
    rows = rows.sort_values("id", key=lambda ids: ids.map(order), kind="stable")
    numbers = rows[["effect", "ci_low", "ci_high"]].apply(pd.to_numeric)
    effects = [
        f"{one:+.2f} [{low:+.2f}, {high:+.2f}]" if pd.notna(low) else f"{one:+.2f}"
        for one, low, high in numbers.itertuples(index=False)
    ]
    said = [f"{row.experiment}{', ' if row.task else ''}{row.task}"[:WIDEST] for row in rows.itertuples()]
    return _text(pd.DataFrame({"experiment": said, "verdict": rows.verdict.to_numpy(), "effect": effects}))


def _lacking(report: Path) -> str:
    """What the report says is not there, with the command that makes it; which figures these are stands there."""
    said = (line for line in report.read_text("utf-8").splitlines() if line.startswith("* Not here"))
    return "".join(f"{line.rpartition(' (')[0]}\n" for line in said)


def _text(table: pd.DataFrame, *, lines: int | None = LINES) -> str:
    shown = table.head(len(table) if lines is None else lines)
    text = shown.to_string(index=False, float_format="{:.3f}".format, na_rep="-", justify="right")
    left = len(table) - len(shown)
    return "".join(f"{line[:WIDTH]}\n" for line in text.splitlines()) + (f"... and {left} more rows\n" if left else "")
