"""The report of a study: README.md and report.html with figures, made from tables that nobody has edited.

It states what the tables hold and nothing else: no number is typed into a template, and the same tables, run record
and answers give the same bytes.
"""

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from safety_spaces.errors import UserError
from safety_spaces.evidence import figures
from safety_spaces.evidence.grid import Grid, grid_of
from safety_spaces.evidence.sections import (
    Answers,
    Picture,
    Section,
    Table,
    by_part,
    checkpoint_table,
    cost_section,
    premise_table,
    selectivity_table,
    verdict_table,
)
from safety_spaces.evidence.tables import FILES, Tables
from safety_spaces.store import write_atomically
from safety_spaces.study import Study

README, PAGE = "README.md", "report.html"


def write_report(
    study: Study,
    tables: Tables,
    *,
    verdicts: pd.DataFrame,
    premises: pd.DataFrame | None,
    selectivity: pd.DataFrame | None,
    record: Mapping[str, Any],
    folder: Path,
    sources_changed: bool = False,
    further: Sequence[Section] = (),
    answers: Sequence[Answers] = (),
    private: Path | None = None,
) -> list[Path]:
    """Write README.md, report.html and the figures (PNG, PDF) into `folder`, results/<study>/; return what is written.

    `verdicts`, `premises` and `selectivity` have the columns of the files of these names; None, or no row, where the
    study has none. `record` is run.json. `further` sections stand before how it was made. What the study promises and
    its tables lack is said in one line, and a figure of it that an earlier report drew is removed.

    Answers of a study with a world of its own stand in report.html. Those of real models are never written into
    `folder`: they go with the whole page into report.html of `private`, runs/<study>/, which git ignores.

    Raises:
        UserError: no table is there at all.
    """
    grid = grid_of(study)
    if all(getattr(tables, name) is None for name in FILES):
        command = FILES["energy"][1]
        raise UserError(f"{folder}: expected a table, found none; write one with `{command} STUDY.yaml`")
    drawn, undrawn = _draw(tables, grid, folder)
    sections = _sections(tables, drawn, verdicts, premises, selectivity)
    given = {
        "name": study.name,
        "opening": _opening(grid),
        "sections": [*sections, *further, cost_section(record)],
        "lacking": undrawn,
        "sources_changed": sources_changed,
        "real": study.world is None,
    }
    pages = {folder / README: ("report.md.j2", ()), folder / PAGE: ("report.html.j2", () if given["real"] else answers)}
    if given["real"] and answers and private is not None:
        pages[private / PAGE] = ("report.html.j2", answers)
    for path, (template, shown) in pages.items():
        write_atomically(path, render(template, answers=shown, **given).encode())
    return [*pages, *(folder / f"{name}.{ending}" for name in drawn for ending in ("png", "pdf"))]


def render(template: str, **given: Any) -> str:
    """One of the templates, escaped, with the look and the one script of the page, and that script's hash, at hand."""
    environment = Environment(
        loader=PackageLoader("safety_spaces.evidence"),
        undefined=StrictUndefined,
        autoescape=True,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = _cell
    look, script = (Markup(environment.get_template(name).render()) for name in ("page.css.j2", "page.js.j2"))
    digest = Markup(b64encode(sha256(script.encode()).digest()).decode())
    text = environment.get_template(template).render(look=look, script=script, digest=digest, **given)
    # Quotes are harmless where there are no attributes, and people read Markdown as it is written.
    return text.replace("&#39;", "'").replace("&#34;", '"') if template.endswith(".md.j2") else text


def _draw(tables: Tables, grid: Grid, folder: Path) -> tuple[dict[str, tuple[str, Picture]], dict[str, list[str]]]:
    """Draw what the tables hold: file -> its section and picture, and what is lacking by the reason why."""
    drawn: dict[str, tuple[str, Picture]] = {}
    undrawn: dict[str, list[str]] = {}
    for planned in figures.catalogue(grid).values():
        try:
            figure = planned.draw(tables, grid)
        except UserError as error:
            undrawn.setdefault(str(error), []).append(planned.title)
            for ending in ("png", "pdf"):
                (folder / f"{planned.file}.{ending}").unlink(missing_ok=True)
            continue
        figures.save(figure.figure, folder, planned.file)
        caption = f"{planned.title} ({planned.answers_to}). {figure.caption}"
        element = Markup(figures.svg(figure.figure, planned.file, title=planned.title))
        drawn[planned.file] = planned.section, Picture(planned.file, planned.title, caption, element)
    return drawn, undrawn


def _sections(
    tables: Tables,
    drawn: Mapping[str, tuple[str, Picture]],
    verdicts: pd.DataFrame,
    premises: pd.DataFrame | None,
    selectivity: pd.DataFrame | None,
) -> list[Section]:
    """Verdicts, the figures that matter, premises, then a section for each section of the paper."""
    pictures: dict[str, list[Picture]] = {}
    for part, picture in drawn.values():
        pictures.setdefault(part, []).append(picture)
    found = [
        None if premises is None else premise_table(premises),
        None if tables.projection is None else checkpoint_table(tables.projection),
    ]
    cells = None if selectivity is None else selectivity_table(selectivity)
    sections = [
        Section("Verdicts", (), (verdict_table(verdicts),)),
        Section("The figures that matter", (), (), tuple(pictures.pop("main", ()))),
        Section("Premises", (), _filled(*found)),
        *by_part(verdicts, pictures),
        Section("Selectivity of every cell", (), _filled(cells)),
    ]
    return [section for section in sections if _filled(*section.tables) or section.pictures]


def _filled(*tables: Table | None) -> tuple[Table, ...]:
    return tuple(table for table in tables if table is not None and table.rows)


def _opening(grid: Grid) -> str:
    seeds = ", ".join(map(str, grid.seeds))
    many = len(grid.seeds) > 1
    return (
        f"Numbers are means over {len(grid.seeds)} seeds ({seeds})." if many else f"Numbers are of one seed ({seeds})."
    )


def _cell(text: str) -> str:
    """A cell of a Markdown table, on one line and with its bars escaped."""
    return re.sub(r"[ \t\r\n]+", " ", text).strip().replace("|", "\\|")
