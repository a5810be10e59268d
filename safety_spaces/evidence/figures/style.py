"""One look for all figures: colours by role, one grid of panels, one legend, bytes that do not change.

Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart; markers repeat the
distinction. Figures are built as objects, never through pyplot, so drawing changes no state of the caller.
"""

from contextlib import AbstractContextManager
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Literal

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from safety_spaces.store import write_atomically

DOTS_PER_INCH = 150
BLUE, SKY, GREEN, ORANGE, VERMILLION, PURPLE, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#6E6E6E",
)  # fmt: skip
BASES = {"file": (GREEN, "D"), "top_k": (BLUE, "o"), "random_k": (ORANGE, "s"), "random": (GREY, "^")}
CHECKPOINTS = {"base": ("#000000", ":"), "reference": ("#000000", "--"), "fine-tuned": (VERMILLION, "--")}
PAIRS = ((BLUE, "o"), (GREEN, "s"), (VERMILLION, "^"), (ORANGE, "D"), (PURPLE, "v"), (GREY, "P"))
"""Colours and markers of pairs, in the order in which the study names them."""

RULES: dict[str, object] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}


def house_style() -> AbstractContextManager[None]:
    """matplotlib's defaults and our rules, whatever the user's own settings; the caller's return afterwards."""
    return style.context(["default", RULES], after_reset=True)


Sharing = Literal["none", "row", "all"]
PANEL, SMALL_PANEL = (3.4, 2.7), (1.9, 1.75)
ENTRY = 2.4  # inches that an entry of a legend takes
TITLE, NOTE = 0.74, 0.99  # shares of a panel's place, and of the figure, that the longest line of a title takes at most


def panels(rows: int, columns: int, *, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """An empty figure and its rows * columns axes, row by row, sized to stay readable at 150 dots per inch."""
    # One panel alone leaves room for a legend and for the note.
    figure = Figure(figsize=(PANEL[0] * max(columns, 2), PANEL[1] * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    return figure, list(axes.flat)


def small_multiples(rows: int, columns: int, *, share_y: Sharing = "all") -> tuple[Figure, list[Axes]]:
    """An empty figure of many small panels, row by row, that share the x axis, and the y axis of a row or of all."""
    figure = Figure(
        figsize=(max(SMALL_PANEL[0] * columns + 0.3, 2 * PANEL[0]), SMALL_PANEL[1] * rows + 1.4), layout="constrained"
    )
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=share_y)
    return figure, list(axes.flat)


def note(figure: Figure, text: str) -> None:
    """Say above the panels, small, what the figure is about; break it, and panels' titles, where they are too wide."""
    _fit(figure.suptitle(text, x=0.005, ha="left", fontsize=8.5, color=GREY), NOTE * figure.bbox.width)
    for axes in figure.axes:
        place = axes.get_subplotspec()
        assert place is not None
        _fit(axes.title, TITLE * figure.bbox.width / place.get_gridspec().ncols)


def _fit(title: Text, width: float) -> None:
    """Break a title into lines that are no wider than `width` pixels."""
    with house_style():
        whole = title.get_text()
        for columns in range(max(map(len, whole.splitlines()), default=1), 0, -1):
            if title.get_window_extent().width <= width:
                return
            title.set_text("\n".join(fill(line, columns) for line in whole.splitlines()))


def dress(axes: Axes, *, title: str, x: str, y: str) -> None:
    """Title and axis labels of one panel."""
    axes.set(title=title, xlabel=x, ylabel=y)


def legend(figure: Figure, axes: list[Axes]) -> None:
    """One legend below all panels, each label once, in the order in which the panels introduce them."""
    entries: dict[str, Artist] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    most = ceil(len(entries) / 2) if len(entries) <= 8 else max(3, int(figure.get_figwidth() // ENTRY))
    for columns in range(most, 0, -1):
        box = figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)
        if columns == 1 or box.get_window_extent().width <= figure.bbox.width:
            return
        box.remove()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG with no date and no version in it; raises as `write_atomically` does."""
    buffer = BytesIO()
    with house_style():
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
