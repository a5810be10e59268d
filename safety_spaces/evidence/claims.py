"""The claims of the paper, one row each, and the verdict about every one: the same rule, sentence and columns for all.

A positive effect speaks for a subspace of safety, which the paper denies: so it agrees with the paper where an
equivalence is established, disagrees where an effect is, and is undecided where neither is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from safety_spaces.errors import UserError
from safety_spaces.evidence.crossed import Effects, spread
from safety_spaces.evidence.grid import Grid, grid_of
from safety_spaces.evidence.overlaps import layer_overlap, shown_layers, window_overlap
from safety_spaces.evidence.premises import Premises, measure_premises
from safety_spaces.evidence.selection import energies
from safety_spaces.evidence.selectivity import TaskDoses, deciding_fractions, finite, task_doses
from safety_spaces.evidence.tables import Tables
from safety_spaces.evidence.verdicts import RECIPE, Verdict, decide
from safety_spaces.study import Study
from safety_spaces.tensors import MATCHED, RANDOM

PAPER = {"equivalent": "agrees", "separable": "disagrees", "selective": "disagrees", "worse": "disagrees"}
GIVEN_BASE = "this recipe, given this base"


@dataclass(frozen=True)
class Evidence:
    """All that claims are measured from; doses and premises are None where no model is scored for both outcomes."""

    study: Study
    tables: Tables
    doses: Sequence[TaskDoses] = ()
    premises: Premises | None = None
    lacking: str = ""
    """Why there are no doses, although models are scored for both outcomes."""


@dataclass(frozen=True)
class Finding:
    """The effects of one claim, at fractions (None: their mean, or no fraction at all), and what they are of."""

    effects: Effects
    fractions: tuple[float | None, ...] = (None,)
    task: str = ""
    scheme: str = ""
    control: str = ""
    premises: bool = True
    secondary: Effects | None = None


@dataclass(frozen=True)
class Claim:
    """What the paper says, and the statistic that decides it; `measure` gives a finding for each task, or none."""

    id: str
    experiment: str
    section: str
    says: str
    statistic: str
    positive: str
    table: str
    """Where it is read from: a key of the tables' columns."""
    measure: Callable[[Evidence], Iterator[Finding]]


def gather(study: Study, tables: Tables, scores: pd.DataFrame | None) -> Evidence:
    """Measure what the claims have in common; without scores, or where some are missing, that of the tables alone."""
    if scores is None or not study.projection.dosed_tasks:
        return Evidence(study, tables)
    try:
        return Evidence(study, tables, task_doses(study, scores), measure_premises(study, scores))
    except UserError as error:
        return Evidence(study, tables, lacking=str(error))


def verdict_rows(evidence: Evidence, claims: Sequence[Claim] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of verdicts.csv; what a study leaves to another one, or its tables lack, has no row."""
    for claim in CLAIMS if claims is None else claims:
        is_there = claim.table == "scores" or getattr(evidence.tables, claim.table) is not None
        # What a table lacks is said where its figure would stand.
        with suppress(UserError):
            for finding in claim.measure(evidence) if is_there else ():
                yield _row(evidence.study, claim, finding)


def _row(study: Study, claim: Claim, finding: Finding) -> dict[str, Any]:
    effects, margin = finding.effects, study.evidence.margin
    recipe = RECIPE if study.is_per_seed("base") else GIVEN_BASE
    verdict = decide(effects, fractions=finding.fractions, margin=margin, premises=finding.premises, recipe=recipe)
    secondary = (None, None, None) if finding.secondary is None else _mean(finding.secondary)
    return {
        **{name: getattr(claim, name) for name in ("experiment", "section", "says", "statistic", "positive")},
        **{name: getattr(finding, name) for name in ("task", "scheme", "control")},
        **_numbers(verdict),
        "study": study.name,
        "id": claim.id,
        "basis": study.projection.claim if finding.control else "",
        "paper": PAPER.get(verdict.word, "undecided"),
        "margin": margin,
        "seeds": effects.seeds,
        "prompts": min((part.prompts for part in effects.parts), default=None),
        "clusters": min((part.clusters for part in effects.parts), default=None),
        **dict(zip(("secondary", "secondary_low", "secondary_high"), secondary, strict=True)),
    }


def _numbers(verdict: Verdict) -> dict[str, Any]:
    return {
        "verdict": verdict.word,
        "fraction": verdict.fraction,
        "effect": finite(verdict.effect),
        "ci_low": finite(verdict.low),
        "ci_high": finite(verdict.high),
        "minimum_detectable": finite(verdict.minimum_detectable),
        "would_decide": verdict.would_decide,
        "about": verdict.about,
    }


def _mean(effects: Effects) -> tuple[float | None, ...]:
    """The last effect, the mean over fractions, with its interval."""
    estimate = spread(effects)
    low, high = estimate.interval(0.95)
    return tuple(finite(float(each[-1])) for each in (estimate.value, low, high))


def _weights(scheme: str, evidence: Evidence) -> Iterator[Finding]:
    study, premises = evidence.study, evidence.premises
    judged, margins = ([one for one in evidence.doses if one.outcomes == name] for name in ("judged", "margins"))
    for one in judged if study.projection.matched else ():
        if not any(place.scheme == scheme for place in one.places):
            continue
        beside = next((other.contrast(study, scheme) for other in margins if other.task == one.task), None)
        granted = premises is not None and one.task in premises.granted
        fractions = (*deciding_fractions(study), None)
        yield Finding(one.contrast(study, scheme), fractions, one.task, scheme, MATCHED, granted, beside)


def _energy_above_chance(evidence: Evidence) -> Iterator[Finding]:
    for task in evidence.study.tasks:
        found = _energies(evidence, task, evidence.study.projection.claim)
        by_chance = _energies(evidence, task, RANDOM, column="energy_expected")
        yield Finding(Effects(found - by_chance), deciding_fractions(evidence.study), task, "parallel", RANDOM)


def _energy_between_tasks(evidence: Evidence) -> Iterator[Finding]:
    if {"useful", "harmful"} <= {*evidence.study.tasks}:
        useful, harmful = (_energies(evidence, task, evidence.study.projection.claim) for task in ("useful", "harmful"))
        if useful is not None:
            yield Finding(
                Effects(harmful - useful), deciding_fractions(evidence.study), "harmful", "parallel", "useful"
            )


def _energies(evidence: Evidence, task: str, basis: str, *, column: str = "energy_kept") -> np.ndarray:
    """Energy of a task's update in the first draw of a basis: seeds x deciding fractions."""
    rows = energies(evidence.tables.of("energy"), grid_of(evidence.study), task=task, basis=basis)
    rows = rows[rows.draw == 0].pivot(index="seed", columns="fraction", values=column)
    return rows.loc[list(evidence.study.seeds), [*deciding_fractions(evidence.study)]].to_numpy(float)


def _updates(evidence: Evidence) -> Iterator[Finding]:
    table, grid = evidence.tables.of("update_spaces"), grid_of(evidence.study)
    if not {"useful-harmful", "useful-reference", "harmful-reference"} <= {*grid.update_pairs}:
        return
    layers = [layer_overlap(table, grid, layer=layer) for layer in shown_layers(table, grid)]
    yield Finding(_excess(pd.concat(layers), grid, "harmful-reference", ("useful-harmful", "useful-reference")))


def _activations(centred: bool, evidence: Evidence) -> Iterator[Finding]:
    table, grid = evidence.tables.of("activation_spaces"), grid_of(evidence.study)
    harmful, mixed = grid.pairs_of("harmful"), tuple(p for p in grid.pairs_of("harmful", "useful") if "useful" in p)
    if not harmful or not mixed:
        return
    for checkpoint in grid.checkpoints:
        how: dict[str, Any] = {"position": grid.positions[0], "checkpoint": checkpoint, "centred": centred}
        means = window_overlap(table, grid, pairs=(*harmful, *mixed), **how)
        yield Finding(_excess(means, grid, harmful[0], mixed), task=checkpoint)


def _excess(rows: pd.DataFrame, grid: Grid, first: str, others: tuple[str, ...]) -> Effects:
    """MSO minus chance of a pair, mean over energy levels, less that of the closest of other pairs, by seed."""
    above = (rows.mso - rows.mso_chance).groupby([rows.pair, rows.seed]).mean().unstack("seed")[list(grid.seeds)]
    return Effects((above.loc[first] - above.loc[list(others)].max()).to_numpy(float)[:, None])


SELECTIVITY = "selectivity of the claim minus that of its matched scaling"
CLAIMS = (
    Claim(
        "weights-parallel", "Keeping directions", "3",
        "What the alignment directions keep of a contaminated update brings utility and harmfulness back together.",
        SELECTIVITY, "the part kept has more utility, or less harm, than its dose gives", "scores",
        partial(_weights, "parallel"),
    ),
    Claim(
        "weights-orthogonal", "Removing directions", "4",
        "Removing the alignment directions from a contaminated update costs utility as it lowers harmfulness.",
        SELECTIVITY, "the part left has more utility, or less harm, than its dose gives", "scores",
        partial(_weights, "orthogonal"),
    ),
    Claim(
        "energy-chance", "Energy of updates", "3",
        "An update's energy is spread evenly: the alignment directions hold as much of it as random ones.",
        "energy kept by the claim minus the expectation of random", "the claim holds more of the update than chance",
        "energy", _energy_above_chance,
    ),
    Claim(
        "energy-tasks", "Energy of updates, by task", "3",
        "The alignment directions hold alike shares of useful and harmful updates.",
        "energy kept of the harmful update minus that of the useful one", "they hold more of the harmful update",
        "energy", _energy_between_tasks,
    ),
    Claim(
        "updates", "Overlap of updates", "5",
        "The closest pair of updates is never the harmful one and the alignment.",
        "MSO minus chance of harmful-reference, less the larger of the two other pairs",
        "the harmful update is closest to the alignment", "update_spaces", _updates,
    ),
    Claim(
        "activations", "Overlap of activations", "6",
        "Harmful prompts of two sources overlap no more with each other than with useful ones.",
        "centred MSO minus chance of harmful-harmful, less the larger of useful-harmful",
        "harmful prompts have directions of their own", "activation_spaces", partial(_activations, True),
    ),
    Claim(
        "activations-uncentred", "Overlap of activations, as published", "6",
        "Harmful prompts of two sources overlap no more with each other than with useful ones.",
        "uncentred MSO minus chance of harmful-harmful, less the larger of useful-harmful",
        "harmful prompts have directions of their own", "activation_spaces", partial(_activations, False),
    ),
)  # fmt: skip
"""In the order in which they are told."""
