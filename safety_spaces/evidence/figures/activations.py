"""Figures 5, 9 and 22 to 26: Mode Subspace Overlap of activations, with its chance level dashed.

Uncentred is the paper's; in the centred rows the mean state is removed, which two prompt sets share whatever they say.
"""

from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.overlap import ENERGY_LEVEL, draw_pairs, small_grid
from safety_spaces.evidence.figures.style import GREY, PAIRS, dress, house_style, legend, panels
from safety_spaces.evidence.findings.activations import Ordinary, compared_pairs
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.overlaps import ACTIVATIONS, depth_of, state_overlap, window_overlap
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import Position

KINDS = {False: "uncentred", True: "centred"}
STROKES = {False: "-", True: ":"}
CHANCE = {False: GREY, True: "#000000"}


def figure_5(tables: Tables, grid: Grid, *, position: Position | None = None, ordinary: Ordinary = "useful") -> Figure:
    """MSO of the activations in the window of layers, a panel per checkpoint, uncentred above centred (Section 6).

    At the first position unless another is given; Figure 26 has refusal prompts in the place of useful ones.
    """
    pairs, position = compared_pairs(grid, ordinary), grid.positions[0] if position is None else position
    with house_style():
        figure, axes = panels(2, len(grid.checkpoints), share_y=True)
        cells = [(centred, checkpoint) for centred in KINDS for checkpoint in grid.checkpoints]
        for panel, (centred, checkpoint) in zip(axes, cells, strict=True):
            rows = window_overlap(
                tables.of("activation_spaces"),
                grid,
                position=position,
                pairs=pairs,
                checkpoint=checkpoint,
                centred=centred,
            )
            draw_pairs(panel, rows, pairs)
            dress(panel, title=f"{checkpoint}, {KINDS[centred]}", x=ENERGY_LEVEL, y="MSO")
        legend(figure, axes)
    return figure


def figure_22(tables: Tables, grid: Grid, *, pair: str) -> Figure:
    """MSO of one pair of prompt sets at every state, a small panel each, a colour per checkpoint (Appendix K.1).

    A state that is the same for all prompts of a set has no centred line, and its title says so.
    """
    with house_style():
        figure, axes = small_grid(depth_of(tables.of("activation_spaces"), ACTIVATIONS))
        constant: set[int] = set()
        for centred in KINDS:
            by_checkpoint = {
                checkpoint: state_overlap(
                    tables.of("activation_spaces"),
                    grid,
                    position=grid.positions[0],
                    pairs=(pair,),
                    checkpoint=checkpoint,
                    centred=centred,
                )
                for checkpoint in grid.checkpoints
            }
            for state, panel in enumerate(axes):
                at_state = {name: rows[rows.layer == state] for name, rows in by_checkpoint.items()}
                _draw_checkpoints(panel, at_state, centred=centred)
                if all(rows.mso.isna().all() for rows in at_state.values()):
                    constant.add(state)
        for state, panel in enumerate(axes):
            title = f"state {state}{', no spread' if state in constant else ''}"
            panel.set(title=title, xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        figure.supylabel(f"MSO of {pair}", fontsize=9)
        legend(figure, axes)
    return figure


def figure_25(tables: Tables, grid: Grid, *, centred: bool) -> Figure:
    """MSO of the activations in early windows of tokens: a row per window, a column per checkpoint (Appendix K.2)."""
    pairs = compared_pairs(grid, "useful")
    with house_style():
        figure, axes = panels(len(grid.windows), len(grid.checkpoints), share_y=True)
        cells = [(window, checkpoint) for window in grid.windows for checkpoint in grid.checkpoints]
        for panel, (window, checkpoint) in zip(axes, cells, strict=True):
            rows = window_overlap(
                tables.of("activation_spaces"),
                grid,
                position=window,
                pairs=pairs,
                checkpoint=checkpoint,
                centred=centred,
            )
            draw_pairs(panel, rows, pairs)
            dress(panel, title=f"{checkpoint}, {KINDS[centred]}\n{window.words}", x=ENERGY_LEVEL, y="MSO")
        legend(figure, axes)
    return figure


def _draw_checkpoints(axes: Axes, by_checkpoint: dict[str, pd.DataFrame], *, centred: bool) -> None:
    """Means over seeds by checkpoint, and the chance level as their mean, since it hardly differs between them."""
    kind, stroke = KINDS[centred], STROKES[centred]
    for (checkpoint, rows), (colour, marker) in zip(by_checkpoint.items(), cycle(PAIRS), strict=False):
        means = rows.groupby("eta").mso.mean()
        name = f"{checkpoint}, {kind}"
        axes.plot(means.index, means, color=colour, linestyle=stroke, marker=marker, markersize=2.5, label=name)
    chance = pd.concat(by_checkpoint.values()).groupby("eta").mso_chance.mean()
    axes.plot(chance.index, chance, "--", color=CHANCE[centred], linewidth=0.9, label=f"chance, {kind}")
