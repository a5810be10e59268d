"""Figures 2, 3, 6, 7, 15, 16, 20 and 21: energy kept and behaviour of projected models against the SVD fraction.

One line per basis is the mean over seeds and draws, the faint dots are the single seeds and draws, and a bar is the
mean of their 95 % intervals over prompts: prompts are the same for every seed, so averaging seeds does not narrow it.
The closed-form energy of the random controls (k/M and k/r of the update's energy) is dotted in their colour.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evidence.figures.style import BASES, CHECKPOINTS, dress, house_style, legend, panels
from safety_spaces.evidence.findings.robustness import GENERAL_ABILITY, OVER_REFUSAL
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, TASKS, Grid, Line
from safety_spaces.evidence.selection import baseline, energies, scores
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import FIXED_BASES

FRACTION = "SVD fraction"
SCALES = {
    "utility": "utility (accuracy)",
    "harmfulness": "harmfulness (1 to 5)",
    GENERAL_ABILITY: "general ability (accuracy)",
    OVER_REFUSAL: "over-refusal (share)",
}
DODGE = 0.012  # bases side by side, so that no bar hides another; energies have no bars and stay in their place

FIGURE_20: tuple[Line, ...] = (("useful", "parallel", GENERAL_ABILITY), ("harmful", "parallel", OVER_REFUSAL))
FIGURE_21: tuple[Line, ...] = tuple(("contaminated", "orthogonal", name) for name in (GENERAL_ABILITY, OVER_REFUSAL))


def figure_2(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection: energy kept of both tasks, utility of useful, harmfulness of harmful (Section 3)."""
    lines = grid.lines(*PARALLEL)
    with house_style():
        figure, axes = panels(2, len(lines))
        for panel, (task, _, _) in zip(axes, lines, strict=False):
            _draw_energy(panel, tables.energy, grid, task=task, outside=False)
        for panel, line in zip(axes[len(lines) :], lines, strict=True):
            _draw_scores(panel, tables.projection, grid, line=line)
        legend(figure, axes)
    return figure


def figure_3(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection: energy outside of all tasks, both scores of contaminated (Section 4)."""
    with house_style():
        figure, axes = panels(2, len(TASKS))
        for panel, task in zip(axes, TASKS, strict=False):
            _draw_energy(panel, tables.energy, grid, task=task, outside=True)
        for panel, line in zip(axes[len(TASKS) :], ORTHOGONAL, strict=False):
            _draw_scores(panel, tables.projection, grid, line=line)
        axes.pop().remove()
        legend(figure, axes)
    return figure


def figure_3_parallel(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection of contaminated on both scores (the paper's Tables 2 and 5)."""
    return _figure_of_scores(tables, grid, grid.lines(*CONTAMINATED))


def figure_20(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection: general ability of useful, over-refusal of harmful (Appendix J)."""
    return _figure_of_scores(tables, grid, grid.lines(*FIGURE_20))


def figure_21(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection of contaminated on general ability and over-refusal (Appendix J)."""
    return _figure_of_scores(tables, grid, grid.lines(*FIGURE_21))


def _figure_of_scores(tables: Tables, grid: Grid, lines: tuple[Line, ...]) -> Figure:
    with house_style():
        figure, axes = panels(1, len(lines))
        for panel, line in zip(axes, lines, strict=True):
            _draw_scores(panel, tables.projection, grid, line=line)
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


def _draw_scores(axes: Axes, projection: pd.DataFrame, grid: Grid, *, line: Line) -> None:
    task, scheme, metric = line
    rows = {basis: scores(projection, grid, line=line, basis=basis) for basis in grid.bases}
    for basis in reversed(grid.bases):  # the claim comes last and lies on top
        shift = DODGE * (grid.bases.index(basis) - (len(grid.bases) - 1) / 2)
        means = _draw_line(axes, rows[basis], basis=basis, shift=shift)
        # Six digits of a table can put a bound on the wrong side of a value that touches it.
        below, above = ((means[end] - means.value).abs() for end in ("ci_low", "ci_high"))
        axes.errorbar(
            means.index + shift, means.value, [below, above], fmt="none", ecolor=BASES[basis][0], elinewidth=0.9
        )
    draw_baselines(axes, projection, grid, task=task, metric=metric)
    dress(axes, title=f"{task}, {scheme}: {metric}", x=FRACTION, y=_scale(metric, pd.concat(rows.values())))


def draw_baselines(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str, metric: str) -> None:
    """Draw base, reference and the fine-tuned task as horizontal lines."""
    for name, (colour, dashes) in CHECKPOINTS.items():
        level = baseline(projection, grid, checkpoint=task if name == "fine-tuned" else name, metric=metric)
        axes.axhline(level.value.mean(), color=colour, linestyle=dashes, linewidth=1.1, label=name)


def _scale(metric: str, rows: pd.DataFrame) -> str:
    """A metric with its unit; in Appendix J also with how many worked examples it was asked, or who judged."""
    if metric == GENERAL_ABILITY:
        shots = ", ".join(f"{int(number)}" for number in sorted(set(rows.shots.dropna()))) or "unknown number of"
        return f"{SCALES[metric]}\n{shots} worked examples"
    if metric == OVER_REFUSAL:
        return f"{SCALES[metric]}\njudge: {', '.join(sorted(set(rows.judge)))}"
    return SCALES[metric]


def _draw_line(axes: Axes, rows: pd.DataFrame, *, basis: str, shift: float) -> pd.DataFrame:
    colour, marker = BASES[basis]
    means = rows.groupby("fraction")[[c for c in ("value", "ci_low", "ci_high") if c in rows]].mean()
    axes.plot(means.index + shift, means.value, color=colour, marker=marker, fillstyle="none", label=basis)
    axes.plot(rows.fraction + shift, rows.value, ".", color=colour, alpha=0.35, markersize=4)
    return means
