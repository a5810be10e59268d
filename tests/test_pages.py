"""What README, docs/ and the other pages promise is there: commands, links, studies, columns, numbers."""

import csv
import re

import pytest
import yaml

from safety_spaces.data.table import data_sets
from safety_spaces.evidence.tables import COLUMNS
from safety_spaces.study import load_study
from tests.pages import NAMES, README, page, rows_of
from tests.pico import ROOT


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


def test_the_table_of_verdicts_is_that_of_the_study_it_names():
    (study,) = set(re.findall(r"\[the study\]\(results/([\w-]+)/README.md\)", README))
    # The published reading of a claim stands in the study itself.
    found = [row for row in table_of(study, "verdicts") if row["id"] != "activations-uncentred"]
    shown = rows_of(README, "| claim | the paper says")
    assert len(shown) == len(found)
    for row in found:
        effect, low, high = (f"{float(row[name]):+.2f}" for name in ("effect", "ci_low", "ci_high"))
        wanted = [row["verdict"], f"{effect} [{low}, {high}]", row["paper"]]
        assert [row["id"], *wanted] in [[line[0], *line[2:]] for line in shown], row["id"]


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
    from safety_spaces.miniature.dealing import EVALUATION_DEEDS
    from safety_spaces.miniature.world import ALLOWED_DEEDS, FORBIDDEN_DEEDS

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
