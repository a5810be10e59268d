"""The cells of the projection experiment, as the study says them: which models there are, and what each is scored for.

A pure function of the study: no torch, no tokenizer, no file.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics import METRICS
from safety_spaces.study import Metric, Others, Scored, Study
from safety_spaces.tensors import MATCHED, NONE, SCALED, draws


@dataclass(frozen=True)
class Cell:
    """One model and how it comes about; a baseline is a checkpoint as it is, with scheme and basis none.

    Where one layer alone is projected, `others` says whether all other tensors keep their whole update or none of it.
    Basis scaled keeps `dose` times the whole update; basis matched keeps of each tensor's whole update the share that
    lies along it in the claim's cell of the same scheme and fraction.
    """

    seed: int
    task: str
    scheme: Literal["parallel", "orthogonal", "none"] = NONE
    basis: str = NONE
    fraction: float | None = None
    draw: int | None = None
    layer: int | None = None
    others: Others | None = None
    replicate: int = 0
    dose: float | None = None

    @property
    def is_baseline(self) -> bool:
        """Whether this is a checkpoint as it is."""
        return self.basis == NONE

    def directions(self, claim: str) -> tuple[str, str, int]:
        """Task, basis and draw of what a cell is made from; the dose of a matched cell is that of the claim's."""
        return self.task, claim if self.basis == MATCHED else self.basis, self.draw or 0

    def fractions(self, all_fractions: Sequence[float]) -> list[float]:
        """The fractions up to its own: a parallel part is a sum over them, and its last bits depend on them."""
        return [rho for rho in all_fractions if self.fraction is not None and rho <= self.fraction]

    def projects(self, layer: int | None) -> bool:
        """Say whether tensors of a layer, or for None those outside all layers, are projected."""
        return self.layer is None or self.layer == layer


def cells(study: Study, seed: int) -> dict[Cell, tuple[Metric, ...]]:
    """Return every model of one seed and what it is scored for: each once, the checkpoints as they are first."""
    metrics = baseline_metrics(study)
    found = {Cell(seed, role): metrics for role in ("base", "reference", *study.tasks) if metrics}
    for scored in study.projection.scored:
        for cell in _projected(study, scored, seed):
            found[cell] = tuple(dict.fromkeys((*found.get(cell, ()), *scored.metrics)))
    return found | dict(_dosed(study, seed))


def baseline_metrics(study: Study) -> tuple[Metric, ...]:
    """Return what every checkpoint is scored for as it is: the main metrics and those of any projected model."""
    if study.evaluation is None:
        return ()
    main = (metric.name for metric in METRICS.values() if metric.is_main)
    return tuple(dict.fromkeys((*main, *(metric for one in study.projection.scored for metric in one.metrics))))


def belongs_to_first_seed(study: Study, cell: Cell) -> bool:
    """Say whether a cell is one that all seeds share, met again in a later seed."""
    return cell.seed != study.seeds[0] and cell.is_baseline and not study.is_per_seed(cell.task)


def energies_per_task(study: Study) -> int:
    """Return the number of energies measured of one task update."""
    settings = study.projection
    return len(settings.fractions) * sum(len(draws(basis, settings.energy_draws)) for basis in settings.bases)


def check_layers(study: Study, known: Collection[int]) -> None:
    """Check that every layer that is projected alone is one of the model: of another one no tensor would be found.

    Raises UserError when one is not.
    """
    for scored in study.projection.scored:
        if unknown := sorted(set(scored.layers or ()) - set(known)):
            raise UserError(
                f"projection.scored: expected layers from 0 to {max(known)}, got {unknown[0]}; correct layers"
            )


def _dosed(study: Study, seed: int) -> Iterator[tuple[Cell, tuple[Metric, ...]]]:
    """The controls without a subspace, of the tasks that are scored for both outcomes."""
    settings = study.projection
    for task, metrics in settings.dosed_tasks.items():
        for dose in settings.doses:
            yield Cell(seed, task, basis=SCALED, dose=dose), metrics
        fractions = settings.fractions if settings.matched else ()
        for scheme, fraction in itertools.product(settings.schemes(task), fractions):
            yield Cell(seed, task, scheme, MATCHED, fraction), metrics


def _projected(study: Study, scored: Scored, seed: int) -> Iterator[Cell]:
    settings = study.projection
    places = [(None, None)] if scored.layers is None else itertools.product(scored.layers, scored.others or ())
    for (layer, others), basis in itertools.product(places, settings.bases):
        for draw, fraction in itertools.product(draws(basis, settings.score_draws), settings.fractions):
            yield Cell(seed, scored.task, scored.scheme, basis, fraction, draw, layer, others)
