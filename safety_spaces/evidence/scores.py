"""The scores of a study by seed, cell and prompt, as the statistics take them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.evidence.crossed import Scores
from safety_spaces.evidence.tables import SCORES_FILE
from safety_spaces.study import Study
from safety_spaces.tensors import MATCHED, NONE, SCALED, draws


class Place(NamedTuple):
    """One model of a sweep in all layers at once, whatever its seed; a checkpoint as it is by its task alone."""

    task: str
    scheme: str = NONE
    basis: str = NONE
    fraction: float | None = None
    dose: float | None = None
    draw: int | None = None


def curve(study: Study, task: str) -> dict[float, Place]:
    """The control scaled by its dose: the reference at 0, the task at 1."""
    doses = {dose: Place(task, basis=SCALED, dose=dose) for dose in study.projection.doses}
    return dict(sorted({**doses, 0.0: Place("reference"), 1.0: Place(task)}.items()))


def projected(study: Study, task: str) -> Iterator[Place]:
    """The projected models of a task and their control matched, scheme by scheme, the claim first."""
    settings = study.projection
    controls = [basis for basis in settings.bases if basis != settings.claim]
    for scheme in settings.schemes(task):
        for basis in (settings.claim, *([MATCHED] if settings.matched else []), *controls):
            for draw in [None] if basis == MATCHED else draws(basis, settings.score_draws):
                for fraction in settings.fractions:
                    yield Place(task, scheme, basis, fraction, None, draw)


def arrange(table: pd.DataFrame, seeds: Sequence[int], metric: str, places: Sequence[Place]) -> Scores:
    """The scores of a metric in the order of seeds and places, prompts as they were asked.

    Raises UserError when a score is missing, which another run would leave out in silence.
    """
    rows = table[(table.metric == metric) & (table.layers == "all") & (table.replicate == 0)]
    rows = rows[rows.seed.isin(list(seeds))]
    numbers, order = {place: number for number, place in enumerate(places)}, {s: n for n, s in enumerate(seeds)}
    columns = (rows[name].astype(object).where(rows[name].notna(), None) for name in Place._fields)
    cell = np.array([numbers.get(Place(*of), -1) for of in zip(*columns, strict=True)], dtype=int)
    rows, cell = rows[cell >= 0], cell[cell >= 0]
    shape = len(seeds), len(places), int(rows.prompt.max()) + 1 if len(rows) else 1
    values, found = np.full(shape, np.nan), np.zeros(shape, bool)
    at = rows.seed.map(order).to_numpy(int), cell, rows.prompt.to_numpy(int)
    values[at], found[at] = rows.value.to_numpy(float, na_value=np.nan), True
    if not found.all():
        seed, place, _ = np.argwhere(~found)[0]
        said = ", ".join(str(part) for part in places[place] if part not in (None, NONE))
        expected = f"expected {metric} of {said}, seed {seeds[seed]}, for each of {shape[2]} prompts"
        raise UserError(f"{SCORES_FILE}: {expected}, found less; run that experiment again")
    clusters = rows.drop_duplicates("prompt").sort_values("prompt").cluster
    return Scores(values, tuple(clusters))
