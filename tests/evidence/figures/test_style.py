"""PNG files depend on the tables alone, and drawing leaves the caller's settings alone."""

import matplotlib

from safety_spaces.evidence.figures import save
from safety_spaces.evidence.figures.overlap import figure_4
from safety_spaces.evidence.figures.projection import figure_3_parallel
from safety_spaces.evidence.figures.style import panels


def test_the_same_tables_give_the_same_bytes(tables, grid, tmp_path):
    save(figure_4(tables, grid), tmp_path / "first.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "black"}):
        save(figure_4(tables, grid), tmp_path / "second.png")
        assert matplotlib.rcParams["font.size"] == 30
    first = (tmp_path / "first.png").read_bytes()

    assert first.startswith(b"\x89PNG")
    assert first == (tmp_path / "second.png").read_bytes()
    assert b"Software" not in first


def test_other_numbers_give_other_bytes(tables, shifted, grid, tmp_path):
    moved = shifted("update_spaces", "mso", 0.2, pair="useful-harmful")
    save(figure_4(tables, grid), tmp_path / "first.png")
    save(figure_4(moved, grid), tmp_path / "second.png")

    assert (tmp_path / "first.png").read_bytes() != (tmp_path / "second.png").read_bytes()


def test_the_legend_names_each_line_once_and_nothing_is_cut(tables, grid):
    figure = figure_3_parallel(tables, grid)
    (legend,) = figure.legends
    figure.draw_without_rendering()

    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["random", "random_k", "top_k", "base", "reference", "fine-tuned"]
    inside = figure.bbox
    for text in [
        *legend.get_texts(),
        *(axes.title for axes in figure.axes),
        *(axes.xaxis.label for axes in figure.axes),
    ]:
        box = text.get_window_extent()
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1


def test_panels_are_numbered_row_by_row():
    figure, axes = panels(2, 3)

    assert axes == figure.axes
    assert [one.get_subplotspec().rowspan.start for one in axes] == [0, 0, 0, 1, 1, 1]
