"""The two figures that matter: harmfulness against utility beside the dose, and energy against its ceiling."""

from math import isnan

import pandas as pd
from matplotlib.axes import Axes

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics import METRICS
from safety_spaces.evidence.completeness import where
from safety_spaces.evidence.figures.projection import FRACTION, draw_energies, means
from safety_spaces.evidence.figures.style import (
    BASES,
    BLACK,
    GREY,
    Drawn,
    dress,
    house_style,
    legend,
    means_over,
    panels,
)
from safety_spaces.evidence.grid import Grid
from safety_spaces.evidence.selection import baseline, scores
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import OUTCOMES
from safety_spaces.tensors import FIXED_BASES, MATCHED, SCALED


def both_scored(grid: Grid) -> list[tuple[str, str]]:
    """The tasks and schemes that are scored for utility and for harmfulness."""
    cells = dict.fromkeys((task, scheme) for task, scheme, _ in grid.scored)
    return [cell for cell in cells if all((*cell, metric) in grid.scored for metric in OUTCOMES)]


def figure_dose(tables: Tables, grid: Grid) -> Drawn:
    """Harmfulness against utility: every cell as a point, and the update at every dose as a line (design, section 10).

    Raises:
        UserError: the table of scores is not there or lacks a row.
    """
    projection, cells = tables.of("projection"), both_scored(grid)
    with house_style():
        figure, axes = panels(1, len(cells), height=2.6, sharex=True, sharey=True)
        for panel, (task, scheme) in zip(axes, cells, strict=True):
            for basis in (
                grid.claim,
                *({MATCHED} & {*grid.controls}),
                *(one for one in grid.bases if one != grid.claim),
            ):
                _draw_cells(panel, projection, grid, task=task, scheme=scheme, basis=basis)
            if SCALED in grid.controls:
                _draw_doses(panel, projection, grid, task=task)
            dress(panel, title=f"{task}, {scheme}", x=METRICS["utility"].label)
        axes[0].set_ylabel(METRICS["harmfulness"].label)
        for panel, (task, _) in zip(axes, cells, strict=True):
            _name_baselines(panel, projection, grid, task=task)
        for fraction in grid.fractions:
            axes[0].scatter([], [], s=_size(fraction), color=GREY, label=f"ρ = {fraction:g}")
        legend(figure, axes)
    line = "The black line is the whole update at doses 0 to 1, a tick for each dose."
    none = "The study scores no doses of the whole update, so no line says what less of it would do."
    return Drawn(
        figure,
        f"{line if SCALED in grid.controls else none} Points are projected models, "
        f"{means_over(len(grid.seeds), grid.score_draws)}, larger for a larger fraction ρ of directions; small points "
        "are single seeds. A point below the line has less harm than the dose with its utility. Intervals are in the "
        "tables.",
    )


def figure_energy(tables: Tables, grid: Grid) -> Drawn:
    """Energy kept against the fraction, with what is expected by chance and what the basis can hold at most.

    Raises:
        UserError: the table of energies is not there or lacks a row.
    """
    energy = tables.of("energy")
    with house_style():
        figure, axes = panels(1, len(grid.tasks), height=1.9, sharey=True)
        for panel, task in zip(axes, grid.tasks, strict=True):
            draw_energies(panel, energy, grid, task=task)
            for basis in (basis for basis in grid.bases if basis not in FIXED_BASES):
                most = ceiling(energy, task=task, basis=basis)
                if isnan(most):
                    continue
                panel.axhline(most, color=BASES[basis][0], linestyle="--", linewidth=0.8, label=f"ceiling of {basis}")
            dress(panel, title=task, x=FRACTION, share=True)
        axes[0].set_ylabel("share of energy kept")
        legend(figure, axes)
    return Drawn(
        figure,
        f"Lines are {means_over(len(grid.seeds), grid.energy_draws)}, small points single seeds and draws; dotted is "
        "the expected energy of a random basis (closed form). Dashed is what a basis holds with all its directions: at "
        "the ceiling of random_k the whole span of the reference update, which bounds its leading directions too, at "
        "that of random as many random directions. On a tall tensor neither reaches 1.",
    )


def ceiling(energy: pd.DataFrame, *, task: str, basis: str) -> float:
    """Energy that all r directions of a random basis hold in expectation: sum_t e_t r_t/k_t |D_t|^2 / sum_t |D_t|^2.

    e_t is the expected energy of tensor t with k_t directions; the mean over seeds, nan where no tensor is listed. For
    random_k this is what the span of the reference update holds, whichever of its directions come first.
    """
    rows = where(energy, task=task, basis=basis, draw=0, replicate=0)
    rows = rows[~rows.tensor.str.contains("^(?:all|kind:|layer:)") & (rows.fraction == rows.fraction.max())]
    squares = rows.update_norm.astype(float) ** 2
    held = (rows.energy_expected * rows["rank"] / rows.k.where(rows.k > 0)).astype(float).fillna(0) * squares
    by_seed = held.groupby(rows.seed).sum() / squares.groupby(rows.seed).sum()
    return float(by_seed.mean())


def _size(fraction: float) -> float:
    return float((2.5 + 4 * fraction) ** 2)


def _draw_cells(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str, scheme: str, basis: str) -> None:
    colour, marker = BASES[basis]
    rows = [scores(projection, grid, line=(task, scheme, metric), basis=basis, gaps=True) for metric in OUTCOMES]
    x, y = (means(one).value for one in rows)
    on_top = 4 + 0.1 * (basis == grid.claim)
    axes.plot(x, y, color=colour, linewidth=0.6, alpha=0.6, zorder=on_top)
    axes.scatter(
        x, y, s=[_size(one) for one in x.index], color=colour, marker=marker, edgecolor="white", linewidth=0.4,
        label=basis, zorder=on_top,
    )  # fmt: skip
    utility, harm = (one.groupby(["seed", "fraction"]).value.mean() for one in rows)
    axes.scatter(utility, harm, s=2.5, color=colour, alpha=0.4, linewidth=0, zorder=on_top - 1)


def _draw_doses(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str) -> None:
    """Draw the means of `scaled` from the reference to the fine-tuned model."""
    rows = where(projection, task=task, basis=SCALED)
    if rows.empty:
        raise UserError(f"projection.csv: no dose of {task} is scored; run that experiment again")
    points = []
    for metric in OUTCOMES:
        between = rows[rows.metric == metric].groupby("dose").value.mean()
        ends = [baseline(projection, grid, checkpoint=one, metric=metric, gaps=True).value.mean()
                for one in ("reference", task)]  # fmt: skip
        points.append([ends[0], *between, ends[1]])
    axes.plot(*points, color=BLACK, marker="|", markersize=4, linewidth=1, label="scaled (dose)", zorder=3)


def _name_baselines(axes: Axes, projection: pd.DataFrame, grid: Grid, *, task: str) -> None:
    """Mark and name base, reference and the task; a base that would squeeze all others to one side is named outside."""
    low, high = axes.get_xlim(), axes.get_ylim()
    for name in ("reference", task, "base"):
        x, y = (
            float(baseline(projection, grid, checkpoint=name, metric=of, gaps=True).value.mean()) for of in OUTCOMES
        )
        if name == "base" and not (low[0] <= x <= low[1] and high[0] <= y <= high[1]):
            axes.annotate(f"base: ({x:.2f}, {y:.2f}), not shown", (0.02, 0.97), xycoords="axes fraction", va="top")
            continue
        axes.plot(x, y, "X", color=BLACK, markersize=5, markeredgecolor="white", markeredgewidth=0.5, zorder=6)
        # The end of a curve that rises to the right leaves the places below its start and above its end free.
        offset, side = ((-5, 4), "right") if name == task else ((4, -10), "left")
        axes.annotate(name, (x, y), offset, textcoords="offset points", ha=side)
