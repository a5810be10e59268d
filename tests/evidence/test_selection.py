"""Selections hold the whole grid or say which cell is missing."""

from dataclasses import replace

import pandas as pd
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence import overlaps, selection
from safety_spaces.study import SingleToken

USEFUL = {"line": ("useful", "parallel", "utility"), "basis": "random"}
TOKEN = {"position": SingleToken.last_prompt_token}


def test_layer_overlap_leaves_vectors_and_the_embedding_out(tables, grid):
    rows = overlaps.layer_overlap(tables.update_spaces, grid, layer=7)
    one = rows[(rows.seed == 4) & (rows.pair == "useful-reference") & (rows.eta == 0.6)].iloc[0]

    assert len(rows) == 3 * 3 * 4
    assert one.mso == pytest.approx(0.3 * 0.6 + 0.07 + (0.00 + 0.02) / 2 + 0.02)
    assert one.mso_chance == pytest.approx(0.06 + (0.00 + 0.02) / 2)
    assert one.cosine == pytest.approx((-0.1 + 0.1) / 2)


def test_layer_overlap_leaves_untouched_tensors_out(tables, grid):
    table = tables.update_spaces.copy()
    table.loc[table.tensor == "7.q_proj", ["mso", "mso_chance", "cosine"]] = float("nan")

    one = overlaps.layer_overlap(table, grid, layer=7).iloc[0]

    assert one.mso_chance == pytest.approx(0.1 * 0.01 + 0.02)  # down_proj alone


def test_window_overlap_is_the_mean_over_states_7_and_8(tables, grid):
    rows = overlaps.window_overlap(
        tables.activation_spaces, grid, **TOKEN, pairs=grid.activation_pairs, checkpoint="contaminated", centred=True
    )
    one = rows[(rows.seed == 1) & (rows.pair == "useful-harmful_2") & (rows.eta == 0.5)].iloc[0]

    assert one.mso == pytest.approx(0.3 * 0.5 * 1.2 * 0.5 + 0.02 * 7.5 + 0.004)
    assert one.mso_chance == pytest.approx(0.025 + 0.0075)


def test_a_window_without_a_state_is_an_error(tables, grid):
    with pytest.raises(UserError, match=r"activation_spaces\.window: expected depths that hold one of the 11 states"):
        overlaps.window_overlap(
            tables.activation_spaces,
            replace(grid, window=(0.7, 0.72)),
            **TOKEN,
            pairs=grid.activation_pairs,
            checkpoint="useful",
            centred=True,
        )


def test_percentile_layers(tables, grid):
    assert overlaps.shown_layers(tables.update_spaces, grid) == {7: (0.7,), 8: (0.85,)}
    closer = replace(grid, percentiles=(0.7, 0.72, 0.85))
    assert overlaps.shown_layers(tables.update_spaces, closer) == {7: (0.7, 0.72), 8: (0.85,)}


def test_base_may_have_no_seed_or_every_seed(tables, grid):
    once = selection.baseline(tables.projection, grid, checkpoint="base", metric="utility")
    every = tables.projection.copy()
    every.loc[every.task == "base", "seed"] = 4

    assert len(once) == 1
    assert len(selection.baseline(every, grid, checkpoint="base", metric="utility")) == 1


def test_replicates_and_single_layers_stay_out(tables, grid):
    table = tables.projection.copy()
    odd = [table.assign(replicate=1), table.assign(layers="3"), table.assign(others="out")]
    for other in odd:
        other["value"] = 99.0
    projected = [other[other.scheme != "none"] for other in odd]

    rows = selection.scores(pd.concat([table, *projected]), grid, **USEFUL)

    assert len(rows) == 3 * 2 * 5
    assert rows.value.max() < 1


@pytest.mark.parametrize(
    ("column", "value", "missing"), [("fraction", 0.25, 6), ("seed", 4, 10), ("basis", "random", 30), ("draw", 1, 15)]
)
def test_a_missing_cell_is_an_error(tables, grid, column, value, missing):
    table = tables.projection[(tables.projection[column] != value).fillna(True)]
    with pytest.raises(
        UserError, match=f"utility of useful, parallel, random: {missing} of 30 cells missing, first seed"
    ):
        selection.scores(table, grid, **USEFUL)


def test_a_repeated_cell_is_an_error(tables, grid):
    table = pd.concat([tables.projection, tables.projection.assign(judge="another")])
    with pytest.raises(UserError, match=r"30 of 30 cells repeated, first seed 0, draw 0, fraction 0.01"):
        selection.scores(table, grid, **USEFUL)


def test_an_empty_value_is_an_error(tables, grid):
    table = tables.projection.copy()
    table.loc[table.fraction == 0.5, "ci_low"] = float("nan")
    with pytest.raises(UserError, match="ci_low is empty in 6 cells"):
        selection.scores(table, grid, **USEFUL)


@pytest.mark.parametrize("checkpoint", ["base", "reference"])
def test_a_missing_checkpoint_is_an_error(tables, grid, checkpoint):
    table = tables.projection[tables.projection.task != checkpoint]
    with pytest.raises(UserError, match=f"utility of the checkpoint {checkpoint}: . of . cells missing"):
        selection.baseline(table, grid, checkpoint=checkpoint, metric="utility")


def test_a_missing_energy_is_an_error(tables, grid):
    with pytest.raises(UserError, match=r"total of harmful, top_k: 15 of 15 cells missing"):
        selection.energies(tables.energy[tables.energy.tensor != "all"], grid, task="harmful", basis="top_k")


def test_controls_need_their_closed_form(tables, grid):
    table = tables.energy.assign(energy_expected=float("nan"))
    selection.energies(table, grid, task="useful", basis="top_k")
    own = replace(grid, bases=("file", "random"))
    selection.energies(table.replace({"basis": {"top_k": "file"}}), own, task="useful", basis="file")
    with pytest.raises(UserError, match="energy_expected is empty"):
        selection.energies(table, grid, task="useful", basis="random_k")


@pytest.mark.parametrize("change", [{"seeds": (0, 9)}, {"update_etas": (0.5,)}, {"update_pairs": ("dpo-harmful",)}])
def test_updates_missing_from_the_table_are_an_error(tables, grid, change):
    with pytest.raises(UserError, match=r"layer 8: .* cells missing"):
        overlaps.layer_overlap(tables.update_spaces, replace(grid, **change), layer=8)


def test_a_layer_outside_the_model_is_an_error(tables, grid):
    with pytest.raises(UserError, match=r"layer 40: .* tensor any tensor"):
        overlaps.layer_overlap(tables.update_spaces, grid, layer=40)


def test_a_table_without_layers_is_an_error(tables, grid):
    with pytest.raises(UserError, match="no row belongs to a layer"):
        overlaps.shown_layers(tables.update_spaces[tables.update_spaces.layer.isna()], grid)


@pytest.mark.parametrize("checkpoint", ["harmful", "dpo"])
def test_activations_missing_from_the_table_are_an_error(tables, grid, checkpoint):
    with pytest.raises(UserError, match=f"{checkpoint}, uncentred, last prompt token: .* cells missing"):
        overlaps.window_overlap(
            tables.activation_spaces,
            grid,
            **TOKEN,
            pairs=grid.activation_pairs,
            checkpoint=checkpoint,
            centred=False,
        )


@pytest.mark.parametrize(
    ("column", "value"),
    [("window_of", "prompt"), ("window_start", 1), ("window_stop", 3), ("window_combine", "stacked")],
)
def test_a_window_is_told_from_others_by_all_that_it_says(tables, appendices, column, value):
    table, window = tables.activation_spaces, appendices.windows[1]
    wanted = overlaps.at_position(table, window)

    assert set(wanted.window_start) == {2}
    assert len(overlaps.at_position(pd.concat([wanted, wanted.assign(**{column: value})]), window)) == len(wanted)
