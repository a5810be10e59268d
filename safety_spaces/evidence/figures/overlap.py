"""Figures 4 and 5: Mode Subspace Overlap of updates and of activations against the energy level.

MSO of two random subspaces is max(k1, k2)/d (Equation 11), which grows with the energy level, so an MSO means nothing
without that chance level: it is dashed in the colour of its pair.
"""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.style import PAIRS, dress, house_style, legend, panels
from safety_spaces.evidence.selection import Grid, layer_overlap, percentile_layers, window_overlap


def figure_4(update_spaces: pd.DataFrame, *, grid: Grid) -> Figure:
    """MSO of the updates at the study's percentile layers, one panel each (Section 5)."""
    with house_style():
        layers = percentile_layers(update_spaces, grid)
        figure, axes = panels(1, len(layers), share_y=True)
        for panel, (percentile, layer) in zip(axes, layers.items(), strict=True):
            _draw_pairs(panel, layer_overlap(update_spaces, grid, layer=layer), grid.update_pairs)
            dress(panel, title=f"{100 * percentile:g}th percentile (layer {layer})", x="energy level η", y="MSO")
        legend(figure, axes)
    return figure


def figure_5(activation_spaces: pd.DataFrame, *, grid: Grid) -> Figure:
    """MSO of the activations in the window of layers, a panel per checkpoint (Section 6).

    The first row is the paper's, uncentred; in the second the mean state is removed, which two prompt sets share
    whatever they say.
    """
    with house_style():
        figure, axes = panels(2, len(grid.checkpoints), share_y=True)
        cells = [(centred, checkpoint) for centred in (False, True) for checkpoint in grid.checkpoints]
        for panel, (centred, checkpoint) in zip(axes, cells, strict=True):
            rows = window_overlap(activation_spaces, grid, checkpoint=checkpoint, centred=centred)
            _draw_pairs(panel, rows, grid.activation_pairs)
            title = f"{checkpoint}, {'centred' if centred else 'uncentred'}"
            dress(panel, title=title, x="energy level η", y="MSO")
        legend(figure, axes)
    return figure


def _draw_pairs(axes: Axes, rows: pd.DataFrame, pairs: tuple[str, ...]) -> None:
    for pair, (colour, marker) in zip(pairs, cycle(PAIRS), strict=False):
        of_pair = rows[rows.pair == pair].groupby("eta")[["mso", "mso_chance"]]
        means, lowest, highest = of_pair.mean(), of_pair.min().mso, of_pair.max().mso
        axes.fill_between(means.index, lowest, highest, color=colour, alpha=0.18, linewidth=0)
        axes.plot(means.index, means.mso, color=colour, marker=marker, label=pair)
        axes.plot(means.index, means.mso_chance, "--", color=colour, linewidth=1.1, label=f"{pair}, chance")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
