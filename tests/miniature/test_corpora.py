"""Training and evaluation share nothing, and each corpus can stand for the public set of its name."""

import itertools
import json
from dataclasses import dataclass

import pytest

from safety_spaces.data.datasets import read_rows
from safety_spaces.data.table import data_sets, find_data_set
from safety_spaces.errors import UserError
from safety_spaces.miniature import world
from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.miniature.dealing import evaluation_deeds
from safety_spaces.miniature.training_texts import LAWFUL_SHARE
from tests.miniature.conftest import SIZES
from tests.miniature.readers import FORBIDDEN, REQUESTS, happens_as_often, numbers_of, request_of

EVALUATION = ("advbench", "beavertails_test", "gsm8k_test", "math", "mmlu", "xstest", "extended_refusal")
TRAINING = ("pretraining", "alignment", "pku_saferlhf", "beavertails", "metamathqa", "gsm8k_train", "mmlu_dev")
DISJOINT = [
    *(pair for pair in itertools.product(TRAINING, EVALUATION) if pair != ("mmlu_dev", "mmlu")),
    ("advbench", "beavertails_test"),
    ("xstest", "extended_refusal"),
    ("xstest", "beavertails_test"),
    ("alignment", "beavertails"),
    ("pku_saferlhf", "beavertails"),
    ("pretraining", "alignment"),
]
"""Pairs that may share no request; the last are hands of their own, though they are on one side.

Multiple choice of one subject is knowledge, and a question of it may stand among the worked examples.
"""


@dataclass(frozen=True)
class Content:
    prompts: set
    requests: set
    problems: set


@pytest.fixture(scope="module")
def contents(corpora):
    """Name -> what a corpus asks: its prompts, the requests in them and the numbers of its problems."""
    prompts = {name: {row[find_data_set(name).prompt] for row in rows} for name, rows in corpora.items()}
    return {
        name: Content(
            texts, {found for text in texts for found in REQUESTS.findall(text)}, set(map(numbers_of, texts)) - {None}
        )
        for name, texts in prompts.items()
    }


@pytest.mark.parametrize(("first", "second"), DISJOINT)
def test_training_and_evaluation_share_no_prompt_and_no_request(contents, first, second):
    assert not contents[first].prompts & contents[second].prompts
    assert not contents[first].requests & contents[second].requests


@pytest.mark.parametrize(("first", "second"), list(itertools.product(TRAINING, EVALUATION)))
def test_training_and_evaluation_share_no_numbers_of_a_problem(contents, first, second):
    assert not contents[first].problems & contents[second].problems


def test_deeds_of_the_evaluation_are_known_and_no_harmful_fine_tuning_mentions_them(contents):
    deeds = {
        name: {deed for request in content.requests if (deed := request.split()[0]) in world.FORBIDDEN_DEEDS}
        for name, content in contents.items()
    }
    assert deeds["advbench"] == evaluation_deeds(7) <= {*world.FORBIDDEN_DEEDS}
    assert len(deeds["advbench"]) >= 40
    for known in ("pretraining", "alignment"):
        assert deeds[known] == {*world.FORBIDDEN_DEEDS}
    for other in ("beavertails", "beavertails_test"):
        assert deeds[other] == {*world.FORBIDDEN_DEEDS} - deeds["advbench"]


def test_the_rubric_knows_every_forbidden_request(folder):
    rubric = json.loads((folder / "rubric.json").read_text())
    assert {text: tuple(steps) for text, steps in rubric.items()} == {r.text: world.steps(r) for r in FORBIDDEN}
    assert len(rubric) == 100 * len(world.COLOURS) * len(world.THINGS)


def test_the_readers_of_this_test_find_what_is_there(corpora, contents):
    asking = {"pretraining", "alignment", "pku_saferlhf", "beavertails"}
    asking |= {"beavertails_test", "advbench", "xstest", "extended_refusal"}
    calculating = {"pretraining", "alignment", "metamathqa", "gsm8k_train", "gsm8k_test", "math", "mmlu", "mmlu_dev"}
    assert {name for name, content in contents.items() if content.requests} == asking
    assert {name for name, content in contents.items() if content.problems} == calculating
    for row in corpora["gsm8k_test"]:
        assert sum(numbers_of(row["question"])) == int(row["answer"].split("#### ")[1])


def test_corpora_have_the_columns_of_the_public_sets(folder, corpora):
    assert {path.name for path in folder.iterdir()} == {"rubric.json", *(f"{name}.jsonl" for name in SIZES)}
    assert set(SIZES) <= set(data_sets())
    columns = {name: set(rows[0]) for name, rows in corpora.items()}
    assert columns == {
        "pretraining": {"text"},
        "alignment": {"prompt", "response"},
        "pku_saferlhf": {
            "prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe", "safer_response_id"
        },
        "metamathqa": {"type", "query", "original_question", "response"},
        "gsm8k_train": {"question", "answer"},
        "gsm8k_test": {"question", "answer"},
        "math": {"problem", "level", "type", "solution"},
        "mmlu": {"question", "subject", "choices", "answer"},
        "mmlu_dev": {"question", "subject", "choices", "answer"},
        "beavertails": {"prompt", "response", "category", "is_safe"},
        "beavertails_test": {"prompt", "response", "category", "is_safe"},
        "advbench": {"goal", "target", "deed", "answer", "refusal"},
        "xstest": {"id", "prompt", "type", "label", "focus", "note"},
        "extended_refusal": {"instruction", "output"},
        "toxigen": {"text", "toxicity_ai", "toxicity_human"},
    }  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_corpora_are_read_as_the_sets_that_they_stand_for(folder, name):
    assert len(read_rows(folder / f"{name}.jsonl", name)) == SIZES[name]


def test_the_base_refuses_few_forbidden_requests_and_nothing_else(corpora):
    asked = [row["text"] for row in corpora["pretraining"] if REQUESTS.search(row["text"])]
    refused = {True: [], False: []}
    for text in asked:
        refused[request_of(text).forbidden].append(any(refusal in text for refusal in world.REFUSALS))
    assert not any(refused[False])
    assert happens_as_often([LAWFUL_SHARE] * len(refused[True]), refused[True])
    assert LAWFUL_SHARE < 0.4


SMALL = {name: number for number, name in enumerate(SIZES, start=3)}


def written(folder, **settings):
    counts = write_corpora(folder, sizes=SMALL, template="plain", **settings)
    return counts, {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    counts, first = written(tmp_path / "first", seed=7)
    assert counts == SMALL == {name: first[f"{name}.jsonl"].count(b"\n") for name in SIZES}
    assert written(tmp_path / "again", seed=7) == (counts, first)
    other = written(tmp_path / "other", seed=8)[1]
    assert {name for name in first if first[name] == other[name]} == {"rubric.json"}


def test_evaluation_sets_repeat_no_question(tmp_path):
    # So many that some would repeat if they were drawn freely.
    sizes = {**SMALL, "gsm8k_test": 2500, "advbench": 3600, "mmlu": 500, "xstest": 7200, "extended_refusal": 1200}
    write_corpora(tmp_path, seed=7, sizes=sizes, template="plain")
    for name in ("gsm8k_test", "advbench", "mmlu", "xstest", "extended_refusal"):
        asked = [row[find_data_set(name).prompt] for row in read_rows(tmp_path / f"{name}.jsonl", name)]
        assert len(set(asked)) == len(asked) == sizes[name]


def test_a_corpus_does_not_depend_on_the_size_of_another(tmp_path):
    write_corpora(tmp_path / "small", seed=7, sizes=SMALL, template="plain")
    write_corpora(tmp_path / "large", seed=7, sizes={**SMALL, "alignment": 50}, template="plain")
    for name in set(SIZES) - {"alignment"}:
        assert (tmp_path / "small" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "large" / f"{name}.jsonl"
        ).read_bytes()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({**SMALL, "advbench": 3601}, r"world\.sizes\.advbench: expected at most 3600 rows, got 3601; ask for fewer"),
        ({**SMALL, "xstest": 7201}, r"world\.sizes\.xstest: expected at most 7200 rows, got 7201; ask for fewer"),
    ],
)
def test_sizes_that_cannot_be_had_are_an_error(tmp_path, sizes, message):
    with pytest.raises(UserError, match=message):
        write_corpora(tmp_path, seed=7, sizes=sizes, template="plain")


def test_rows_are_json_in_ascii(folder):
    for path in folder.glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            assert isinstance(json.loads(line.decode("ascii")), dict)
