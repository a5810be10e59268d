"""Files depend on the tables alone, drawing leaves the caller's settings alone, and colours stay apart for everyone."""

import re
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from safety_spaces.evidence.figures import save, svg
from safety_spaces.evidence.figures.overlap import figure_4
from safety_spaces.evidence.figures.style import BASES, BLACK, SERIES, WIDTH, panels

LEAST_DISTANCE = 25.0
"""Between two colours of one figure, in CIE Lab, of which about 2 can just be seen."""
# Deuteranopia as Machado, Oliveira and Fernandes (2009) simulate it, on linear RGB.
DEUTERANOPIA = np.array([
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
])  # fmt: skip
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ.sum(axis=1)


def lab(colour, seen_by):
    values = np.array(to_rgb(colour))
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(seen_by @ linear, 0, 1) / WHITE
    a, b, c = (t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29 for t in (x, y, z))
    return np.array([116 * b - 16, 500 * (a - b), 200 * (b - c)])


@pytest.mark.parametrize("seen_by", [np.eye(3), DEUTERANOPIA], ids=["all cones", "deuteranopia"])
@pytest.mark.parametrize(
    "colours",
    [[colour for basis, (colour, _) in BASES.items() if basis != "file"] + [BLACK], [colour for colour, _ in SERIES]],
    ids=["bases", "series"],
)
def test_any_two_colours_of_a_figure_stay_apart(colours, seen_by):
    for first, second in combinations(colours, 2):
        assert np.linalg.norm(lab(first, seen_by) - lab(second, seen_by)) >= LEAST_DISTANCE, (first, second)


def test_the_simulation_confuses_what_is_known_to_be_confused():
    distances = [np.linalg.norm(lab("#009E73", eyes) - lab("#6E6E6E", eyes)) for eyes in (np.eye(3), DEUTERANOPIA)]
    assert distances[0] > LEAST_DISTANCE > distances[1]
    assert lab("#FFFFFF", DEUTERANOPIA) == pytest.approx([100, 0, 0], abs=0.2)


def test_the_same_tables_give_the_same_bytes(tables, grid, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    save(figure_4(tables, grid).figure, tmp_path / "first", "figure_4")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        save(figure_4(tables, grid).figure, tmp_path / "second", "figure_4")
        assert matplotlib.rcParams["font.size"] == 30
    for ending, start in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        first, second = ((tmp_path / name / f"figure_4.{ending}").read_bytes() for name in ("first", "second"))
        assert first.startswith(start)
        assert first == second
        assert not re.search(rb"Software|CreationDate|matplotlib\.org", first)


def test_other_numbers_give_other_bytes(tables, shifted, grid, tmp_path):
    moved = shifted("update_spaces", "mso", 0.2, pair="useful-harmful")
    save(figure_4(tables, grid).figure, tmp_path, "first")
    save(figure_4(moved, grid).figure, tmp_path, "second")
    for ending in ("png", "pdf"):
        assert (tmp_path / f"first.{ending}").read_bytes() != (tmp_path / f"second.{ending}").read_bytes()


def test_an_element_of_a_page_is_the_same_again_and_has_ids_of_its_own(tables, grid):
    first, again, other = (
        svg(figure_4(tables, grid).figure, name, title='A "title" & more')
        for name in ("figure_4", "figure_4", "figure_8")
    )
    assert first == again
    element = ElementTree.fromstring(first.replace("xlink:href", "href"))
    ids = [one.get("id") for one in element.iter() if one.get("id")]
    assert len(ids) == len(set(ids)) > 10
    assert all(one.startswith("figure_4-") for one in ids)
    used = re.findall(r"(?:href=\"#|url\(#)([^\")]+)", first)
    assert used
    assert set(used) <= set(ids)
    assert not set(ids) & set(re.findall(r'\bid="([^"]+)"', other))
    assert element.get("role") == "img"
    assert element.get("aria-label") == 'A "title" & more'
    assert element.get("aria-describedby") == "figure_4-caption"
    assert not re.search(r"https?:|<metadata|<style", first)
    assert "70th percentile" in first  # text stays text


def test_panels_are_numbered_row_by_row_and_as_wide_as_a_paper():
    figure, axes = panels(2, 3)
    assert axes == figure.axes
    assert [one.get_subplotspec().rowspan.start for one in axes] == [0, 0, 0, 1, 1, 1]
    assert figure.get_figwidth() == WIDTH == 5.5
