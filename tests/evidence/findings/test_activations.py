"""Findings on activations against numbers worked out from the formulas of the synthetic tables."""

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.findings.activations import find_activation_overlap, find_states
from safety_spaces.study import SingleToken

TOKEN = SingleToken.last_prompt_token


@pytest.mark.parametrize(("centred", "scale"), [(False, 1.0), (True, 0.5)])
def test_activation_overlap_by_the_formula(tables, grid, centred, scale):
    found = find_activation_overlap(
        tables.activation_spaces, grid, checkpoint="useful", centred=centred, position=TOKEN
    )
    excess = 0.35 * 0.5 * 1.1 * scale + 0.15 + 0.02 / 3 - 0.025 - 0.0075

    assert found.excess["harmful_1-harmful_2"].value == pytest.approx(excess)
    assert found.harmful_preference.value == pytest.approx((0.35 - 0.4) * 0.5 * 1.1 * scale)
    assert found.harmful_preference.direction == -1


def test_harmful_prompts_must_beat_the_strongest_mixed_pair(shifted, grid):
    where = {"pair": "harmful_1-harmful_2", "checkpoint": "reference"}
    for amount, direction in ((0.02, -1), (0.03, 1)):  # useful-harmful_1 is 0.025 ahead
        moved = shifted("activation_spaces", "mso", amount, **where)
        found = find_activation_overlap(
            moved.activation_spaces, grid, checkpoint="reference", centred=False, position=TOKEN
        )
        assert found.harmful_preference.direction == direction


@pytest.mark.parametrize(("number", "scale"), [(1, 1.1), (2, 1.2), (3, 1.3)])
def test_each_position_reads_its_own_rows(tables, appendices, number, scale):
    position = appendices.positions[number]
    found = find_activation_overlap(
        tables.activation_spaces, appendices, checkpoint="reference", centred=False, position=position
    )

    assert set(found.excess) == {"useful-harmful_1", "useful-harmful_2", "harmful_1-harmful_2"}
    assert found.harmful_preference.value == pytest.approx((0.35 - 0.4) * 0.5 * scale)


def test_refusal_prompts_take_the_place_of_useful_ones(tables, appendices):
    found = find_activation_overlap(
        tables.activation_spaces,
        appendices,
        checkpoint="reference",
        centred=False,
        position=TOKEN,
        ordinary="refusal",
    )

    assert set(found.excess) == {"refusal-harmful_1", "refusal-harmful_2", "harmful_1-harmful_2"}
    assert found.harmful_preference.value == pytest.approx((0.35 - 0.25) * 0.5)


def test_states_at_which_harmful_prompts_are_closer_in_every_seed(shifted, grid):
    where = {"pair": "harmful_1-harmful_2", "checkpoint": "useful", "position": TOKEN, "centred": True}
    for layer in (2, 5):
        moved = shifted("activation_spaces", "mso", 0.2, **where, layer=layer)
        found = find_states(moved.activation_spaces, grid, checkpoint="useful", centred=True)
        assert (found.preferring, found.states, found.seeds) == ((layer,), 11, 3)
    one_seed = shifted("activation_spaces", "mso", 0.2, **where, seed=4)
    assert find_states(one_seed.activation_spaces, grid, checkpoint="useful", centred=True).preferring == ()
    everywhere = shifted("activation_spaces", "mso", 0.2, **where)
    found = find_states(everywhere.activation_spaces, grid, checkpoint="useful", centred=True)
    assert found.preferring == tuple(range(11))
    assert found.is_majority


def test_a_state_that_never_varies_is_left_out_where_states_are_centred(tables, grid):
    table = tables.activation_spaces
    constant = table.assign(
        **{column: table[column].mask(table.centred & (table.layer == 0)) for column in ("mso", "mso_chance")}
    )
    found = [find_states(constant, grid, checkpoint="useful", centred=centred).states for centred in (False, True)]
    assert found == [11, 10]


def test_a_window_of_depths_without_any_spread_is_an_error(tables, grid):
    table = tables.activation_spaces
    constant = table.assign(mso=table.mso.mask(table.centred & (table.pair == "useful-harmful_1")))
    with pytest.raises(UserError, match=r"useful, centred, states 7 to 8: mso is empty in \d+ cells"):
        find_activation_overlap(constant, grid, checkpoint="useful", centred=True, position=TOKEN)
