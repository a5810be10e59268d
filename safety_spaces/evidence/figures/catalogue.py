"""Every figure of a report: its file, the figure or table of the paper that it answers to, and when a study has it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from safety_spaces.evidence.figures.activations import figure_5, figure_22, figure_25
from safety_spaces.evidence.figures.answers import Shown, answer
from safety_spaces.evidence.figures.overlap import figure_4, figure_10
from safety_spaces.evidence.figures.projection import (
    FIGURE_20,
    FIGURE_21,
    figure_2,
    figure_3,
    figure_3_parallel,
    figure_18,
    figure_19,
    figure_20,
    figure_21,
)
from safety_spaces.evidence.figures.style import note
from safety_spaces.evidence.findings.activations import HARMFUL, has_refusal
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, Grid, kinds_of
from safety_spaces.evidence.tables import Tables


@dataclass(frozen=True)
class Entry:
    """A figure that a study may have: its file without ending, what it shows, and where the paper shows that."""

    file: str
    title: str
    shown: tuple[Shown, ...]
    draw: Callable[[Tables, Grid], Figure]


@dataclass(frozen=True)
class Planned:
    """A figure that a study has; its key is the file that an aligned reference would have."""

    key: str
    file: str
    title: str
    answers_to: str
    draw: Callable[[Tables, Grid], Figure]

    def figure(self, tables: Tables, grid: Grid) -> Figure:
        """Draw it, with what it answers to above the panels.

        Raises:
            UserError: a table lacks a row that the study promises.
        """
        figure = self.draw(tables, grid)
        note(figure, f"{self.title}; {self.answers_to}")
        return figure


def catalogue(grid: Grid) -> dict[str, Planned]:
    """The figures that a study has, by key, in the order of the paper."""
    entries = (*_of_projection(grid), *_of_updates(grid), *_of_activations(grid))
    planned = {}
    for entry in sorted(entries, key=lambda entry: int(entry.file.split("_")[1])):
        files = [one.file for one in entry.shown if one.reference_kind == grid.reference_kind and one.file]
        file = files[0] if files else entry.file
        planned[entry.file] = Planned(entry.file, file, entry.title, answer(entry.shown, grid), entry.draw)
    return planned


def _of_projection(grid: Grid) -> list[Entry]:
    asked = {
        # Without a score energies are all that there is.
        "figure_2": grid.lines(*PARALLEL) or (grid.tasks and not (grid.scored or grid.single_layers)),
        "figure_3": grid.lines(*ORTHOGONAL) == ORTHOGONAL,
        "figure_3_parallel": grid.lines(*CONTAMINATED),
        "figure_18": grid.single("parallel"),
        "figure_19": grid.single("orthogonal"),
        "figure_20": grid.lines(*FIGURE_20),
        "figure_21": grid.lines(*FIGURE_21),
    }
    return [entry for entry in PROJECTIONS if asked[entry.file]]


def _of_updates(grid: Grid) -> tuple[Entry, ...]:
    return UPDATES if grid.update_pairs else ()


def _of_activations(grid: Grid) -> list[Entry]:
    if not grid.positions:
        return []
    tokens = [
        Entry(
            f"figure_5_{token}",
            f"Overlap of activations, {token.words}",
            FIGURE_5,
            partial(figure_5, position=token),
        )
        for token in grid.further_tokens
    ]
    main = Entry("figure_5", f"Overlap of activations, {grid.positions[0].words}", FIGURE_5, figure_5)
    return [
        main,
        *tokens,
        *_of_states(grid),
        *(WINDOWS if grid.windows else ()),
        *((REFUSAL,) if has_refusal(grid) else ()),
    ]


def _of_states(grid: Grid) -> list[Entry]:
    """Figures 22 and 23 have a useful and a harmful set, Figure 24 two harmful ones; further pairs carry their name."""
    pairs = [pair for pair in grid.pairs_of("useful", HARMFUL) if HARMFUL in kinds_of(pair)]
    among_harmful = [pair for pair in pairs if kinds_of(pair) == (HARMFUL, HARMFUL)]
    mixed = [pair for pair in pairs if pair not in among_harmful]
    numbered = [*zip((22, 23), mixed, strict=False), *((24, pair) for pair in among_harmful[:1])]
    further = [*((23, pair) for pair in mixed[2:]), *((24, pair) for pair in among_harmful[1:])]
    return [
        Entry(
            f"figure_{number}{'_' + pair if (number, pair) in further else ''}",
            f"Overlap of {pair} at every state",
            (Shown(f"Figure {number}", models=("qwen2.5-1.5b",)),),
            partial(figure_22, pair=pair),
        )
        for number, pair in [*numbered, *further]
    ]


def _by_model(first: int, *models: str) -> tuple[Shown, ...]:
    return tuple(Shown(f"Figure {first + number}", models=(model,)) for number, model in enumerate(models))


FIGURE_5 = (Shown("Figures 5 and 9"),)
SINGLE, ROBUST = ("qwen2.5-1.5b",), ("qwen2.5-1.5b", "qwen2.5-3b")
PROJECTIONS = (
    Entry(
        "figure_2",
        "Parallel projection",
        (
            Shown("Figures 2 and 6"),
            Shown("Figures 2 and 6 and Table 4 (safety-tuned)", "safety_tuned"),
            Shown("Figure 15", "dpo", ("llama-3.2-1b",), file="figure_15"),
        ),
        figure_2,
    ),
    Entry(
        "figure_3",
        "Orthogonal projection",
        (
            Shown("Figures 3 and 7"),
            Shown("Figures 3 and 7", "safety_tuned"),
            Shown("Figure 16", "dpo", ("llama-3.2-1b",), file="figure_16"),
        ),
        figure_3,
    ),
    Entry(
        "figure_3_parallel",
        "Parallel projection of contaminated",
        (Shown("Tables 2 and 5"), Shown("Table 5 (safety-tuned)", "safety_tuned")),
        figure_3_parallel,
    ),
    Entry("figure_18", "Parallel projection of single layers", (Shown("Figure 18", models=SINGLE),), figure_18),
    Entry("figure_19", "Orthogonal projection of single layers", (Shown("Figure 19", models=SINGLE),), figure_19),
    Entry(
        "figure_20",
        "General ability of useful, over-refusal of harmful, parallel",
        (Shown("Figure 20", models=ROBUST),),
        figure_20,
    ),
    Entry(
        "figure_21",
        "General ability and over-refusal of contaminated, orthogonal",
        (Shown("Figure 21", models=ROBUST),),
        figure_21,
    ),
)
UPDATES = (
    Entry(
        "figure_4",
        "Overlap of updates",
        (Shown("Figure 4"), Shown("Figure 8", "safety_tuned", file="figure_8")),
        figure_4,
    ),
    Entry(
        "figure_10",
        "Overlap of updates at every layer",
        (
            Shown("Figures 10 to 14"),
            *_by_model(10, "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "llama-3.2-1b", "llama-2-7b"),
            Shown("Figure 17", "dpo", ("llama-3.2-1b",), file="figure_17"),
        ),
        figure_10,
    ),
)
WINDOWS = tuple(
    Entry(
        f"figure_25{suffix}",
        f"Overlap of activations in early token windows, {'centred' if suffix else 'uncentred'}",
        (Shown("Figure 25", models=ROBUST),),
        partial(figure_25, centred=bool(suffix)),
    )
    for suffix in ("", "_centred")
)
REFUSAL = Entry(
    "figure_26",
    "Overlap of activations, refusal prompts in place of useful ones",
    (Shown("Figure 26", models=SINGLE),),
    partial(figure_5, ordinary="refusal"),
)
