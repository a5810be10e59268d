"""One look for all figures: the width of a paper's text, 8-point type, colours by role, bytes that do not change.

Any two colours of one figure stay apart under deuteranopia, and markers repeat the distinction. Figures are built as
objects, never through pyplot, so drawing changes no state of the caller.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from html import escape
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from safety_spaces.store import write_atomically

WIDTH, PANEL, SMALL = 5.5, 1.7, 1.05  # inches: a figure's width, and the height of a row of panels
DOTS_PER_INCH = 200
BLUE, RUST, AMBER, GREY, SKY, BLACK = "#0072B2", "#8C3B00", "#E69F00", "#8C8C8C", "#6CC0EE", "#000000"
BASES = {
    "file": (BLUE, "D"), "top_k": (BLUE, "o"), "matched": (RUST, "v"), "random_k": (AMBER, "s"), "random": (GREY, "^"),
}  # fmt: skip
"""Colour and marker by basis, in the order of legends: the claim first."""
BASELINES = {"base": ":", "reference": "--", "fine-tuned": "-."}
SERIES = ((BLUE, "o"), (RUST, "s"), (AMBER, "^"), (SKY, "D"), (BLACK, "v"), (GREY, "P"))
"""Colours and markers of pairs, in the order in which the study names them."""
DODGE = 0.012
"""Shift between neighbouring bases in every panel over fractions, so that none hides another."""

RULES: dict[str, object] = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "figure.titlesize": 8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "axes.linewidth": 0.6, "axes.titlepad": 4, "axes.labelpad": 2,
    "grid.color": "#E6E6E6", "grid.linewidth": 0.5, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "legend.frameon": False, "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2, "lines.linewidth": 1.1, "lines.markersize": 3.5, "pdf.fonttype": 42,
    "svg.fonttype": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """A figure, and a caption that says what its lines, bars, bands and points are."""

    figure: Figure
    caption: str


def house_style() -> AbstractContextManager[None]:
    """matplotlib's defaults and our rules, whatever the user's own settings; the caller's return afterwards."""
    return style.context(["default", RULES], after_reset=True)


def panels(rows: int, columns: int, *, height: float = PANEL, **sharing: Any) -> tuple[Figure, list[Axes]]:
    """An empty figure and its rows * columns axes, row by row; `sharing` is handed to matplotlib's subplots."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    return figure, list(figure.subplots(rows, columns, squeeze=False, **sharing).flat)


def small_panels(count: int, *, x: str, most: int = 5) -> tuple[Figure, list[Axes]]:
    """An empty figure of `count` small panels over the axis `x`, in rows of nearly equal length, `most` in one."""
    rows = ceil(count / most)
    columns = ceil(count / rows)
    figure, axes = panels(rows, columns, height=SMALL, sharex=True, sharey=True)
    for surplus in axes[count:]:
        surplus.remove()
    # The lowest panel of each column says what the axis is, also above a gap.
    for panel in axes[max(0, count - columns) : count]:
        panel.tick_params(labelbottom=True)
        panel.set_xlabel(x)
    return figure, axes[:count]


def dress(axes: Axes, *, title: str = "", x: str | None = None, y: str | None = None, share: bool = False) -> None:
    """Title and labels of one panel, broken into lines that fit its place; `share` sets both axes to [0, 1]."""
    axes.set_title(title)
    if x is not None:
        axes.set_xlabel(x)
    if y is not None:
        axes.set_ylabel(y)
    if share:
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    figure, place = axes.get_figure(), axes.get_subplotspec()
    assert isinstance(figure, Figure)
    assert place is not None
    rows, columns = place.get_gridspec().get_geometry()
    _fit(axes.title, lambda box: box.width <= 0.8 * figure.bbox.width / columns)
    _fit(axes.yaxis.label, lambda box: box.height <= 0.9 * (figure.bbox.height - 0.9 * figure.dpi) / rows)


def _fit(text: Text, fits: Callable[[Bbox], bool]) -> None:
    whole = text.get_text()
    for width in range(max(map(len, whole.splitlines()), default=0), 0, -1):
        if fits(text.get_window_extent()):
            return
        text.set_text("\n".join(fill(line, width) for line in whole.splitlines()))


def means_over(seeds: int, draws: int | None = None) -> str:
    """What a caption says of means: over how many seeds, and how many draws of a random basis."""
    numbers = {"seed": seeds, "draw": draws}
    counted = [f"{number} {noun}{'' if number == 1 else 's'}" for noun, number in numbers.items() if number]
    return f"means over {' and '.join(counted)}{' of a random basis' if draws else ''}"


def draw_map(axes: Axes, table: Float[np.ndarray, "R C"], **colours: Any) -> QuadMesh:
    """Draw a table as a map of coloured cells, its first row below; what is nan stays white."""
    axes.grid(visible=False)
    # Edges in the colour of their cell leave no seams between cells.
    return axes.pcolormesh(table, edgecolors="face", linewidth=0.3, **colours)


def legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend below all panels, each label once, in the order in which the panels introduce them."""
    entries: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for columns in range(len(entries), 0, -1):
        box = figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)
        if columns == 1 or box.get_window_extent().width <= 0.98 * figure.bbox.width:
            return
        box.remove()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as PNG and PDF with no date and no version in them; raises as `write_atomically` does."""
    for ending, metadata in (("png", ("Software",)), ("pdf", ("CreationDate", "Creator", "Producer"))):
        write_atomically(folder / f"{name}.{ending}", _bytes(figure, ending, metadata, salt=name))


def svg(figure: Figure, name: str, *, title: str) -> str:
    """The figure as an SVG element whose ids start with its name, without a size, an address or a style of its own.

    Its text alternative is the title, described by the element `<name>-caption` of the page.
    """
    text = _bytes(figure, "svg", ("Date", "Creator", "Format", "Type"), salt=name).decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    head, body = text.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", head)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", body).strip()
    # A hundredth of a point is finer than any screen.
    body = re.sub(r'\s(?:d|x|y|transform)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    role = f'role="img" aria-label="{escape(title, quote=True)}" aria-describedby="{name}-caption"'
    return f"{head} {role}>{body}"


def _bytes(figure: Figure, ending: str, metadata: Iterable[str], *, salt: str) -> bytes:
    buffer = BytesIO()
    with style.context(["default", {**RULES, "svg.hashsalt": salt}], after_reset=True):
        figure.savefig(buffer, format=ending, dpi=DOTS_PER_INCH, metadata=dict.fromkeys(metadata))
    return buffer.getvalue()
