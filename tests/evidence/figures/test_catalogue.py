"""The catalogue: files by the paper's numbers, what each answers to, and nothing that the study does not have."""

from dataclasses import replace
from itertools import combinations

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from safety_spaces.evidence.figures import catalogue

NEW = {"figure_dose": "not in the paper", "figure_energy": "not in the paper"}
MAIN = {
    "figure_2": "Figures 2 and 6",
    "figure_3": "Figures 3 and 7",
    "figure_3_parallel": "Tables 2 and 5",
    "figure_4": "Figure 4",
    "figure_5": "Figures 5 and 9",
    "figure_10": "Figures 10 to 14",
    "figure_22": "Figure 22",
    "figure_23": "Figure 23",
    "figure_24": "Figure 24",
}


def answers(grid):
    return {planned.file: planned.answers_to for planned in catalogue(grid).values()}


def test_the_figures_that_matter_come_first(grid):
    assert [*catalogue(grid)][:3] == ["figure_dose", "figure_energy", "figure_2"]
    assert [planned.section for planned in catalogue(grid).values()][:4] == ["main", "main", "3", "4"]


def test_a_study_that_scores_no_task_for_both_outcomes_has_no_figure_of_doses(grid):
    assert "figure_dose" not in catalogue(replace(grid, scored=grid.scored[:3]))
    assert "figure_dose" in catalogue(replace(grid, scored=grid.scored[:4]))


def test_a_study_of_weights_alone_has_energies(grid):
    found = catalogue(replace(grid, scored=(), single_layers=()))
    assert {key for key in found if found[key].section in ("main", "3")} == {"figure_energy", "figure_2"}


def test_the_main_figures(grid):
    assert answers(grid) == NEW | {file: f"answers to {item} of the paper" for file, item in MAIN.items()}


def test_a_dpo_reference_has_the_numbers_of_its_appendix(grid):
    found = answers(replace(grid, reference_kind="dpo"))

    for file, item in (("figure_15", "Figure 15"), ("figure_16", "Figure 16"), ("figure_17", "Figure 17")):
        assert found.pop(file) == f"answers to {item} of the paper"
    assert set(found) == {*MAIN, *NEW} - {"figure_2", "figure_3", "figure_10"}
    assert found["figure_5"] == "drawn like Figures 5 and 9 of the paper, which shows no DPO reference there"


def test_a_safety_tuned_reference_has_figure_8(grid):
    found = answers(replace(grid, reference_kind="safety_tuned"))

    assert found["figure_8"] == "answers to Figure 8 of the paper"
    assert "figure_4" not in found
    assert found["figure_10"].endswith("which shows no safety-tuned reference there")


@pytest.mark.parametrize(
    ("model", "number"),
    [("qwen2.5-1.5b", 10), ("qwen2.5-3b", 11), ("qwen2.5-7b", 12), ("llama-3.2-1b", 13), ("llama-2-7b", 14)],
)
def test_a_model_of_the_paper_has_its_own_figure(grid, model, number):
    of_paper = answers(replace(grid, model=model))
    assert of_paper["figure_10"] == f"answers to Figure {number} of the paper"
    shown = "answers to Figure 22 of the paper"
    not_shown = "drawn like Figure 22 of the paper, which shows no such model there"
    assert of_paper["figure_22"] == (shown if model == "qwen2.5-1.5b" else not_shown)


def test_dpo_of_another_model_keeps_the_file(grid):
    found = answers(replace(grid, model="llama-2-7b", reference_kind="dpo"))
    assert found["figure_15"] == "drawn like Figure 15 of the paper, which shows no such model there"


def test_the_figures_of_the_appendices(appendices):
    found = answers(appendices)
    numbers = (18, 19, 20, 21, 22, 23, 24, 25, 26)

    assert set(found) == {
        *(f"figure_{number}" for number in numbers), "figure_5", "figure_5_last_generated_token", "figure_25_centred",
        "figure_energy",
    }  # fmt: skip
    assert all(found[f"figure_{number}"] == f"answers to Figure {number} of the paper" for number in numbers)


def test_pairs_have_the_numbers_of_what_they_compare_in_any_order(grid):
    pairs = ("harmful_1-harmful_2", "harmful_1-useful", "harmful_2-useful", "harmful_1-harmful_3")
    found = catalogue(replace(grid, activation_pairs=pairs))
    assert {
        key: planned.title for key, planned in found.items() if key[:9] in ("figure_22", "figure_23", "figure_24")
    } == {
        "figure_22": "Overlap at every state: harmful_1 – useful",
        "figure_23": "Overlap at every state: harmful_2 – useful",
        "figure_24": "Overlap at every state: harmful_1 – harmful_2",
        "figure_24_harmful_1-harmful_3": "Overlap at every state: harmful_1 – harmful_3",
    }


LONG = {"useful": "mathematics_of_the_seventh_grade", "harmful": "a_task_with_a_name_of_its_own"}
STUDIES = {
    "main": lambda grid, appendices: grid,
    "appendices": lambda grid, appendices: appendices,
    # One panel, and the longest notes.
    "narrow": lambda grid, appendices: replace(
        grid, model="qwen2.5-1.5b", reference_kind="dpo", percentiles=(0.7,), scored=grid.scored[3:4],
        checkpoints=("reference",), tasks=("contaminated",),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_no_text_of_any_figure_is_cut_and_captions_say_what_is_drawn(tables, grid, appendices, study):
    grid = STUDIES[study](grid, appendices)
    for planned in catalogue(grid).values():
        drawn = planned.draw(tables, grid)
        check_nothing_is_cut(drawn.figure, planned.file)
        assert "3 seeds" in drawn.caption, planned.file
        assert drawn.caption.endswith("."), planned.file


def check_nothing_is_cut(figure, name):
    """Every text lies on the canvas, no title or label lies on another, and the legend on none of them."""
    FigureCanvasAgg(figure).draw()
    # Ticks beyond the axes are made and not drawn.
    ticks = {label for axes in figure.axes for label in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible() and text not in ticks]
    assert len(texts) >= 4
    assert figure.get_figwidth() == 5.5
    assert {text.get_fontsize() for text in texts} == {8}
    for text in texts:
        box = text.get_window_extent()
        inside = (
            figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1
            and figure.bbox.y0 <= box.y0 <= box.y1 <= figure.bbox.y1
        )
        assert inside, (name, text.get_text())
    named = [
        text
        for axes in figure.axes
        for text in (axes.title, axes.xaxis.label, axes.yaxis.label)
        if text.get_text() and text.get_visible()
    ]
    for first, second in combinations(named, 2):
        assert not touch(first, second), (name, first.get_text(), second.get_text())
    for legend in figure.legends:
        for text in named:
            assert not touch(legend, text), (name, text.get_text())


def touch(first, second):
    """Whether two boxes overlap by more than a pixel."""
    a, b = first.get_window_extent(), second.get_window_extent()
    return min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1


def test_long_names_are_broken(tables, grid):
    renamed = {name: getattr(tables, name).replace({"task": LONG}) for name in ("projection", "energy")}
    renamed["update_spaces"] = tables.update_spaces.replace(LONG, regex=True)
    pairs = tuple(
        pair.replace("useful", LONG["useful"]).replace("harmful", LONG["harmful"]) for pair in grid.update_pairs
    )
    own = replace(grid, tasks=tuple(LONG.values()), scored=(), update_pairs=pairs)
    for key in ("figure_2", "figure_energy", "figure_4", "figure_10"):
        check_nothing_is_cut(catalogue(own)[key].draw(replace(tables, **renamed), own).figure, key)


def test_many_layers_have_room(tables, grid):
    updates = tables.update_spaces
    more = [updates[updates.layer == 3].assign(layer=layer) for layer in range(10, 32)]
    deep = replace(tables, update_spaces=pd.concat([updates, *more]))
    check_nothing_is_cut(catalogue(grid)["figure_10"].draw(deep, grid).figure, "figure_10")
