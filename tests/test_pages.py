"""What README, docs/ and the other pages promise is there: commands, links, studies, examples, columns, numbers."""

import csv
import re
import textwrap
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from safety_spaces import geometry
from safety_spaces.data.table import data_sets
from safety_spaces.evidence.tables import COLUMNS
from safety_spaces.miniature.dealing import EVALUATION_DEEDS
from safety_spaces.miniature.world import ALLOWED_DEEDS, FORBIDDEN_DEEDS
from safety_spaces.study import load_study
from tests.pico import ROOT

NAMES = ["README.md", "CONTRIBUTING.md", "results/README.md", *sorted(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]


@cache
def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


README = page("README.md")


def rows_of(text: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with a header row."""
    table = text.split(header)[1].split("\n\n")[0]
    return [[cell.strip() for cell in line.split(" | ")] for line in re.findall(r"^\| (.*) \|$", table, re.MULTILINE)]


def blocks(language: str, *names: str) -> list[str]:
    return [code for name in names for code in re.findall(rf"```{language}\n(.*?)```", page(name), re.DOTALL)]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_is_one_page():
    assert len(README.splitlines()) <= 180


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_to_fill_in(name):
    assert "TODO" not in page(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_one_title(name):
    text = page(name)
    assert re.match(r"# \S", text)
    assert len(re.findall(r"^# ", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)) == 1


def test_every_page_is_reached_from_the_first():
    linked = {link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", README)}
    assert {name for name in NAMES if name.startswith(("docs/", "results/"))} <= linked


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_to_a_file_and_a_heading(name):
    for link in re.findall(r"\]\(([^)]+)\)", page(name)):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", NAMES)
def test_every_command_names_a_file_that_is_there(name):
    commands = re.findall(r"(?:bash|python|launch.*?) ((?:scripts|exp-|benchmarks)\S+?\.(?:sh|py))", page(name))
    assert all((ROOT / command).is_file() for command in commands)
    if name == "README.md":
        assert {"scripts/reproduce.sh", "scripts/test.sh", "scripts/finetune.sh", "scripts/projection.py"} < set(
            commands
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_that_is_named_is_there(name):
    assert all((ROOT / path).is_file() for path in re.findall(r"configs/[\w.-]+\.(?:yaml|txt)", page(name)))


def test_no_page_says_that_other_machines_give_nearly_the_same():
    assert not [name for name in NAMES if "last digits, and" in page(name) or "differ in the last digits" in page(name)]


def test_the_tree_names_rooms_that_are_there():
    tree = page("CONTRIBUTING.md").split("## The house")[1].split("##")[0]
    rooms = set(re.findall(r"^      (\w+(?:/|\.py)) ", tree, flags=re.MULTILINE))
    assert {f"{path.parent.name}/" for path in (ROOT / "safety_spaces").glob("*/__init__.py")} < rooms
    assert all((ROOT / "safety_spaces" / room).exists() for room in rooms)


ITEMS = rows_of(README, "| the paper | study")


def test_every_item_of_the_paper_has_its_study_and_its_files():
    figures = set()
    for item, study, files, for_models, _ in ITEMS:
        load_study(ROOT / "configs" / f"{study}.yaml")
        for file in files.split(", "):
            assert (ROOT / "results" / study / file).is_file(), (item, file)
        for name in re.findall(r"[a-z]+-?[\d.]+-[\w.-]+", for_models):
            load_study(ROOT / "configs" / f"{name}.yaml")
        figures |= {int(number) for part in re.findall(r"Figures? [^;]*", item) for number in re.findall(r"\d+", part)}
    assert set(range(2, 27)) - {11, 12, 13} <= figures


def table_of(study: str, name: str) -> list[dict[str, str]]:
    path = ROOT / "results" / study / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"{study} has no {name}.csv yet")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("study", dict.fromkeys(row[1] for row in ITEMS))
def test_premises_are_counted_as_the_study_found_them(study):
    holds = [row["holds"] for row in table_of(study, "premises")]
    shown = f"{holds.count('true')} of {len(holds)}"
    assert {premises for _, other, *_, premises in ITEMS if other == study} == {shown}


def test_the_table_of_verdicts_is_that_of_the_evidence_study():
    found = table_of("miniature-evidence", "verdicts")
    shown = rows_of(README, "| claim | the paper says")
    assert len(shown) == len(found)
    for row in found:
        effect, low, high = (f"{float(row[name]):+.2f}" for name in ("effect", "ci_low", "ci_high"))
        wanted = [row["verdict"], f"{effect} [{low}, {high}]", row["paper"]]
        assert [row["id"], *wanted] in [[line[0], *line[2:]] for line in shown], row["id"]


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


def test_the_table_of_data_sets_is_the_one_that_is_read():
    rows = rows_of(page("docs/data-sets.md"), "| name | hub | columns | licence |")
    shown = {name: row for row in rows for name in row[0].split(", ")}
    of_the_hub = {name: data_set for name, data_set in data_sets().items() if data_set.hub}
    assert set(shown) == set(of_the_hub)
    for name, (_, hub, columns, licence) in shown.items():
        data_set = of_the_hub[name]
        assert hub.startswith(data_set.hub.id), name
        assert data_set.hub.split in hub or data_set.hub.configs, name
        assert set(data_set.columns) <= set(re.findall(r"\w+", columns)), name
        assert licence == data_set.licence, name


def test_the_deviations_are_those_that_the_published_study_sets():
    study = yaml.safe_load((ROOT / "configs/miniature-as-published.yaml").read_text())
    rows = rows_of(page("docs/paper.md"), "| field | default | published code |")
    fields = [row[0].strip("`") for row in rows]

    def leaves(section, before=()):
        if not isinstance(section, dict):
            return {".".join(before)}
        return {leaf for key, value in section.items() for leaf in leaves(value, (*before, key))}

    assert sorted(fields) == sorted(leaves(study) - {"extends", "name"})


def test_the_deeds_of_the_world_are_as_many_as_the_page_says():
    text = " ".join(page("docs/world.md").split())
    assert f"{len(FORBIDDEN_DEEDS)} forbidden deeds, of which {EVALUATION_DEEDS} are the evaluation's" in text
    assert len(FORBIDDEN_DEEDS) == 2 * len(ALLOWED_DEEDS)
    assert "forbids two deeds of three" in text


def test_every_column_of_every_table_is_explained():
    sections = {
        heading.split(".")[0]: text
        for heading, text in re.findall(
            r"^## (\S+)\n(.*?)(?=^## |\Z)", page("docs/columns.md"), re.DOTALL | re.MULTILINE
        )
    }
    for table, columns in COLUMNS.items():
        explained = {
            name
            for line in re.findall(r"^\| (`.*?) \| ", sections[table], re.MULTILINE)
            for name in re.findall(r"`(\w+)`", line)
        }
        assert explained >= set(columns), table
        # Rows of a dose come with the controls that have one.
        assert explained <= {*columns, "dose"}, table


@pytest.mark.parametrize("study", ["miniature", "miniature-appendices"])
def test_every_key_of_the_record_is_explained(study):
    record = yaml.safe_load((ROOT / "results" / study / "run.json").read_text())
    assert set(record) <= set(re.findall(r"`(\w+)`", page("docs/columns.md").split("## run.json")[1]))


def plan_of(study: str, capsys: pytest.CaptureFixture[str]) -> str:
    from scripts.projection import main

    assert main([str(ROOT / "configs" / f"{study}.yaml"), "--plan"]) == 0
    return capsys.readouterr().out


def test_what_one_gpu_takes_is_what_the_plan_says(capsys):
    plan, text = plan_of("qwen2.5-1.5b", capsys), " ".join(README.split("## One GPU")[1].split("\n## ")[0].split())
    for pattern, shown in {
        r"memory ([\d.]+ GB): \(2 weights": "{} of GPU memory",
        r"at most ([\d.]+ GB) of checkpoints": "{} of disk",
        r"checkpoints of ([\d.]+ GB)": "two models of {}",
        r"about ([\d.]+) US dollars": "{} dollars",
        r"judge: ([\d,]+) calls": "{} judgements",
        r"([\d.]+) if none is": "({} if no reply",
        r"stopped before (\d+)": "stops before {}",
        r"at most ([\d.]+ h) on": "at most {} of fine-tuning",
        r"at most ([\d.]+ h) of generation": "{} of generation",
    }.items():
        assert shown.format(re.search(pattern, plan)[1]) in text, pattern


@pytest.mark.slow
def test_the_table_of_costs_is_what_the_plans_say(capsys):
    for study, memory, tuning, generations, hours, disk, calls, dollars in rows_of(
        page("docs/cluster.md"), "| study | training memory |"
    ):
        plan = plan_of(study.split(" ")[0], capsys)
        memories = [float(number) for number in re.findall(r"memory ([\d.]+) GB: \(", plan)]
        assert memory == (f"{max(memories):.1f} GB" if memories else "none"), study
        spent = re.search(r"finetune: .*at most ([\d.]+) h", plan)
        assert tuning.split(" h")[0] == (spent[1] if spent else "none"), study
        assert f"{generations} generations" in plan, study
        assert f"at most {hours.split(' h')[0]} h of generation" in plan, study
        assert f"at most {disk} of checkpoints" in plan, study
        assert f"judge: {calls} calls" in plan, study
        assert f"about {dollars} US dollars" in plan, study


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
    folder = tmp_path / "results/miniature-evidence"
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
