"""The examples of README and docs/ run and load as they stand."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from safety_spaces import geometry
from safety_spaces.study import load_study
from tests.pages import blocks, page
from tests.pico import ROOT


def write_studies(folder: Path, *names: str) -> dict[str, Path]:
    """The studies of pages as files, by name, in one folder."""
    written = {}
    for text in blocks("yaml", *names):
        path = folder / f"{yaml.load(text.replace('!replace', ''), yaml.SafeLoader)['name']}.yaml"
        path.write_text(text.replace("configs/", f"{ROOT}/configs/"))
        written[path.stem] = path
    return written


def test_the_studies_for_your_own_models_and_basis_load(tmp_path):
    studies = write_studies(tmp_path, "docs/library.md")
    assert set(studies) == {"my-models", "my-model", "my-basis"}
    ready = (ROOT / "configs/own-models.yaml").read_text().replace("name: own-models", "name: my-models")
    weights = "".join(line for line in ready.splitlines(keepends=True) if not line.startswith("#"))
    assert studies["my-models"].read_text() == weights
    study = load_study(studies["my-model"])
    assert study.tasks == ("useful", "harmful", "contaminated")
    assert study.world is None
    assert len(studies["my-model"].read_text().splitlines()) <= 10
    assert load_study(studies["my-basis"]).projection.claim == "file"


def test_the_studies_of_the_first_page_load(tmp_path):
    studies = write_studies(tmp_path, "README.md")
    assert set(studies) == {"my-pair", "my-subspace"}
    assert load_study(studies["my-pair"]).projection.claim == "top_k"
    assert load_study(studies["my-subspace"]).projection.claim == "file"


def test_the_example_of_data_sets_is_a_study(tmp_path):
    (example,) = re.findall(r"^    datasets:\n(?:    .*\n)+", page("docs/data-sets.md"), flags=re.MULTILINE)
    (tmp_path / "study.yaml").write_text(
        f"extends: {ROOT}/configs/llama-3.2-1b.yaml\nname: own\n{textwrap.dedent(example)}"
    )
    study = load_study(tmp_path / "study.yaml")
    assert study.datasets["advbench"].columns == {"goal": "Behavior"}
    assert study.evaluation.harmfulness.dataset in study.datasets


def test_the_library_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (example,) = (code for code in blocks("python", "docs/library.md") if "geometry" in code)
    assert len([line for line in example.splitlines() if line]) <= 10
    for number, role in enumerate(("base", "aligned", "useful")):
        (tmp_path / "checkpoints" / role).mkdir(parents=True)
        weights = torch.randn(11, 29, generator=torch.Generator().manual_seed(number))
        save_file(
            {"model.layers.1.mlp.down_proj.weight": weights}, tmp_path / "checkpoints" / role / "model.safetensors"
        )
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "library.md", "exec"), {})
    number = r"0\.\d{3}"
    shown = rf"energy kept {number}, by chance {number}\nMSO {number}, by chance {number}\n"
    assert re.fullmatch(shown, capsys.readouterr().out)
    monkeypatch.setattr(geometry.Subspace, "directions", lambda subspace, *_: 2 * subspace.frame)
    with pytest.raises(AssertionError):
        exec(compile(example, "library.md", "exec"), {})


def test_the_basis_example_writes_the_file_that_the_study_names(tmp_path, monkeypatch):
    (example,) = (code for code in blocks("python", "docs/library.md") if "save_file" in code)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "library.md", "exec"), {"U": torch.eye(7, 3)})
    assert {tuple(U.shape) for U in load_file(tmp_path / "U.safetensors").values()} == {(7, 3)}


def test_the_paper_example_runs_as_it_stands():
    (example,) = blocks("python", "docs/paper.md")
    names = {}
    exec(compile(example, "paper.md", "exec"), names)
    assert not names["contradictions"]().empty


def test_the_example_with_pandas_finds_a_planted_difference(tmp_path, monkeypatch, capsys):
    """Two seeds, three clusters of two prompts; the claim leaves 0.5 less harm, and other rows would hide it."""
    (example,) = blocks("python", "README.md")
    folder = tmp_path / re.search(r'folder = "(.+)"', example)[1]
    folder.mkdir(parents=True)
    (folder / "verdicts.csv").write_text("id,verdict,effect,ci_low,ci_high\nweights-orthogonal,selective,0.2,0.1,0.3\n")
    cell = {"task": "contaminated", "scheme": "orthogonal", "layers": "all", "fraction": 0.5, "metric": "harmfulness"}
    rows = [
        {
            **cell,
            **other,
            "seed": seed,
            "basis": basis,
            "prompt": prompt,
            "cluster": f"deed {prompt % 3}",
            "value": value,
        }
        for other in ({}, {"fraction": 0.25}, {"scheme": "parallel"}, {"metric": "utility"}, {"layers": "0"})
        for seed in (0, 1)
        for prompt in range(6)
        for basis, value in (("top_k", 2.0 + prompt / 8 if not other else 5.0), ("matched", 2.5 + prompt / 8))
    ]
    pd.DataFrame(rows).to_parquet(folder / "scores.parquet")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    assert np.allclose(names["difference"], -0.5)
    assert len(names["difference"]) == 12
    assert "weights-orthogonal" in capsys.readouterr().out
