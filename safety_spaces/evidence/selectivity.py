"""The selectivity of every cell, and what of it scaling each tensor alone does as well (design, section 10)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from safety_spaces.evidence.crossed import Effects, spread
from safety_spaces.evidence.doses import Doses, selectivity
from safety_spaces.evidence.scores import Place, arrange, curve, projected
from safety_spaces.study import MARGINS, OUTCOMES, Study
from safety_spaces.tensors import MATCHED

PAIRS = {"judged": OUTCOMES, "margins": MARGINS}
"""Name of a pair of outcomes -> what is to be kept, and what is to be removed."""
NUMBERS = (
    "utility_dose", "harm_dose", "selectivity", "ci_low", "ci_high", "clamped", "harm_at_equal_utility",
    "utility_at_equal_harm",
)  # fmt: skip


@dataclass(frozen=True)
class TaskDoses:
    """The equivalent doses of all cells of one task by one pair of outcomes; places in the order of the doses."""

    task: str
    outcomes: str
    places: tuple[Place, ...]
    doses: Doses

    def contrast(self, study: Study, scheme: str) -> Effects:
        """Selectivity of the claim minus that of its own control matched, at the fractions that decide and in mean."""
        claim, matched = (
            [self.places.index(Place(self.task, scheme, basis, rho, None, draw)) for rho in deciding_fractions(study)]
            for basis, draw in ((study.projection.claim, 0), (MATCHED, None))
        )
        return self.doses.contrast(claim, matched).with_mean()


def task_doses(study: Study, scores: pd.DataFrame) -> list[TaskDoses]:
    """Measure every task scored for both outcomes, given a control scaled; UserError when a score is missing."""
    settings, found = study.evidence, []
    for task, metrics in study.projection.dosed_tasks.items() if study.projection.doses else ():
        line = curve(study, task)
        places = (*line.values(), *projected(study, task))
        for name, pair in PAIRS.items():
            if {*pair} <= {*metrics}:
                utility, harm = (arrange(scores, study.seeds, metric, places) for metric in pair)
                how = {"resamples": settings.resamples, "seed": settings.seed}
                found.append(
                    TaskDoses(task, name, places, selectivity(utility, harm, range(len(line)), [*line], **how))
                )
    return found


def deciding_fractions(study: Study) -> tuple[float, ...]:
    """The fractions that decide: those of the study's evidence that are projected, else all."""
    every = study.projection.fractions
    return tuple(rho for rho in every if rho in study.evidence.fractions) or tuple(every)


def selectivity_rows(study: Study, measured: Sequence[TaskDoses]) -> Iterator[dict[str, Any]]:
    """Yield the rows of selectivity.csv: means over seeds, the interval of each cell by itself."""
    for one in measured:
        numbers = [number for number, place in enumerate(one.places) if place.fraction is not None]
        effects = one.doses.of(numbers)
        estimate = spread(effects)
        beside = one.doses.harm_at_equal_utility(numbers), one.doses.utility_at_equal_harm(numbers)
        columns = (
            *(side.dose.mean(0)[numbers] for side in (one.doses.utility, one.doses.harm)),
            estimate.value,
            *estimate.interval(0.95),
            np.zeros(len(numbers)) if effects.clamped is None else effects.clamped,
            *(each.by_seed.mean(0) for each in beside),
        )
        for number, values in zip(numbers, zip(*columns, strict=True), strict=True):
            place = one.places[number]
            yield {
                **{"study": study.name, "task": one.task, "outcomes": one.outcomes, "seeds": effects.seeds},
                **{name: getattr(place, name) for name in ("scheme", "basis", "fraction", "draw")},
                **{name: finite(value) for name, value in zip(NUMBERS, values, strict=True)},
            }


def finite(value: float) -> float | None:
    """A number as tables take it: None for one that is not finite."""
    return float(value) if np.isfinite(value) else None
