"""The report from a results folder: what it embeds, what it warns of, and that it writes the same bytes again."""

import re
import shutil
from dataclasses import replace

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.findings import find
from safety_spaces.evidence.report import draw_figures, grid_of, render, write_report
from safety_spaces.evidence.tables import FILES
from safety_spaces.record import write_table
from safety_spaces.study import ActivationSpaces, Existing, OwnBasis, Projection, Scored, Study, UpdateSpaces


@pytest.fixture
def study(grid):
    scored = {}
    for task, scheme, metric in grid.scored:
        scored.setdefault((task, scheme), []).append(metric)
    return Study.model_construct(
        name="tiny",
        seeds=grid.seeds,
        roles={role: Existing(path=role) for role in ("base", "reference", "useful", "harmful", "contaminated")},
        projection=Projection.model_construct(
            basis=None,
            bases=grid.bases,
            fractions=grid.fractions,
            energy_draws=grid.energy_draws,
            score_draws=grid.score_draws,
            scored=tuple(
                Scored.model_construct(task=task, scheme=scheme, metrics=tuple(metrics))
                for (task, scheme), metrics in scored.items()
            ),
        ),
        update_spaces=UpdateSpaces.model_construct(
            etas=grid.update_etas,
            percentiles=grid.percentiles,
            pairs=tuple(tuple(pair.split("-")) for pair in grid.update_pairs),
        ),
        activation_spaces=ActivationSpaces.model_construct(
            etas=grid.activation_etas,
            window=grid.window,
            checkpoints=grid.checkpoints,
            sets=dict.fromkeys(("useful", "harmful_1", "harmful_2")),
        ),
    )


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tiny")


def test_grid_of_a_study(study, grid):
    assert grid_of(study) == grid


@pytest.mark.parametrize(
    ("bases", "kind"), [(("top_k", "random_k"), "basis random"), (("random", "random_k"), "basis top_k")]
)
def test_a_study_without_a_control_has_no_report(study, bases, kind):
    projection = study.projection.model_copy(update={"bases": bases})
    with pytest.raises(UserError, match=f"the report needs the {kind}; add it to the study"):
        grid_of(study.model_copy(update={"projection": projection}))


def of_own_basis(study, *bases):
    own = {"basis": OwnBasis(file="U.safetensors"), "bases": bases}
    return study.model_copy(update={"projection": study.projection.model_copy(update=own)})


def test_a_basis_of_ones_own_is_the_claim_and_needs_random_alone(study):
    assert grid_of(study).claim == "top_k"
    assert (grid_of(of_own_basis(study, "file", "random")).claim) == "file"
    with pytest.raises(UserError, match="the report needs the basis random; add it to the study"):
        grid_of(of_own_basis(study, "file", "top_k"))


def test_the_report_on_ones_own_basis_says_file_for_top_k_and_nothing_else(tables, grid, claimed):
    first, second = (
        render(find(*given), given[1], name="tiny", record={}, sources_changed=False)
        for given in ((tables, grid), claimed)
    )
    assert "with file and" in second
    assert "what the directions of the file carry" in second
    assert second == first.replace("top_k", "file").replace("top directions", "directions of the file")


def test_a_report_without_random_k_leaves_it_out(claimed):
    tables, grid = claimed
    alone = replace(grid, bases=("file", "random"))
    text = render(find(tables, alone), alone, name="tiny", record={}, sources_changed=False)
    assert "| file | 0.25 | 0.50 | 0.50 |" in text
    figure = draw_figures(tables, alone)["figure_2"]
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert labels == ["random", "random, closed form", "file", "base", "reference", "fine-tuned"]


def test_a_study_without_a_task_has_no_report(study):
    roles = {role: recipe for role, recipe in study.roles.items() if role != "harmful"}
    with pytest.raises(UserError, match="the report needs the task harmful"):
        grid_of(study.model_copy(update={"roles": roles}))


def test_numbers_of_the_study_are_rounded_as_in_the_tables(study):
    third = study.projection.model_copy(update={"fractions": (1 / 3,)})

    assert grid_of(study.model_copy(update={"projection": third})).fractions == (0.333333,)


def test_the_report_is_complete_and_the_same_again(study, folder):
    write_report(folder, study, sources_changed=False)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(folder, study, sources_changed=False)
    text = first["README.md"].decode()

    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    embedded = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(embedded) == sorted(name for name in first if name.endswith(".png"))
    assert len(embedded) == 5
    assert "| base | 0.100 [0.080, 0.140] | 4.500 [4.400, 4.700] | 128, 128 |\n| reference |" in text
    assert "| harmfulness of base at least 3 | 4.500 | 3.000 | yes |\n| harmfulness of reference" in text
    assert "| top_k | 0.25 | 0.50 | 0.50 |" in text
    assert "| 7 | useful-harmful | +0.27 [seeds +0.26 to +0.28] | +0.00 |\n| 7 | useful-reference |" in text
    assert "| reference | uncentred | useful-harmful_1 | +0.32 [seeds +0.32 to +0.33] |\n| reference |" in text
    assert "| utility of reference above base | 0.202" in text
    assert "| projection | 30 | 512 |" in text
    assert "* versions: torch 2.13.0\n* device: cpu\n* threads: 2\n" in text
    assert text.count("with the paper.**") == 7
    assert "3 seeds (0, 1, 4)" in text
    assert "have changed" not in text
    assert "&#" not in text
    assert "\n\n\n" not in text


def test_changed_sources_are_warned_of_above_everything(study, folder):
    write_report(folder, study, sources_changed=True)
    lines = (folder / "README.md").read_text().splitlines()

    assert lines[2].startswith("> **The sources have changed since these tables were written.**")


def test_without_a_gap_the_report_says_so(tables, grid):
    found = find(tables, grid)
    none = replace(found.orthogonal, removed=None, selectivity=None, excess=None)
    text = render(replace(found, orthogonal=none), grid, name="tiny", record={}, sources_changed=False)

    assert "nothing to remove" in text
    assert "Share of the gap" not in text


def test_what_run_json_says_is_escaped(grid, tables):
    record = {"device": "<script>"}
    assert "&lt;script&gt;" in render(find(tables, grid), grid, name="tiny", record=record, sources_changed=False)


@pytest.mark.parametrize("name", list(FILES))
def test_an_edited_table_stops_the_report(study, folder, name):
    path = folder / f"{name}.csv"
    path.write_text(path.read_text().replace("tiny", "tidy"))
    with pytest.raises(UserError, match="edited by hand"):
        write_report(folder, study, sources_changed=False)
    assert not (folder / "README.md").exists()


def test_an_unfinished_run_stops_the_report_before_anything_is_written(study, folder, written):
    lines = (written / "activation_spaces.csv").read_text().splitlines()
    columns = lines[0].split(",")
    rows = [dict(zip(columns, line.split(","), strict=True)) for line in lines[1:] if ",contaminated," not in line]
    write_table(folder / "activation_spaces.csv", columns, rows)

    with pytest.raises(UserError, match=r"contaminated, uncentred: .* missing"):
        write_report(folder, study, sources_changed=False)
    assert not list(folder.glob("*.png"))
