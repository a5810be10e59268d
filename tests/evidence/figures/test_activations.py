"""Figures 22 to 26 show states, windows and refusal prompts, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.activations import figure_5, figure_22, figure_25


def lines(axes):
    return {one.get_label(): np.asarray(one.get_ydata(), dtype=float) for one in axes.lines}


def by_eta(rows, grid, column="mso"):
    return [rows[rows.eta == eta][column].mean() for eta in grid.activation_etas]


def test_figure_22_has_a_panel_for_every_state(tables, appendices):
    figure = figure_22(tables, appendices, pair="useful-harmful_2")
    table = tables.activation_spaces
    table = table[(table.pair == "useful-harmful_2") & (table.position == "last_prompt_token")]

    assert [axes.get_title() for axes in figure.axes] == [f"state {state}" for state in range(11)]
    for state in (0, 10):
        drawn = lines(figure.axes[state])
        assert len(drawn) == 2 * len(appendices.checkpoints) + 2
        for kind, centred in (("uncentred", False), ("centred", True)):
            rows = table[(table.centred == centred) & (table.layer == state)]
            assert drawn[f"chance, {kind}"] == pytest.approx(by_eta(rows, appendices, "mso_chance"))
            for checkpoint in appendices.checkpoints:
                expected = by_eta(rows[rows.checkpoint == checkpoint], appendices)
                assert drawn[f"{checkpoint}, {kind}"] == pytest.approx(expected)


def test_figure_22_says_of_a_state_that_never_varies_that_it_has_no_spread(tables, appendices):
    table = tables.activation_spaces
    constant = table.assign(mso=table.mso.mask(table.centred & (table.layer == 3)))
    figure = figure_22(replace(tables, activation_spaces=constant), appendices, pair="useful-harmful_1")
    titles = [axes.get_title() for axes in figure.axes]
    assert (titles[2], titles[3]) == ("state 2", "state 3, no spread")
    assert np.isnan(lines(figure.axes[3])["useful, centred"]).all()
    assert np.isfinite(lines(figure.axes[3])["useful, uncentred"]).all()


@pytest.mark.parametrize("centred", [False, True])
def test_figure_25_has_a_row_for_every_window(tables, appendices, centred):
    figure = figure_25(tables, appendices, centred=centred)
    table = tables.activation_spaces
    kind = "centred" if centred else "uncentred"
    titles = [axes.get_title() for axes in figure.axes]

    assert titles[0] == f"reference, {kind}\nprompt tokens 0 to 7, stacked"
    assert titles[5] == f"contaminated, {kind}\ngenerated tokens 2 to 3, averaged"
    for number, window_of in ((0, "prompt"), (5, "generated")):
        rows = table[(table.window_of == window_of) & (table.centred == centred) & table.layer.isin([7, 8])]
        rows = rows[rows.checkpoint == appendices.checkpoints[number % 3]]
        drawn = lines(figure.axes[number])
        assert set(drawn) == {
            f"{pair}{end}"
            for pair in ("useful-harmful_1", "useful-harmful_2", "harmful_1-harmful_2")
            for end in ("", ", chance")
        }
        assert drawn["harmful_1-harmful_2"] == pytest.approx(
            by_eta(rows[rows.pair == "harmful_1-harmful_2"], appendices)
        )


def test_figure_26_has_refusal_prompts_in_place_of_useful_ones(tables, appendices):
    drawn = lines(figure_5(tables, appendices, ordinary="refusal").axes[4])
    table = tables.activation_spaces
    rows = table[(table.position == "last_prompt_token") & table.centred & (table.checkpoint == "useful")]
    rows = rows[rows.layer.isin([7, 8]) & (rows.pair == "refusal-harmful_2")]

    assert drawn["refusal-harmful_2"] == pytest.approx(by_eta(rows, appendices))
    assert {name for name in drawn if "chance" not in name} == {
        "refusal-harmful_1",
        "refusal-harmful_2",
        "harmful_1-harmful_2",
    }


def test_figure_5_shows_the_position_that_is_asked_for(tables, appendices):
    first, generated = (
        lines(figure_5(tables, appendices, position=position).axes[0])["useful-harmful_1"]
        for position in appendices.positions[:2]
    )
    assert generated == pytest.approx(1.1 * first)


def test_a_missing_row_is_an_error_and_never_a_hole(tables, appendices):
    table = tables.activation_spaces
    no_state = replace(tables, activation_spaces=table[table.layer != 4])
    with pytest.raises(UserError, match=r"missing, first .* layer 4"):
        figure_22(no_state, appendices, pair="useful-harmful_1")
    for column, value in (("window_start", 2), ("window_combine", "stacked"), ("window_stop", 8)):
        less = replace(tables, activation_spaces=table[(table[column] != value).fillna(True)])
        with pytest.raises(UserError, match=r"tokens \d to \d, \w+: .* missing"):
            figure_25(less, appendices, centred=False)
