"""Figures 4 and 5 show layer means, seed bands and chance levels, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.activations import figure_5
from safety_spaces.evidence.figures.overlap import figure_4, figure_10


def lines(axes):
    return {one.get_label(): np.asarray(one.get_ydata(), dtype=float) for one in axes.lines}


def test_figure_4_shows_the_percentile_layers(tables, grid):
    figure = figure_4(tables, grid)
    assert [axes.get_title() for axes in figure.axes] == ["70th percentile (layer 7)", "85th percentile (layer 8)"]

    for axes, layer in zip(figure.axes, (7, 8), strict=True):
        drawn = lines(axes)
        for pair in grid.update_pairs:
            table = tables.update_spaces
            rows = table[(table.pair == pair) & (table.layer == layer) & (table.kind != "norm")]
            by_eta = [rows[rows.eta == eta] for eta in grid.update_etas]
            assert drawn[pair] == pytest.approx([part.mso.mean() for part in by_eta])
            assert drawn[f"{pair}, chance"] == pytest.approx([part.mso_chance.mean() for part in by_eta])


def test_percentiles_that_fall_on_one_layer_share_a_panel(tables, grid):
    closer = replace(grid, percentiles=(0.7, 0.72, 0.85))
    titles = [axes.get_title() for axes in figure_4(tables, closer).axes]
    assert titles == ["70th and 72nd percentile (layer 7)", "85th percentile (layer 8)"]


def test_figure_10_has_a_panel_for_every_layer(tables, grid):
    figure = figure_10(tables, grid)
    assert [axes.get_title() for axes in figure.axes] == [f"layer {layer}" for layer in range(10)]
    table = tables.update_spaces[tables.update_spaces.kind != "norm"]
    for layer, axes in enumerate(figure.axes):
        drawn = lines(axes)
        assert len(drawn) == 6
        for pair in grid.update_pairs:
            rows = table[(table.pair == pair) & (table.layer == layer)]
            by_eta = [rows[rows.eta == eta] for eta in grid.update_etas]
            assert drawn[pair] == pytest.approx([part.mso.mean() for part in by_eta])
            assert drawn[f"{pair}, chance"] == pytest.approx([part.mso_chance.mean() for part in by_eta])
    less = replace(tables, update_spaces=tables.update_spaces[(tables.update_spaces.layer != 2).fillna(True)])
    with pytest.raises(UserError, match=r"layer 2: .* missing"):
        figure_10(less, grid)


def test_bands_reach_from_the_lowest_to_the_highest_seed(tables, grid):
    band = figure_4(tables, grid).axes[0].collections[0].get_paths()[0].get_extents()

    # Seeds 0 to 4 add 0.005 each; the lowest level of the first pair is at eta 0.01, the highest at 0.99.
    assert band.y0 == pytest.approx(0.5 * 0.01 + 0.07 + 0.01)
    assert band.y1 == pytest.approx(0.5 * 0.99 + 0.07 + 0.01 + 0.02)


def test_a_pair_and_its_chance_share_a_colour(tables, grid):
    colours = {one.get_label(): one.get_color() for one in figure_4(tables, grid).axes[0].lines}

    assert len(set(colours.values())) == len(grid.update_pairs)
    assert all(colours[pair] == colours[f"{pair}, chance"] for pair in grid.update_pairs)


def test_figure_5_shows_the_window_uncentred_above_centred(tables, grid):
    figure = figure_5(tables, grid)
    table = tables.activation_spaces[tables.activation_spaces.position == "last_prompt_token"]
    cells = [(centred, checkpoint) for centred in (False, True) for checkpoint in grid.checkpoints]

    for axes, (centred, checkpoint) in zip(figure.axes, cells, strict=True):
        drawn = lines(axes)
        assert len(drawn) == 2 * len(grid.activation_pairs)
        for pair in grid.activation_pairs:
            rows = table[(table.pair == pair) & (table.checkpoint == checkpoint) & (table.centred == centred)]
            rows = rows[rows.layer.isin([7, 8])]
            by_eta = [rows[rows.eta == eta] for eta in grid.activation_etas]
            assert drawn[pair] == pytest.approx([part.mso.mean() for part in by_eta])
            assert drawn[f"{pair}, chance"] == pytest.approx([part.mso_chance.mean() for part in by_eta])


def test_a_missing_row_is_an_error_and_never_a_hole(tables, grid):
    updates, activations = tables.update_spaces, tables.activation_spaces

    def without(name, chosen):
        return replace(tables, **{name: getattr(tables, name)[chosen]})

    with pytest.raises(UserError, match=r"layer 7: .* missing, first .* eta 0.3"):
        figure_4(without("update_spaces", (updates.eta != 0.3) | (updates.pair != "useful-harmful")), grid)
    for column, value in (("layer", 8), ("checkpoint", "useful"), ("centred", True), ("seed", 1)):
        with pytest.raises(UserError, match="missing"):
            figure_5(without("activation_spaces", activations[column] != value), grid)
