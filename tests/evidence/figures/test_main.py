"""The dose figure shows every cell and the whole update at every dose; a ceiling is what all directions hold."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from safety_spaces.evidence.figures.main import ceiling, figure_dose, figure_energy
from safety_spaces.tensors import draws
from tests.evidence.figures.test_catalogue import check_nothing_is_cut

DOSES = (0.1, 0.5, 0.9)
METRICS = ("utility", "harmfulness")


def scaled_score(metric, dose, seed):
    return (
        {"utility": 0.2, "harmfulness": 1.5}[metric] + dose * {"utility": 0.3, "harmfulness": 2.0}[metric] + 0.01 * seed
    )


@pytest.fixture
def dosed(tables, grid):
    """Tables and grid of a study that scores `matched` and the whole update at three doses."""
    rows = tables.projection[(tables.projection.task == "contaminated") & (tables.projection.scheme == "none")]
    scaled = [
        {**rows[rows.metric == metric].iloc[0], "basis": "scaled", "dose": dose, "seed": seed,
         "value": scaled_score(metric, dose, seed)}
        for metric in METRICS for dose in DOSES for seed in grid.seeds
    ]  # fmt: skip
    random = tables.projection[(tables.projection.basis == "random") & (tables.projection.task == "contaminated")]
    matched = random[random.draw.isin(draws("matched", grid.score_draws))].assign(basis="matched")
    table = pd.concat([tables.projection, pd.DataFrame(scaled), matched.assign(value=matched.value + 0.05)])
    return replace(tables, projection=table), replace(grid, controls=("scaled", "matched"))


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label() == label]
    return np.asarray(found.get_xydata(), dtype=float)


def test_every_cell_is_a_point_and_the_whole_update_a_line(dosed):
    tables, grid = dosed
    figure = figure_dose(tables, grid).figure
    assert [axes.get_title() for axes in figure.axes] == ["contaminated, parallel", "contaminated, orthogonal"]
    for axes, scheme in zip(figure.axes, ("parallel", "orthogonal"), strict=True):
        curve = line(axes, "scaled (dose)")
        inner = [
            [np.mean([scaled_score(metric, dose, seed) for seed in grid.seeds]) for metric in METRICS] for dose in DOSES
        ]
        assert curve[1:-1] == pytest.approx(np.array(inner))
        for end, checkpoint in ((curve[0], "reference"), (curve[-1], "contaminated")):
            rows = tables.projection[(tables.projection.task == checkpoint) & (tables.projection.basis == "none")]
            assert end == pytest.approx([rows[rows.metric == metric].value.mean() for metric in METRICS])
        for basis in ("matched", *grid.bases):
            (points,) = [one for one in axes.collections if one.get_label() == basis]
            rows = tables.projection[(tables.projection.basis == basis) & (tables.projection.scheme == scheme)]
            rows = rows[(rows.task == "contaminated") & (rows.layers == "all")]
            means = (
                rows[rows.metric.isin(METRICS)].groupby(["fraction", "metric"]).value.mean().unstack()[list(METRICS)]
            )
            assert np.asarray(points.get_offsets()) == pytest.approx(means.to_numpy())
            assert (np.diff(points.get_sizes()) > 0).all()


def test_the_claim_comes_first_and_baselines_are_named(dosed):
    figure = figure_dose(*dosed).figure
    check_nothing_is_cut(figure, "figure_dose")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:4] == ["top_k", "matched", "random_k", "random"]
    assert {"scaled (dose)", "ρ = 0.25"} < {*labels}
    for axes in figure.axes:
        named = " ".join(text.get_text() for text in axes.texts)
        assert all(name in named for name in ("reference", "contaminated", "base"))


def test_without_doses_there_is_no_line_and_the_caption_says_so(tables, grid):
    drawn = figure_dose(tables, grid)
    assert "scores no doses" in drawn.caption
    assert "scaled (dose)" not in {one.get_label() for axes in drawn.figure.axes for one in axes.lines}


@pytest.fixture
def energy():
    """Two tensors whose random bases keep k/M of the space and of the span in expectation, over two seeds."""
    rows = []
    for seed, norms in ((0, (1.0, 3.0)), (1, (2.0, 5.0))):
        for tensor, norm, size, rank, span in zip("ab", norms, (40, 16), (10, 16), (0.6, 1.0), strict=True):
            for fraction in (0.25, 0.5):
                k = int(fraction * rank)
                expected = {"random": k / size, "random_k": k / rank * span}
                rows += [
                    {"task": "harmful", "basis": basis, "fraction": fraction, "seed": seed, "replicate": 0, "draw": 0,
                     "tensor": tensor, "rank": rank, "k": k, "energy_expected": one, "update_norm": norm}
                    for basis, one in expected.items()
                ]  # fmt: skip
    rows += [
        {**row, "tensor": name, "energy_expected": 0.9, "update_norm": 99.0}
        for row in rows[:4]
        for name in ("all", "kind:x")
    ]
    return pd.DataFrame(rows)


def test_a_ceiling_is_what_all_directions_hold(energy):
    def mean(first, second):
        return np.mean([(first * 1 + second * 9) / 10, (first * 4 + second * 25) / 29])

    assert ceiling(energy, task="harmful", basis="random_k") == pytest.approx(mean(0.6, 1.0))
    assert ceiling(energy, task="harmful", basis="random") == pytest.approx(mean(10 / 40, 16 / 16))


def test_a_tensor_that_nothing_spans_holds_nothing(energy):
    nothing = energy.assign(
        k=energy.k.mask(energy.tensor == "a", 0), energy_expected=energy.energy_expected.mask(energy.tensor == "a", 0)
    )
    assert ceiling(nothing, task="harmful", basis="random_k") == pytest.approx(np.mean([9 / 10, 25 / 29]))


def test_the_energy_figure_has_a_panel_for_every_task_and_its_ceilings(tables, grid, energy):
    energy = energy[energy.tensor.isin(["a", "b"])]
    both = pd.concat([tables.energy, *[energy.assign(task=task) for task in grid.tasks]])
    figure = figure_energy(replace(tables, energy=both), grid).figure
    assert [axes.get_title() for axes in figure.axes] == list(grid.tasks)
    for axes in figure.axes:
        for basis in ("random_k", "random"):
            level = line(axes, f"ceiling of {basis}")[0, 1]
            assert level == pytest.approx(ceiling(energy, task="harmful", basis=basis))
