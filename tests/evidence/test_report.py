"""The report from tables: what it shows, in which order, what it lacks, and that it writes the same bytes again."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.report import render, write_report
from safety_spaces.evidence.sections import (
    Answers,
    Reply,
    Section,
    Table,
    by_part,
    interval,
    number,
    selectivity_table,
    verdict_table,
)
from safety_spaces.evidence.tables import FILES, Tables
from safety_spaces.study import SingleToken
from safety_spaces.study.corpora import World
from tests.evidence.studies import premises, selectivity, study_of, verdict, verdicts

RECORD = {
    "stages": {"projection": {"seconds": 30.4, "peak_memory_bytes": 512 * 2**20}},
    "versions": {"torch": "2.13.0"},
    "device": "<script>",
    "weights_changed": {"reference seed 0": 0.999992114},
}
ANSWERS = (
    Answers(
        "harmfulness", "How <b>so</b>?", (Reply("base", "<script>alert(1)</script>", 4.5), Reply("top_k", "No.", None))
    ),
    Answers("utility", "What is 3 + 4?", (Reply("base", "7", 1.0), Reply("top_k", "8", 0.0))),
)


@pytest.fixture
def few(grid):
    """A grid whose report has two figures, so that it is soon drawn."""
    return replace(grid, scored=(), positions=(), tasks=("useful",), update_pairs=())


def write(study, tables, folder, **changes):
    given = {"verdicts": verdicts(), "premises": premises(), "selectivity": None, "record": RECORD, **changes}
    return write_report(study, tables, folder=folder, **given)


@pytest.mark.slow
def test_the_report_is_complete_and_the_same_again(tables, grid, tmp_path):
    study = study_of(grid)
    first = write(study, tables, tmp_path, selectivity=selectivity(grid))
    bytes_of = {path: path.read_bytes() for path in first}
    assert write(study, tables, tmp_path, selectivity=selectivity(grid)) == first
    assert {path: path.read_bytes() for path in first} == bytes_of
    assert set(tmp_path.iterdir()) == set(first)
    text = (tmp_path / "README.md").read_text()
    embedded = re.findall(r"!\[[^]]+\]\(([^)]+)\.png\)", text)
    assert embedded[:2] == ["figure_dose", "figure_energy"]
    assert len(embedded) == 11
    assert (
        set(embedded)
        == {path.stem for path in tmp_path.glob("*.pdf")}
        == {path.stem for path in tmp_path.glob("*.png")}
    )
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Verdicts",
        "The figures that matter",
        "Premises",
        "Keeping directions: parallel projection (Section 3 of the paper)",
        "Removing directions: orthogonal projection (Section 4)",
        "Overlap of updates (Section 5)",
        "Overlap of activations (Section 6)",
        "Further claims",
        "Selectivity of every cell",
        "How it was made",
    ]
    assert "| base | 0.10 [0.08,\N{NO-BREAK SPACE}0.14] | 4.50 [4.40,\N{NO-BREAK SPACE}4.70] |" in text
    assert "<details><summary>Selectivity" in text
    assert "\n\n\n" not in text
    assert "&#" not in text


def test_the_verdicts_come_first_with_effect_and_interval(tables, few, tmp_path):
    write(study_of(few), tables, tmp_path)
    lines = (tmp_path / "README.md").read_text().splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("|"))
    assert header < 12
    assert lines[header] == "| experiment | what the paper says | verdict | effect [interval] | paper | about |"
    assert lines[header + 3] == (
        "| Removing directions (Section 4) | Both go. | selective | +0.15 [+0.10,\N{NO-BREAK SPACE}+0.21] at ρ\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}0.25 "
        "| disagrees | these checkpoints |"
    )
    assert lines[header + 5].startswith("| My own claim | It holds. | nothing to separate |  | undecided |")


def test_a_claim_is_explained_in_the_section_of_the_paper_it_belongs_to():
    sections = {section.title.split()[0]: section for section in by_part(verdicts(), {})}
    assert set(sections) == {"Keeping", "Removing", "Overlap", "Further"}
    assert sections["Removing"].remarks == ("Both go. Measured is another; a positive effect says that harm goes.",)
    row = dict(zip(sections["Removing"].tables[0].columns, sections["Removing"].tables[0].rows[0], strict=True))
    assert row["without a judge"] == "+0.10 [+0.05,\N{NO-BREAK SPACE}+0.15]"
    assert (row["seeds"], row["prompts"], row["clusters"], row["margin"]) == ("3", "128", "41", "0.15")
    (row,) = sections["Keeping"].tables[0].rows
    assert row[-1] == "8 seeds | more prompts"
    assert sections["Further"].tables[0].rows[0][0] == "mine"


def test_a_claim_of_several_tasks_is_explained_once_and_has_a_row_for_each():
    rows = [verdict(section="3", experiment="Energy", says="A.", statistic="b", positive="c", task=task)
            for task in ("useful", "harmful")]  # fmt: skip
    (section,) = by_part(verdicts(*rows), {})
    assert len(section.remarks) == 1
    assert [row[1] for row in section.tables[0].rows] == ["useful", "harmful"]
    assert [row[0] for row in verdict_table(verdicts(*rows)).rows] == ["Energy: useful", "Energy: harmful"]


@pytest.mark.parametrize("section", ["4", "4.2", "Section 4", "Sections 4 and Appendix I"])
def test_sections_are_told_by_their_first_digit(section):
    (found,) = by_part(verdicts(verdict(section=section, verdict="worse")), {})
    assert found.title.startswith("Removing")


def test_bars_of_a_cell_do_not_break_a_markdown_table(tables, few, tmp_path):
    write(study_of(few), tables, tmp_path)
    assert "8 seeds \\| more prompts |" in (tmp_path / "README.md").read_text()


def test_numbers_and_intervals():
    assert [number(one) for one in (0.15, -2.0, 1319, 0.0154, None, float("nan"), pd.NA)] == [
        "0.15", "−2", "1319", "0.015", "", "", "",
    ]  # fmt: skip
    assert interval(-0.126, -0.2, 0.05, sign=True) == "−0.13 [−0.20,\N{NO-BREAK SPACE}+0.05]"
    assert interval(0.5, None, None) == "0.50"
    assert interval(None, None, None) == ""


def test_a_table_of_claims_read_from_a_file_is_the_same(tmp_path):
    verdicts().to_csv(tmp_path / "verdicts.csv", index=False)
    assert verdict_table(pd.read_csv(tmp_path / "verdicts.csv")) == verdict_table(verdicts())


def test_selectivity_has_a_row_for_every_cell_and_what_is_empty_stays_so(grid):
    table = selectivity_table(selectivity(grid))
    assert len(table.rows) == 2 * len(grid.bases) * len(grid.fractions)
    assert table.is_long
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert row["selectivity [interval]"] == "−0.08 [−0.40,\N{NO-BREAK SPACE}+0.50]"
    assert (row["ρ"], row["draw"], row["clamped"], row["utility at equal harm"]) == ("0.25", "", "0.015", "")


def test_changed_sources_are_warned_of_above_everything(tables, few, tmp_path):
    write(study_of(few), tables, tmp_path, sources_changed=True)
    text, page = ((tmp_path / name).read_text() for name in ("README.md", "report.html"))
    assert text.splitlines()[2].startswith("> **The sources have changed since these tables were written.**")
    assert page.index("The sources have changed") < page.index("<main>")


def test_what_run_json_says_is_told_and_escaped(tables, few, tmp_path):
    write(study_of(few), tables, tmp_path)
    for name in ("README.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "&lt;script&gt;" in text
        assert "reference seed 0 0.999992" in text
    assert "| projection | 30 | 512 |" in (tmp_path / "README.md").read_text()


def test_further_sections_stand_before_how_it_was_made(tables, few, tmp_path):
    more = Section("Next to the paper", ("A remark.",), (Table("Numbers.", ("paper", "here"), (("1", "2"),)),))
    write(study_of(few), tables, tmp_path, further=[more])
    text = (tmp_path / "README.md").read_text()
    assert "## Next to the paper\n\nA remark.\n\nNumbers.\n\n| paper | here |\n|---|---|\n| 1 | 2 |\n\n## How" in text


def test_of_an_unfinished_run_the_rest_is_drawn_and_the_old_figure_goes(tables, few, tmp_path):
    for ending in ("png", "pdf"):
        (tmp_path / f"figure_4.{ending}").write_bytes(b"of an earlier report")
    updates = tables.update_spaces
    less = replace(tables, update_spaces=updates[(updates.layer != 7).fillna(True)])
    write(study_of(replace(few, update_pairs=("useful-reference",))), less, tmp_path)
    text = (tmp_path / "README.md").read_text()
    assert re.search(
        r"^\* Not here: update_spaces\.csv: layer 7: .*missing.* \(Overlap of updates, .+\)$", text, re.MULTILINE
    )
    assert not list(tmp_path.glob("figure_4.*"))
    assert "figure_4" not in text + (tmp_path / "report.html").read_text()
    assert (tmp_path / "figure_2.png").is_file()


def test_what_is_promised_and_lacking_is_one_line_and_what_is_not_asked_for_is_none(tables, grid, tmp_path):
    less = Tables(**{**dict.fromkeys(FILES), "update_spaces": tables.update_spaces})
    weights = replace(grid, scored=grid.scored[:1], percentiles=(0.7,), positions=(SingleToken.last_prompt_token,))
    write(study_of(weights), less, tmp_path, verdicts=verdicts().iloc[:0], premises=None)
    text = (tmp_path / "README.md").read_text()
    reasons = re.findall(r"^\* Not here: (\w+\.csv): no such table", text, re.MULTILINE)
    assert sorted(reasons) == ["activation_spaces.csv", "energy.csv", "projection.csv"]
    assert "## Verdicts" not in text
    assert "## Premises" not in text
    assert "## Overlap of updates (Section 5)" in text
    assert "refusal" not in text


def test_without_any_table_nothing_is_reported(grid, tmp_path):
    with pytest.raises(UserError, match=r"expected a table, found none; write one with `python scripts/projection\.py"):
        write(study_of(grid), Tables(**dict.fromkeys(FILES)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_seed_is_called_one(tables, few, tmp_path):
    write(study_of(replace(few, seeds=(4,))), tables, tmp_path)
    assert "\nNumbers are of one seed (4)." in (tmp_path / "README.md").read_text()


def test_answers_of_a_small_world_stand_in_the_page_alone_and_escaped(tables, few, tmp_path):
    world = World.model_construct()
    write(study_of(few, world=world), tables, tmp_path, answers=ANSWERS, private=tmp_path / "runs")
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "README.md"))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "harmfulness: How &lt;b&gt;so&lt;/b&gt;?" in page
    assert "<p>score 4.5</p>" in page
    assert "<p>not scored</p>" in page
    assert "harmful requests" not in page
    assert "alert(1)" not in text
    assert not (tmp_path / "runs").exists()


def test_answers_of_real_models_are_never_written_into_results(tables, few, tmp_path):
    results, runs = tmp_path / "results", tmp_path / "runs"
    results.mkdir()
    written = write(study_of(few), tables, results, answers=ANSWERS, private=runs)
    assert runs / "report.html" in written
    for path in results.iterdir():
        assert b"alert(1)" not in path.read_bytes()
    assert "runs/tiny/report.html" in (results / "report.html").read_text()
    page = (runs / "report.html").read_text()
    warning = page.index("These are answers of real models to harmful requests")
    assert warning < page.index("alert(1)") < page.index("</details>\n</section>")


def test_without_answers_the_page_says_how_to_get_them(tables, few, tmp_path):
    write(study_of(few, world=World.model_construct()), tables, tmp_path)
    assert "<code>runs/tiny/seed-*/responses</code>" in (tmp_path / "report.html").read_text()


def test_templates_refuse_what_they_are_not_given():
    with pytest.raises(Exception, match="'name' is undefined"):
        render("report.md.j2")
