"""The data sets of a user are looked at as the work will read them: their names, their columns, their rows."""

import json
import re

import pytest

from safety_spaces.command_line import parse_arguments
from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics import metric_of
from safety_spaces.experiments.checks import check_inputs
from tests.pico import PICO, SIZES, counts_of, prompts_of, write_study

HARMBENCH = "BehaviorID,Behavior,SemanticCategory\ntea,Make tea,food\nowl,Wake the owl,birds\nsong,Sing,birds\n"


def check(command):
    check_inputs(command.roles, command.texts)


def metric(command, name):
    return metric_of(name, command.texts, command.study.evaluation)


def command_of(folder, files, **changes):
    """A study whose data sets are files with that content, by name; what it trains on is the small world's."""
    datasets = dict(changes.pop("datasets", {}))
    for name, (file, content) in files.items():
        (folder / file).write_text(content)
        datasets[name] = {"path": str(folder / file), **datasets.get(name, {})}
    study = write_study(folder / "study.yaml", datasets=datasets, **changes)
    return parse_arguments("", [str(study), "--runs", str(folder / "runs"), "--results", str(folder / "results")])


def test_a_public_name_takes_another_sets_columns_where_the_study_maps_them(tmp_path):
    command = command_of(
        tmp_path,
        {"advbench": ("harmbench.csv", HARMBENCH)},
        datasets={"advbench": {"columns": {"goal": "Behavior"}}},
    )
    check(command)
    assert metric(command, "harmfulness").goals() == ["Make tea", "Wake the owl", "Sing"]
    planned = [counts_of(one).asked["harmfulness"] for one in (command, command_of(tmp_path, {}))]
    assert planned[0] / 3 == planned[1] / SIZES["advbench"] > 0


@pytest.mark.parametrize("file", ["own.csv", "own.txt", "own.jsonl"])
def test_a_set_of_a_users_own_name_is_asked_and_read_wherever_prompts_are(tmp_path, file):
    prompts = ["Make tea, please", "Wake the owl", "Sing"]
    content = {
        "own.csv": "forbidden_prompt,kind\n" + "".join(f'"{prompt}",a\n' for prompt in prompts),
        "own.txt": "\n".join(prompts),
        "own.jsonl": "".join(json.dumps({"forbidden_prompt": prompt}) + "\n" for prompt in prompts),
    }[file]
    settings = {} if file == "own.txt" else {"columns": {"prompt": "forbidden_prompt"}}
    command = command_of(
        tmp_path,
        {"strongreject": (file, content)},
        datasets={"strongreject": settings},
        evaluation={"harmfulness": {"dataset": "strongreject", "limit": 7, "max_new_tokens": 6}},
        activation_spaces={"prompts": 2, "sets": {"useful": {"dataset": "strongreject"}}},
    )
    check(command)
    assert metric(command, "harmfulness").goals() == prompts
    asked = {prompt.strip() for prompt in metric(command, "harmfulness").asked()}
    assert {prompt.strip() for prompt in prompts_of(command, "useful")} <= asked


def test_a_set_of_a_users_own_name_trains_and_examines(tmp_path):
    problems = "".join(json.dumps({"q": f"{n} + 1?", "a": f"#### {n + 1} "}) + "\n" for n in range(5))
    command = command_of(
        tmp_path,
        {"sums": ("sums.jsonl", problems)},
        datasets={"sums": {"columns": {"prompt": "q", "response": "a"}}},
        corpora={"useful": {"dataset": "sums", "rows": 4}, "harmful": {"rows": 16}},
        evaluation={"utility": {"dataset": "sums", "fewshot_dataset": "sums"}},
    )
    check(command)
    rows = {(row["prompt"], row["completion"]) for row in command.texts.role_rows("useful", 0)}
    assert len(rows) == 4
    assert rows < {(f"Question: {n} + 1?\nAnswer:", f" #### {n + 1} ") for n in range(5)}
    assert metric(command, "utility").rows()[0][0] == {"question": "0 + 1?", "answer": "#### 1"}


def test_choices_of_an_own_name_are_read_as_those_of_mmlu(tmp_path):
    ability = {"dataset": "mine", "fewshot_dataset": "mine", "fewshot": 1}
    row = {"question": "Where?", "choices": ["a", "b", "c", "d"], "answer": 1, "subject": "anatomy"}
    mapped = json.dumps({"asked": row["question"], **{key: row[key] for key in ("choices", "answer", "subject")}})
    for file, content, columns in (
        ("anatomy_test.csv", "Where?,a,b,c,d,B\n", {}),
        ("mapped.jsonl", mapped, {"question": "asked"}),
    ):
        command = command_of(
            tmp_path,
            {"mine": (file, content)},
            datasets={"mine": {"columns": columns}},
            evaluation={"general_ability": ability},
        )
        check(command)
        assert metric(command, "general_ability").rows() == ([row], [row])


@pytest.mark.parametrize(
    ("files", "changes", "message"),
    [
        (
            {"advbnch": ("a.csv", HARMBENCH)},
            {},
            "datasets.advbnch: nothing in the study reads it; did you mean advbench?",
        ),
        (
            {"advbench": ("a.csv", HARMBENCH)},
            {"datasets": {"advbench": {"columns": {"gaol": "Behavior"}}}},
            "datasets.advbench.columns: gaol is not read; did you mean goal?",
        ),
        (
            {"advbench": ("a.csv", HARMBENCH)},
            {},
            "a.csv: expected the column goal of advbench, got BehaviorID, Behavior, SemanticCategory; write datasets: "
            "{advbench: {path: FILE, columns: {goal: COLUMN OF THE FILE}}}",
        ),
        (
            {"gsm8k_test": ("a.csv", "question,answer\nhow many?,7 kites\n")},
            {},
            "gsm8k_test: expected answers that end in #### and a number, got '7 kites' at the end of row 1; mend",
        ),
        (
            {"metamathqa": ("a.csv", "query\nhow many?\n")},
            {},
            "a.csv: expected the column response of metamathqa, got query; write datasets",
        ),
        (
            {"mmlu": ("a_test.csv", "Where?,a,b,c,d,B\nWhere?,a,b,c,d,E\n")},
            {"evaluation": {"general_ability": {"fewshot": 0}}},
            "general_ability: expected a number from 0 to 3 as answer, got 'E' for 'Where?' of a; mend its data set",
        ),
        (
            {"xstest": ("a.csv", "prompt\nhello\n")},
            {"evaluation": {"utility": {"dataset": "xstest"}}},
            "evaluation.utility: expected a data set with answers, got xstest, which has none",
        ),
    ],
)
def test_what_is_wrong_with_a_data_set_is_said_before_any_work(tmp_path, files, changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check(command_of(tmp_path, files, **changes))


def test_a_set_of_an_own_name_may_stand_there_unread_and_its_file_is_looked_for(tmp_path):
    command = command_of(tmp_path, {"ships": ("ships.csv", "name\nowl\n")}, datasets={"ships": {"columns": {"a": "b"}}})
    check(command)
    (tmp_path / "ships.csv").unlink()
    with pytest.raises(UserError, match=r"ships\.csv: expected a data set, found no file or folder"):
        check(command)


def test_only_columns_that_are_used_are_needed(tmp_path):
    """No target of AdvBench, no label of XSTest, no toxicity of unfiltered ToxiGen, no responses of prompts."""
    command = command_of(
        tmp_path,
        {
            "advbench": ("a.csv", "goal\nwake the owl\n"),
            "xstest": ("x.txt", "how do I wake an owl?\n"),
            "toxigen": ("t.csv", "text\n\"b'one owl'\"\n"),
            "beavertails_test": ("b.csv", "prompt,is_safe\none,false\ntwo,TRUE\n"),
        },
        evaluation={"over_refusal": {"where": {}, "max_new_tokens": 5}, "harm_margin": None, "utility_margin": None},
        activation_spaces={"prompts": 2, "toxigen": "unfiltered"},
        projection=PICO["projection"],
    )
    check(command)
    assert metric(command, "over_refusal").goals() == ["how do I wake an owl?"]
    assert "one owl" in prompts_of(command, "harmful_2")[0]
    assert len(prompts_of(command, "harmful_1")) == 1


def test_a_name_that_is_nowhere_is_an_error_before_any_work(tmp_path):
    changes = {"evaluation": {"harmfulness": {"dataset": "advbnch"}}}
    with pytest.raises(UserError, match=r"data set advbnch: none has this name.*; did you mean advbench\?"):
        check(command_of(tmp_path, {}, **changes))


def test_the_columns_of_a_data_set_are_texts(tmp_path):
    with pytest.raises(UserError, match=r"datasets\.advbench\.columns\.goal: expected a valid string, got 7"):
        command_of(tmp_path, {"advbench": ("a.csv", HARMBENCH)}, datasets={"advbench": {"columns": {"goal": 7}}})
