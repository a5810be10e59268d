"""What a study promises that its tables hold, so that a cell that is absent can be told from one never asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from safety_spaces.evidence.names import set_names
from safety_spaces.study import OUTCOMES, Others, Position, Study
from safety_spaces.tensors import MATCHED, SCALED

TASKS = ("useful", "harmful", "contaminated")
"""What the paper compares, in its order; a study may have others."""
Line = tuple[str, str, str]
"""Task, scheme and metric of scored models."""
PARALLEL: tuple[Line, ...] = (("useful", "parallel", "utility"), ("harmful", "parallel", "harmfulness"))
CONTAMINATED: tuple[Line, ...] = tuple(("contaminated", "parallel", metric) for metric in OUTCOMES)
ORTHOGONAL: tuple[Line, ...] = tuple(("contaminated", "orthogonal", metric) for metric in OUTCOMES)


@dataclass(frozen=True)
class SingleLayers:
    """A line of scored models in each of which one layer alone is projected (Appendix I)."""

    task: str
    scheme: str
    metric: str
    layers: tuple[int, ...]
    others: tuple[Others, ...]


@dataclass(frozen=True)
class Grid:
    """What the study is, and what it promises that its tables hold; numbers as the tables carry them, with 6 digits."""

    model: str
    tasks: tuple[str, ...]
    """Fine-tuned models, those of TASKS first."""
    reference_kind: str
    seeds: tuple[int, ...]
    claim: str
    """The basis whose directions are said to be special: top_k, or a user's own file."""
    bases: tuple[str, ...]
    fractions: tuple[float, ...]
    energy_draws: int
    score_draws: int
    scored: tuple[Line, ...]
    """Lines of the models that are projected in all layers."""
    single_layers: tuple[SingleLayers, ...]
    update_pairs: tuple[str, ...]
    """Pairs of updates; none where the study leaves their overlap to another study."""
    update_etas: tuple[float, ...]
    percentiles: tuple[float, ...]
    positions: tuple[Position, ...]
    """Tokens whose states are compared; the first position is that of the main figures. None without activations."""
    checkpoints: tuple[str, ...]
    activation_pairs: tuple[str, ...]
    activation_etas: tuple[float, ...]
    window: tuple[float, float]
    set_names: Mapping[str, str] = field(default_factory=dict)
    """Prompt set -> its name in print."""
    controls: tuple[str, ...] = ()
    """The controls without a subspace of the tasks that are scored for both outcomes: scaled, matched."""

    @property
    def windows(self) -> tuple[Position, ...]:
        """The early windows among the positions."""
        return tuple(position for position in self.positions if position.is_window)

    @property
    def further_tokens(self) -> tuple[Position, ...]:
        """The single tokens among the positions that are not the position of the main figures."""
        return tuple(position for position in self.positions[1:] if not position.is_window)

    def single(self, scheme: str) -> tuple[SingleLayers, ...]:
        """The lines of one scheme in which one layer alone is projected."""
        return tuple(line for line in self.single_layers if line.scheme == scheme)

    def lines(self, *wanted: Line) -> tuple[Line, ...]:
        """Those of the wanted lines that the study scores over all layers, in the wanted order."""
        return tuple(line for line in wanted if line in self.scored)

    def pairs_of(self, *kinds: str) -> tuple[str, ...]:
        """The pairs of prompt sets whose two sets are each of one of these kinds; harmful_1 is of the kind harmful."""
        return tuple(pair for pair in self.activation_pairs if set(kinds_of(pair)) <= set(kinds))


def kinds_of(pair: str) -> tuple[str, ...]:
    """The kinds of the two prompt sets of a pair, in alphabetical order."""
    return tuple(sorted(part.split("_")[0] for part in pair.split("-")))


def grid_of(study: Study) -> Grid:
    """What a study promises that its tables hold."""
    projection, updates, activations = study.projection, study.update_spaces, study.activation_spaces
    lines = [(cell, metric) for cell in projection.scored for metric in cell.metrics]
    return Grid(
        model=study.model,
        tasks=tuple(sorted(study.tasks, key=lambda task: TASKS.index(task) if task in TASKS else len(TASKS))),
        reference_kind=study.reference_kind,
        seeds=tuple(study.seeds),
        claim=projection.claim,
        bases=tuple(projection.bases),
        fractions=_as_written(projection.fractions),
        energy_draws=projection.energy_draws,
        score_draws=projection.score_draws,
        scored=tuple((cell.task, cell.scheme, metric) for cell, metric in lines if cell.layers is None),
        single_layers=tuple(
            SingleLayers(cell.task, cell.scheme, metric, tuple(cell.layers), tuple(cell.others or ()))
            for cell, metric in lines
            if cell.layers is not None
        ),
        update_pairs=tuple("-".join(pair) for pair in study.update_pairs),
        update_etas=_as_written(updates.etas) if updates else (),
        percentiles=tuple(updates.percentiles) if updates else (),
        positions=tuple(activations.positions) if activations else (),
        checkpoints=tuple(activations.checkpoints) if activations else (),
        activation_pairs=tuple("-".join(pair) for pair in combinations(activations.sets, 2)) if activations else (),
        activation_etas=_as_written(activations.etas) if activations else (),
        window=(activations.window[0], activations.window[1]) if activations else (0.0, 1.0),
        set_names=set_names(study),
        controls=(*([SCALED] if projection.doses else []), *([MATCHED] if projection.matched else [])),
    )


def _as_written(numbers: Sequence[float]) -> tuple[float, ...]:
    """Numbers as the tables carry them, with 6 digits."""
    return tuple(float(f"{number:.6g}") for number in numbers)
