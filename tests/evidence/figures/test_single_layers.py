"""Figures 18 and 19 show every layer that is projected alone, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.projection import figure_18, figure_19

LAYERS = (0, 3, 9)


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return np.asarray(found.get_ydata(), dtype=float)


def means(table, column, fractions, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    return [table[table.fraction == fraction][column].mean() for fraction in fractions]


@pytest.mark.parametrize(
    ("draw", "scheme", "tasks", "scored"),
    [
        (figure_18, "parallel", ("useful", "harmful"), (("useful", "utility"), ("harmful", "harmfulness"))),
        (
            figure_19,
            "orthogonal",
            ("useful", "harmful", "contaminated"),
            (("contaminated", "utility"), ("contaminated", "harmfulness")),
        ),
    ],
)
def test_rows_are_quantities_and_columns_layers(tables, appendices, draw, scheme, tasks, scored):
    axes = np.array(draw(tables, appendices).axes).reshape(len(tasks) + len(scored), len(LAYERS))
    assert [panel.get_title() for panel in axes[0]] == ["layer 0", "layer 3", "layer 9"]
    for row, task in zip(axes, tasks, strict=False):
        for panel, layer in zip(row, LAYERS, strict=True):
            where = {"task": task, "basis": "top_k", "tensor": f"layer:{layer}"}
            kept = np.array(means(tables.energy, "energy_kept", appendices.fractions, **where))
            assert line(panel, "top_k") == pytest.approx(kept if scheme == "parallel" else 1 - kept)
            assert "random, closed form" in {one.get_label() for one in panel.lines}
    for row, (task, metric) in zip(axes[len(tasks) :], scored, strict=True):
        for panel, layer in zip(row, LAYERS, strict=True):
            assert len(panel.lines) == 3 * 2 + 3  # bases, whole and out; base, reference and fine-tuned
            for basis, others in (("top_k", "whole"), ("random_k", "out"), ("random", "out")):
                where = {"task": task, "metric": metric, "scheme": scheme, "basis": basis, "others": others}
                values = means(tables.projection, "value", appendices.fractions, **where, layers=str(layer))
                assert line(panel, f"{basis}, others {others}") == pytest.approx(values)


def test_a_layer_that_no_training_touched_has_no_energy_and_its_scores(tables, appendices):
    energy = tables.energy.copy()
    energy.loc[energy.tensor == "layer:3", ["energy_kept", "energy_expected"]] = float("nan")
    axes = np.array(figure_18(replace(tables, energy=energy), appendices).axes).reshape(4, len(LAYERS))
    assert np.isnan(line(axes[0][1], "top_k")).all()
    assert np.isfinite(line(axes[0][0], "top_k")).all()
    assert np.isfinite(line(axes[3][1], "top_k, others out")).all()


def test_without_scores_energies_are_drawn_alone(tables, appendices):
    figure = figure_18(replace(tables, projection=None), appendices)
    assert [axes.get_ylabel() for axes in figure.axes[:: len(LAYERS)]] == [
        "useful\nenergy kept",
        "harmful\nenergy kept",
    ]


def test_strokes_tell_the_others_and_colours_the_bases(tables, appendices):
    panel = figure_18(tables, appendices).axes[-1]
    drawn = {one.get_label(): one for one in panel.lines}
    for basis in appendices.bases:
        whole, out = (drawn[f"{basis}, others {others}"] for others in ("whole", "out"))
        assert (whole.get_linestyle(), out.get_linestyle()) == ("-", "--")
        assert whole.get_color() == out.get_color()
    assert len({one.get_color() for name, one in drawn.items() if "others" in name}) == 3


@pytest.mark.parametrize(("table", "column", "value"), [("projection", "layers", "3"), ("energy", "tensor", "layer:9")])
def test_a_missing_row_is_an_error_and_never_a_hole(tables, appendices, table, column, value):
    rows = getattr(tables, table)
    less = replace(tables, **{table: rows[rows[column] != value]})
    for draw in (figure_18, figure_19):
        with pytest.raises(UserError, match=f"layer {value[-1]}.* missing"):
            draw(less, appendices)
