"""Simulated studies with a known truth: do the intervals cover it, and how often is each verdict wrong?

    python benchmarks/calibration.py                          every setting (about 11 minutes on one core)
    python benchmarks/calibration.py --studies 50 --table look.csv
    python benchmarks/calibration.py main "one seed"          some settings

Writes results/benchmarks/calibration.csv, a row a setting, and keeps the rows whose settings have not changed.

A study has the scores of 17 cells: `scaled` at 11 doses, a claim and its matched scaling at three fractions. Utility is
0 or 1: a latent skill against a prompt's difficulty. Harmfulness is 1 to 5 in steps: a latent readiness to answer a
deed, where deeds carry most of the variance. Both rise with the dose and saturate. Seeds differ in where they start,
how far they go, in the effect, and in how they answer each deed and prompt; a cell answers partly as the curve does at
its dose, partly in its own way. A cell lies on the curve at the doses that the truth gives it, so its selectivity is
known.
"""

import argparse
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from jaxtyping import Float

from safety_spaces.evidence.crossed import Scores, spread
from safety_spaces.evidence.doses import selectivity
from safety_spaces.evidence.verdicts import decide
from safety_spaces.record import write_table

TABLE = Path(__file__).resolve().parents[1] / "results/benchmarks/calibration.csv"
ALPHAS = np.linspace(0.0, 1.0, 11)
FRACTIONS = (0.25, 0.5, 0.75)
MARGIN = 0.15
WORDS = ("separable", "selective", "worse", "equivalent", "undecided")
STEPS = np.array([-0.6, -0.2, 0.2, 0.6])


@dataclass(frozen=True)
class Setting:
    """One kind of study. Spreads are standard deviations: of doses for the effect, of the latent scale for the rest."""

    setting: str
    seeds: int = 8
    prompts: int = 1000
    deeds: int = 40
    effect: tuple[float, ...] = (0.0, 0.0, 0.0)
    doses: tuple[float, ...] = (0.35, 0.5, 0.65)
    matched_selectivity: float = 0.04
    effect_of_seed: float = 0.06
    effect_of_seed_and_fraction: float = 0.03
    utility_saturation: float = 1.5
    harm_saturation: float = 1.5
    own_way: float = 0.5
    resamples: int = 200
    studies: int = 2000


TWICE, AT_MARGIN, ONE_AT_MARGIN = (2 * MARGIN,) * 3, (MARGIN,) * 3, (0.0, MARGIN, 0.0)


def alike(setting: str, **options: Any) -> Setting:
    """Return a setting whose seeds have the same effect; few of them have their own mean for a truth."""
    return Setting(setting, effect_of_seed=0.0, effect_of_seed_and_fraction=0.0, **options)


SETTINGS = (
    Setting("main"),
    Setting("main, twice the margin", effect=TWICE),
    Setting("main, at the margin", effect=AT_MARGIN),
    Setting("main, one at the margin", effect=ONE_AT_MARGIN),
    Setting("main, 500 prompts", prompts=500, studies=500),
    Setting("main, 10 deeds", deeds=10, studies=500),
    Setting("main, 50 deeds", deeds=50, studies=500),
    Setting("main, saturated", utility_saturation=4.0, harm_saturation=0.1, studies=500),
    alike("main, seeds alike", studies=500),
    Setting("main, 2,000 resamples", resamples=2000, studies=200),
    Setting("five seeds", seeds=5, studies=1000),
    alike("three seeds", seeds=3, studies=500),
    alike("one seed", seeds=1),
    alike("one seed, twice the margin", seeds=1, effect=TWICE),
    alike("one seed, one at the margin", seeds=1, effect=ONE_AT_MARGIN),
    alike("one seed, 200 prompts", seeds=1, prompts=200, studies=1000),
    alike("one seed, 10 deeds", seeds=1, deeds=10, studies=1000),
    alike("one seed, 50 deeds", seeds=1, deeds=50, studies=1000),
)


@dataclass(frozen=True)
class World:
    """The latent scale of one metric: how it starts, rises, and varies."""

    start: tuple[float, float]
    rise: tuple[float, float]
    cluster: float
    cluster_and_seed: float
    cluster_and_cell: float
    prompt: float
    prompt_and_seed: float
    prompt_and_cell: float


UTILITY = World((-0.9, 0.2), (2.0, 0.25), 1.0, 0.5, 0.4, 0.0, 0.0, 0.4)
HARM = World((-1.6, 0.2), (2.0, 0.25), 0.9, 0.35, 0.25, 0.3, 0.2, 0.25)


def latent(
    world: World,
    doses: Float[np.ndarray, "S C"],
    clusters: np.ndarray,
    saturation: float,
    own_way: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "S C P"]:
    """Draw latent values of cells at doses; cells with own ways are those after the curve's."""
    seeds = len(doses)
    rise = np.expm1(-saturation * doses) / np.expm1(-saturation)
    start, slope = (generator.normal(mean, sd, (seeds, 1)) for mean, sd in (world.start, world.rise))
    number = clusters.max() + 1
    values = (start + slope * rise)[:, :, None] + generator.normal(0, world.cluster, number)[clusters]
    values += generator.normal(0, world.prompt, len(clusters))
    values += generator.normal(0, world.cluster_and_seed, (seeds, 1, number))[:, :, clusters]
    values += generator.normal(0, world.prompt_and_seed, (seeds, 1, len(clusters)))
    ways = _ways(doses, own_way)
    common = generator.normal(0, world.cluster_and_cell, (ways.shape[-1], number))[:, clusters]
    return values + ways @ (common + generator.normal(0, world.prompt_and_cell, (seeds, ways.shape[-1], len(clusters))))


def _ways(doses: Float[np.ndarray, "S C"], own_way: float) -> Float[np.ndarray, "S C F"]:
    """Weights, of squares 1 in sum, that mix two fields along the curve and, beyond it, one of each cell's own."""
    seeds, cells = doses.shape
    curve = np.stack([np.cos(np.pi / 2 * doses), np.sin(np.pi / 2 * doses)], -1)
    own = np.where(np.arange(cells) >= len(ALPHAS), own_way, 0.0)
    alone = np.broadcast_to(np.diag(np.sqrt(own)), (seeds, cells, cells))[:, :, len(ALPHAS) :]
    return np.concatenate([curve * np.sqrt(1 - own)[:, None], alone], -1)


def simulate(setting: Setting, generator: np.random.Generator) -> tuple[Scores, Scores, Float[np.ndarray, "S K"]]:
    """Draw the scores of one study, and the true effect of each of its seeds at each fraction."""
    size = (setting.seeds, len(FRACTIONS))
    by_seed = generator.normal(0, setting.effect_of_seed, (setting.seeds, 1))
    truth = np.array(setting.effect) + by_seed + generator.normal(0, setting.effect_of_seed_and_fraction, size)
    matched = np.full(size, setting.matched_selectivity)
    middle, half = np.tile(setting.doses, (setting.seeds, 2)), np.hstack([truth + matched, matched]) / 2
    curve = np.tile(ALPHAS, (setting.seeds, 1))
    questions, deeds = np.arange(setting.prompts), np.arange(setting.prompts) % setting.deeds
    skill = latent(
        UTILITY, np.hstack([curve, middle + half]), questions, setting.utility_saturation, setting.own_way, generator
    )
    harm = latent(HARM, np.hstack([curve, middle - half]), deeds, setting.harm_saturation, setting.own_way, generator)
    steps = sum((harm > step).astype(np.float64) for step in STEPS) + 1.0
    return (
        Scores((skill > 0).astype(np.float64), tuple(map(str, questions))),
        Scores(np.asarray(steps), tuple(map(str, deeds))),
        truth,
    )


def judge(setting: Setting, study: int) -> dict[str, Any]:
    """Simulate one study; return its verdict, whether its intervals hold the truth, and its errors over its error."""
    generator = np.random.default_rng([zlib.crc32(setting.setting.encode()), study])
    utility, harm, truth = simulate(setting, generator)
    doses = selectivity(utility, harm, range(11), ALPHAS.tolist(), resamples=setting.resamples, seed=study)
    effects = doses.contrast([11, 12, 13], [14, 15, 16]).with_mean()
    # What few seeds speak of is their own mean.
    target = truth.mean(0) if effects.given_seeds else np.array(setting.effect)
    target = np.append(target, target.mean())
    estimate = spread(effects)
    (low, high), (all_low, all_high) = (estimate.interval(0.95, simultaneous=each) for each in (False, True))
    within = (low <= target) & (target <= high)
    assert effects.clamped is not None
    return {
        "word": decide(effects, fractions=(*FRACTIONS, None), margin=MARGIN, premises=True).word,
        "covered": within,
        "all_covered": bool(np.all((all_low <= target) & (target <= all_high))),
        "miss": estimate.value - target,
        "error": estimate.error,
        "degrees": estimate.degrees,
        "clamped": effects.clamped.max() > 0.05,
    }


def measure(setting: Setting) -> dict[str, Any]:
    """Return the row of a setting."""
    start = time.process_time()
    seen = [judge(setting, study) for study in range(setting.studies)]
    words = Counter(each["word"] for each in seen)
    covered, miss, error = (np.stack([each[name] for each in seen]) for name in ("covered", "miss", "error"))
    return {
        **{name: str(value) if isinstance(value, tuple) else value for name, value in asdict(setting).items()},
        "coverage": covered.mean(),
        **{f"coverage_{n}": share for n, share in zip((*FRACTIONS, "mean"), covered.mean(0), strict=True)},
        "coverage_of_all": np.mean([each["all_covered"] for each in seen]),
        **{word: words[word] / len(seen) for word in WORDS},
        "bias": miss.mean(),
        "true_error": miss.std(0).mean(),
        "stated_error": np.sqrt((error**2).mean(0)).mean(),
        "degrees": np.median([each["degrees"] for each in seen]),
        "clamped": np.mean([each["clamped"] for each in seen]),
        "cpu_seconds": time.process_time() - start,
    }


def kept_rows(table: Path, wanted: Sequence[Setting]) -> dict[str, dict[str, Any]]:
    """Return the rows of a table that were measured with the same settings, by name."""
    if not table.exists():
        return {}
    rows = {row["setting"]: row for row in pd.read_csv(table).to_dict("records")}
    return {each.setting: rows[each.setting] for each in wanted if _same(each, rows.get(each.setting, {}))}


def _same(setting: Setting, row: dict[str, Any]) -> bool:
    return all(str(row.get(name)) == str(value) for name, value in asdict(setting).items())


def main(argv: Sequence[str] | None = None) -> None:
    """Simulate the settings that the table lacks; print and write a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="names of settings (default: all)")
    parser.add_argument("--studies", type=int, help="simulated studies a setting (default: as each says)")
    parser.add_argument("--table", type=Path, default=TABLE, help="the table to write (default: %(default)s)")
    given = parser.parse_args(argv)
    if unknown := set(given.settings) - {each.setting for each in SETTINGS}:
        parser.error(f"expected settings among {[each.setting for each in SETTINGS]}, got {sorted(unknown)}")
    if given.studies and given.table == TABLE:
        parser.error("expected --table beside --studies: fewer studies are not to replace the committed ones")
    settings = [replace(each, studies=given.studies or each.studies) for each in SETTINGS]
    rows = kept_rows(given.table, settings)
    for setting in settings:
        if setting.setting not in rows and setting.setting in (given.settings or [setting.setting]):
            rows[setting.setting] = measure(setting)
        if setting.setting in rows:
            print(json.dumps(rows[setting.setting], default=str), flush=True)
            write_table(given.table, list(rows[setting.setting]), rows.values())


if __name__ == "__main__":
    main()
