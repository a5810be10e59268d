"""Every kind of file gives the same rows, a folder gives the files of its split, and every failure is named."""

import bz2
import csv
import gzip
import json
import lzma
import re
import shutil

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.data.files import folder_files, read_file
from safety_spaces.data.table import Hub
from safety_spaces.errors import UserError

ROWS = [
    {"prompt": 'café, {x}? "so"', "response": "NA", "is_safe": False, "level": 2},
    {"prompt": "007", "response": 'two\nlines, "quoted"', "is_safe": True, "level": 1},
    {"prompt": "2024-01-05", "response": "", "is_safe": False, "level": 1},
    {"prompt": "null", "response": "\u2028 \ufeff 1e5\r\nTrue", "is_safe": True, "level": 3},
]


def write_lines(rows, path):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")


WRITERS = {
    ".jsonl": write_lines,
    ".json": lambda rows, path: path.write_text(json.dumps(rows), encoding="utf-8"),
    ".csv": lambda rows, path: pd.DataFrame(rows).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC),
    ".tsv": lambda rows, path: pd.DataFrame(rows).to_csv(path, index=False, quoting=csv.QUOTE_ALL, sep="\t"),
    ".parquet": lambda rows, path: pd.DataFrame(rows).to_parquet(path),
}
TABLES = (".csv", ".tsv")
PACKERS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def write(folder, suffix=".jsonl", rows=ROWS, name="rows"):
    path = folder / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[suffix](rows, path)
    return path


def written(suffix, rows=ROWS):
    """What a file of that kind can say: a CSV file has texts alone."""
    return [{key: str(value) for key, value in row.items()} for row in rows] if suffix in TABLES else rows


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_reader_returns_what_was_written_in_order(tmp_path, suffix):
    assert read_file(write(tmp_path, suffix), prompt="prompt") == written(suffix)


@pytest.mark.parametrize("suffix", WRITERS)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_any_text_survives_in_any_kind_of_file(tmp_path_factory, suffix, texts):
    rows = [{"prompt": text, "number": number} for number, text in enumerate(texts)]
    assert read_file(write(tmp_path_factory.mktemp("any"), suffix, rows), prompt="prompt") == written(suffix, rows)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_file_gives_the_same_rows(tmp_path, suffix, packing):
    packed = tmp_path / f"packed{suffix}{packing}"
    packed.write_bytes(PACKERS[packing](write(tmp_path, suffix).read_bytes()))
    assert read_file(packed, prompt="prompt") == written(suffix)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv"])
def test_a_byte_order_mark_belongs_to_no_column(tmp_path, suffix):
    path = write(tmp_path, suffix)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_file(path, prompt="prompt") == written(suffix)


def test_a_json_file_may_hold_lines(tmp_path):
    assert read_file(write(tmp_path).rename(tmp_path / "rows.json"), prompt="prompt") == ROWS


def test_a_comma_at_the_end_of_every_line_shifts_no_column(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,response\na,b,\nc,d,\n")
    assert read_file(path, prompt="prompt") == [{"prompt": "a", "response": "b"}, {"prompt": "c", "response": "d"}]


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_unreadable_file_is_an_error_of_one_line(tmp_path, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b'\xff{"prompt": "a"\n"\xfe')
    with pytest.raises(UserError, match=re.escape(f"broken{suffix}: cannot be read as {suffix} (")) as raised:
        read_file(path, prompt="prompt")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("damage", [lambda content: content[: len(content) // 2], lambda content: b"no" + content])
def test_a_damaged_archive_is_an_error(tmp_path, packing, damage):
    path = tmp_path / f"rows.jsonl{packing}"
    path.write_bytes(damage(PACKERS[packing](write(tmp_path).read_bytes())))
    with pytest.raises(UserError, match=r"cannot be read as \.jsonl \("):
        read_file(path, prompt="prompt")


def test_a_line_that_is_no_row_is_an_error(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n["b"]\n')
    with pytest.raises(UserError, match=re.escape("as .jsonl (row 2: expected an object, got ['b']); write it again")):
        read_file(tmp_path / "rows.jsonl", prompt="prompt")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.csv: expected a data set, found no file or folder; correct its path"):
        read_file(tmp_path / "absent.csv", prompt="prompt")
    (tmp_path / "rows.xlsx").touch()
    with pytest.raises(UserError, match=r"rows\.xlsx: expected a file that ends in \.jsonl, .*, \.parquet; convert it"):
        read_file(tmp_path / "rows.xlsx", prompt="prompt")


HUB = Hub("owner/name", "test", ("first", "second"))
CARD = """---
configs:
- config_name: second
  data_files: [{split: train, path: b/train*}, {split: test, path: b/test*}]
- config_name: first
  data_files: [{split: train, path: a/train*}, {split: test, path: a/test*}]
---
"""


def names(folder, hub=HUB):
    return [str(file.relative_to(folder)) for file in folder_files(folder, "name", hub=hub)]


def test_a_folder_gives_the_split_by_the_names_of_its_files(tmp_path):
    for name in ("train", "test"):
        write(tmp_path, name=name)
    (tmp_path / "LICENSE").write_text("MIT")
    assert names(tmp_path) == ["test.jsonl"]


def test_a_folder_with_one_split_stands_for_any(tmp_path):
    write(tmp_path, ".csv", name="harmless_requests")
    assert names(tmp_path) == names(tmp_path, None) == ["harmless_requests.csv"]


def test_a_dataset_card_says_which_files_are_a_configuration_and_the_table_their_order(tmp_path):
    for name in ("a/train", "a/test", "b/train", "b/test"):
        write(tmp_path, name=name)
    (tmp_path / "README.md").write_text(CARD)
    assert names(tmp_path) == ["a/test.jsonl", "b/test.jsonl"]


def test_without_a_card_a_subfolder_is_a_configuration(tmp_path):
    for name in ("other/test", "first/test", "second/test-00000-of-00002", "second/test-00001-of-00002"):
        write(tmp_path, ".parquet", name=name)
    assert names(tmp_path) == [
        "first/test.parquet",
        "second/test-00000-of-00002.parquet",
        "second/test-00001-of-00002.parquet",
    ]


def test_a_folder_that_is_no_copy_of_the_set_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"expected data files of name \(.*\); name a file of it instead"):
        names(tmp_path)
    for name in ("first/train", "first/validation"):
        write(tmp_path, name=name)
    with pytest.raises(UserError, match="expected the configurations first, second of name, got default; copy the"):
        names(tmp_path)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    with pytest.raises(UserError, match="expected the split test of name, got train, validation; name a file of it"):
        names(tmp_path)
    (tmp_path / "README.md").write_text(CARD.replace("a/", "first/").replace("b/", "second/").replace("test", "val"))
    with pytest.raises(UserError, match="expected one configuration of name, got second, first; copy the whole"):
        names(tmp_path, None)


def test_a_folder_leaves_nothing_in_the_cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "copy", name="test")
    assert names(tmp_path / "copy") == ["test.jsonl"]
    assert not (tmp_path / "cache").exists()
