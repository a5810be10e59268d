"""The choices of the published code run as well, and leave their mark in the tables."""

import pandas as pd
import pytest
import yaml

from safety_spaces.study import load_study
from tests.pico import PICO, ROOT, SCRIPTS, run_script


def merged(first: dict, second: dict) -> dict:
    return {**first, **{k: merged(first[k], v) if isinstance(v, dict) and k in first else v for k, v in second.items()}}


@pytest.mark.slow
def test_the_published_choices_run_and_are_seen(tmp_path):
    published = yaml.safe_load((ROOT / "configs/miniature-as-published.yaml").read_text())
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**merged(published, PICO), "seeds": [2]}))
    for name in SCRIPTS:
        assert run_script(name, study, tmp_path) == 0, name
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "results/pico").glob("*.csv")}
    projection = tables["projection"]
    assert set(projection.precision) == {"bf16"}
    assert set(projection[projection.metric == "harmfulness"].n) == {6}  # of 7 goals the last is left out
    delivered = projection[projection.scheme != "none"].realised_energy
    assert (delivered - 1).abs().max() > 1e-5  # float16 weights round
    assert set(tables["activation_spaces"].position) == {"last_column"}
    assert "lm_head.weight" in set(tables["energy"].tensor)


def test_the_published_study_sets_every_deviation():
    default, published = (load_study(ROOT / f"configs/{name}.yaml") for name in ("miniature", "miniature-as-published"))
    assert (default.corpora["contaminated"].mixing, published.corpora["contaminated"].mixing) == ("replace", "add")
    for section, fields in {
        "projection": ("rounding", "weights_dtype", "tied"),
        "activation_spaces": ("positions", "toxigen"),
        "training": ("precision", "weight_decay"),
        "evaluation": ("template",),
    }.items():
        for field in fields:
            values = [getattr(getattr(study, section), field) for study in (default, published)]
            assert values[0] != values[1], (section, field)
    harmfulness = [study.evaluation.harmfulness for study in (default, published)]
    assert [one.prompts for one in harmfulness] == ["all", "published"]
    assert [one.judge.temperature for one in harmfulness] == [0, None]
