"""Figures 2, 3, 6, 7, 15, 16 and 18 to 21: energy kept and behaviour of projected models against the SVD fraction.

One line per basis is the mean over seeds and draws, the faint dots are the single seeds and draws, and a bar is the
mean of their 95 % intervals over prompts: prompts are the same for every seed, so averaging seeds does not narrow it.
The closed-form energy of the random controls (k/M and k/r of the update's energy) is dotted in their colour.
Where one layer is projected alone a full line is a model whose other layers keep their whole update, a dashed one a
model whose other layers have none of it.
"""

from typing import TypeVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from safety_spaces.evaluation.metrics import METRICS
from safety_spaces.evidence.figures.style import (
    BASES,
    CHECKPOINTS,
    dress,
    house_style,
    legend,
    panels,
    small_multiples,
)
from safety_spaces.evidence.findings.robustness import GENERAL_ABILITY, OVER_REFUSAL
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, Grid, Line, SingleLayers
from safety_spaces.evidence.selection import baseline, energies, scores
from safety_spaces.evidence.tables import Tables
from safety_spaces.tensors import FIXED_BASES

FRACTION = "SVD fraction"
DODGE = 0.012  # bases side by side, so that no bar hides another; energies have no bars and stay in their place
STROKES = {"whole": "-", "out": "--"}
Row = TypeVar("Row", Line, SingleLayers)

FIGURE_20: tuple[Line, ...] = (("useful", "parallel", GENERAL_ABILITY), ("harmful", "parallel", OVER_REFUSAL))
FIGURE_21: tuple[Line, ...] = tuple(("contaminated", "orthogonal", name) for name in (GENERAL_ABILITY, OVER_REFUSAL))


def figure_2(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection: energy kept of both tasks, utility of useful, harmfulness of harmful (Section 3).

    Of a study that scores nothing, energy kept of all its tasks.
    """
    lines = grid.lines(*PARALLEL)
    return _figure(tables, grid, tasks=tuple(task for task, _, _ in lines) or grid.tasks, lines=lines)


def figure_3(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection: energy outside of all tasks, both scores of contaminated (Section 4)."""
    return _figure(tables, grid, tasks=grid.tasks, lines=ORTHOGONAL, outside=True)


def figure_3_parallel(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection of contaminated on both scores (the paper's Tables 2 and 5)."""
    return _figure(tables, grid, lines=grid.lines(*CONTAMINATED))


def figure_18(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection of single layers: energy kept inside the layer, and the scores (Appendix I)."""
    tasks = tuple(dict.fromkeys(line.task for line in grid.single("parallel")))
    return _figure_of_layers(tables, grid, tasks=tasks, lines=grid.single("parallel"), outside=False)


def figure_19(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection of single layers: energy outside of all tasks inside the layer, and the scores."""
    return _figure_of_layers(tables, grid, tasks=grid.tasks, lines=grid.single("orthogonal"), outside=True)


def figure_20(tables: Tables, grid: Grid) -> Figure:
    """Parallel projection: general ability of useful, over-refusal of harmful (Appendix J)."""
    return _figure(tables, grid, lines=grid.lines(*FIGURE_20))


def figure_21(tables: Tables, grid: Grid) -> Figure:
    """Orthogonal projection of contaminated on general ability and over-refusal (Appendix J)."""
    return _figure(tables, grid, lines=grid.lines(*FIGURE_21))


def _figure(
    tables: Tables, grid: Grid, *, lines: tuple[Line, ...], tasks: tuple[str, ...] = (), outside: bool = False
) -> Figure:
    """A row of energies above a row of scores; a row whose table is not there is left out while the other one is."""
    tasks, lines = _there(tables, tasks, lines)
    columns = max(len(tasks), len(lines))
    with house_style():
        figure, axes = panels(bool(tasks) + bool(lines), columns)
        energy, score = axes[: columns if tasks else 0], axes[columns if tasks else 0 :]
        for panel, task in zip(energy, tasks, strict=False):
            _draw_energy(panel, tables.of("energy"), grid, task=task, outside=outside)
            dress(panel, title=f"{task}: energy {'outside' if outside else 'kept'}", x=FRACTION, y="share of energy")
        for panel, (task, scheme, metric) in zip(score, lines, strict=False):
            rows = _draw_scores(panel, tables.of("projection"), grid, line=(task, scheme, metric))
            draw_baselines(panel, tables.of("projection"), grid, task=task, metric=metric)
            dress(panel, title=f"{task}, {scheme}: {metric}", x=FRACTION, y=_scale(metric, rows))
        for surplus in [*energy[len(tasks) :], *score[len(lines) :]]:
            surplus.remove()
        legend(figure, [*energy[: len(tasks)], *score[: len(lines)]])
    return figure


def _figure_of_layers(
    tables: Tables, grid: Grid, *, tasks: tuple[str, ...], lines: tuple[SingleLayers, ...], outside: bool
) -> Figure:
    """A column for each layer that is projected alone: rows of energies inside the layer above rows of scores."""
    layers = sorted({layer for line in lines for layer in line.layers})
    tasks, lines = _there(tables, tasks, lines)
    with house_style():
        figure, axes = small_multiples(len(tasks) + len(lines), len(layers), share_y="row")
        rows = [axes[start : start + len(layers)] for start in range(0, len(axes), len(layers))]
        for row, task in zip(rows, tasks, strict=False):
            row[0].set_ylabel(f"{task}\nenergy {'outside' if outside else 'kept'}")
            for panel, layer in zip(row, layers, strict=True):
                _draw_energy(panel, tables.of("energy"), grid, task=task, layer=layer, outside=outside)
        for row, one in zip(rows[len(tasks) :], lines, strict=True):
            row[0].set_ylabel(f"{one.task}\n{METRICS[one.metric].label}")
            for panel, layer in zip(row, layers, strict=True):
                if layer not in one.layers:
                    continue
                line, projection = (one.task, one.scheme, one.metric), tables.of("projection")
                for others in one.others:
                    _draw_scores(panel, projection, grid, line=line, layer=layer, others=others)
                draw_baselines(panel, projection, grid, task=one.task, metric=one.metric)
        for panel, layer in zip(rows[0], layers, strict=True):
            panel.set_title(f"layer {layer}")
        for panel in rows[-1]:
            panel.set_xlabel(FRACTION)
        legend(figure, axes)
    return figure


def _there(tables: Tables, tasks: tuple[str, ...], lines: tuple[Row, ...]) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """The tasks whose energies, and the lines whose scores, have a table; UserError where neither has one."""
    found = () if tables.energy is None else tasks, () if tables.projection is None else lines
    if not any(found):
        tables.of("projection" if lines else "energy")
    return found


def _draw_energy(
    axes: Axes, energy: pd.DataFrame, grid: Grid, *, task: str, outside: bool, layer: int | None = None
) -> None:
    for basis in reversed(grid.bases):
        rows = energies(energy, grid, task=task, basis=basis, layer=layer, gaps=True)
        kept = 1 - rows.energy_kept if outside else rows.energy_kept
        _draw_line(axes, rows.assign(value=kept), basis=basis, dots=layer is None)
        if basis not in FIXED_BASES:
            expected = rows.groupby("fraction").energy_expected.mean(skipna=False)
            curve = 1 - expected if outside else expected
            axes.plot(curve.index, curve, ":", color=BASES[basis][0], label=f"{basis}, closed form")
    axes.set_ylim(-0.03, 1.03)


def _draw_scores(
    axes: Axes, projection: pd.DataFrame, grid: Grid, *, line: Line, layer: int | None = None, others: str = ""
) -> pd.DataFrame:
    rows = {
        basis: scores(projection, grid, line=line, basis=basis, layer=layer, others=others, gaps=True)
        for basis in grid.bases
    }
    for basis in reversed(grid.bases):  # the claim comes last and lies on top
        shift = 0.0 if others else DODGE * (grid.bases.index(basis) - (len(grid.bases) - 1) / 2)
        means = _draw_line(axes, rows[basis], basis=basis, shift=shift, others=others, dots=not others)
        # Six digits of a table can put a bound on the wrong side of a value that touches it.
        below, above = ((means[end] - means.value).abs() for end in ("ci_low", "ci_high"))
        axes.errorbar(
            means.index + shift, means.value, [below, above], fmt="none", ecolor=BASES[basis][0], elinewidth=0.9
        )
    return pd.concat(rows.values())


def draw_baselines(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str, metric: str) -> None:
    """Draw base, reference and the fine-tuned task as horizontal lines."""
    for name, (colour, dashes) in CHECKPOINTS.items():
        checkpoint = task if name == "fine-tuned" else name
        level = baseline(projection, grid, checkpoint=checkpoint, metric=metric, gaps=True).value
        axes.axhline(level.mean(skipna=False), color=colour, linestyle=dashes, linewidth=1.1, label=name)


def _scale(metric: str, rows: pd.DataFrame) -> str:
    """A metric with its unit; in Appendix J also with how many worked examples it was asked, or who judged."""
    if metric == GENERAL_ABILITY:
        shots = ", ".join(f"{int(number)}" for number in sorted(set(rows.shots.dropna()))) or "unknown number of"
        return f"{METRICS[metric].label}\n{shots} worked examples"
    if metric == OVER_REFUSAL:
        return f"{METRICS[metric].label}\njudge: {', '.join(sorted(set(rows.judge)))}"
    return METRICS[metric].label


def _draw_line(
    axes: Axes, rows: pd.DataFrame, *, basis: str, shift: float = 0.0, others: str = "", dots: bool = True
) -> pd.DataFrame:
    """Means by fraction; a mean of which a seed or draw is empty is a gap, since it would be of other models."""
    colour, marker = BASES[basis]
    values = [column for column in ("value", "ci_low", "ci_high") if column in rows]
    means = rows.groupby("fraction")[values].mean(skipna=False)
    style, name = STROKES.get(others, "-"), f"{basis}, others {others}" if others else basis
    axes.plot(means.index + shift, means.value, style, color=colour, marker=marker, fillstyle="none", label=name)
    if dots:
        axes.plot(rows.fraction + shift, rows.value, ".", color=colour, alpha=0.35, markersize=4)
    return means
