"""Every reader gives the same rows, and every way in which a file can fail is named."""

import json
import re

import pandas as pd
import pytest

from safety_spaces.data.datasets import DATA_SETS, TOXIC_ABOVE, find_data_set, read_rows, toxic_rows
from safety_spaces.errors import UserError

ROWS = [
    {"prompt": "café, {x}?", "response": "NA", "is_safe": False, "level": 2},
    {"prompt": "001", "response": 'two\nlines, "quoted"', "is_safe": True, "level": 1},
    {"prompt": "2024-01-05", "response": "", "is_safe": False, "level": 1},
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


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_reader_returns_what_was_written_in_order(tmp_path, suffix):
    assert read_rows(write(tmp_path, suffix), "beavertails") == ROWS


def test_csv_keeps_texts_that_look_like_missing_values(tmp_path):
    rows = read_rows(write(tmp_path, ".csv"), "beavertails")
    assert rows == ROWS


@pytest.mark.parametrize("suffix", WRITERS)
def test_prompts_that_are_all_numbers_stay_texts(tmp_path, suffix):
    rows = [{"prompt": "007", "response": "1e5"}, {"prompt": "12", "response": "2020-01-01"}]
    assert read_rows(write(tmp_path, suffix, rows), "beavertails") == rows


@pytest.mark.parametrize("suffix", WRITERS)
def test_where_keeps_the_rows_that_meet_every_condition(tmp_path, suffix):
    path = write(tmp_path, suffix)
    assert [row["prompt"] for row in read_rows(path, "beavertails", where={"is_safe": False})] == [
        "café, {x}?",
        "2024-01-05",
    ]
    both = read_rows(path, "beavertails", where={"is_safe": False, "level": 1})
    assert [row["prompt"] for row in both] == ["2024-01-05"]


@pytest.mark.parametrize(
    ("where", "rows", "message"),
    [
        ({"is_safe": True, "level": 2}, ROWS, "expected rows with {'is_safe': True, 'level': 2}, got none"),
        ({"safe": True}, ROWS, "expected the column safe of beavertails, got prompt, response, is_safe, level"),
        ({}, [{"prompt": "only"}], "expected the column response of beavertails, got prompt"),
    ],
)
def test_rows_that_are_not_there_are_an_error(tmp_path, where, rows, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read_rows(write(tmp_path, rows=rows), "beavertails", where=where)


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_unreadable_file_is_an_error(tmp_path, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b'\xff{"prompt": "a"\n"\xfe')
    with pytest.raises(UserError, match=re.escape(f"broken{suffix}: cannot be read as {suffix} (")):
        read_rows(path, "beavertails")


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_empty_file_is_an_error(tmp_path, suffix):
    (tmp_path / f"empty{suffix}").touch()
    with pytest.raises(UserError, match=f"empty{suffix}: "):
        read_rows(tmp_path / f"empty{suffix}", "beavertails")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"rows\.txt: expected a file that ends in \.jsonl, \.csv, \.parquet"):
        read_rows(tmp_path / "rows.txt", "beavertails")
    with pytest.raises(UserError, match=r"absent\.csv: expected a data set, found no file"):
        read_rows(tmp_path / "absent.csv", "beavertails")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"data set beavertail: expected one of pretraining, .*, beavertails, .*toxigen"
    ):
        find_data_set("beavertail")


def test_required_columns_are_prompt_and_response_if_any():
    for data_set in DATA_SETS.values():
        assert data_set.columns == tuple(filter(None, (data_set.prompt, data_set.response)))


def test_a_text_is_toxic_above_the_boundary_and_not_on_it():
    pairs = [(TOXIC_ABOVE - 1, 1.0), (TOXIC_ABOVE - 1, 1.0625), (1.0, 5.0), (5.0, 0.25)]
    rows = [{"text": str(pair), "toxicity_ai": pair[0], "toxicity_human": pair[1]} for pair in pairs]
    assert toxic_rows(rows) == [rows[1], rows[2]]
