"""Figures 2, 3, 6, 7, 15, 16 and 18 to 21: energy kept and behaviour of projected models against the SVD fraction.

Models of which one layer alone is projected (Appendix I) are heat maps, layer by fraction.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from safety_spaces.evaluation.metrics import METRICS
from safety_spaces.evidence.figures.style import (
    BASELINES,
    BASES,
    BLACK,
    DODGE,
    SMALL,
    Drawn,
    draw_map,
    dress,
    house_style,
    legend,
    means_over,
    panels,
)
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, Grid, Line
from safety_spaces.evidence.selection import baseline, energies, scores
from safety_spaces.evidence.tables import Tables
from safety_spaces.tensors import FIXED_BASES

FRACTION = "fraction ρ"
FIGURE_20: tuple[Line, ...] = (("useful", "parallel", "general_ability"), ("harmful", "parallel", "over_refusal"))
FIGURE_21: tuple[Line, ...] = tuple(
    ("contaminated", "orthogonal", name) for name in ("general_ability", "over_refusal")
)
LINES = {
    "figure_2": PARALLEL,
    "figure_3": ORTHOGONAL,
    "figure_3_parallel": CONTAMINATED,
    "figure_20": FIGURE_20,
    "figure_21": FIGURE_21,
}
"""Task, scheme and metric of each panel of scores."""


def curves(tables: Tables, grid: Grid, *, key: str) -> Drawn:
    """Energies above scores against the fraction; `key` is one of LINES. A row whose table is not there is left out.

    Figures 2 and 3 have energies: those of the tasks they score, and those of all tasks (outside the subspace).

    Raises:
        UserError: neither table is there, or one lacks a row.
    """
    lines, outside = grid.lines(*LINES[key]), key == "figure_3"
    tasks = {"figure_2": tuple(task for task, _, _ in lines) or grid.tasks, "figure_3": grid.tasks}.get(key, ())
    if tables.energy is None or tables.projection is None:
        tables.of("projection" if tables.energy is None or not tasks else "energy")
        tasks, lines = (() if tables.energy is None else tasks), (() if tables.projection is None else lines)
    columns = max(len(tasks), len(lines))
    with house_style():
        figure, axes = panels(bool(tasks) + bool(lines), columns)
        energy, score = axes[: columns if tasks else 0], axes[columns if tasks else 0 :]
        for panel, task in zip(energy, tasks, strict=False):
            draw_energies(panel, tables.of("energy"), grid, task=task, outside=outside)
            title, label = f"{task}: energy {'outside' if outside else 'kept'}", "share of energy"
            dress(panel, title=title, x=FRACTION, y=label if panel is energy[0] else None, share=True)
        for panel, (task, scheme, metric) in zip(score, lines, strict=False):
            _draw_scores(panel, tables.of("projection"), grid, line=(task, scheme, metric))
            dress(panel, title=f"{task}: {METRICS[metric].label.split(' (')[0]}", x=FRACTION, y=METRICS[metric].label)
            panel.set(xlim=(-0.04, 1.04), xticks=(0, 0.5, 1))
        for surplus in [*energy[len(tasks) :], *score[len(lines) :]]:
            surplus.remove()
        legend(figure, [*score[: len(lines)], *energy[: len(tasks)]])
    return Drawn(figure, f"{_energies_said(grid) if tasks else ''}{_scores_said(tables, grid, lines) if lines else ''}")


def draw_energies(axes: Axes, energy: pd.DataFrame, grid: Grid, *, task: str, outside: bool = False) -> None:
    """Draw the energy kept, or outside, of one task by basis, with the closed form of the random ones dotted."""
    found = {basis: energies(energy, grid, task=task, basis=basis, gaps=True) for basis in grid.bases}
    for basis, rows in found.items():
        kept = 1 - rows.energy_kept if outside else rows.energy_kept
        _draw_line(axes, rows.assign(value=kept), grid, basis=basis)
    for basis, rows in found.items():
        if basis not in FIXED_BASES:
            expected = rows.groupby("fraction").energy_expected.mean(skipna=False)
            curve = 1 - expected if outside else expected
            axes.plot(curve.index + shift(grid, basis), curve, ":", color=BLACK, linewidth=0.8, label="closed form")


def shift(grid: Grid, basis: str) -> float:
    """How far the points of a basis stand from their fraction, the same in every panel and figure."""
    return DODGE * (grid.bases.index(basis) - (len(grid.bases) - 1) / 2)


def means(rows: pd.DataFrame, columns: Sequence[str] = ("value",)) -> pd.DataFrame:
    """Means by fraction; one of which a seed or draw is empty is a gap, since it would be of other models."""
    return rows.groupby("fraction")[list(columns)].mean(skipna=False)


def layer_maps(tables: Tables, grid: Grid, *, scheme: str) -> Drawn:
    """Projection of single layers (Appendix I) as heat maps layer by fraction, a column for each basis.

    Rows are the energy kept (parallel) or outside (orthogonal) inside the layer, then the scores, with the other layers
    whole and out.

    Raises:
        UserError: neither table is there, or one lacks a row.
    """
    single, outside = grid.single(scheme), scheme == "orthogonal"
    tasks = grid.tasks if outside else tuple(dict.fromkeys(line.task for line in single))
    layers = sorted({layer for line in single for layer in line.layers})
    if tables.energy is None:
        tables.of("projection")
    maps = {} if tables.energy is None else {f"{task}\nenergy {'outside' if outside else 'kept'}": (0.0, 1.0, [
        _map(energies(tables.energy, grid, task=task, basis=basis, layer=layer, gaps=True), "energy_kept", outside)
        for basis in grid.bases for layer in layers]) for task in tasks}  # fmt: skip
    for one in single if tables.projection is not None else ():
        ends = [
            baseline(tables.of("projection"), grid, checkpoint=end, metric=one.metric, gaps=True).value.mean()
            for end in ("reference", one.task)
        ]
        for others in one.others:
            cells = [
                _map(scores(tables.of("projection"), grid, line=(one.task, one.scheme, one.metric), basis=basis,
                            layer=layer, others=others, gaps=True), "value")
                if layer in one.layers else np.full(len(grid.fractions), np.nan)
                for basis in grid.bases for layer in layers
            ]  # fmt: skip
            maps[f"{one.task}\nothers {others}\n{one.metric}"] = (min(ends), max(ends), cells)
    return _draw_maps(maps, grid, layers)


def _draw_maps(maps: dict[str, tuple[float, float, list[np.ndarray]]], grid: Grid, layers: list[int]) -> Drawn:
    with house_style():
        figure, axes = panels(len(maps), len(grid.bases), height=SMALL, sharex=True, sharey=True)
        rows = [axes[start : start + len(grid.bases)] for start in range(0, len(axes), len(grid.bases))]
        for row, (name, (low, high, cells)) in zip(rows, maps.items(), strict=True):
            for number, panel in enumerate(row[: len(cells) // len(layers)]):
                table = np.stack(cells[number * len(layers) : (number + 1) * len(layers)], axis=1)
                image = draw_map(panel, table, vmin=low, vmax=high)
            for surplus in row[len(cells) // len(layers) :]:
                surplus.remove()
            figure.colorbar(image, ax=row, pad=0.01, aspect=8)
            dress(row[0], y=name)
            row[0].set_yticks(np.arange(len(grid.fractions)) + 0.5, [f"{one:g}" for one in grid.fractions])
        step = max(1, len(layers) // 6)
        for panel, basis in zip(rows[0], grid.bases, strict=True):
            panel.set(title=basis, xticks=np.arange(0, len(layers), step) + 0.5, xticklabels=layers[::step])
        for panel in rows[-1]:
            panel.set_xlabel("layer")
    return Drawn(
        figure,
        "Rows of a panel are fractions ρ of directions, columns the one layer that is projected. Colours are "
        f"{means_over(len(grid.seeds), grid.score_draws)}: of energies from 0 to 1, of scores from reference to "
        "fine-tuned model. Energies are inside the layer; the update of all other layers stays whole or is left out.",
    )


def _map(rows: pd.DataFrame, column: str, outside: bool = False) -> np.ndarray:
    values = means(rows, [column])[column].to_numpy(dtype=float)
    return 1 - values if outside else values


def _draw_scores(axes: Axes, projection: pd.DataFrame, grid: Grid, *, line: Line) -> None:
    for basis in grid.bases:
        rows = scores(projection, grid, line=line, basis=basis, gaps=True)
        centre = _draw_line(axes, rows, grid, basis=basis)
        bounds = means(rows, ["ci_low", "ci_high"])
        # Six digits of a table can put a bound on the wrong side of a value that touches it.
        bars = [(bounds[end] - centre.value).abs() for end in ("ci_low", "ci_high")]
        axes.errorbar(
            centre.index + shift(grid, basis), centre.value, bars, fmt="none", ecolor=BASES[basis][0], elinewidth=0.7
        )
    for name, dashes in BASELINES.items():
        checkpoint = line[0] if name == "fine-tuned" else name
        level = baseline(projection, grid, checkpoint=checkpoint, metric=line[2], gaps=True).value
        axes.axhline(level.mean(skipna=False), color=BLACK, linestyle=dashes, linewidth=0.8, label=name)


def _draw_line(axes: Axes, rows: pd.DataFrame, grid: Grid, *, basis: str) -> pd.DataFrame:
    colour, marker = BASES[basis]
    centre, on_top = means(rows), 3 - 0.01 * grid.bases.index(basis)  # the claim lies on top of its controls
    axes.plot(
        centre.index + shift(grid, basis), centre.value, color=colour, marker=marker, markeredgecolor="white",
        markeredgewidth=0.4, label=basis, zorder=on_top,
    )  # fmt: skip
    x = rows.fraction + shift(grid, basis)
    axes.plot(x, rows.value, ".", color=colour, alpha=0.4, markersize=1.8, zorder=on_top)
    return centre


def _energies_said(grid: Grid) -> str:
    return f"Energies: lines are {means_over(len(grid.seeds), grid.energy_draws)}, dotted is their closed form. "


def _scores_said(tables: Tables, grid: Grid, lines: Sequence[Line]) -> str:
    rows = tables.of("projection")
    rows = rows[rows.metric.isin([metric for _, _, metric in lines])]
    prompts = " or ".join(f"{number:g}" for number in sorted(set(rows.n.dropna())))
    shots = " or ".join(f"{number:g}" for number in sorted(set(rows.shots.dropna())))
    judges = " and ".join(sorted({judge for judge in rows.judge.dropna() if judge}))
    return (
        f"Scores: lines are {means_over(len(grid.seeds), grid.score_draws)}, small points single seeds and draws, bars "
        f"the mean of their 95 % intervals over n = {prompts} prompts (which averaging over seeds does not narrow)."
        + (f" Judge: {judges}." if judges else "")
        + (f" Worked examples: {shots}." if shots else "")
        + " Horizontal lines are the models that nothing is projected of."
    )
