"""Rows of a name in a study: its columns, the rows that meet the conditions, and what is missing is named."""

import json
import re
import subprocess
import sys

import datasets
import pandas as pd
import pytest

from safety_spaces.data.datasets import TOXIC_ABOVE, read_rows, source_of, toxic_rows
from safety_spaces.data.table import find_data_set
from safety_spaces.errors import UserError

ROWS = [
    {"prompt": "wake the amber lantern", "response": "NA", "is_safe": False, "level": 2, "number": "007"},
    {"prompt": "001", "response": "", "is_safe": True, "level": 1, "number": "7"},
    {"prompt": "2024-01-05", "response": "null", "is_safe": False, "level": 1, "number": "7"},
]
WRITERS = {
    ".jsonl": lambda frame, path: path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records"))),
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


def write(folder, suffix=".jsonl", rows=ROWS):
    path = folder / f"rows{suffix}"
    WRITERS[suffix](pd.DataFrame(rows), path)
    return path


def texts(rows):
    return [{"prompt": row["prompt"], "response": row["response"]} for row in rows]


@pytest.mark.parametrize("suffix", WRITERS)
def test_rows_keep_the_columns_of_the_table_and_of_the_conditions(tmp_path, suffix):
    path = write(tmp_path, suffix)
    assert read_rows(path, "beavertails") == texts(ROWS)
    assert read_rows(path, "beavertails", where={"level": 2}) == [{**texts(ROWS)[0], "level": 2}]


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"is_safe": False}, [0, 2]),
        ({"is_safe": True}, [1]),
        ({"level": 1, "is_safe": False}, [2]),
        ({"number": "007"}, [0]),
        ({"response": "NA"}, [0]),
    ],
)
def test_where_keeps_the_rows_that_meet_every_condition(tmp_path, suffix, where, kept):
    rows = read_rows(write(tmp_path, suffix), "beavertails", where=where)
    assert texts(rows) == texts([ROWS[number] for number in kept])
    assert all(
        row[column] == value and type(row[column]) is type(value) for row in rows for column, value in where.items()
    )


def test_booleans_of_a_csv_file_may_be_written_small(tmp_path):
    path = write(tmp_path, ".csv")
    path.write_text(path.read_text().replace("False", "false").replace("True", "true"))
    assert texts(read_rows(path, "beavertails", where={"is_safe": False})) == texts([ROWS[0], ROWS[2]])


@pytest.mark.parametrize("names", [("goal", "target"), ("prompt", "target")])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_column_may_have_its_other_name(tmp_path, names, suffix):
    path = write(tmp_path, suffix, [dict(zip(names, ("007", "well, 1"), strict=True))])
    assert read_rows(path, "advbench") == [{"goal": "007", "target": "well, 1"}]


def test_the_name_of_the_table_goes_before_its_other_name(tmp_path):
    path = write(tmp_path, rows=[{"prompt": "wrong", "goal": "right", "target": "t"}])
    assert read_rows(path, "advbench") == [{"goal": "right", "target": "t"}]


@pytest.mark.parametrize(
    ("where", "rows", "message"),
    [
        ({"is_safe": True, "level": 2}, ROWS, "expected rows with {'is_safe': True, 'level': 2}, got none"),
        ({"safe": True}, ROWS, "expected the column safe of beavertails, got prompt, response, is_safe, level, number"),
        ({}, [{"prompt": "only"}], "expected the column response of beavertails, got prompt"),
        ({}, [{"prompt": "a", "response": 7}], "expected text in the column response, got 7 in row 1"),
        ({}, [], "expected rows with {}, got none"),
    ],
)
def test_rows_that_are_not_there_are_an_error(tmp_path, where, rows, message):
    with pytest.raises(UserError, match=re.escape(f"rows.jsonl: {message}")):
        read_rows(write(tmp_path, rows=rows), "beavertails", where=where)


def test_a_row_without_a_text_is_an_error_unless_it_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "n": 1}\n{"response": "c", "n": 2}\n')
    with pytest.raises(UserError, match="expected text in the column prompt, got None in row 2; mend"):
        read_rows(path, "beavertails")
    assert read_rows(path, "beavertails", where={"n": 1}) == [{"prompt": "a", "response": "b", "n": 1}]


def test_an_unknown_name_is_an_error(tmp_path):
    for use in (read_rows, source_of):
        with pytest.raises(UserError, match="data set beavertail: none has this name.*; did you mean beavertails?"):
            use(None, "beavertail")


def test_a_folder_is_read_as_the_hub_is(tmp_path):
    for config in find_data_set("math").hub.configs:
        (tmp_path / config).mkdir()
        for split in ("train", "test"):
            row = {"problem": f"{config} {split}", "solution": "1", "level": "Level 5"}
            (tmp_path / config / f"{split}.jsonl").write_text(json.dumps(row))
    rows = read_rows(tmp_path, "math", where={"level": "Level 5"})
    assert [row["problem"].split() for row in rows] == [
        [config, "train"] for config in find_data_set("math").hub.configs
    ]


def test_without_a_path_the_hub_is_read_at_the_tables_place(monkeypatch):
    asked = []

    def load_dataset(*place, **options):
        asked.append((place, options))
        return datasets.Dataset.from_list([{"prompt": place[0], "target": "b", "other": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hub = find_data_set("advbench").hub
    assert read_rows(None, "advbench") == [{"goal": "walledai/AdvBench", "target": "b"}]
    assert asked == [(("walledai/AdvBench", None), {"split": "train", "revision": hub.revision})]


def test_a_column_that_the_hub_lacks_is_an_error(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list([{"prompt": "a"}]))
    with pytest.raises(UserError, match=r"^advbench: expected the column target of advbench, got prompt"):
        read_rows(None, "advbench")


def test_a_set_of_the_miniature_is_on_no_hub():
    with pytest.raises(UserError, match=r"^alignment: expected a local copy, it is on no hub; name it: datasets:"):
        read_rows(None, "alignment")


def test_the_record_says_where_rows_come_from(tmp_path):
    commit = find_data_set("gsm8k_test").hub.revision
    assert source_of(None, "gsm8k_test") == f"openai/gsm8k main test @{commit}"
    assert source_of(tmp_path / "problems.csv", "gsm8k_test") == "problems.csv"


def test_reading_a_file_needs_neither_torch_nor_datasets(tmp_path):
    program = (
        "import sys; from pathlib import Path; from safety_spaces.data.datasets import read_rows; "
        f"read_rows(Path({str(write(tmp_path))!r}), 'beavertails'); "
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_text_is_toxic_above_the_boundary_and_not_on_it():
    pairs = [(TOXIC_ABOVE - 1, 1.0), (TOXIC_ABOVE - 1, 1.0625), (1.0, 5.0), (5.0, 0.25)]
    rows = [{"text": str(pair), "toxicity_ai": pair[0], "toxicity_human": pair[1]} for pair in pairs]
    assert toxic_rows(rows) == [rows[1], rows[2]]


@pytest.mark.parametrize("row", [{"text": "a", "toxicity_ai": 5.0}, {"toxicity_ai": 5.0, "toxicity_human": None}])
def test_toxicity_must_be_numbers(row):
    with pytest.raises(
        UserError, match="toxigen: expected numbers in toxicity_ai and toxicity_human; use the annotated"
    ):
        toxic_rows([row])
