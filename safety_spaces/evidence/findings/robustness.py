"""Whether projection costs general ability or makes models refuse harmless prompts (Appendix J).

Either would be another reason for a fall in harmfulness than the removal of harmful behaviour.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd

from safety_spaces.evaluation.intervals import Estimate
from safety_spaces.evidence.grid import Grid, Line
from safety_spaces.evidence.selection import baseline, half_width, mean_score, scores
from safety_spaces.evidence.statistics import Contrast, contrast

CHANCE = 0.25
"""Accuracy of guessing one of four letters."""
GENERAL_ABILITY, OVER_REFUSAL = "general_ability", "over_refusal"


@dataclass(frozen=True)
class AbilityFinding:
    """General ability of the projected models of one line beside their fine-tuned and reference models.

    Projection leads from one of the two to the other, so what fine-tuning itself did is no damage of it: the
    excursion of a model is how far it lies outside of the interval between the two, by seed. It is positive above
    both, negative below both, and 0 between.
    """

    task: str
    scheme: str
    lowest: float
    highest: float
    fine_tuned: Estimate
    reference: Estimate
    shots: tuple[int, ...]
    excursion: Contrast
    """Of the model whose excursion is largest in size, mean over seeds."""
    size: float
    """That mean of sizes, in which seeds on both sides do not cancel."""
    model: str
    """That model."""
    models: int
    """How many were looked at."""

    @property
    def is_above_chance(self) -> bool:
        """Whether the reference demonstrably has an ability that could be lost."""
        return self.reference.ci_low > CHANCE


@dataclass(frozen=True)
class RefusalFinding:
    """Share of harmless prompts that the projected models of one line refuse, beside fine-tuned and reference."""

    task: str
    scheme: str
    lowest: float
    highest: float
    fine_tuned: Estimate
    reference: Estimate
    judges: tuple[str, ...]
    rise: Contrast
    """The model that refuses most, minus the one of fine-tuned and reference that refuses more."""

    @property
    def can_rise(self) -> bool:
        """Whether fine-tuned and reference leave room for more refusals than noise."""
        return max(self.fine_tuned.value, self.reference.value) + self.rise.noise < 1


def find_general_ability(projection: pd.DataFrame, grid: Grid) -> tuple[AbilityFinding, ...]:
    """General ability of every line that is scored for it over all layers."""
    return tuple(_ability(projection, grid, line) for line in grid.scored if line[2] == GENERAL_ABILITY)


def find_over_refusal(projection: pd.DataFrame, grid: Grid) -> tuple[RefusalFinding, ...]:
    """Refusals of every line that is scored for them over all layers."""
    return tuple(_refusal(projection, grid, line) for line in grid.scored if line[2] == OVER_REFUSAL)


def _ability(projection: pd.DataFrame, grid: Grid, line: Line) -> AbilityFinding:
    task, scheme, metric = line
    rows = _line(projection, grid, line)
    score = partial(baseline, projection, grid, metric=metric)
    fine_tuned, reference = score(checkpoint=task), score(checkpoint="reference")
    ends = pd.concat([one.set_index("seed").value for one in (fine_tuned, reference)], axis=1)
    models = {f"{basis} at {fraction:g}": values for (basis, fraction), values in _models(rows)}
    excursions = {name: values - values.clip(ends.min(axis=1), ends.max(axis=1)) for name, values in models.items()}
    sizes = {name: float(excursion.abs().mean()) for name, excursion in excursions.items()}
    model = max(sizes, key=sizes.__getitem__)
    means = [float(values.mean()) for values in models.values()]
    return AbilityFinding(
        task=task,
        scheme=scheme,
        lowest=min(means),
        highest=max(means),
        fine_tuned=mean_score(fine_tuned),
        reference=mean_score(reference),
        shots=tuple(sorted(int(shots) for shots in set(rows.shots.dropna()))),
        excursion=contrast(list(excursions[model]), noise=half_width(rows)),
        size=sizes[model],
        model=model,
        models=len(models),
    )


def _refusal(projection: pd.DataFrame, grid: Grid, line: Line) -> RefusalFinding:
    task, scheme, metric = line
    rows = _line(projection, grid, line)
    compared = [baseline(projection, grid, checkpoint=name, metric=metric) for name in (task, "reference")]
    most = max(compared, key=lambda one: float(one.value.mean())).set_index("seed").value
    models = sorted((values for _, values in _models(rows)), key=lambda values: float(values.mean()))
    return RefusalFinding(
        task=task,
        scheme=scheme,
        lowest=float(models[0].mean()),
        highest=float(models[-1].mean()),
        fine_tuned=mean_score(compared[0]),
        reference=mean_score(compared[1]),
        judges=tuple(sorted(set(rows.judge))),
        rise=contrast(list(models[-1] - most), noise=half_width(rows)),
    )


def _line(projection: pd.DataFrame, grid: Grid, line: Line) -> pd.DataFrame:
    return pd.concat(scores(projection, grid, line=line, basis=basis) for basis in grid.bases)


def _models(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, float], "pd.Series[float]"]]:
    """Every projected model by (basis, fraction): its means over draws, by seed."""
    for cell, part in rows.groupby(["basis", "fraction"]):
        yield (str(cell[0]), float(part.fraction.iloc[0])), part.groupby("seed").value.mean()
