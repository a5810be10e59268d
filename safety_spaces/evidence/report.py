"""The report of a study: figures, one sentence per experiment, premises and costs, from tables nobody has edited.

The report states what the tables hold and nothing else: no number is typed into the template, and the same tables and
run record give the same bytes.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from safety_spaces.evidence import figures, sentences
from safety_spaces.evidence.findings import Findings, find
from safety_spaces.evidence.grid import Grid, grid_of, name_of
from safety_spaces.evidence.statistics import Estimate
from safety_spaces.evidence.tables import FILES, Tables, read_tables
from safety_spaces.record import check_unedited, read_record
from safety_spaces.store import write_atomically
from safety_spaces.study import Study

logger = logging.getLogger(__name__)

UPDATES = "update_spaces"


def write_report(results_folder: Path, study: Study, *, sources_changed: bool) -> Findings:
    """Write README.md and the figures into results/<study>/ and return the findings.

    `sources_changed` puts a warning above everything. A study without update_spaces needs no such table.

    Raises:
        UserError: a table is missing, edited, of other columns, or lacks a cell that the study promises, or the study
            lacks what the findings compare; then nothing is written.
    """
    grid = grid_of(study)
    names = [name for name in FILES if name != UPDATES or grid.update_pairs]
    tables = read_tables(results_folder, names)
    for name in names:
        check_unedited(results_folder, f"{name}.csv")
    found = find(tables, grid)
    drawn = draw_figures(tables, grid)
    text = render(found, grid, name=study.name, record=read_record(results_folder), sources_changed=sources_changed)
    for name, figure in drawn.items():
        figures.save(figure, results_folder / f"{name}.png")
    write_atomically(results_folder / "README.md", text.encode())
    logger.info("report: %s", results_folder / "README.md")
    return found


def draw_figures(tables: Tables, grid: Grid) -> dict[str, figures.Figure]:
    """The figures of a report by file name without ending; UserError where a table lacks a row."""
    return {planned.file: planned.figure(tables, grid) for planned in figures.catalogue(grid).values()}


def render(found: Findings, grid: Grid, *, name: str, record: Mapping[str, Any], sources_changed: bool) -> str:
    """The report as Markdown; `record` is run.json."""
    environment = Environment(
        loader=PackageLoader("safety_spaces.evidence"),
        undefined=StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": _interval, "yes": _yes, "position": name_of}
    return environment.get_template("report.md.j2").render(
        found=found,
        grid=grid,
        name=name,
        figures=figures.catalogue(grid),
        say=sentences,
        stages=record.get("stages", {}),
        facts=_facts(record),
        sources_changed=sources_changed,
    )


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
