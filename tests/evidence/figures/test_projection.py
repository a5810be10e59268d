"""Figures 2 and 3 show the means of the tables, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.projection import figure_2, figure_3, figure_3_parallel, figure_20, figure_21


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label() == label]
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
        assert x == pytest.approx(grid.fractions)
        assert y == pytest.approx(means(tables.energy, "energy_kept", task=task, basis=basis, tensor="all"))
    for axes, task, metric in ((utility, "useful", "utility"), (harmfulness, "harmful", "harmfulness")):
        x, y = line(axes, basis)
        where = {"task": task, "basis": basis, "metric": metric, "scheme": "parallel"}
        assert x == pytest.approx(grid.fractions, abs=0.013)
        assert y == pytest.approx(means(tables.projection, "value", **where))


def test_closed_form_is_drawn_for_the_controls_alone(tables, grid):
    axes = figure_2(tables, grid).axes[0]

    assert line(axes, "random, closed form")[1] == pytest.approx(0.99 * np.array(grid.fractions))
    assert line(axes, "random_k, closed form")[1] == pytest.approx(0.99 * np.array(grid.fractions))
    assert not [one for one in axes.lines if one.get_label() == "top_k, closed form"]


def test_bars_are_the_mean_interval_and_dots_the_single_models(tables, grid):
    axes = figure_2(tables, grid).axes[3]
    bars = [np.array(one.get_segments()) for one in axes.collections]  # random, random_k, top_k
    where = {"task": "harmful", "basis": "random", "metric": "harmfulness", "scheme": "parallel"}
    (dots, *_) = [one for one in axes.lines if one.get_marker() == "."]

    assert bars[0][:, 0, 1] == pytest.approx(means(tables.projection, "ci_low", **where))
    assert bars[0][:, 1, 1] == pytest.approx(means(tables.projection, "ci_high", **where))
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
        assert line(axes, "random, closed form")[1] == pytest.approx(1 - 0.99 * np.array(grid.fractions))
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
        assert ability.get_ylabel() == "general ability (accuracy)\n5 worked examples"
        assert refusal.get_ylabel() == "over-refusal (share)\njudge: keywords"
