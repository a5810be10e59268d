"""Figures of overlaps show means, single seeds and chance levels, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.overlap import figure_4, figure_10, state_maps, window_curves

PAIRS = ("harmful_1-harmful_2", "useful-harmful_1", "useful-harmful_2")
DASH = "\N{EN DASH}"


def printed(pair):
    return pair.replace("-", f" {DASH} ")


def lines(axes):
    return {
        one.get_label(): np.asarray(one.get_ydata(), dtype=float)
        for one in axes.lines
        if not one.get_label().startswith("_")
    }


def by_eta(rows, etas, column="mso"):
    return [rows[rows.eta == eta][column].mean() for eta in etas]


def figure_5(tables, grid, positions=None, kinds=(True, False), pairs=PAIRS):
    return window_curves(tables, grid, pairs=pairs, positions=positions or {grid.positions[0]: ""}, kinds=kinds).figure


def test_figure_4_shows_the_percentile_layers(tables, grid):
    figure = figure_4(tables, grid).figure
    assert [axes.get_title() for axes in figure.axes] == ["70th percentile (layer 7)", "85th percentile (layer 8)"]
    for axes, layer in zip(figure.axes, (7, 8), strict=True):
        drawn = lines(axes)
        for pair in grid.update_pairs:
            table = tables.update_spaces
            rows = table[(table.pair == pair) & (table.layer == layer) & (table.kind != "norm")]
            assert drawn[printed(pair)] == pytest.approx(by_eta(rows, grid.update_etas))
            assert drawn[f"{printed(pair)}, chance"] == pytest.approx(by_eta(rows, grid.update_etas, "mso_chance"))


def test_percentiles_that_fall_on_one_layer_share_a_panel(tables, grid):
    closer = replace(grid, percentiles=(0.7, 0.72, 0.85))
    titles = [axes.get_title().replace("\n", " ") for axes in figure_4(tables, closer).figure.axes]
    assert titles == ["70th and 72nd percentile (layer 7)", "85th percentile (layer 8)"]


def test_figure_10_has_a_panel_for_every_layer(tables, grid):
    figure = figure_10(tables, grid).figure
    assert [axes.get_title() for axes in figure.axes] == [f"layer {layer}" for layer in range(10)]
    table = tables.update_spaces[tables.update_spaces.kind != "norm"]
    for layer, axes in enumerate(figure.axes):
        drawn = lines(axes)
        assert len(drawn) == 6
        for pair in grid.update_pairs:
            rows = table[(table.pair == pair) & (table.layer == layer)]
            assert drawn[printed(pair)] == pytest.approx(by_eta(rows, grid.update_etas))
    less = replace(tables, update_spaces=tables.update_spaces[(tables.update_spaces.layer != 2).fillna(True)])
    with pytest.raises(UserError, match=r"layer 2: .* missing"):
        figure_10(less, grid)


def test_a_layer_that_no_training_touched_says_so(tables, grid):
    updates = tables.update_spaces.copy()
    updates.loc[updates.layer == 2, ["mso", "mso_chance"]] = float("nan")
    titles = [axes.get_title() for axes in figure_10(replace(tables, update_spaces=updates), grid).figure.axes]
    assert titles[1].replace("\n", " ") == "layer 1"
    assert titles[2].replace("\n", " ") == "layer 2, no update"


def test_small_points_are_the_single_seeds(tables, grid):
    points = [one for one in figure_4(tables, grid).figure.axes[0].lines if one.get_marker() == "."]
    assert [len(one.get_ydata()) for one in points] == [len(grid.seeds) * len(grid.update_etas)] * 3
    # Seeds 0 to 4 add 0.005 each, tensors 0 and 0.02.
    assert min(points[0].get_ydata()) == pytest.approx(0.5 * 0.01 + 0.07 + 0.01)
    assert max(points[0].get_ydata()) == pytest.approx(0.5 * 0.99 + 0.07 + 0.01 + 0.02)


def test_a_pair_and_its_chance_share_a_colour(tables, grid):
    colours = {one.get_label(): one.get_color() for one in figure_4(tables, grid).figure.axes[0].lines}
    assert len({colours[printed(pair)] for pair in grid.update_pairs}) == len(grid.update_pairs)
    assert all(colours[printed(pair)] == colours[f"{printed(pair)}, chance"] for pair in grid.update_pairs)


def test_figure_5_shows_the_window_centred_above_uncentred(tables, grid):
    figure = figure_5(tables, grid)
    table = tables.activation_spaces[tables.activation_spaces.position == "last_prompt_token"]
    cells = [(centred, checkpoint) for centred in (True, False) for checkpoint in grid.checkpoints]
    for axes, (centred, checkpoint) in zip(figure.axes, cells, strict=True):
        drawn = lines(axes)
        assert len(drawn) == 2 * len(PAIRS)
        for pair in PAIRS:
            rows = table[(table.pair == pair) & (table.checkpoint == checkpoint) & (table.centred == centred)]
            rows = rows[rows.layer.isin([7, 8])]
            assert drawn[printed(pair)] == pytest.approx(by_eta(rows, grid.activation_etas))
            assert drawn[f"{printed(pair)}, chance"] == pytest.approx(by_eta(rows, grid.activation_etas, "mso_chance"))
    assert [axes.get_title() for axes in figure.axes[:3]] == list(grid.checkpoints)
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == ["MSO, centred", "MSO, uncentred"]


def test_pairs_go_by_the_names_of_their_data_sets(tables, grid):
    named = replace(grid, set_names={"useful": "MATH", "harmful_1": "BeaverTails", "harmful_2": "ToxiGen"})
    labels = [text.get_text() for text in figure_5(tables, named).legends[0].get_texts()]
    assert labels[:2] == ["BeaverTails – ToxiGen", "BeaverTails – ToxiGen, chance"]
    assert not [label for label in labels if "harmful" in label]


def test_figure_5_shows_the_position_that_is_asked_for(tables, appendices):
    first, generated = (
        lines(figure_5(tables, appendices, {position: ""}).axes[0])[printed("useful-harmful_1")]
        for position in appendices.positions[:2]
    )
    assert generated == pytest.approx(1.1 * first)


@pytest.mark.parametrize("centred", [False, True])
def test_figure_25_has_a_row_for_every_window(tables, appendices, centred):
    windows = {window: window.words for window in appendices.windows}
    figure, table = figure_5(tables, appendices, windows, (centred,)), tables.activation_spaces
    labels = [axes.get_ylabel().replace("\n", " ") for axes in figure.axes[::3]]
    kind = "centred" if centred else "uncentred"
    assert labels == [f"{words} MSO, {kind}" for words in windows.values()]
    for number, window_of in ((0, "prompt"), (5, "generated")):
        rows = table[(table.window_of == window_of) & (table.centred == centred) & table.layer.isin([7, 8])]
        rows = rows[(rows.checkpoint == appendices.checkpoints[number % 3]) & (rows.pair == PAIRS[0])]
        assert lines(figure.axes[number])[printed(PAIRS[0])] == pytest.approx(by_eta(rows, appendices.activation_etas))


def maps(figure):
    return [
        np.ma.filled(one.collections[0].get_array(), np.nan) for one in figure.axes if one.get_label() != "<colorbar>"
    ]


def test_figure_22_shows_the_reference_and_differences_to_it(tables, appendices):
    drawn = maps(state_maps(tables, appendices, pair="useful-harmful_2").figure)
    table = tables.activation_spaces
    table = table[(table.pair == "useful-harmful_2") & (table.position == "last_prompt_token")]
    for row, centred in enumerate((True, False)):
        of_checkpoints = []
        for checkpoint in appendices.checkpoints:
            rows = table[(table.centred == centred) & (table.checkpoint == checkpoint)]
            of_checkpoints.append(
                [
                    [
                        (rows[(rows.eta == eta) & (rows.layer == state)].mso - 0.05 * eta - 0.001 * state).mean()
                        for state in range(11)
                    ]
                    for eta in appendices.activation_etas
                ]
            )
        reference, *others = np.array(of_checkpoints)
        assert drawn[3 * row] == pytest.approx(reference)
        for one, expected in zip(drawn[3 * row + 1 : 3 * row + 3], others, strict=True):
            assert one == pytest.approx(expected - reference)
            assert np.abs(one).max() > 0.01


def test_a_state_without_spread_is_white(tables, appendices):
    table = tables.activation_spaces
    constant = table.assign(mso=table.mso.mask(table.centred & (table.layer == 3)))
    figure = state_maps(replace(tables, activation_spaces=constant), appendices, pair="useful-harmful_1").figure
    centred, uncentred = maps(figure)[0], maps(figure)[3]
    assert np.isnan(centred).all(axis=0).tolist() == [state == 3 for state in range(11)]
    assert np.isfinite(uncentred).all()


def test_one_checkpoint_alone_has_no_differences(tables, appendices):
    one = replace(appendices, checkpoints=("useful",))
    assert len(maps(state_maps(tables, one, pair="useful-harmful_1").figure)) == 2


def test_a_missing_row_is_an_error_and_never_a_hole(tables, grid, appendices):
    updates, activations = tables.update_spaces, tables.activation_spaces

    def without(name, chosen):
        return replace(tables, **{name: getattr(tables, name)[chosen]})

    with pytest.raises(UserError, match=r"layer 7: .* missing, first .* eta 0.3"):
        figure_4(without("update_spaces", (updates.eta != 0.3) | (updates.pair != "useful-harmful")), grid)
    for column, value in (("layer", 8), ("checkpoint", "useful"), ("centred", True), ("seed", 1)):
        with pytest.raises(UserError, match="missing"):
            figure_5(without("activation_spaces", activations[column] != value), grid)
    with pytest.raises(UserError, match=r"missing, first .* layer 4"):
        state_maps(without("activation_spaces", activations.layer != 4), appendices, pair="useful-harmful_1")
    windows = dict.fromkeys(appendices.windows, "")
    for column, value in (("window_start", 2), ("window_combine", "stacked"), ("window_stop", 8)):
        with pytest.raises(UserError, match=r"tokens \d to \d, \w+: .* missing"):
            figure_5(without("activation_spaces", (activations[column] != value).fillna(True)), appendices, windows)
