"""The cells of the projection experiment: which there are, and the key that each result is found by.

A key is a digest of everything that changes the result - settings, prompts, contents of the checkpoints - and of
nothing that does not, so a changed setting never meets an old result and a moved folder loses none.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from safety_spaces.evaluation.judges import judge_key
from safety_spaces.evaluation.metrics import METRICS, metric_of
from safety_spaces.evaluation.metrics import Metric as MetricOfStudy
from safety_spaces.experiments.command import Command
from safety_spaces.store import digest
from safety_spaces.study import Metric, Others, Scored, Study, draws

NO_SCHEME: Final = "none"


@dataclass(frozen=True)
class Cell:
    """One model and how it comes about; a baseline is a checkpoint as it is, with scheme and basis none.

    Where one layer alone is projected, `others` says whether all other tensors keep their whole update or none of it.
    """

    seed: int
    task: str
    scheme: Literal["parallel", "orthogonal", "none"] = NO_SCHEME
    basis: str = NO_SCHEME
    fraction: float | None = None
    draw: int | None = None
    layer: int | None = None
    others: Others | None = None
    replicate: int = 0

    def fractions(self, all_fractions: Sequence[float]) -> list[float]:
        """The fractions up to its own: a parallel part is a sum over them, and its last bits depend on them."""
        return [rho for rho in all_fractions if self.fraction is not None and rho <= self.fraction]

    def projects(self, layer: int | None) -> bool:
        """Say whether tensors of a layer, or for None those outside all layers, are projected."""
        return self.layer is None or self.layer == layer

    @property
    def is_baseline(self) -> bool:
        """Whether this is a checkpoint as it is."""
        return self.scheme == NO_SCHEME


@dataclass(frozen=True)
class Score:
    """One metric of one cell, the key of the answers that are scored and the key of the scores.

    Two keys, because another judge needs no other answers.
    """

    cell: Cell
    metric: Metric
    answers: str
    key: str


def baseline_roles(command: Command) -> tuple[str, ...]:
    """Return the checkpoints that are scored as they are."""
    return ("base", "reference", *command.study.tasks)


def scores(command: Command, seed: int) -> list[Score]:
    """Return every score of one seed, baselines first; scores of one cell stand together."""
    keys = _Keys(command, seed)
    return [keys.score(cell, metric) for cell, metric in scored_cells(command, seed)]


def scored_cells(command: Command, seed: int) -> list[tuple[Cell, Metric]]:
    """Return what every model of one seed is scored for, baselines first."""
    baselines = {Cell(seed, role): baseline_metrics(command.study) for role in baseline_roles(command)}
    cells = {**baselines, **projected_cells(command.study, seed)}
    return [(cell, metric) for cell, metrics in cells.items() for metric in metrics]


def belongs_to_first_seed(study: Study, cell: Cell) -> bool:
    """Say whether a cell is one that all seeds share, met again in a later seed."""
    return cell.seed != study.seeds[0] and cell.is_baseline and not study.is_per_seed(cell.task)


def baseline_metrics(study: Study) -> tuple[Metric, ...]:
    """Return what every checkpoint is scored for as it is: the main metrics and those of any projected model."""
    if study.evaluation is None:
        return ()
    main = (metric.name for metric in METRICS.values() if metric.is_main)
    return tuple(dict.fromkeys((*main, *(metric for one in study.projection.scored for metric in one.metrics))))


def projected_cells(study: Study, seed: int) -> dict[Cell, tuple[Metric, ...]]:
    """Return the projected models of one seed, each once, and what each is scored for."""
    found: dict[Cell, tuple[Metric, ...]] = {}
    for scored in study.projection.scored:
        for cell in _cells(study, scored, seed):
            found[cell] = tuple(dict.fromkeys((*found.get(cell, ()), *scored.metrics)))
    return found


def _cells(study: Study, scored: Scored, seed: int) -> Iterator[Cell]:
    settings = study.projection
    places = [(None, None)] if scored.layers is None else itertools.product(scored.layers, scored.others or ())
    for (layer, others), basis in itertools.product(places, settings.bases):
        for draw, fraction in itertools.product(draws(basis, settings.score_draws), settings.fractions):
            yield Cell(seed, scored.task, scored.scheme, basis, fraction, draw, layer, others)


def energies_per_task(study: Study) -> int:
    """Return the number of energies measured of one task update, for `--plan`."""
    settings = study.projection
    measured = sum(len(draws(basis, settings.energy_draws)) for basis in settings.bases)
    return measured * len(settings.fractions)


def energy_key(command: Command, seed: int, task: str) -> str:
    """Return the key of the energies of one task update: all bases, fractions and draws."""
    settings = command.study.projection
    measured = settings.model_dump(include={"bases", "fractions", "energy_draws"}) | _geometry(command)
    identities = [command.roles.identity(role, seed) for role in ("base", "reference", task)]
    return digest(["energies by layer", measured, seed, command.study.threads, identities])


def _geometry(command: Command) -> dict[str, Any]:
    """What a projected update depends on besides its cell and the checkpoints."""
    settings = command.study.projection
    geometry = settings.model_dump(include={"rounding", "tied", "vectors"}) | {"side": settings.projected_side}
    # Every control takes as many directions as the user's own basis.
    return geometry if command.roles.own_basis is None else {**geometry, "own_basis": command.roles.own_basis}


class _Keys:
    """Keys of one seed's scores; prompts, files and checkpoints are read once."""

    def __init__(self, command: Command, seed: int) -> None:
        self._command = command
        self._asked = functools.cache(lambda name: _metric(command, name).key())
        self._judge = functools.cache(functools.partial(_judge_key, command))
        self._identity = functools.cache(functools.partial(command.roles.identity, seed=seed))

    def score(self, cell: Cell, metric: Metric) -> Score:
        answers = self._answers(cell, metric)
        return Score(cell, metric, answers, digest(["score", answers, self._judge(metric)]))

    def _answers(self, cell: Cell, metric: Metric) -> str:
        settings = self._command.study.projection
        # A baseline has no geometry; a base scored once serves every seed. Scores whose realised energy was measured
        # otherwise are not taken for these.
        how = {} if cell.is_baseline else {**asdict(cell), **_geometry(self._command), "realised_energy": "squared"}
        roles = (cell.task,) if cell.is_baseline else ("base", "reference", cell.task)
        return digest(
            {
                "metric": metric,
                "asked": self._asked(metric),
                "how": how,
                "fractions": cell.fractions(settings.fractions),
                "weights_dtype": settings.weights_dtype,
                "batch_size": self._command.study.evaluation.batch_size,
                "threads": self._command.study.threads,
                "checkpoints": [self._identity(role) for role in roles],
            }
        )


def _metric(command: Command, name: Metric) -> MetricOfStudy:
    assert command.study.evaluation is not None
    return metric_of(name, command.texts, command.study.evaluation)


def _judge_key(command: Command, name: Metric) -> Any:
    judge = _metric(command, name).judge
    return None if judge is None else judge_key(judge, command.layout)
