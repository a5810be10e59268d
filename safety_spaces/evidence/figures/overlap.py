"""Figures 4, 8, 10 to 14 and 17: Mode Subspace Overlap of updates against the energy level.

MSO of two random subspaces is max(k1, k2)/d (Equation 11), which grows with the energy level, so an MSO means nothing
without that chance level: it is dashed in the colour of its pair.
"""

from itertools import cycle
from math import ceil

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.style import PAIRS, dress, house_style, legend, panels, small_multiples
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.overlaps import depth_of, layer_overlap, shown_layers
from safety_spaces.evidence.tables import Tables

ENERGY_LEVEL = "energy level η"
MOST_COLUMNS = 7


def figure_4(tables: Tables, grid: Grid) -> Figure:
    """MSO of the updates at the study's percentile layers, a panel for each layer that one falls on (Section 5)."""
    with house_style():
        layers = shown_layers(tables.of("update_spaces"), grid)
        figure, axes = panels(1, len(layers), share_y=True)
        for panel, (layer, percentiles) in zip(axes, layers.items(), strict=True):
            draw_pairs(panel, layer_overlap(tables.of("update_spaces"), grid, layer=layer), grid.update_pairs)
            names = " and ".join(_ordinal(percentile) for percentile in percentiles)
            dress(panel, title=f"{names} percentile (layer {layer})", x=ENERGY_LEVEL, y="MSO")
        legend(figure, axes)
    return figure


def figure_10(tables: Tables, grid: Grid) -> Figure:
    """MSO of the updates at every layer, a small panel each (Appendix G); a layer that no training touched says so."""
    with house_style():
        layers = depth_of(tables.of("update_spaces"), "update_spaces.csv")
        figure, axes = small_grid(layers)
        for layer, panel in enumerate(axes):
            rows = layer_overlap(tables.of("update_spaces"), grid, layer=layer)
            draw_pairs(panel, rows, grid.update_pairs, small=True)
            panel.set_title(f"layer {layer}{', no update' if rows.mso.isna().all() else ''}")
        figure.supylabel("MSO", fontsize=9)
        legend(figure, axes)
    return figure


def small_grid(count: int) -> tuple[Figure, list[Axes]]:
    """An empty figure of `count` small panels that share both axes, in rows of nearly equal length."""
    rows = ceil(count / MOST_COLUMNS)
    columns = ceil(count / rows)
    figure, axes = small_multiples(rows, columns)
    for surplus in axes[count:]:
        surplus.remove()
    # The lowest panel of each column says what the axis is, also above a gap.
    for panel in axes[max(0, count - columns) : count]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel(ENERGY_LEVEL)
    return figure, axes[:count]


def draw_pairs(axes: Axes, rows: pd.DataFrame, pairs: tuple[str, ...], *, small: bool = False) -> None:
    """Draw MSO and chance of each pair over the energy level: means over seeds, and a band from lowest to highest."""
    for pair, (colour, marker) in zip(pairs, cycle(PAIRS), strict=False):
        of_pair = rows[rows.pair == pair].groupby("eta")[["mso", "mso_chance"]]
        means, lowest, highest = of_pair.mean(), of_pair.min().mso, of_pair.max().mso
        size = 2.5 if small else None
        axes.fill_between(means.index, lowest, highest, color=colour, alpha=0.18, linewidth=0)
        axes.plot(means.index, means.mso, color=colour, marker=marker, markersize=size, label=pair)
        axes.plot(means.index, means.mso_chance, "--", color=colour, linewidth=1.1, label=f"{pair}, chance")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def _ordinal(percentile: float) -> str:
    number = f"{100 * percentile:g}"
    ending = "th" if number[-2:] in ("11", "12", "13") else {"1": "st", "2": "nd", "3": "rd"}.get(number[-1], "th")
    return number + ending
