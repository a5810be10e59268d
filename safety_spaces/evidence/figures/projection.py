"""Figures 2 and 3: energy kept and behaviour of projected models against the SVD fraction.

One line per basis is the mean over seeds and draws, the faint dots are the single seeds and draws, and a bar is the
mean of their 95 % intervals over prompts: prompts are the same for every seed, so averaging seeds does not narrow it.
The closed-form energy of the random controls (k/M and k/r of the update's energy) is dotted in their colour.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.style import BASES, CHECKPOINTS, dress, house_style, legend, panels
from safety_spaces.evidence.selection import Grid, baseline, energies, scores
from safety_spaces.study import FIXED_BASES

FRACTION = "SVD fraction"
SCALES = {"utility": "utility (accuracy)", "harmfulness": "harmfulness (1 to 5)"}
DODGE = 0.012  # bases side by side, so that no bar hides another; energies have no bars and stay in their place


def figure_2(projection: pd.DataFrame, energy: pd.DataFrame, *, grid: Grid) -> Figure:
    """Parallel projection: energy kept of both tasks, utility of useful, harmfulness of harmful (Section 3)."""
    with house_style():
        figure, axes = panels(2, 2)
        for panel, task in zip(axes, ("useful", "harmful"), strict=False):
            _draw_energy(panel, energy, grid, task=task, outside=False)
        _draw_scores(axes[2], projection, grid, task="useful", scheme="parallel", metric="utility")
        _draw_scores(axes[3], projection, grid, task="harmful", scheme="parallel", metric="harmfulness")
        legend(figure, axes)
    return figure


def figure_3(projection: pd.DataFrame, energy: pd.DataFrame, *, grid: Grid) -> Figure:
    """Orthogonal projection: energy outside of all tasks, both scores of contaminated (Section 4)."""
    with house_style():
        figure, axes = panels(2, 3)
        for panel, task in zip(axes, ("useful", "harmful", "contaminated"), strict=False):
            _draw_energy(panel, energy, grid, task=task, outside=True)
        for panel, metric in zip(axes[3:], SCALES, strict=False):
            _draw_scores(panel, projection, grid, task="contaminated", scheme="orthogonal", metric=metric)
        axes.pop().remove()
        legend(figure, axes)
    return figure


def figure_3_parallel(projection: pd.DataFrame, *, grid: Grid) -> Figure:
    """Parallel projection of contaminated on both scores (the paper's Tables 2 and 5)."""
    with house_style():
        figure, axes = panels(1, 2)
        for panel, metric in zip(axes, SCALES, strict=True):
            _draw_scores(panel, projection, grid, task="contaminated", scheme="parallel", metric=metric)
        legend(figure, axes)
    return figure


def _draw_energy(axes: Axes, energy: pd.DataFrame, grid: Grid, *, task: str, outside: bool) -> None:
    for basis in reversed(grid.bases):
        rows = energies(energy, grid, task=task, basis=basis)
        kept = 1 - rows.energy_kept if outside else rows.energy_kept
        _draw_line(axes, rows.assign(value=kept), basis=basis, shift=0.0)
        if basis not in FIXED_BASES:
            expected = rows.groupby("fraction").energy_expected.mean()
            curve = 1 - expected if outside else expected
            axes.plot(curve.index, curve, ":", color=BASES[basis][0], label=f"{basis}, closed form")
    dress(axes, title=f"{task}: energy {'outside' if outside else 'kept'}", x=FRACTION, y="share of energy")
    axes.set_ylim(-0.03, 1.03)


def _draw_scores(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str, scheme: str, metric: str) -> None:
    for basis in reversed(grid.bases):  # the claim comes last and lies on top
        rows = scores(projection, grid, task=task, scheme=scheme, basis=basis, metric=metric)
        shift = DODGE * (grid.bases.index(basis) - (len(grid.bases) - 1) / 2)
        means = _draw_line(axes, rows, basis=basis, shift=shift)
        # Six digits of a table can put a bound on the wrong side of a value that touches it.
        below, above = ((means[end] - means.value).abs() for end in ("ci_low", "ci_high"))
        axes.errorbar(
            means.index + shift, means.value, [below, above], fmt="none", ecolor=BASES[basis][0], elinewidth=0.9
        )
    for name, (colour, dashes) in CHECKPOINTS.items():
        level = baseline(projection, grid, checkpoint=task if name == "fine-tuned" else name, metric=metric)
        axes.axhline(level.value.mean(), color=colour, linestyle=dashes, linewidth=1.1, label=name)
    dress(axes, title=f"{task}, {scheme}: {metric}", x=FRACTION, y=SCALES[metric])


def _draw_line(axes: Axes, rows: pd.DataFrame, *, basis: str, shift: float) -> pd.DataFrame:
    colour, marker = BASES[basis]
    means = rows.groupby("fraction")[[c for c in ("value", "ci_low", "ci_high") if c in rows]].mean()
    axes.plot(means.index + shift, means.value, color=colour, marker=marker, fillstyle="none", label=basis)
    axes.plot(rows.fraction + shift, rows.value, ".", color=colour, alpha=0.35, markersize=4)
    return means
