"""Figures 4, 5, 8 to 14, 17 and 22 to 26: Mode Subspace Overlap of updates and of activations by energy level.

MSO of two random subspaces is max(k1, k2)/d (Equation 11), which grows with the energy level, so an MSO means nothing
without that chance level: it is dashed in the colour of its pair, or taken off where a map has no place for it. Centred
states have lost the mean state, which two prompt sets share whatever they say; uncentred ones are the paper's.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safety_spaces.evidence.figures.style import (
    SERIES,
    Drawn,
    draw_map,
    dress,
    house_style,
    legend,
    means_over,
    panels,
    small_panels,
)
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.names import pair_name
from safety_spaces.evidence.overlaps import (
    depth_of,
    layer_overlap,
    shown_layers,
    state_overlap,
    window_overlap,
)
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import Position

ENERGY_LEVEL = "energy level η"
KINDS = {True: "centred", False: "uncentred"}
"""Centred states first: an uncentred overlap is nearly everywhere that of two means."""


def figure_4(tables: Tables, grid: Grid) -> Drawn:
    """MSO of the updates at the study's percentile layers, a panel for each layer that one falls on (Section 5)."""
    with house_style():
        layers = shown_layers(tables.of("update_spaces"), grid)
        figure, axes = panels(1, len(layers), sharey=True)
        for panel, (layer, percentiles) in zip(axes, layers.items(), strict=True):
            _draw_pairs(panel, layer_overlap(tables.of("update_spaces"), grid, layer=layer), grid.update_pairs)
            names = " and ".join(_ordinal(percentile) for percentile in percentiles)
            dress(panel, title=f"{names} percentile (layer {layer})", x=ENERGY_LEVEL, share=True)
        axes[0].set_ylabel("MSO")
        legend(figure, axes)
    return Drawn(figure, _said(grid))


def figure_10(tables: Tables, grid: Grid) -> Drawn:
    """MSO of the updates at every layer, a small panel each (Appendix G); a layer that no training touched says so."""
    with house_style():
        figure, axes = small_panels(depth_of(tables.of("update_spaces"), "update_spaces.csv"), x=ENERGY_LEVEL)
        for layer, panel in enumerate(axes):
            rows = layer_overlap(tables.of("update_spaces"), grid, layer=layer)
            _draw_pairs(panel, rows, grid.update_pairs, small=True)
            dress(panel, title=f"layer {layer}{', no update' if rows.mso.isna().all() else ''}", share=True)
        figure.supylabel("MSO", fontsize=8)
        legend(figure, axes)
    return Drawn(figure, _said(grid))


def window_curves(
    tables: Tables, grid: Grid, *, pairs: Sequence[str], positions: Mapping[Position, str], kinds: Sequence[bool]
) -> Drawn:
    """MSO of the activations in the window of layers, a column for each checkpoint (Section 6, Appendix K).

    A row for each of `kinds` (centred or not) at each of `positions`, which are called by their words.
    """
    rows = [(position, words, centred) for position, words in positions.items() for centred in kinds]
    with house_style():
        figure, axes = panels(len(rows), len(grid.checkpoints), height=1.35, sharex=True, sharey=True)
        cells = [(*row, checkpoint) for row in rows for checkpoint in grid.checkpoints]
        for panel, (position, words, centred, checkpoint) in zip(axes, cells, strict=True):
            overlap = window_overlap(
                tables.of("activation_spaces"),
                grid,
                position=position,
                pairs=tuple(pairs),
                checkpoint=checkpoint,
                centred=centred,
            )
            _draw_pairs(panel, overlap, pairs, grid.set_names)
            first = (position, words, centred) == rows[0]
            label = "\n".join(part for part in (words, f"MSO, {KINDS[centred]}") if part)
            dress(
                panel,
                title=checkpoint if first else "",
                y=label if checkpoint == grid.checkpoints[0] else None,
                share=True,
            )
        for panel in axes[-len(grid.checkpoints) :]:
            panel.set_xlabel(ENERGY_LEVEL)
        legend(figure, axes)
    return Drawn(figure, f"{_said(grid)} Means over the states of the window {grid.window[0]:g} to {grid.window[1]:g}.")


def state_maps(tables: Tables, grid: Grid, *, pair: str) -> Drawn:
    """MSO minus chance of one pair of prompt sets at every state: the first checkpoint, then differences to it.

    Checkpoints hardly differ, so that their curves would hide one another (Appendix K.1). A state that is the same for
    all prompts of a set spans nothing once centred and stays white.
    """
    table, first = tables.of("activation_spaces"), grid.checkpoints[0]
    maps = {
        (centred, name): _map(table, grid, pair=pair, checkpoint=name, centred=centred)
        for centred in KINDS
        for name in grid.checkpoints
    }
    largest = [np.nan_to_num(np.abs(one - maps[centred, first])).max() for (centred, _), one in maps.items()]
    limit = max(0.05, *largest)
    with house_style():
        figure, axes = panels(2, len(grid.checkpoints), height=1.45, sharex=True, sharey=True)
        for panel, ((centred, name), one) in zip(axes, maps.items(), strict=True):
            change = name != first
            colours = {"cmap": "PuOr", "vmin": -limit, "vmax": limit} if change else {"vmin": 0.0, "vmax": 1.0}
            image = draw_map(panel, one - maps[centred, first] if change else one, **colours)
            if not change or name == grid.checkpoints[-1]:
                figure.colorbar(image, ax=panel, pad=0.02, aspect=12)
            if centred:
                dress(panel, title=f"{name} \N{MINUS SIGN} {first}" if change else name)
            else:
                panel.set_xlabel("state")
            if not change:
                panel.set_ylabel(f"{KINDS[centred]}\n{ENERGY_LEVEL}")
        shown = np.arange(0, len(grid.activation_etas), max(1, len(grid.activation_etas) // 4))
        axes[0].set_yticks(shown + 0.5, [f"{grid.activation_etas[number]:g}" for number in shown])
        states = np.arange(0, next(iter(maps.values())).shape[1], max(1, next(iter(maps.values())).shape[1] // 6))
        axes[0].set_xticks(states + 0.5, [f"{state}" for state in states])
    return Drawn(
        figure,
        f"MSO minus its chance level, {means_over(len(grid.seeds))}, of {first} "
        "on the left, of the others as differences to it. State 0 is the embedding; a state without spread is white.",
    )


def _map(table: pd.DataFrame, grid: Grid, *, pair: str, checkpoint: str, centred: bool) -> np.ndarray:
    rows = state_overlap(table, grid, position=grid.positions[0], pairs=(pair,), checkpoint=checkpoint, centred=centred)
    excess = rows.assign(excess=rows.mso - rows.mso_chance)
    return excess.pivot_table(index="eta", columns="layer", values="excess", dropna=False).to_numpy(dtype=float)


def _draw_pairs(
    axes: Axes,
    rows: pd.DataFrame,
    pairs: Sequence[str],
    names: Mapping[str, str] | None = None,
    *,
    small: bool = False,
) -> None:
    for pair, (colour, marker) in zip(pairs, cycle(SERIES), strict=False):
        of_pair, label = rows[rows.pair == pair], pair_name(pair, names or {})
        mean = of_pair.groupby("eta")[["mso", "mso_chance"]].mean()
        axes.plot(of_pair.eta, of_pair.mso, ".", color=colour, alpha=0.4, markersize=1.8)
        axes.plot(
            mean.index, mean.mso, color=colour, marker=marker, markersize=2 if small else None,
            markeredgecolor="white", markeredgewidth=0.4, label=label,
        )  # fmt: skip
        axes.plot(mean.index, mean.mso_chance, "--", color=colour, linewidth=0.7, label=f"{label}, chance")


def _said(grid: Grid) -> str:
    return f"Lines are {means_over(len(grid.seeds))}, small points single seeds; dashed is chance, max(k1, k2)/d."


def _ordinal(percentile: float) -> str:
    number = f"{100 * percentile:g}"
    ending = "th" if number[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number + ending
