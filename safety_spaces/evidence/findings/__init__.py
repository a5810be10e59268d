"""The numbers that the report states, as plain frozen dataclasses.

A finding is computed before it is worded: `find` reads the tables and knows no sentence, `sentences` words a finding
and knows no table. What a study does not have is None or empty; what it promises and its tables lack is said why.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from safety_spaces.errors import UserError
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
from safety_spaces.evidence.findings.paper import PaperFinding, find_next_to_paper, published
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
    GENERAL_ABILITY,
    OVER_REFUSAL,
    AbilityFinding,
    RefusalFinding,
    find_general_ability,
    find_over_refusal,
)
from safety_spaces.evidence.findings.single_layers import SingleLayerFinding, find_single_layers
from safety_spaces.evidence.grid import CONTAMINATED, ORTHOGONAL, PARALLEL, Grid
from safety_spaces.evidence.tables import Tables
from safety_spaces.study import Position


@dataclass(frozen=True)
class Findings:
    """What one study found, experiment by experiment and appendix by appendix."""

    premises: Premises | None = None
    energy: tuple[EnergyFinding, ...] = ()
    parallel: tuple[ParallelFinding, ...] = ()
    contaminated: tuple[ParallelFinding, ...] = ()
    orthogonal: OrthogonalFinding | None = None
    updates: UpdateFinding | None = None
    layerwise: LayerwiseFinding | None = None
    activations: tuple[ActivationFinding, ...] = ()
    paper: PaperFinding | None = None
    """None for a model that the paper does not have."""
    single_layers: SingleLayerFinding | None = None
    general_ability: tuple[AbilityFinding, ...] = ()
    over_refusal: tuple[RefusalFinding, ...] = ()
    states: tuple[StatesFinding, ...] = ()
    further_tokens: tuple[ActivationFinding, ...] = ()
    """At the single tokens that are not the position of the main figures."""
    windows: tuple[ActivationFinding, ...] = ()
    refusal: tuple[ActivationFinding, ...] = ()
    lacking: Mapping[str, str] = field(default_factory=dict)
    """Reasons, by name, why a finding that the study promises cannot be computed from the tables that are there."""


def find(tables: Tables, grid: Grid) -> Findings:
    """All findings of a study that its tables allow, and why the others are not there."""
    scored, seen = partial(tables.of, "projection"), partial(tables.of, "activation_spaces")
    has_orthogonal, metrics = grid.lines(*ORTHOGONAL) == ORTHOGONAL, {metric for *_, metric in grid.scored}
    is_of_paper = grid.is_scored and published(grid.model, grid.reference_kind)
    found: dict[str, Callable[[], Any]] = {
        "premises": lambda: check_premises(scored(), grid) if grid.is_scored else None,
        "energy": lambda: tuple(find_energy(tables.of("energy"), grid, task=task) for task in _energy_tasks(grid)),
        "parallel": lambda: tuple(find_parallel(scored(), grid, line=line) for line in grid.lines(*PARALLEL)),
        "contaminated": lambda: tuple(find_parallel(scored(), grid, line=line) for line in grid.lines(*CONTAMINATED)),
        "orthogonal": lambda: find_orthogonal(scored(), grid) if has_orthogonal else None,
        "updates": lambda: find_update_overlap(tables.of("update_spaces"), grid) if grid.update_pairs else None,
        "layerwise": lambda: find_layerwise(tables.of("update_spaces"), grid) if grid.update_pairs else None,
        "activations": lambda: _activations(tables, grid, grid.positions[:1]),
        "paper": lambda: find_next_to_paper(scored(), grid) if is_of_paper else None,
        "single_layers": lambda: find_single_layers(scored(), grid) if grid.single_layers else None,
        "general_ability": lambda: find_general_ability(scored(), grid) if GENERAL_ABILITY in metrics else (),
        "over_refusal": lambda: find_over_refusal(scored(), grid) if OVER_REFUSAL in metrics else (),
        "states": lambda: tuple(
            find_states(seen(), grid, checkpoint=checkpoint, centred=centred)
            for centred in (False, True)
            for checkpoint in grid.checkpoints
        ),
        "further_tokens": lambda: _activations(tables, grid, grid.further_tokens),
        "windows": lambda: _activations(tables, grid, grid.windows),
        "refusal": lambda: _activations(tables, grid, grid.positions[:1], refusal=True) if has_refusal(grid) else (),
    }
    there, lacking = {}, {}
    for name, find_one in found.items():
        try:
            there[name] = find_one()
        except UserError as error:
            lacking[name] = str(error)
    return Findings(**there, lacking=lacking)


def _energy_tasks(grid: Grid) -> tuple[str, ...]:
    """Tasks whose energies are spoken of: those of the paper's claim, of a study that scores nothing all."""
    return grid.tasks if grid.lines(*PARALLEL) or not (grid.scored or grid.single_layers) else ()


def _activations(
    tables: Tables, grid: Grid, positions: Sequence[Position], *, refusal: bool = False
) -> tuple[ActivationFinding, ...]:
    return tuple(
        find_activation_overlap(
            tables.of("activation_spaces"),
            grid,
            checkpoint=checkpoint,
            centred=centred,
            position=position,
            ordinary="refusal" if refusal else "useful",
        )
        for position in positions
        for centred in (False, True)
        for checkpoint in grid.checkpoints
    )
