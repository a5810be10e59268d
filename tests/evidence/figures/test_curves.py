"""Figures 2 and 3 show the means of the tables, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.projection import curves, shift


def figure(key):
    return lambda tables, grid: curves(tables, grid, key=key).figure


figure_2, figure_3, figure_3_parallel, figure_20, figure_21 = (
    figure(f"figure_{name}") for name in ("2", "3", "3_parallel", "20", "21")
)


def line(axes, label):
    (found, *_) = [one for one in axes.lines if one.get_label() == label]
    return np.asarray(found.get_xdata(), dtype=float), np.asarray(found.get_ydata(), dtype=float)


def means(table, column, **where):
    if "others" in table:
        table = table[table.others == where.pop("others", "")]
    for key, value in where.items():
        table = table[table[key] == value]
    return np.array([table[table.fraction == fraction][column].mean() for fraction in (0.01, 0.25, 0.5, 0.75, 0.99)])


@pytest.mark.parametrize("basis", ["top_k", "random_k", "random"])
def test_figure_2_shows_means_over_seeds_and_draws(tables, grid, basis):
    figure = figure_2(tables, grid)
    kept_useful, kept_harmful, utility, harmfulness = figure.axes

    for axes, task in ((kept_useful, "useful"), (kept_harmful, "harmful")):
        x, y = line(axes, basis)
        assert x == pytest.approx(np.array(grid.fractions) + shift(grid, basis))
        assert y == pytest.approx(means(tables.energy, "energy_kept", task=task, basis=basis, tensor="all"))
    for axes, task, metric in ((utility, "useful", "utility"), (harmfulness, "harmful", "harmfulness")):
        x, y = line(axes, basis)
        where = {"task": task, "basis": basis, "metric": metric, "scheme": "parallel"}
        assert x == pytest.approx(np.array(grid.fractions) + shift(grid, basis))
        assert y == pytest.approx(means(tables.projection, "value", **where))


def test_closed_form_is_drawn_for_the_controls_alone(tables, grid):
    closed = [one for one in figure_2(tables, grid).axes[0].lines if one.get_label() == "closed form"]
    for one, basis in zip(closed, ("random_k", "random"), strict=True):
        assert one.get_xdata() == pytest.approx(np.array(grid.fractions) + shift(grid, basis))
        assert one.get_ydata() == pytest.approx(0.99 * np.array(grid.fractions))


def test_points_are_dodged_alike_in_all_panels_and_stand_side_by_side(grid):
    shifts = [shift(grid, basis) for basis in grid.bases]
    assert np.diff(shifts) == pytest.approx([0.012, 0.012])
    assert sum(shifts) == pytest.approx(0)


def test_bars_are_the_mean_interval_and_dots_the_single_models(tables, grid):
    axes = figure_2(tables, grid).axes[3]
    bars = [np.array(one.get_segments()) for one in axes.collections]  # top_k, random_k, random
    where = {"task": "harmful", "basis": "random", "metric": "harmfulness", "scheme": "parallel"}
    (*_, dots) = [one for one in axes.lines if one.get_marker() == "."]

    assert bars[2][:, 0, 1] == pytest.approx(means(tables.projection, "ci_low", **where))
    assert bars[2][:, 1, 1] == pytest.approx(means(tables.projection, "ci_high", **where))
    assert len(dots.get_ydata()) == 5 * len(grid.seeds) * grid.score_draws


def test_horizontal_lines_are_the_checkpoints(tables, grid):
    utility = figure_2(tables, grid).axes[2]
    levels = {name: set(line(utility, name)[1]) for name in ("base", "reference", "fine-tuned")}

    assert levels["base"] == {0.10}
    assert levels["reference"].pop() == pytest.approx(0.20 + 0.005 / 3)
    assert levels["fine-tuned"].pop() == pytest.approx(0.60 + 0.005 / 3)


def test_figure_3_shows_what_is_outside(tables, grid):
    figure = figure_3(tables, grid)

    assert len(figure.axes) == 5
    for axes, task in zip(figure.axes, ("useful", "harmful", "contaminated"), strict=False):
        assert axes.get_title() == f"{task}: energy outside"
        kept = means(tables.energy, "energy_kept", task=task, basis="top_k", tensor="all")
        assert line(axes, "top_k")[1] == pytest.approx(1 - kept)
        assert line(axes, "closed form")[1] == pytest.approx(1 - 0.99 * np.array(grid.fractions))
    for axes, metric in zip(figure.axes[3:], ("utility", "harmfulness"), strict=True):
        where = {"task": "contaminated", "basis": "random_k", "metric": metric, "scheme": "orthogonal"}
        assert line(axes, "random_k")[1] == pytest.approx(means(tables.projection, "value", **where))


def test_figure_3_parallel_shows_contaminated(tables, grid):
    for axes, metric in zip(figure_3_parallel(tables, grid).axes, ("utility", "harmfulness"), strict=True):
        where = {"task": "contaminated", "basis": "top_k", "metric": metric, "scheme": "parallel"}
        assert line(axes, "top_k")[1] == pytest.approx(means(tables.projection, "value", **where))


@pytest.mark.parametrize(("column", "value"), [("fraction", 0.75), ("basis", "random_k"), ("seed", 1)])
def test_a_missing_row_is_an_error_and_never_a_hole(tables, grid, column, value):
    unscored = replace(tables, projection=tables.projection[(tables.projection[column] != value).fillna(True)])
    unmeasured = replace(tables, energy=tables.energy[tables.energy[column] != value])
    for draw, less in (
        (figure_2, unscored),
        (figure_2, unmeasured),
        (figure_3, unscored),
        (figure_3_parallel, unscored),
    ):
        with pytest.raises(UserError, match="missing"):
            draw(less, grid)


def test_figures_of_general_ability_and_over_refusal(tables, appendices):
    for draw, tasks, scheme in (
        (figure_20, ("useful", "harmful"), "parallel"),
        (figure_21, ("contaminated", "contaminated"), "orthogonal"),
    ):
        ability, refusal = draw(tables, appendices).axes
        for axes, task, metric in ((ability, tasks[0], "general_ability"), (refusal, tasks[1], "over_refusal")):
            where = {"task": task, "basis": "random", "metric": metric, "scheme": scheme}
            assert line(axes, "random")[1] == pytest.approx(means(tables.projection, "value", **where))
            names = {one.get_label() for one in axes.lines if not one.get_label().startswith("_")}
            assert names == {"random", "random_k", "top_k", "base", "reference", "fine-tuned"}
    caption = curves(tables, appendices, key="figure_20").caption
    assert "Worked examples: 5." in caption
    assert "Judge: keywords." in caption


def test_the_caption_says_what_lines_bars_and_points_are(tables, grid):
    caption = curves(tables, grid, key="figure_2").caption
    assert "Energies: lines are means over 3 seeds and 3 draws of a random basis" in caption
    assert "Scores: lines are means over 3 seeds and 2 draws of a random basis" in caption
    assert "95 % intervals over n = 128 prompts" in caption
    assert "Judge: rubric." in caption


def test_a_model_that_nobody_could_score_is_a_gap_and_no_mean_of_others(tables, grid):
    table = tables.projection.copy()
    gone = (table.task == "harmful") & (table.basis == "top_k") & (table.fraction == 0.5) & (table.seed == 1)
    table.loc[gone, ["value", "ci_low", "ci_high"]] = float("nan")
    drawn = line(figure_2(replace(tables, projection=table), grid).axes[3], "top_k")[1]
    assert np.isnan(drawn).tolist() == [False, False, True, False, False]


def test_the_legend_starts_with_the_claim(tables, grid, claimed):
    for (its_tables, its_grid), claim in (((tables, grid), "top_k"), (claimed, "file")):
        (legend,) = figure_2(its_tables, its_grid).legends
        labels = [text.get_text() for text in legend.get_texts()]
        assert labels == [claim, "random_k", "random", "base", "reference", "fine-tuned", "closed form"]


def test_of_two_tables_the_one_that_is_there_is_drawn(tables, grid):
    assert len(figure_2(replace(tables, projection=None), grid).axes) == 2
    assert len(figure_2(replace(tables, energy=None), grid).axes) == 2
    for key in (figure_3_parallel, figure_20):
        with pytest.raises(UserError, match=r"projection\.csv: no such table"):
            key(replace(tables, projection=None), grid)
