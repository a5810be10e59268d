"""The overlaps that a figure or a finding speaks about: of updates by layer, of activations by state and position.

Layers and states count from 0. A model of L layers has L+1 states: 0 is the embedding, L comes after the last norm.
"""

from collections.abc import Iterable

import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.evidence.completeness import complete, where
from safety_spaces.evidence.grid import Grid
from safety_spaces.study import Position, part_of
from safety_spaces.tensors import VECTOR_KINDS

ACTIVATIONS = "activation_spaces.csv"


def layer_overlap(update_spaces: pd.DataFrame, grid: Grid, *, layer: int) -> pd.DataFrame:
    """MSO, chance and cosine of one layer, means over its 2-D tensors: one row per (seed, pair, eta).

    A tensor that one of the two trainings left untouched spans nothing and points nowhere: it is left out. The means of
    a layer of such tensors are empty.
    """
    rows = where(update_spaces, layer=layer)
    rows = rows[~rows.kind.isin(VECTOR_KINDS)]
    axes = {"seed": grid.seeds, "pair": grid.update_pairs, "eta": grid.update_etas}
    name = f"update_spaces.csv: layer {layer}"
    rows = complete(rows, name, {**axes, "tensor": sorted(set(rows.tensor)) or ("any tensor",)})
    rows = rows.assign(cosine=rows.cosine.where(rows.mso.notna()))
    means = rows.groupby(list(axes), as_index=False)[["mso", "mso_chance", "cosine"]].mean()
    return complete(means, name, axes)


def shown_layers(update_spaces: pd.DataFrame, grid: Grid) -> dict[int, tuple[float, ...]]:
    """The layers floor(p L) of the study's percentiles p, each with all percentiles that fall on it."""
    layers = depth_of(update_spaces, "update_spaces.csv")
    shown: dict[int, tuple[float, ...]] = {}
    for percentile in grid.percentiles:
        layer = part_of(percentile, layers)
        shown[layer] = (*shown.get(layer, ()), percentile)
    return shown


def state_overlap(
    activations: pd.DataFrame,
    grid: Grid,
    *,
    position: Position,
    pairs: tuple[str, ...],
    checkpoint: str,
    centred: bool,
    states: Iterable[int] | None = None,
) -> pd.DataFrame:
    """MSO and chance of the states of one checkpoint at one position: one row per (seed, pair, eta, layer).

    All states unless some are named. A state that is the same for all prompts of a set, as an embedding of the
    template's last token is, spans nothing once centred: its cells are empty.
    """
    name = f"{ACTIVATIONS}: {checkpoint}, {'centred' if centred else 'uncentred'}, {position.words}"
    rows = at_position(activations, position)
    rows = rows[(rows.checkpoint == checkpoint) & (rows.centred == centred)]
    wanted = range(depth_of(activations, name)) if states is None else tuple(states)
    axes = {"seed": grid.seeds, "pair": pairs, "eta": grid.activation_etas, "layer": wanted}
    return complete(rows, name, axes)


def window_overlap(
    activations: pd.DataFrame,
    grid: Grid,
    *,
    position: Position,
    pairs: tuple[str, ...],
    checkpoint: str,
    centred: bool,
) -> pd.DataFrame:
    """MSO and chance of a checkpoint's activations, means over the window's states: one row per (seed, pair, eta).

    Of the L+1 states the window holds int(low (L+1)) <= l < int(high (L+1)).
    """
    number = depth_of(activations, ACTIVATIONS)
    low, high = (part_of(edge, number) for edge in grid.window)
    if low == high:
        raise UserError(f"activation_spaces.window: expected depths that hold one of the {number} states; widen it")
    rows = state_overlap(
        activations,
        grid,
        position=position,
        pairs=pairs,
        checkpoint=checkpoint,
        centred=centred,
        states=range(low, high),
    )
    axes = {"seed": grid.seeds, "pair": pairs, "eta": grid.activation_etas}
    means = rows.groupby(list(axes), as_index=False)[["mso", "mso_chance"]].mean()
    name = f"{ACTIVATIONS}: {checkpoint}, {'centred' if centred else 'uncentred'}, states {low} to {high - 1}"
    return complete(means, name, axes, values=("mso", "mso_chance"))


def at_position(activations: pd.DataFrame, position: Position) -> pd.DataFrame:
    """The rows of one token, or of one early window."""
    return where(activations, **{name: value for name, value in position.table_columns.items() if value is not None})


def depth_of(table: pd.DataFrame, name: str) -> int:
    """How many layers (or states) a table covers.

    Raises:
        UserError: it covers none.
    """
    if table.layer.isna().all():
        raise UserError(f"{name}: no row belongs to a layer; write the table again")
    return int(table.layer.max()) + 1
