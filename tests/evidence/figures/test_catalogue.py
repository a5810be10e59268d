"""The catalogue: files by the paper's numbers, what each answers to, and nothing that the study does not have."""

from dataclasses import replace

import pytest

from safety_spaces.evidence.figures import catalogue, save

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


def test_the_main_figures(grid):
    assert answers(grid) == {file: f"answers to {item} of the paper" for file, item in MAIN.items()}


def test_a_dpo_reference_has_the_numbers_of_its_appendix(grid):
    found = answers(replace(grid, reference_kind="dpo"))

    for file, item in (("figure_15", "Figure 15"), ("figure_16", "Figure 16"), ("figure_17", "Figure 17")):
        assert found.pop(file) == f"answers to {item} of the paper"
    assert set(found) == set(MAIN) - {"figure_2", "figure_3", "figure_10"}
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
    }  # fmt: skip
    assert all(found[f"figure_{number}"] == f"answers to Figure {number} of the paper" for number in numbers)


def test_pairs_have_the_numbers_of_what_they_compare_in_any_order(grid):
    pairs = ("harmful_1-harmful_2", "harmful_1-useful", "harmful_2-useful", "harmful_1-harmful_3")
    found = catalogue(replace(grid, activation_pairs=pairs))
    assert {
        key: planned.title for key, planned in found.items() if key[:9] in ("figure_22", "figure_23", "figure_24")
    } == {
        "figure_22": "Overlap of harmful_1-useful at every state",
        "figure_23": "Overlap of harmful_2-useful at every state",
        "figure_24": "Overlap of harmful_1-harmful_2 at every state",
        "figure_24_harmful_1-harmful_3": "Overlap of harmful_1-harmful_3 at every state",
    }


def test_the_figure_says_what_it_answers_to_and_is_the_same_bytes_again(tables, grid, tmp_path):
    planned = catalogue(replace(grid, reference_kind="dpo"))["figure_10"]
    for name in ("first", "second"):
        figure = planned.figure(tables, grid)
        assert figure.get_suptitle() == "Overlap of updates at every layer; answers to Figure 17 of the paper"
        save(figure, tmp_path / f"{name}.png")
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_nothing_is_cut_or_covered(tables, appendices):
    for key in ("figure_18", "figure_22"):
        figure = catalogue(appendices)[key].figure(tables, appendices)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
        note = next(text for text in figure.texts if text.get_text() == figure.get_suptitle()).get_window_extent()
        assert figure.bbox.y0 <= legend.y0
        assert note.y1 <= figure.bbox.y1
        for axes in figure.axes:
            assert legend.y1 <= axes.get_tightbbox().y0
            assert axes.title.get_window_extent().y1 <= note.y0
