"""Rows of a name in a study: its columns, the rows that meet the conditions, and what is missing is named."""

import dataclasses
import json
import re
import subprocess
import sys

import datasets
import pandas as pd
import pytest

from safety_spaces.data.datasets import TOXIC_ABOVE, read_rows, toxic_rows
from safety_spaces.data.table import data_sets, find_data_set
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
        ({"a": 1}, [], "expected rows, got none; correct `where` or the path"),
    ],
)
def test_rows_that_are_not_there_are_an_error(tmp_path, where, rows, message):
    with pytest.raises(UserError, match=re.escape(f"rows.jsonl: {message}")):
        read_rows(write(tmp_path, rows=rows), "beavertails", where=where)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("where", "cells", "kept"),
    [
        ({"is_safe": False}, ["FALSE", "false", "True", "0", "1", " False", ""], [0, 1, 3, 5]),
        ({"level": 5}, ["5", "5.0", "n/a", "50", "", "5"], [0, 1, 5]),
        ({"level": "5"}, ["5", "5.0", "05"], [0]),
    ],
)
def test_conditions_on_cells_of_text_are_met_whatever_their_neighbours_are(tmp_path, suffix, where, cells, kept):
    (column,) = where
    path = write(tmp_path, suffix, [{"prompt": f"p{n}", "response": "r", column: cell} for n, cell in enumerate(cells)])
    assert [row["prompt"] for row in read_rows(path, "beavertails", where=where)] == [f"p{n}" for n in kept]


def test_a_long_column_of_mixed_types_loses_no_row(tmp_path):
    """A reader that guesses types in pieces of a file gives each a type of its own."""
    (tmp_path / "rows.csv").write_text("prompt,response,level\n" + 20_000 * "p,r,5\n" + "p,r,n/a\n")
    assert len(read_rows(tmp_path / "rows.csv", "beavertails", where={"level": 5})) == 20_000


@pytest.mark.parametrize(
    ("where", "cells", "message"),
    [
        (
            {"is_safe": False},
            [False, "no"],
            "expected true or false in the column is_safe, as `where` has it, got 'no'",
        ),
        ({"is_safe": False}, [False, 2], "expected true or false in the column is_safe, as `where` has it, got 2"),
        ({"level": "5"}, ["5", 5], "expected text in the column level, as `where` has it, got 5"),
    ],
)
def test_a_cell_that_a_condition_cannot_be_compared_with_is_an_error(tmp_path, where, cells, message):
    (column,) = where
    path = write(tmp_path, rows=[{"prompt": "p", "response": "r"} | {column: cell} for cell in cells])
    path.write_text("".join(json.dumps({"prompt": "p", "response": "r", column: cell}) + "\n" for cell in cells))
    with pytest.raises(UserError, match=re.escape(f"rows.jsonl: {message} in row 2; correct `where` in the study")):
        read_rows(path, "beavertails", where=where)


@pytest.mark.parametrize("text", ["", " \n", "\ud83d", "a\udc00b"])
def test_a_prompt_that_cannot_be_asked_is_named_by_its_row(tmp_path, text):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"prompt": prompt, "response": ""}) + "\n" for prompt in ("a", "\U0001f600", text))
    )
    with pytest.raises(UserError, match=r"expected text in the column prompt, got '.*' in row 3; mend the data set"):
        read_rows(path, "beavertails")


def test_an_error_quotes_a_part_of_many_columns(tmp_path):
    rows = [{f"column {number} {'x' * 90}": 1 for number in range(200)}]
    with pytest.raises(UserError, match="expected the column prompt of beavertails, got column 0 x") as raised:
        read_rows(write(tmp_path, rows=rows), "beavertails")
    assert len(str(raised.value)) < len(str(tmp_path)) + 300


JAILBREAKBENCH = [
    {"Index": 0, "Goal": "wake the owl", "Target": "Sure", "Behavior": "Owls", "Category": "birds"},
    {"Index": 1, "Goal": "007", "Target": "Well", "Behavior": "Numbers", "Category": "7"},
]


@pytest.mark.parametrize("suffix", WRITERS)
def test_columns_have_the_names_that_the_study_gives_them(tmp_path, suffix):
    path = write(tmp_path, suffix, JAILBREAKBENCH)
    names = {"goal": "Goal", "target": "Target", "category": "Category"}
    rows = read_rows(path, "advbench", where={"category": "7"}, names=names)
    assert rows == [{"goal": "007", "target": "Well", "category": "7"}]
    assert read_rows(path, "advbench", columns=("goal",), names={"prompt": "Goal"})[0] == {"goal": "wake the owl"}
    # One column of the file may stand for two.
    asked = read_rows(path, "advbench", columns=("goal",), where={"Goal": "007"}, names=names)
    assert asked == [{"goal": "007", "Goal": "007"}]


def test_a_set_of_a_users_own_name_is_read_from_its_file_alone(tmp_path):
    path = write(tmp_path, ".csv", JAILBREAKBENCH)
    assert read_rows(path, "mine", columns=("prompt",), names={"prompt": "Goal"})[1] == {"prompt": "007"}
    with pytest.raises(UserError, match="data set mine: none has this name"):
        read_rows(path, "mine", columns=("prompt",))


def test_a_column_that_is_mapped_wrongly_is_named_as_it_is_mapped(tmp_path):
    path = write(tmp_path, rows=[{"goal": "a", "Behavior": "b"}])
    with pytest.raises(
        UserError, match="expected the column Behaviour of advbench, got goal, Behavior; write datasets"
    ):
        read_rows(path, "advbench", columns=("goal",), names={"goal": "Behaviour"})


def test_only_the_columns_asked_for_are_needed(tmp_path):
    assert read_rows(write(tmp_path, rows=[{"goal": "a"}]), "advbench", columns=("goal",)) == [{"goal": "a"}]
    assert read_rows(write(tmp_path, rows=[{"prompt": "a"}]), "xstest", columns=("prompt",)) == [{"prompt": "a"}]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (repr(b"it's"), "it's"),
        (repr(b'say "no"'), 'say "no"'),
        (repr('it\'s "no" \\ \n\t caf\u00e9 \U0001f600'.encode()), 'it\'s "no" \\ \n\t caf\u00e9 \U0001f600'),
        (repr("caf\u00e9".encode("latin-1")), "caf\u00e9"),
        (repr(b""), ""),
        *(
            (text, text)
            for text in ("b'and then", "b'a' or b'b'", "b'a' 'b'", "b'caf\u00e9'", r"b'a\d'", "'a'", "bb'a'")
        ),
    ],
)
@pytest.mark.parametrize("suffix", WRITERS)
def test_texts_of_toxigen_are_what_their_bytes_literals_say(tmp_path, suffix, written, text):
    row = {"text": written, "toxicity_ai": 5.0, "toxicity_human": 1.0}
    if text:
        assert read_rows(write(tmp_path, suffix, [row]), "toxigen") == [{**row, "text": text}]
    # No other set is written so.
    other = [{"prompt": written, "response": written}]
    assert read_rows(write(tmp_path, suffix, other), "beavertails") == other


def test_the_texts_that_the_hub_has_of_toxigen_are_decoded_too(monkeypatch):
    row = {"text": "b'it\\'s'", "toxicity_ai": 5.0, "toxicity_human": 1.0}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list([row]))
    assert read_rows(None, "toxigen") == [{**row, "text": "it's"}]


def test_numbers_of_a_csv_file_are_numbers_where_the_table_needs_them(tmp_path):
    rows = [{"text": "5.0", "toxicity_ai": 5.0, "toxicity_human": 1}]
    assert read_rows(write(tmp_path, ".csv", rows), "toxigen") == rows


@pytest.mark.parametrize(("count", "said"), [(3, "3 rows, where gsm8k_test has 4"), (4, ""), (5, "5 rows, where")])
def test_a_copy_of_another_size_is_said_once_and_a_folder_that_is_too_large_is_an_error(
    tmp_path, monkeypatch, caplog, count, said
):
    data_set = dataclasses.replace(find_data_set("gsm8k_test"), size=4)
    monkeypatch.setitem(data_sets(), "gsm8k_test", data_set)
    path = write(tmp_path, rows=[{"question": "a", "answer": "1"}] * count)
    for _ in range(2):
        read_rows(path, "gsm8k_test", names={})
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text
    # Another set that stands for it, and the small world's own, have their own sizes.
    other = path.rename(tmp_path / "other.jsonl")
    read_rows(other, "gsm8k_test", names={"question": "question"})
    read_rows(other, "gsm8k_test")
    assert len(caplog.messages) == bool(said)
    if count > 4:
        with pytest.raises(UserError, match="expected the 4 rows of gsm8k_test, got 5; name one file of it"):
            read_rows(tmp_path, "gsm8k_test", names={})


def test_a_row_without_a_text_is_an_error_unless_it_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b", "n": 1}\n{"response": "c", "n": 2}\n')
    with pytest.raises(UserError, match="expected text in the column prompt, got None in row 2; mend"):
        read_rows(path, "beavertails")
    assert read_rows(path, "beavertails", where={"n": 1}) == [{"prompt": "a", "response": "b", "n": 1}]


def test_an_unknown_name_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"data set beavertail: none has this name.*; did you mean beavertails?"):
        read_rows(None, "beavertail")


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


@pytest.mark.parametrize(
    "row",
    [
        {"text": "a", "toxicity_ai": 5.0},
        {"toxicity_ai": 5.0, "toxicity_human": None},
        {"toxicity_ai": 5.0, "toxicity_human": float("nan")},
    ],
)
def test_toxicity_must_be_numbers(row):
    with pytest.raises(
        UserError, match="toxigen: expected numbers in toxicity_ai and toxicity_human; use the annotated"
    ):
        toxic_rows([row])
