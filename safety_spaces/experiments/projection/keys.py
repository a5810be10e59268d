"""The keys of the projection experiment: what each result is found by.

A key is a digest of everything that changes the result - settings, prompts, contents of the checkpoints - and of
nothing that does not, so a changed setting never meets an old result and a moved folder loses none.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.judges import judge_key
from safety_spaces.evaluation.metrics import metric_of
from safety_spaces.experiments.projection.cells import Cell, cells
from safety_spaces.models.roles import Roles
from safety_spaces.store import digest
from safety_spaces.study import Metric


@dataclass(frozen=True)
class Score:
    """One metric of one cell, the key of the answers that are scored and the key of the scores.

    Two keys, because another judge needs no other answers.
    """

    cell: Cell
    metric: Metric
    answers: str
    key: str


def energy_key(roles: Roles, seed: int, task: str) -> str:
    """Return the key of the energies of one task update: all bases, fractions and draws."""
    settings = roles.study.projection
    measured = settings.model_dump(include={"bases", "fractions", "energy_draws"}) | _geometry(roles)
    identities = [roles.identity(role, seed) for role in ("base", "reference", task)]
    return digest(["energies by layer, and matched", measured, seed, roles.study.threads, identities])


def _geometry(roles: Roles) -> dict[str, Any]:
    """What a projected update depends on besides its cell and the checkpoints."""
    settings = roles.study.projection
    geometry = settings.model_dump(include={"rounding", "side", "tied", "vectors"})
    # Every control takes as many directions as the user's own basis.
    return geometry if roles.own_basis is None else {**geometry, "own_basis": roles.own_basis}


def scores(roles: Roles, texts: Texts, seed: int) -> Iterator[Score]:
    """Yield every score of one seed, baselines first; scores of one cell stand together."""
    return scores_of(roles, texts, seed, list(cells(roles.study, seed)))


def scores_of(roles: Roles, texts: Texts, seed: int, wanted: Sequence[Cell]) -> Iterator[Score]:
    """Yield the scores of some cells of a seed."""
    every = cells(roles.study, seed)
    identity = functools.cache(functools.partial(roles.identity, seed=seed))
    asked = functools.cache(functools.partial(_asked, texts))
    for cell, metrics in ((cell, every[cell]) for cell in wanted):
        how = _how(roles, cell)
        checkpoints = [
            identity(role) for role in ((cell.task,) if cell.is_baseline else ("base", "reference", cell.task))
        ]
        for metric in metrics:
            questions, judge = asked(metric)
            answers = digest({"metric": metric, "asked": questions, **how, "checkpoints": checkpoints})
            yield Score(cell, metric, answers, digest(["score", answers, judge]))


def _asked(texts: Texts, name: Metric) -> tuple[Any, Any]:
    """What a model is asked for a metric, and who scores its answers."""
    assert texts.study.evaluation is not None
    metric = metric_of(name, texts, texts.study.evaluation)
    return metric.key(), None if metric.judge is None else judge_key(metric.judge, texts.layout)


def _how(roles: Roles, cell: Cell) -> dict[str, Any]:
    """How the weights of a cell are made and asked; a baseline has no geometry: a base scored once serves all seeds."""
    study = roles.study
    assert study.evaluation is not None
    # Scores whose realised energy was measured otherwise are not taken for these.
    made = {} if cell.is_baseline else {**asdict(cell), **_geometry(roles), "realised_energy": "squared"}
    return {
        "how": made,
        "fractions": cell.fractions(study.projection.fractions),
        "weights_dtype": study.projection.weights_dtype,
        "batch_size": study.evaluation.batch_size,
        "threads": study.threads,
    }
