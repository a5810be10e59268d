"""The study that promises what a grid says, and the tables of claims that its report is made from."""

import pandas as pd

from safety_spaces.study import (
    ActivationSpaces,
    Evaluation,
    Existing,
    Harmfulness,
    Projection,
    RubricJudge,
    Scored,
    Study,
    UpdateSpaces,
)

VERDICTS = (
    "study", "id", "experiment", "section", "says", "statistic", "positive", "task", "scheme", "basis", "control",
    "verdict", "paper", "fraction", "effect", "ci_low", "ci_high", "margin", "seeds", "prompts", "clusters",
    "minimum_detectable", "would_decide", "secondary", "secondary_low", "secondary_high", "about",
)  # fmt: skip


def study_of(grid, **changes):
    """The study that promises what a grid says."""
    scored = [((task, scheme), {}, metric) for task, scheme, metric in grid.scored]
    scored += [
        ((line.task, line.scheme), {"layers": line.layers, "others": line.others}, line.metric)
        for line in grid.single_layers
    ]
    updates = UpdateSpaces.model_construct(
        etas=grid.update_etas,
        percentiles=grid.percentiles,
        pairs=tuple(tuple(pair.split("-")) for pair in grid.update_pairs),
    )
    sets = ("useful", "refusal", "harmful_1", "harmful_2") if len(grid.activation_pairs) > 3 else (
        "useful", "harmful_1", "harmful_2",
    )  # fmt: skip
    study = Study.model_construct(
        name="tiny",
        model="llama",
        reference_kind="aligned",
        seeds=grid.seeds,
        world=None,
        roles={role: Existing(path=role) for role in ("base", "reference", "useful", "harmful", "contaminated")},
        projection=Projection.model_construct(
            basis=None,
            bases=grid.bases,
            fractions=grid.fractions,
            energy_draws=grid.energy_draws,
            score_draws=grid.score_draws,
            scored=tuple(
                Scored.model_construct(task=task, scheme=scheme, metrics=(metric,), **layers)
                for (task, scheme), layers, metric in scored
            ),
        ),
        update_spaces=updates if grid.update_pairs else None,
        activation_spaces=ActivationSpaces.model_construct(
            positions=grid.positions,
            etas=grid.activation_etas,
            window=grid.window,
            checkpoints=grid.checkpoints,
            sets=dict.fromkeys(sets),
        ),
        evaluation=Evaluation.model_construct(harmfulness=Harmfulness.model_construct(judge=RubricJudge())),
    )
    return study.model_copy(update=changes)


def verdict(**columns):
    """One row of verdicts.csv."""
    sizes = {"margin": 0.15, "seeds": 3, "prompts": 128, "clusters": 41}
    return {**dict.fromkeys(VERDICTS), "study": "tiny", "about": "these checkpoints", **sizes, **columns}


def verdicts(*rows):
    """verdicts.csv as a table: the rows given, else a claim for every section of the paper and one beside it."""
    usual = (
        verdict(id="weights-parallel", experiment="Keeping directions (Section 3)", section="3", says="A & B.",
                statistic="one minus another", positive="harm stays out", verdict="undecided", paper="undecided",
                effect=0.04, ci_low=-0.11, ci_high=0.2, minimum_detectable=0.21, would_decide="8 seeds | more prompts"),
        verdict(id="weights-orthogonal", experiment="Removing directions (Section 4)", section="4", says="Both go.",
                statistic="another", positive="harm goes", verdict="selective", paper="disagrees", effect=0.154,
                ci_low=0.103, ci_high=0.207, fraction=0.25, secondary=0.1, secondary_low=0.05, secondary_high=0.15),
        verdict(id="updates", experiment="Overlap of updates (Section 5)", section="5", says="No pair is closer.",
                statistic="a third", positive="they share one", verdict="equivalent", paper="agrees", effect=-0.2,
                ci_low=-0.3, ci_high=-0.1),
        verdict(id="mine", experiment="My own claim", section="Appendix Z", says="It holds.", statistic="a fourth",
                positive="it does", verdict="nothing to separate", paper="undecided"),
    )  # fmt: skip
    return pd.DataFrame([*(rows or usual)], columns=VERDICTS)


def premises():
    """premises.csv as a table: one that holds and one that fails."""
    rows = [("Alignment lowers harm", "base minus reference", 3.0, 2.9, 3.1, 0.0, True),
            ("Gap of harm", "contaminated minus reference", 0.01, -0.2, 0.2, 0.0, False)]  # fmt: skip
    columns = ("premise", "statistic", "value", "ci_low", "ci_high", "bound", "holds")
    return pd.DataFrame(rows, columns=columns).assign(study="tiny")


def selectivity(grid):
    """selectivity.csv as a table: a row for each fraction, scheme and basis of contaminated."""
    rows = [
        {"study": "tiny", "task": "contaminated", "scheme": scheme, "basis": basis, "fraction": fraction, "draw": None,
         "outcomes": "judged", "seeds": 3, "utility_dose": fraction, "harm_dose": fraction / 2,
         "selectivity": fraction / 2 - 0.2, "ci_low": -0.4, "ci_high": 0.5, "clamped": 0.015,
         "harm_at_equal_utility": 0.25, "utility_at_equal_harm": None}
        for scheme in ("parallel", "orthogonal") for basis in grid.bases for fraction in grid.fractions
    ]  # fmt: skip
    return pd.DataFrame(rows)
