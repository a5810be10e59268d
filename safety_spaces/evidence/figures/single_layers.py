"""Figures 18 and 19: one layer projected alone, a column of small panels per layer, a row per quantity.

Colours tell bases apart as everywhere; a full line is a model whose other layers keep their whole update, a dashed one
a model whose other layers have none of it. Bars are the mean 95 % interval over prompts.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.projection import FRACTION, SCALES, draw_baselines
from safety_spaces.evidence.figures.style import BASES, house_style, legend, small_multiples
from safety_spaces.evidence.grid import TASKS, Grid, Line
from safety_spaces.evidence.selection import energies, scores
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import FIXED_BASES

STROKES = {"whole": "-", "out": "--"}


def figure_18(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection of single layers: energy kept inside the layer, and the scores (Appendix I)."""
    tasks = tuple(dict.fromkeys(line.task for line in grid.single("parallel")))
    return _figure(tables, grid, scheme="parallel", tasks=tasks)


def figure_19(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection of single layers: energy outside of all tasks inside the layer, and the scores."""
    return _figure(tables, grid, scheme="orthogonal", tasks=TASKS)


def _figure(tables: Tables, grid: Grid, *, scheme: str, tasks: tuple[str, ...]) -> Figure:
    lines = grid.single(scheme)
    layers = sorted({layer for line in lines for layer in line.layers})
    with house_style():
        figure, axes = small_multiples(len(tasks) + len(lines), len(layers), share_y="row")
        rows = [axes[start : start + len(layers)] for start in range(0, len(axes), len(layers))]
        for row, task in zip(rows, tasks, strict=False):
            row[0].set_ylabel(f"{task}\nenergy {'outside' if scheme == 'orthogonal' else 'kept'}")
            for panel, layer in zip(row, layers, strict=True):
                _draw_energy(panel, tables.energy, grid, task=task, layer=layer, outside=scheme == "orthogonal")
        for row, line in zip(rows[len(tasks) :], lines, strict=True):
            row[0].set_ylabel(f"{line.task}\n{SCALES[line.metric]}")
            for panel, layer in zip(row, layers, strict=True):
                if layer not in line.layers:
                    continue
                for others in line.others:
                    key = (line.task, line.scheme, line.metric)
                    _draw_scores(panel, tables.projection, grid, line=key, layer=layer, others=others)
                draw_baselines(panel, tables.projection, grid, task=line.task, metric=line.metric)
        for panel, layer in zip(rows[0], layers, strict=True):
            panel.set_title(f"layer {layer}")
        for panel in rows[-1]:
            panel.set_xlabel(FRACTION)
        legend(figure, axes)
    return figure


def _draw_energy(axes: Axes, energy: pd.DataFrame, grid: Grid, *, task: str, layer: int, outside: bool) -> None:
    for basis in reversed(grid.bases):
        rows = energies(energy, grid, task=task, basis=basis, layer=layer)
        means = rows.groupby("fraction")[["energy_kept", "energy_expected"]].mean()
        kept = 1 - means if outside else means
        colour, marker = BASES[basis]
        axes.plot(kept.index, kept.energy_kept, color=colour, marker=marker, fillstyle="none", label=basis)
        if basis not in FIXED_BASES:
            axes.plot(kept.index, kept.energy_expected, ":", color=colour, label=f"{basis}, closed form")
    axes.set_ylim(-0.05, 1.05)


def _draw_scores(axes: Axes, projection: pd.DataFrame, grid: Grid, *, line: Line, layer: int, others: str) -> None:
    for basis in reversed(grid.bases):
        rows = scores(projection, grid, line=line, basis=basis, layer=layer, others=others)
        means = rows.groupby("fraction")[["value", "ci_low", "ci_high"]].mean()
        colour, marker = BASES[basis]
        name = f"{basis}, others {others}"
        axes.plot(means.index, means.value, STROKES[others], color=colour, marker=marker, markersize=3, label=name)
        below, above = ((means[end] - means.value).abs() for end in ("ci_low", "ci_high"))
        axes.errorbar(means.index, means.value, [below, above], fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.5)
