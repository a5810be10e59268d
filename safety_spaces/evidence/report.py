"""The report of a study: figures, one sentence per experiment, premises and costs, from tables nobody has edited.

The report states what the tables hold and nothing else: no number is typed into the template, and the same tables and
run record give the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from safety_spaces.errors import UserError
from safety_spaces.evaluation.intervals import Estimate
from safety_spaces.evidence import figures, sentences
from safety_spaces.evidence.findings import Findings, find
from safety_spaces.evidence.grid import Grid, grid_of
from safety_spaces.evidence.tables import FILES, Tables, read_tables
from safety_spaces.record import check_unedited, read_record
from safety_spaces.store import write_atomically
from safety_spaces.study import Study


def write_report(results_folder: Path, study: Study, *, sources_changed: bool) -> Findings:
    """Write README.md and the figures into results/<study>/ and return the findings.

    `sources_changed` puts a warning above everything. What the study promises and its tables lack is said in the place
    of its figure, which is removed where an earlier report drew it.

    Raises:
        UserError: no table is there, or one is edited or has other columns; then nothing is written.
    """
    grid = grid_of(study)
    names = [name for name, promised in _promised(grid).items() if promised]
    tables = read_tables(results_folder, names)
    there = [name for name in names if getattr(tables, name) is not None]
    if not there:
        raise UserError(
            f"{results_folder}: expected a table, found none; write one with `{FILES[names[0]][1]} STUDY.yaml`"
        )
    for name in there:
        check_unedited(results_folder, f"{name}.csv")
    found = find(tables, grid)
    drawn, undrawn = draw_figures(tables, grid)
    text = render(
        found,
        grid,
        name=study.name,
        record=read_record(results_folder),
        sources_changed=sources_changed,
        undrawn=undrawn,
    )
    for name, figure in drawn.items():
        figures.save(figure, results_folder / f"{name}.png")
    for name in undrawn:
        (results_folder / f"{name}.png").unlink(missing_ok=True)
    write_atomically(results_folder / "README.md", text.encode())
    return found


def _promised(grid: Grid) -> dict[str, bool]:
    """Which tables a study promises."""
    return {
        "energy": True,
        "projection": grid.is_scored,
        "update_spaces": bool(grid.update_pairs),
        "activation_spaces": bool(grid.positions),
    }


def draw_figures(tables: Tables, grid: Grid) -> tuple[dict[str, figures.Figure], dict[str, str]]:
    """The figures of a report by file name without ending, and of those whose table lacks a row, why."""
    drawn, undrawn = {}, {}
    for planned in figures.catalogue(grid).values():
        try:
            drawn[planned.file] = planned.figure(tables, grid)
        except UserError as error:
            undrawn[planned.file] = str(error)
    return drawn, undrawn


def render(
    found: Findings,
    grid: Grid,
    *,
    name: str,
    record: Mapping[str, Any],
    sources_changed: bool,
    undrawn: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The report as Markdown; `record` is run.json, `undrawn` says by file why a figure is not there."""
    environment = Environment(
        loader=PackageLoader("safety_spaces.evidence"),
        undefined=StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": _interval, "yes": _yes}
    return environment.get_template("report.md.j2").render(
        found=found,
        grid=grid,
        name=name,
        figures=figures.catalogue(grid),
        undrawn=undrawn,
        reasons=_by_reason({**found.lacking, **undrawn}),
        say=sentences,
        stages=record.get("stages", {}),
        facts=_facts(record),
        sources_changed=sources_changed,
    )


def _by_reason(lacking: Mapping[str, str]) -> dict[str, list[str]]:
    """What is not there, by the reason why."""
    reasons: dict[str, list[str]] = {}
    for name, reason in lacking.items():
        reasons.setdefault(reason, []).append(f"{name}.png" if name.startswith("figure") else name.replace("_", " "))
    return reasons


def _facts(record: Mapping[str, Any]) -> dict[str, str]:
    """What run.json says of the machine, one line each; stages, tables and the study are told elsewhere."""
    facts = {}
    for name in ("versions", "device", "threads", "rows", "weights_changed"):
        fact = record.get(name)
        if isinstance(fact, Mapping):
            facts[name] = ", ".join(f"{key} {value}" for key, value in fact.items())
        elif fact is not None:
            facts[name] = str(fact)
    return facts


def _yes(holds: bool) -> str:
    return "yes" if holds else "**no**"


def _interval(one: Estimate) -> str:
    return f"{one.value:.3f} [{one.ci_low:.3f}, {one.ci_high:.3f}]"
