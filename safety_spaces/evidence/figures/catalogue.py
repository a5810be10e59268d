"""Every figure of a report: its file, where the paper shows it, and which of them a study has.

Files are named by the paper's number, the first of the numbers where several models share one. The paper's text does
not always say which model a figure shows; then all its numbers are named.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from typing import Any

import yaml

from safety_spaces.evidence.figures.main import both_scored, figure_dose, figure_energy
from safety_spaces.evidence.figures.overlap import KINDS, figure_4, figure_10, state_maps, window_curves
from safety_spaces.evidence.figures.projection import LINES, curves, layer_maps
from safety_spaces.evidence.figures.style import Drawn
from safety_spaces.evidence.grid import ORTHOGONAL, Grid, kinds_of
from safety_spaces.evidence.names import pair_name
from safety_spaces.evidence.tables import Tables

REFERENCES = {"aligned": "aligned reference", "safety_tuned": "safety-tuned reference", "dpo": "DPO reference"}
HARMFUL = "harmful"
Draw = Callable[[Tables, Grid], Drawn]


@dataclass(frozen=True)
class Planned:
    """A figure that a study has: file without ending, title, section of the report, what of the paper it answers to."""

    file: str
    title: str
    section: str
    answers_to: str
    draw: Draw


def catalogue(grid: Grid) -> dict[str, Planned]:
    """The figures that a study has, by the file that an aligned reference would have, the main ones first."""
    planned = {}
    for key, draw in {**_of_projection(grid), **_of_updates(grid), **_of_activations(grid)}.items():
        entry = _entries()[key if key in _entries() else "_".join(key.split("_")[:2])]
        shown = entry.get("shown", ())
        file = next((one["file"] for one in shown if one.get("kind") == grid.reference_kind and "file" in one), key)
        title = f"{entry['title']}{_detail(key, draw, grid)}"
        planned[key] = Planned(file, title, entry["section"], _answer(shown, grid), draw)
    order = [*_entries()]
    return dict(sorted(planned.items(), key=lambda item: order.index("_".join(item[0].split("_")[:2]))))


@cache
def _entries() -> dict[str, Any]:
    entries: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("catalogue.yaml").read_text("utf-8"))
    return entries


def _detail(key: str, draw: Draw, grid: Grid) -> str:
    """What a title adds about its pair of prompt sets, or its position."""
    given = draw.keywords if isinstance(draw, partial) else {}
    if "pair" in given:
        return f": {pair_name(given['pair'], grid.set_names)}"
    return f", {next(iter(given['positions'])).words}" if key.startswith("figure_5") else ""


def _of_projection(grid: Grid) -> dict[str, Draw]:
    asked: dict[str, tuple[object, Draw]] = {
        "figure_dose": (both_scored(grid), figure_dose),
        "figure_energy": (grid.tasks, figure_energy),
        "figure_18": (grid.single("parallel"), partial(layer_maps, scheme="parallel")),
        "figure_19": (grid.single("orthogonal"), partial(layer_maps, scheme="orthogonal")),
    }
    for key, lines in LINES.items():
        there = grid.lines(*lines)
        # Without a score energies are all that there is.
        alone = key == "figure_2" and grid.tasks and not (grid.scored or grid.single_layers)
        whole = there == ORTHOGONAL if key == "figure_3" else there
        asked[key] = (whole or alone, partial(curves, key=key))
    return {key: draw for key, (wanted, draw) in asked.items() if wanted}


def _of_updates(grid: Grid) -> dict[str, Draw]:
    return {"figure_4": figure_4, "figure_10": figure_10} if grid.update_pairs else {}


def _of_activations(grid: Grid) -> dict[str, Draw]:
    if not grid.positions:
        return {}
    first, kinds = grid.positions[0], tuple(KINDS)
    windows = {window: window.words for window in grid.windows}
    draws: dict[str, Draw] = {}
    for token in (first, *grid.further_tokens):
        key = "figure_5" if token is first else f"figure_5_{token}"
        draws[key] = partial(window_curves, pairs=compared_pairs(grid), positions={token: ""}, kinds=kinds)
    draws |= {key: partial(state_maps, pair=pair) for key, pair in _numbered_pairs(grid).items()}
    for key, kind in {"figure_25": False, "figure_25_centred": True}.items() if windows else ():
        draws[key] = partial(window_curves, pairs=compared_pairs(grid), positions=windows, kinds=(kind,))
    if any("refusal" in kinds_of(pair) for pair in grid.activation_pairs):
        pairs = compared_pairs(grid, "refusal")
        draws["figure_26"] = partial(window_curves, pairs=pairs, positions={first: ""}, kinds=kinds)
    return draws


def compared_pairs(grid: Grid, ordinary: str = "useful") -> tuple[str, ...]:
    """The pairs of two harmful prompt sets, which the claim is about, then those of an ordinary and a harmful one."""
    pairs = [pair for pair in grid.pairs_of(ordinary, HARMFUL) if HARMFUL in kinds_of(pair)]
    return tuple(sorted(pairs, key=lambda pair: kinds_of(pair) != (HARMFUL, HARMFUL)))


def _numbered_pairs(grid: Grid) -> dict[str, str]:
    """Figures 22 and 23 have a useful and a harmful set, Figure 24 two harmful ones; further pairs carry their name."""
    among_harmful = [pair for pair in compared_pairs(grid) if kinds_of(pair) == (HARMFUL, HARMFUL)]
    mixed = [pair for pair in compared_pairs(grid) if pair not in among_harmful]
    numbered = {22: mixed[:1], 23: mixed[1:], 24: among_harmful}
    return {
        f"figure_{number}{f'_{pair}' if place else ''}": pair
        for number, pairs in numbered.items()
        for place, pair in enumerate(pairs)
    }


def _answer(shown: Sequence[Mapping[str, Any]], grid: Grid) -> str:
    """Which item of the paper a figure answers to, or whose likeness it is; nothing where the paper has none."""
    if not shown:
        return "not in the paper"
    same_kind = [one for one in shown if one.get("kind", "aligned") == grid.reference_kind]
    of_model = [one for one in same_kind if grid.model in one.get("models", ())]
    of_all = [one for one in same_kind if "models" not in one]
    # A model that the paper does not have at all stands for any of the paper's own.
    paper = {
        model for entry in _entries().values() for one in entry.get("shown", ()) for model in one.get("models", ())
    }
    if found := of_model or of_all or (same_kind if grid.model not in paper else []):
        return f"answers to {found[0]['item']} of the paper"
    case = "such model" if same_kind else REFERENCES[grid.reference_kind]
    return f"drawn like {(same_kind or shown)[0]['item']} of the paper, which shows no {case} there"
