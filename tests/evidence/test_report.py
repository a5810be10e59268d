"""The report from a results folder: what it embeds, what it warns of, and that it writes the same bytes again."""

import csv
import re
import shutil
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.intervals import Estimate
from safety_spaces.evidence.figures import catalogue
from safety_spaces.evidence.findings import find
from safety_spaces.evidence.findings.paper import Line, PaperFinding
from safety_spaces.evidence.grid import grid_of
from safety_spaces.evidence.overlaps import layer_overlap
from safety_spaces.evidence.report import draw_figures, render, write_report
from safety_spaces.evidence.tables import FILES
from safety_spaces.record import write_table
from safety_spaces.study import (
    ActivationSpaces,
    Evaluation,
    Existing,
    Harmfulness,
    KeywordJudge,
    OwnBasis,
    Projection,
    RubricJudge,
    Scored,
    ServiceJudge,
    Study,
    UpdateSpaces,
)

SETS = ("useful", "harmful_1", "harmful_2")


def judged_by(judge):
    return Evaluation.model_construct(harmfulness=Harmfulness.model_construct(judge=judge))


def study_of(grid):
    """The study that promises what a grid says."""
    scored = [((task, scheme), {}, metric) for task, scheme, metric in grid.scored]
    scored += [
        ((line.task, line.scheme), {"layers": line.layers, "others": line.others}, line.metric)
        for line in grid.single_layers
    ]
    updates = UpdateSpaces.model_construct(
        etas=grid.update_etas,
        percentiles=grid.percentiles,
        pairs=tuple(tuple(pair.split("-")) for pair in grid.update_pairs),
    )
    sets = ("useful", "refusal", "harmful_1", "harmful_2") if len(grid.activation_pairs) > 3 else SETS
    return Study.model_construct(
        name="tiny",
        model="llama",
        reference_kind="aligned",
        seeds=grid.seeds,
        roles={role: Existing(path=role) for role in ("base", "reference", "useful", "harmful", "contaminated")},
        projection=Projection.model_construct(
            basis=None,
            bases=grid.bases,
            fractions=grid.fractions,
            energy_draws=grid.energy_draws,
            score_draws=grid.score_draws,
            scored=tuple(
                Scored.model_construct(task=task, scheme=scheme, metrics=(metric,), **layers)
                for (task, scheme), layers, metric in scored
            ),
        ),
        update_spaces=updates if grid.update_pairs else None,
        activation_spaces=ActivationSpaces.model_construct(
            positions=grid.positions,
            etas=grid.activation_etas,
            window=grid.window,
            checkpoints=grid.checkpoints,
            sets=dict.fromkeys(sets),
        ),
        evaluation=judged_by(RubricJudge()),
    )


@pytest.fixture
def study(grid):
    return study_of(grid)


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "tiny")


def test_grid_of_a_study(study, grid):
    assert grid_of(study) == grid


def test_grid_of_a_study_of_appendices(appendices):
    assert grid_of(study_of(appendices)) == appendices


@pytest.mark.parametrize(
    ("judge", "published"),
    [
        (ServiceJudge.model_construct(published_rubric=True), True),
        (ServiceJudge.model_construct(published_rubric=False), False),
        (KeywordJudge(kind="keywords"), False),
    ],
)
def test_harmfulness_is_on_the_scale_of_the_paper_under_its_rubric_alone(study, judge, published):
    assert grid_of(study.model_copy(update={"evaluation": judged_by(judge)})).published_rubric is published


def of_own_basis(study, *bases):
    own = {"basis": OwnBasis(file="U.safetensors"), "bases": bases}
    return study.model_copy(update={"projection": study.projection.model_copy(update=own)})


def test_a_basis_of_ones_own_is_the_claim(study):
    assert grid_of(study).claim == "top_k"
    assert (grid_of(of_own_basis(study, "file", "random")).claim) == "file"


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
    figure = draw_figures(tables, alone)[0]["figure_2"]
    labels = [entry.get_text() for entry in figure.legends[0].get_texts()]
    assert labels == ["random", "random, closed form", "file", "base", "reference", "fine-tuned"]


def test_numbers_of_the_study_are_rounded_as_in_the_tables(study):
    third = study.projection.model_copy(update={"fractions": (1 / 3,)})

    assert grid_of(study.model_copy(update={"projection": third})).fractions == (0.333333,)


@pytest.mark.slow
def test_the_report_is_complete_and_the_same_again(study, folder):
    write_report(folder, study, sources_changed=False)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_report(folder, study, sources_changed=False)
    text = first["README.md"].decode()

    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    embedded = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(embedded) == sorted(name for name in first if name.endswith(".png"))
    assert len(embedded) == 9
    assert "| base | 0.100 [0.080, 0.140] | 4.500 [4.400, 4.700] | 128, 128 |\n| reference |" in text
    assert "| harmfulness of base at least 3 | 4.500 | 3.000 | yes |\n| harmfulness of reference" in text
    assert "| top_k | 0.25 | 0.50 | 0.50 |" in text
    assert "| 7 | useful-harmful | +0.27 [seeds +0.26 to +0.28] | +0.00 |\n| 7 | useful-reference |" in text
    assert "| reference | uncentred | useful-harmful_1 | +0.32 [seeds +0.32 to +0.33] |\n| last prompt token |" in text
    assert "| utility of reference above base | 0.202" in text
    assert "| projection | 30 | 512 |" in text
    assert "* versions: torch 2.13.0\n* device: cpu\n* threads: 2\n" in text
    assert text.count("with the paper.**") == 10
    assert "3 seeds (0, 1, 4)" in text
    assert "have changed" not in text
    assert "Next to the paper" not in text
    assert "&#" not in text
    assert "\n\n\n" not in text


def test_changed_sources_are_warned_of_above_everything(tables, grid):
    lines = render(find(tables, grid), grid, name="tiny", record={}, sources_changed=True).splitlines()

    assert lines[2].startswith("> **The sources have changed since these tables were written.**")


def test_without_a_gap_the_report_says_so(tables, grid):
    found = find(tables, grid)
    none = replace(found.orthogonal, removed=None, selectivity=None, excess=None)
    text = render(replace(found, orthogonal=none), grid, name="tiny", record={}, sources_changed=False)

    assert "nothing to remove" in text
    assert "Share of the gap" not in text


HARM = "| harmfulness | harmful | random | 0.99 | 1.95 | 3.976 [3.876, 4.176] |"


@pytest.mark.parametrize(
    ("published", "harm", "compared"),
    [
        (True, f"{HARM} +2.026 | **no** |\n", "Harmfulness: the number of the paper"),
        (False, f"{HARM}  |  |\n", "Harmfulness is not judged by the rubric of the paper"),
    ],
)
def test_a_study_of_the_paper_stands_next_to_it(tables, grid, published, harm, compared):
    of_paper = replace(grid, model="qwen2.5-1.5b", published_rubric=published)
    found = find(tables, of_paper)
    without, text = (
        render(one, of_paper, name="tiny", record={}, sources_changed=False)
        for one in (replace(found, paper=None), found)
    )
    before, section, after = re.split(r"(?s)(## Next to the paper\n.*?)(?=## How)", text)

    assert before + after == without
    assert section.endswith("|\n\n")
    assert harm in section
    assert compared in section
    assert section.count("\n| utility | ") == 34
    assert section.count("\n| harmfulness | ") == 34
    assert "| utility | base | none |  | 0.21 | 0.100 [0.080, 0.140] | -0.110 | **no** |\n| harm" in section
    assert "| utility | useful | top_k | 0.25 | 0.53 | 0.402 [0.382, 0.442] | -0.128 | **no** |" in section
    assert "&#" not in section
    assert "\n\n\n" not in text


def test_what_stands_next_to_the_paper_is_escaped(tables, grid):
    line = Line("<b>", "<i>", 0.5, "utility", Decimal("0.50"), Estimate(0.5, 0.4, 0.6, 7), True)
    found = replace(find(tables, grid), paper=PaperFinding((line,), ()))
    text = render(found, grid, name="tiny", record={}, sources_changed=False)

    assert "| utility | &lt;b&gt; | &lt;i&gt; | 0.5 | 0.50 | 0.500 [0.400, 0.600] | +0.000 | yes |\n" in text
    assert "(&lt;b&gt;, &lt;i&gt;, 0.5)" in text
    assert "<b>" not in text


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


def rewritten(folder, name, keep, **changes):
    """Write a table again as an experiment would, without the rows that are not kept, and with others changed."""
    rows = []
    for row in csv.DictReader((folder / f"{name}.csv").read_text().splitlines()):
        if keep(row):
            rows.append(dict(row) | {column: change(row) for column, change in changes.items()})
    write_table(folder / f"{name}.csv", list(rows[0]), rows)


def test_of_an_unfinished_run_the_rest_is_drawn(study, folder):
    (folder / "figure_5.png").write_bytes(b"of an earlier report")
    rewritten(folder, "activation_spaces", lambda row: row["checkpoint"] != "contaminated")
    found = write_report(folder, study, sources_changed=False)
    text = (folder / "README.md").read_text()
    assert set(found.lacking) == {"activations", "states"}
    reason = found.lacking["activations"]
    assert reason.startswith("activation_spaces.csv: contaminated, uncentred, last prompt token: ")
    assert reason.endswith("run that experiment again")
    assert "*figure_5.png is not here, as said above*" in text
    assert f"* Not here: {reason} (activations, figure_5.png" in text
    assert {path.stem for path in folder.glob("*.png")} == {
        "figure_2", "figure_3", "figure_3_parallel", "figure_4", "figure_10",
    }  # fmt: skip
    assert text.count("with the paper.**") > 3


@pytest.mark.parametrize(
    ("there", "drawn", "commands"),
    [
        ({"energy", "update_spaces"}, {"figure_2", "figure_3", "figure_4", "figure_10"},
         {"projection": "scripts/projection.py", "activation_spaces": "exp-4-activation_spaces/activation_space.py"}),
        ({"projection"}, {"figure_2", "figure_3", "figure_3_parallel"},
         {"energy": "scripts/projection.py", "update_spaces": "exp-3-update_spaces/update_spaces.py"}),
    ],
)  # fmt: skip
def test_of_the_tables_that_are_there_the_report_draws_what_it_can(study, folder, there, drawn, commands):
    for name in set(FILES) - there:
        (folder / f"{name}.csv").unlink()
    write_report(folder, study, sources_changed=False)
    text = (folder / "README.md").read_text()
    assert {path.stem for path in folder.glob("*.png")} == drawn
    assert set(re.findall(r"!\[[^]]+\]\((.+)\.png\)", text)) == drawn
    for name, command in commands.items():
        line = f"* Not here: {name}.csv: no such table; write it with `python {command} STUDY.yaml` ("
        assert (
            text.count(f"{name}.csv: no such table") == len(re.findall(f"^{re.escape(line)}", text, re.MULTILINE)) == 1
        )
    # What the study does not ask for is not missing.
    assert not {"paper", "general ability", "over refusal"} & set(re.findall(r"[a-z][a-z ]+(?=[,)])", text))
    assert ("## Checkpoints" in text) == ("projection" in there)
    assert "\n\n\n" not in text


def test_without_any_table_nothing_is_reported(study, tmp_path):
    with pytest.raises(UserError, match=r"expected a table, found none; write one with `python scripts/projection\.py"):
        write_report(tmp_path, study, sources_changed=False)
    assert not list(tmp_path.iterdir())


def test_a_study_of_weights_promises_no_scores_and_no_activations(study, folder):
    roles = {role: study.roles[role] for role in ("base", "reference")} | {"mine": Existing(path="mine")}
    alone = study.model_copy(
        update={
            "roles": roles,
            "projection": study.projection.model_copy(update={"scored": ()}),
            "update_spaces": study.update_spaces.model_copy(update={"pairs": None}),
            "activation_spaces": None,
            "evaluation": None,
        }
    )
    (folder / "projection.csv").unlink()
    (folder / "activation_spaces.csv").unlink()
    rewritten(folder, "energy", lambda row: row["task"] == "useful", task=lambda _: "mine")
    rewritten(folder, "update_spaces", lambda row: row["pair"] == "useful-reference", pair=lambda _: "mine-reference")
    found = write_report(folder, alone, sources_changed=False)
    text = (folder / "README.md").read_text()
    assert not found.lacking
    assert {path.stem for path in folder.glob("*.png")} == {"figure_2", "figure_4", "figure_10"}
    assert "of the mine update top_k keeps 0.51 at fraction 0.5" in text
    assert "One pair of updates alone is compared, so none is closest; all pairs overlap above chance." in text
    assert "| 7 | mine-reference | +" in text
    for absent in ("Not here", "Checkpoints", "Experiment 4", "closest pair", "\n\n\n"):
        assert absent not in text


def test_one_fine_tuned_model_has_its_premises_and_its_lines(tables, grid):
    single = replace(
        grid,
        tasks=("harmful",),
        scored=(("harmful", "parallel", "harmfulness"),),
        update_pairs=("harmful-reference",),
        checkpoints=(),
        positions=(),
        model="qwen2.5-1.5b",
    )
    found = find(tables, single)
    assert not found.lacking
    assert set(found.premises.scores) == {"base", "reference", "harmful"}
    assert {target.wording.split()[2] for target in found.premises.targets} == {"base", "reference", "harmful"}
    assert {line.task for line in found.paper.lines} == {"base", "reference", "harmful"}
    figures, undrawn = draw_figures(tables, single)
    assert (set(figures), undrawn) == ({"figure_2", "figure_4", "figure_10"}, {})
    assert [axes.get_title() for axes in figures["figure_2"].axes] == [
        "harmful: energy kept", "harmful, parallel: harmfulness",
    ]  # fmt: skip
    assert "Experiment 2, parallel" in render(found, single, name="tiny", record={}, sources_changed=False)


def test_a_model_that_nobody_could_score_is_a_gap_and_no_mean_of_others(tables, grid):
    table = tables.projection.copy()
    gone = (table.task == "harmful") & (table.basis == "top_k") & (table.fraction == 0.5) & (table.seed == 1)
    table.loc[gone, ["value", "ci_low", "ci_high"]] = float("nan")
    less = replace(tables, projection=table)
    found, figure = find(less, grid), catalogue(grid)["figure_2"].figure(less, grid)
    assert found.lacking["parallel"].endswith(
        "of harmful, parallel, top_k: value is empty in 1 cells; see to the judge, which scored none of the answers"
    )
    assert found.orthogonal is not None
    (line,) = [one for one in figure.axes[3].lines if one.get_label() == "top_k"]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False, False]


def test_layers_that_no_training_touched_are_left_out(tables, grid):
    updates = tables.update_spaces.copy()
    updates.loc[updates.layer.isin([2, 7]), ["mso", "mso_chance"]] = float("nan")
    less = replace(tables, update_spaces=updates)
    found = find(less, grid)
    assert not found.lacking
    assert {overlap.layer for overlap in found.updates.overlaps} == {8}
    one = tables.update_spaces.assign(cosine=0.5)
    untouched = (one.layer == 1) & (one.tensor == one[one.layer == 1].tensor.iloc[0])
    one.loc[untouched, ["mso", "mso_chance", "cosine"]] = [float("nan"), float("nan"), 0.0]
    assert layer_overlap(one, grid, layer=1).cosine.dropna().eq(0.5).all()
    assert found.layerwise.layers == 8
    titles = [axes.get_title() for axes in catalogue(grid)["figure_10"].figure(less, grid).axes]
    assert titles[1:3] == ["layer 1", "layer 2, no update"]


@pytest.mark.slow
def test_the_report_on_appendices_has_their_sections_alone_and_needs_no_overlap_of_updates(appendices, folder):
    (folder / "update_spaces.csv").unlink()
    found = write_report(folder, study_of(appendices), sources_changed=False)
    text = (folder / "README.md").read_text()

    assert (found.updates, found.orthogonal, found.parallel, found.energy) == (None, None, (), ())
    embedded = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert sorted(embedded) == sorted(path.name for path in folder.glob("*.png"))
    assert {re.search(r"Appendix [IJK.0-9]+", line).group() for line in text.splitlines() if "(Appendix" in line} == {
        "Appendix I", "Appendix J", "Appendix K.1", "Appendix K.2", "Appendix K.3",
    }  # fmt: skip
    assert "Experiment 2" not in text
    assert "Experiment 3" not in text
    assert "### At the last generated token" in text
    assert "| prompt tokens 0 to 7, stacked | reference | uncentred | -0.03 [seeds" in text
    assert "| [Parallel projection of single layers](figure_18.png) | answers to Figure 18 of the paper |" in text
    assert "| last prompt token | useful | centred | refusal-harmful_2 |" in text
    assert "| 9 | out | +0.93" in text
    assert "useful-refusal" not in text
    assert "&#" not in text
    assert "\n\n\n" not in text


def test_one_seed_claims_no_agreement(tables, grid, appendices):
    for one in (replace(grid, seeds=(1,)), replace(appendices, seeds=(4,))):
        text = render(find(tables, one), one, name="tiny", record={}, sources_changed=False)
        assert f"All numbers are of one seed ({one.seeds[0]}): whether another training would agree" in text
        assert "[seeds" not in text
        assert "every seed" not in text
        assert "in the one seed" in text


def test_a_section_whose_lines_are_promised_must_be_complete(tables, appendices):
    for column, value in (("layers", "3"), ("metric", "general_ability"), ("others", "out")):
        less = replace(tables, projection=tables.projection[tables.projection[column] != value])
        assert any("missing" in reason for reason in find(less, appendices).lacking.values())


def test_lines_of_one_scheme_have_its_section_alone(tables, appendices):
    parallel = replace(appendices, single_layers=appendices.single_layers[:2], scored=appendices.scored[:1])
    text = render(find(tables, parallel), parallel, name="tiny", record={}, sources_changed=False)
    assert "figure_18" in text
    assert "figure_19" not in text
    assert "figure_20" in text
    assert "figure_21" not in text
    utility = replace(appendices, single_layers=appendices.single_layers[2:3])
    text = render(find(tables, utility), utility, name="tiny", record={}, sources_changed=False)
    assert "figure_19" in text
    assert "Share of the contaminated gap" not in text
