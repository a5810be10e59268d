"""What README promises is there: files, commands, columns; and the committed results are what their tables say."""

import re
import shutil
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from safety_spaces import geometry
from safety_spaces.data.table import data_sets
from safety_spaces.evidence.report import write_report
from safety_spaces.evidence.tables import FILES
from safety_spaces.study import load_study
from tests.pico import ROOT

README = (ROOT / "README.md").read_text()
STUDIES = ["miniature", "miniature-dpo", "miniature-safety-tuned", "miniature-appendices"]


def test_every_command_names_a_file_that_is_there():
    commands = re.findall(r"(?:bash|python) ((?:scripts|exp-|benchmarks)\S+\.(?:sh|py))", README)
    assert {"scripts/reproduce.sh", "scripts/test.sh", "scripts/finetune.sh", "scripts/projection.py"} < set(commands)
    assert all((ROOT / command).is_file() for command in commands)


def test_every_link_leads_to_a_file():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links)


def test_the_tree_names_rooms_that_are_there():
    tree = README.split("## The tree")[1].split("##")[0]
    rooms = re.findall(r"^      (\w+(?:/|\.py)) ", tree, flags=re.MULTILINE)
    assert {f"{path.name}/" for path in (ROOT / "safety_spaces").iterdir() if (path / "__init__.py").is_file()} < set(
        rooms
    )
    assert all((ROOT / "safety_spaces" / room).exists() for room in rooms)


def test_every_column_that_is_explained_exists():
    columns = {column for columns, _ in FILES.values() for column in columns}
    table = README.split("## Where the results are")[1].split("Large files")[0]
    named = {name for name in re.findall(r"`(\w+)`", table) if not (ROOT / "results/miniature" / name).exists()}
    assert named <= columns


def test_every_item_of_the_paper_has_its_study_and_its_files():
    table = README.split("| the paper |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    for item, study, files, for_models in rows:
        load_study(ROOT / "configs" / f"{study}.yaml")
        for file in files.split(", "):
            assert (ROOT / "results" / study / file).is_file(), (item, file)
        for name in re.findall(r"[a-z]+-?[\d.]+-[\w.-]+", for_models):
            load_study(ROOT / "configs" / f"{name}.yaml")
    figures = {
        int(number) for row in rows for number in re.findall(r"\d+", " ".join(re.findall(r"Figures? [^;]*", row[0])))
    }
    assert set(range(2, 27)) - {11, 12, 13} <= figures


@pytest.mark.parametrize("name", STUDIES)
def test_studies_that_share_a_base_know_its_shape(name):
    base = load_study(ROOT / "configs" / f"{name}.yaml").roles["base"]
    assert base.architecture == load_study(ROOT / "configs/miniature.yaml").roles["base"].architecture


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_report_follows_from_the_committed_tables(tmp_path, name):
    """The figures and the findings are drawn again from the CSVs alone; not a byte differs."""
    committed = ROOT / "results" / name
    again = Path(shutil.copytree(committed, tmp_path / name))
    for path in [again / "README.md", *again.glob("*.png")]:
        path.unlink()
    write_report(again, load_study(ROOT / "configs" / f"{name}.yaml"), sources_changed=False)
    assert {path.name for path in again.iterdir()} == {path.name for path in committed.iterdir()}
    for path in committed.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", STUDIES)
def test_the_committed_tables_are_those_that_the_run_recorded(name):
    from safety_spaces.record import check_unedited

    tables = list((ROOT / "results" / name).glob("*.csv"))
    assert len(tables) == (3 if name == "miniature-appendices" else len(FILES))
    for table in tables:
        check_unedited(ROOT / "results" / name, table.name)


def test_the_studies_for_your_own_models_and_basis_load(tmp_path):
    weights, model, basis = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    ready = (ROOT / "configs/own-models.yaml").read_text().replace("name: own-models", "name: my-models")
    assert weights == "".join(line for line in ready.splitlines(keepends=True) if not line.startswith("#"))
    (tmp_path / "my-model.yaml").write_text(model.replace("configs/", f"{ROOT}/configs/"))
    (tmp_path / "my-basis.yaml").write_text(basis)
    study = load_study(tmp_path / "my-model.yaml")
    assert study.tasks == ("useful", "harmful", "contaminated")
    assert study.world is None
    assert len(model.strip().splitlines()) <= 10
    assert load_study(tmp_path / "my-basis.yaml").projection.claim == "file"


def test_the_example_of_data_sets_is_a_study(tmp_path):
    (example,) = re.findall(r"^    datasets:\n(?:    .*\n)+", README, flags=re.MULTILINE)
    (tmp_path / "study.yaml").write_text(f"extends: configs/llama-3.2-1b.yaml\nname: own\n{textwrap.dedent(example)}")
    study = load_study(tmp_path / "study.yaml")
    assert study.datasets["advbench"].columns == {"goal": "Behavior"}
    assert study.evaluation.harmfulness.dataset in study.datasets


def test_the_table_of_data_sets_is_the_one_that_is_read():
    table = README.split("| name | hub | columns | licence |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    shown = {name: row for row in rows for name in row[0].split(", ")}
    of_the_hub = {name: data_set for name, data_set in data_sets().items() if data_set.hub}
    assert set(shown) == set(of_the_hub)
    for name, (_, hub, columns, licence) in shown.items():
        data_set = of_the_hub[name]
        assert hub.startswith(data_set.hub.id), name
        assert data_set.hub.split in hub or data_set.hub.configs, name
        assert set(data_set.columns) <= set(re.findall(r"\w+", columns)), name
        assert licence == data_set.licence, name


def test_the_library_example_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "geometry" in code)
    assert len([line for line in example.splitlines() if line]) <= 10
    for number, role in enumerate(("base", "aligned", "useful")):
        (tmp_path / "checkpoints" / role).mkdir(parents=True)
        weights = torch.randn(11, 29, generator=torch.Generator().manual_seed(number))
        save_file(
            {"model.layers.1.mlp.down_proj.weight": weights}, tmp_path / "checkpoints" / role / "model.safetensors"
        )
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    number = r"0\.\d{3}"
    shown = rf"energy kept {number}, by chance {number}\nMSO {number}, by chance {number}\n"
    assert re.fullmatch(shown, capsys.readouterr().out)
    monkeypatch.setattr(geometry.Subspace, "directions", lambda subspace, *_: 2 * subspace.frame)
    with pytest.raises(AssertionError):
        exec(compile(example, "README.md", "exec"), {})
