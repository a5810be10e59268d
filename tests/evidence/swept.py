"""Scores of a made-up sweep: each cell acts as a known dose of utility and a known dose of harm."""

from pathlib import Path

import pandas as pd
import yaml

from safety_spaces.evidence.scores import Place, curve, projected
from safety_spaces.evidence.tables import SCORES
from safety_spaces.study import Study, load_study
from tests.pico import ROOT

RHO, DOSES, SEEDS, PROMPTS = (0.25, 0.5, 0.75, 0.99), (0.2, 0.6), (0, 3, 4, 5, 9), {"utility": 24, "harmfulness": 36}
SCALE = {
    "utility": (0.2, 0.5), "harmfulness": (1.5, 2.0), "utility_margin": (-3.0, 1.0), "harm_margin": (-1.0, 4.0)
}  # fmt: skip
CHECKPOINTS = {
    "base": (-0.2, 1.4), "reference": (0, 0), "useful": (1.1, 0.01), "harmful": (0.02, 1.2), "contaminated": (1, 1)
}  # fmt: skip
"""Role -> its dose by utility and by harm."""


def swept_study(folder: Path, **changes: object) -> Study:
    """The miniature with fewer cells, five seeds and both pairs of outcomes."""
    content = {
        "extends": str(ROOT / "configs/miniature.yaml"),
        "name": "swept",
        "seeds": list(SEEDS),
        "evidence": {"resamples": 200},
        "projection": {"fractions": list(RHO), "doses": list(DOSES), "score_draws": 2},
        **changes,
    }
    (folder / "swept.yaml").write_text(yaml.safe_dump(content))
    return load_study(folder / "swept.yaml")


def doses_of(place: Place, gain: float) -> tuple[float, float]:
    """Dose by utility and by harm: the claim has `gain` more of utility than the dose of its matched scaling."""
    if place.basis == "none":
        return CHECKPOINTS[place.task]
    if place.dose is not None:
        return place.dose, place.dose
    kept = 0.8 * place.fraction if place.scheme == "parallel" else 1 - 0.8 * place.fraction
    return kept + (gain if place.basis == "top_k" else 0.0), kept


def swept_scores(study: Study, *, gain: float = 0.0, metrics: tuple[str, ...] = tuple(SCALE)) -> pd.DataFrame:
    """scores.parquet of a study: a prompt's own level, the same for all cells, and the seed's, on top of the dose."""
    task = "contaminated"
    places = {*curve(study, task).values(), *projected(study, task), *(Place(role) for role in CHECKPOINTS)}
    rows = []
    for metric in metrics:
        low, height = SCALE[metric]
        is_utility = metric.startswith("utility")
        number = PROMPTS["utility" if is_utility else "harmfulness"]
        for seed in study.seeds:
            for place in places:
                dose = doses_of(place, gain)[0 if is_utility else 1]
                for prompt in range(number):
                    own = 0.05 * height * ((prompt * 7) % 11 - 5) / 5 + 0.02 * height * (seed % 3)
                    columns = {**place._asdict(), "seed": seed, "layers": "all", "others": "", "replicate": 0}
                    cluster = str(prompt) if is_utility else f"deed {prompt % 12}"
                    value = low + height * dose + own
                    rows.append({**columns, "metric": metric, "prompt": prompt, "cluster": cluster, "value": value})
    return pd.DataFrame(rows, columns=list(SCORES)).convert_dtypes(convert_string=False)
