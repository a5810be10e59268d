"""What the overlaps of activations showed (Section 6, Appendix K): do harmful prompts overlap more with one another?

Overlaps are compared as MSO minus chance, averaged over the energy levels. If safety had a subspace of its own, two
sets of harmful prompts would share it, and so overlap more than either does with ordinary prompts: useful ones, or
harmless ones of a refusal data set (Extended Refusal).
"""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from safety_spaces.evidence.findings.overlap import excess_of
from safety_spaces.evidence.grid import Grid, kinds_of
from safety_spaces.evidence.overlaps import state_overlap, window_overlap
from safety_spaces.evidence.statistics import Contrast, contrast
from safety_spaces.study import Position

HARMFUL = "harmful"
Ordinary = Literal["useful", "refusal"]


@dataclass(frozen=True)
class ActivationFinding:
    """Overlaps of one checkpoint's activations in the window of layers: MSO minus chance by pair.

    harmful_preference is the weakest harmful-harmful pair minus the strongest ordinary-harmful pair: positive where
    harmful prompts resemble one another more than any of them resembles ordinary ones.
    """

    checkpoint: str
    centred: bool
    position: Position
    ordinary: Ordinary
    excess: dict[str, Contrast]
    harmful_preference: Contrast


@dataclass(frozen=True)
class StatesFinding:
    """At which states of one checkpoint harmful prompts overlap more with one another, in every seed.

    Of all states that differ between the prompts of a set.
    """

    checkpoint: str
    centred: bool
    preferring: tuple[int, ...]
    states: int
    seeds: int

    @property
    def is_majority(self) -> bool:
        """Whether that is so at more than half of the states."""
        return 2 * len(self.preferring) > self.states


def find_activation_overlap(
    activation_spaces: pd.DataFrame,
    grid: Grid,
    *,
    checkpoint: str,
    centred: bool,
    position: Position,
    ordinary: Ordinary = "useful",
) -> ActivationFinding:
    """Overlap of harmful and ordinary prompt sets in the window of layers of one checkpoint."""
    pairs = compared_pairs(grid, ordinary)
    rows = window_overlap(
        activation_spaces, grid, position=position, pairs=pairs, checkpoint=checkpoint, centred=centred
    )
    excess = excess_of(rows)
    return ActivationFinding(
        checkpoint=checkpoint,
        centred=centred,
        position=position,
        ordinary=ordinary,
        excess={pair: contrast(list(excess[pair])) for pair in pairs},
        harmful_preference=contrast(list(_preference(excess))),
    )


def find_states(activation_spaces: pd.DataFrame, grid: Grid, *, checkpoint: str, centred: bool) -> StatesFinding:
    """The same at every state, at the first position (Appendix K.1)."""
    rows = state_overlap(
        activation_spaces,
        grid,
        position=grid.positions[0],
        pairs=compared_pairs(grid, "useful"),
        checkpoint=checkpoint,
        centred=centred,
    ).dropna(subset=["mso"])
    states = sorted(rows.layer.unique().tolist())
    by_state = {state: _preference(excess_of(rows[rows.layer == state])) for state in states}
    preferring = tuple(state for state, preference in by_state.items() if (preference > 0).all())
    return StatesFinding(checkpoint, centred, preferring, len(states), len(grid.seeds))


def compared_pairs(grid: Grid, ordinary: Ordinary) -> tuple[str, ...]:
    """The pairs of harmful sets, and those of an ordinary and a harmful set."""
    return tuple(pair for pair in grid.pairs_of(ordinary, HARMFUL) if HARMFUL in kinds_of(pair))


def has_refusal(grid: Grid) -> bool:
    """Whether the study has harmless prompts of a refusal data set (Appendix K.3)."""
    return any("refusal" in kinds_of(pair) for pair in grid.activation_pairs)


def _preference(excess: pd.DataFrame) -> "pd.Series[float]":
    """The weakest harmful-harmful pair minus the strongest other, by seed."""
    among_harmful = [kinds_of(str(pair)) == (HARMFUL, HARMFUL) for pair in excess.columns]
    mixed = [not one for one in among_harmful]
    return excess.loc[:, among_harmful].min(axis=1) - excess.loc[:, mixed].max(axis=1)
