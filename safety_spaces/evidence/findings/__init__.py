"""The numbers that the report states, as plain frozen dataclasses.

A finding is computed before it is worded: `find` reads the tables and knows no sentence, `sentences` words a finding
and knows no table. What a study does not have is None or empty; what it promises and its tables lack is an error.
"""

from dataclasses import dataclass
from functools import partial

from safety_spaces.evidence.findings.activations import (
    ActivationFinding,
    StatesFinding,
    find_activation_overlap,
    find_states,
    has_refusal,
)
from safety_spaces.evidence.findings.overlap import (
    LayerwiseFinding,
    UpdateFinding,
    find_layerwise,
    find_update_overlap,
)
from safety_spaces.evidence.findings.paper import PaperFinding, find_next_to_paper
from safety_spaces.evidence.findings.premises import Premises, check_premises
from safety_spaces.evidence.findings.projection import (
    EnergyFinding,
    OrthogonalFinding,
    ParallelFinding,
    find_energy,
    find_orthogonal,
    find_parallel,
)
from safety_spaces.evidence.findings.robustness import (
    AbilityFinding,
    RefusalFinding,
    find_general_ability,
    find_over_refusal,
)
from safety_spaces.evidence.findings.single_layers import SingleLayerFinding, find_single_layers
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, TASKS, Grid
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import Position


@dataclass(frozen=True)
class Findings:
    """What one study found, experiment by experiment and appendix by appendix."""

    premises: Premises
    energy: tuple[EnergyFinding, ...]
    parallel: tuple[ParallelFinding, ...]
    contaminated: tuple[ParallelFinding, ...]
    orthogonal: OrthogonalFinding | None
    updates: UpdateFinding | None
    layerwise: LayerwiseFinding | None
    activations: tuple[ActivationFinding, ...]
    paper: PaperFinding | None
    """None for a model that the paper does not have."""
    single_layers: SingleLayerFinding | None
    general_ability: tuple[AbilityFinding, ...]
    over_refusal: tuple[RefusalFinding, ...]
    states: tuple[StatesFinding, ...]
    further_tokens: tuple[ActivationFinding, ...]
    """At the single tokens that are not the position of the main figures."""
    windows: tuple[ActivationFinding, ...]
    refusal: tuple[ActivationFinding, ...]


def find(tables: Tables, grid: Grid) -> Findings:
    """All findings of a study.

    Raises:
        UserError: a table lacks a cell that the study promised, or the study a prompt set that the findings compare.
    """
    projection, updates, activations = tables.projection, tables.update_spaces, tables.activation_spaces
    parallel = tuple(find_parallel(projection, grid, line=line) for line in grid.lines(*PARALLEL))
    overlap = partial(_activations, tables, grid)
    return Findings(
        premises=check_premises(projection, grid),
        energy=tuple(find_energy(tables.energy, grid, task=task) for task in TASKS) if parallel else (),
        parallel=parallel,
        contaminated=tuple(find_parallel(projection, grid, line=line) for line in grid.lines(*CONTAMINATED)),
        orthogonal=find_orthogonal(projection, grid) if grid.lines(*ORTHOGONAL) == ORTHOGONAL else None,
        updates=find_update_overlap(updates, grid) if grid.update_pairs else None,
        layerwise=find_layerwise(updates, grid) if grid.update_pairs else None,
        activations=overlap(grid.positions[0]),
        paper=find_next_to_paper(projection, grid),
        single_layers=find_single_layers(projection, grid),
        general_ability=find_general_ability(projection, grid),
        over_refusal=find_over_refusal(projection, grid),
        states=tuple(
            find_states(activations, grid, checkpoint=checkpoint, centred=centred)
            for centred in (False, True)
            for checkpoint in grid.checkpoints
        ),
        further_tokens=tuple(found for token in grid.further_tokens for found in overlap(token)),
        windows=tuple(found for window in grid.windows for found in overlap(window)),
        refusal=_activations(tables, grid, grid.positions[0], refusal=True) if has_refusal(grid) else (),
    )


def _activations(
    tables: Tables, grid: Grid, position: Position, *, refusal: bool = False
) -> tuple[ActivationFinding, ...]:
    return tuple(
        find_activation_overlap(
            tables.activation_spaces,
            grid,
            checkpoint=checkpoint,
            centred=centred,
            position=position,
            ordinary="refusal" if refusal else "useful",
        )
        for centred in (False, True)
        for checkpoint in grid.checkpoints
    )
