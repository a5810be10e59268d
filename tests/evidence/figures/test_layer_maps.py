"""Figures 18 and 19 show every layer that is projected alone as a map, recomputed here from the raw rows."""

from dataclasses import replace

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.figures.projection import layer_maps

LAYERS = (0, 3, 9)
ROWS = {
    "parallel": [("useful", None), ("harmful", None), ("useful", "whole"), ("useful", "out"), ("harmful", "whole"),
                 ("harmful", "out")],
    "orthogonal": [("useful", None), ("harmful", None), ("contaminated", None), *[("contaminated", "whole"),
                   ("contaminated", "out")] * 2],
}  # fmt: skip


def maps(figure, bases):
    """Row by row and basis by basis the colours of each panel, fractions by layers, with their limits."""
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    meshes = [axes.collections[0] for axes in panels]
    return [meshes[start : start + bases] for start in range(0, len(meshes), bases)]


def expected(table, column, fractions, rename, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    return [
        [table[(table.fraction == one) & (table[rename[0]] == rename[1](layer))][column].mean() for layer in LAYERS]
        for one in fractions
    ]


@pytest.mark.parametrize("scheme", ["parallel", "orthogonal"])
def test_rows_are_quantities_and_columns_bases(tables, appendices, scheme):
    drawn = maps(layer_maps(tables, appendices, scheme=scheme).figure, 3)
    assert len(drawn) == len(ROWS[scheme])
    metrics = iter(["utility", "utility", "harmfulness", "harmfulness"])
    for row, (task, others) in zip(drawn, ROWS[scheme], strict=True):
        metric = None if others is None else next(metrics)
        for mesh, basis in zip(row, appendices.bases, strict=True):
            if others is None:
                by_layer = ("tensor", lambda layer: f"layer:{layer}")
                kept = expected(tables.energy, "energy_kept", appendices.fractions, by_layer, task=task, basis=basis)
                assert mesh.get_array() == pytest.approx(np.array(kept) if scheme == "parallel" else 1 - np.array(kept))
                assert mesh.get_clim() == (0, 1)
                continue
            where = {"task": task, "metric": metric, "scheme": scheme, "basis": basis, "others": others}
            scores = expected(tables.projection, "value", appendices.fractions, ("layers", str), **where)
            assert mesh.get_array() == pytest.approx(np.array(scores))
            baselines = tables.projection[(tables.projection.metric == metric) & (tables.projection.basis == "none")]
            ends = [baselines[baselines.task == end].value.mean() for end in ("reference", task)]
            assert mesh.get_clim() == pytest.approx((min(ends), max(ends)))


def test_axes_say_layers_and_fractions(tables, appendices):
    axes = layer_maps(tables, appendices, scheme="parallel").figure.axes
    assert [panel.get_title() for panel in axes[:3]] == ["top_k", "random_k", "random"]
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["0.01", "0.25", "0.5", "0.75", "0.99"]
    assert [text.get_text() for text in axes[0].get_xticklabels()] == ["0", "3", "9"]


def test_a_layer_that_no_training_touched_has_no_energy_and_its_scores(tables, appendices):
    energy = tables.energy.copy()
    energy.loc[energy.tensor == "layer:3", ["energy_kept", "energy_expected"]] = float("nan")
    drawn = maps(layer_maps(replace(tables, energy=energy), appendices, scheme="parallel").figure, 3)
    assert np.isnan(np.ma.filled(drawn[0][0].get_array(), np.nan)[:, 1]).all()
    assert np.isfinite(np.ma.filled(drawn[0][0].get_array(), np.nan)[:, [0, 2]]).all()
    assert np.isfinite(np.ma.filled(drawn[3][0].get_array(), np.nan)).all()


def test_a_layer_that_one_line_leaves_out_is_white_there(tables, appendices):
    first, *rest = appendices.single_layers
    less = replace(appendices, single_layers=(replace(first, layers=(0, 9)), *rest))
    drawn = maps(layer_maps(tables, less, scheme="parallel").figure, 3)
    assert np.ma.getmaskarray(drawn[2][0].get_array()).all(axis=0).tolist() == [False, True, False]


def test_without_scores_energies_are_drawn_alone(tables, appendices):
    assert len(maps(layer_maps(replace(tables, projection=None), appendices, scheme="parallel").figure, 3)) == 2
    assert len(maps(layer_maps(replace(tables, energy=None), appendices, scheme="parallel").figure, 3)) == 4


@pytest.mark.parametrize(("table", "column", "value"), [("projection", "layers", "3"), ("energy", "tensor", "layer:9")])
def test_a_missing_row_is_an_error_and_never_a_hole(tables, appendices, table, column, value):
    rows = getattr(tables, table)
    less = replace(tables, **{table: rows[rows[column] != value]})
    for scheme in ("parallel", "orthogonal"):
        with pytest.raises(UserError, match=f"layer {value[-1]}.* missing"):
            layer_maps(less, appendices, scheme=scheme)
