"""Every kind of file gives the same rows, and every failure is named."""

import bz2
import csv
import gzip
import json
import lzma
import re

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.data.files import read_file
from safety_spaces.errors import UserError

ROWS = [
    {"prompt": 'café, {x}? "so"', "response": "NA", "is_safe": False, "level": 2},
    {"prompt": "007", "response": 'two\nlines, "quoted"', "is_safe": True, "level": 1},
    {"prompt": "2024-01-05", "response": "", "is_safe": False, "level": 1},
    {"prompt": "null", "response": "\u2028 \ufeff 1e5\r\nTrue", "is_safe": True, "level": 3},
]


def write_lines(rows, path):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")


def write_arrow(rows, path):
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(path, table.schema) as stream:
        stream.write_table(table)


WRITERS = {
    ".jsonl": write_lines,
    ".json": lambda rows, path: path.write_text(json.dumps(rows), encoding="utf-8"),
    ".csv": lambda rows, path: pd.DataFrame(rows).to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC),
    ".tsv": lambda rows, path: pd.DataFrame(rows).to_csv(path, index=False, quoting=csv.QUOTE_ALL, sep="\t"),
    ".arrow": write_arrow,
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


def read(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_file(path, prompt="prompt")


def reason(folder, name, content):
    """What is said in brackets about a file that cannot be read."""
    with pytest.raises(UserError) as raised:
        read(folder, name, content)
    assert "\n" not in str(raised.value)
    return re.fullmatch(r".*: cannot be read as \S+ \((.*)\); write it again", str(raised.value))[1]


@pytest.mark.parametrize(
    ("content", "line", "came"),
    [
        ("prompt,x\na,1\nLeave now, then rest,2\n", 3, 3),
        ('prompt,x\n"two\nlines",1\n\nLeave now, then rest,2\n', 5, 3),
        ("prompt,x\na,1\nb\n", 3, 1),
        ("prompt,x\na,1\nb,2,\n", 3, 3),
        ("prompt,x,\na,1\nb,2,3\n", 3, 3),
        ("sep=;\r\nprompt;x\r\na;1;2\r\n", 3, 3),
        ("prompt,x\ra,1\rb,2,3\r", 3, 3),
    ],
)
def test_a_record_unlike_the_header_is_named_by_its_line_in_the_file(tmp_path, content, line, came):
    expected = f"line {line}: expected 2 fields, as in the header, got {came}; put a text with a separator in quotes"
    assert reason(tmp_path, "rows.csv", content) == expected


@pytest.mark.parametrize(
    "content",
    [
        'prompt,x\n"a, b",1\n',
        'prompt,x,,\n"a, b",1\n',
        'prompt,x,\n"a, b",1,\n',
        'prompt;x\n"a, b";1\n',
        'sep=;\r\nprompt;x\r\n"a, b";1\r\n',
        b"\xef\xbb\xbfsep=|\nprompt|x\na, b|1\n",
        "prompt\tx\na, b\t1\n",
        ' prompt, x\n"a, b",1\n,\n\n',
        'prompt,x\r"a, b",1\r',
        'prompt,x\n"a, b",1'.encode("utf-16"),
    ],
)
def test_csv_files_as_programs_write_them(tmp_path, content):
    assert read(tmp_path, "rows.csv", content) == [{"prompt": "a, b", "x": "1"}]


def test_a_tsv_file_is_divided_by_tabs_alone(tmp_path):
    assert read(tmp_path, "rows.tsv", "prompt\nwhat, here; and\n") == [{"prompt": "what, here; and"}]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "prompt,x,prompt\na,1,b\n", "expected every column once in the header, got prompt twice"),
        ("a.csv", 'prompt,x\na,1\n"b,2\nc,3\n', "line 3: unexpected end of data"),
        ("a.csv", "prompt,x\ncafé,1\n".encode("latin-1"), "line 2: expected UTF-8, got the byte 0xe9"),
        ("a.txt", "tea\ncafé\n".encode("latin-1"), "line 2: expected UTF-8, got the byte 0xe9"),
        ("a.csv", b"prompt,x\na,1\nb\0,2\n", "line 3: expected UTF-8, got a zero byte"),
        ("a.jsonl", '{"prompt": "a"}\n \n{"prompt": "b"\n', "line 3: Expecting ',' delimiter, column 15"),
        ("a.jsonl", '{"prompt": "a"\n{"prompt": "b"}\n', "line 1: Expecting ',' delimiter, column 15"),
        ("a.json", '{"prompt": "a"}\n{"prompt" "b"}\n', "line 2: Expecting ':' delimiter, column 11"),
        ("a.json", '[{"prompt": "a"},\n{"prompt" "b"}]', "Expecting ':' delimiter: line 2 column 11 (char 28)"),
        ("a.jsonl", '{"prompt": "a"}\nnull\n', "row 2: expected an object, got None"),
        (
            "a.txt",
            "version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n",
            "a pointer of Git LFS, not the file; run git lfs pull",
        ),
        ("a.json", "7", "expected objects, got 7"),
        ("a.json", '{"a": [1, 2], "b": [3]}', "expected columns of one length, got 2 in a, 1 in b"),
        ("a.json", '{"a": [{"x": 1}], "b": [{"x": 2}]}', "expected rows under one key, got them under a, b"),
    ],
)
def test_the_reason_names_the_place(tmp_path, name, content, expected):
    assert reason(tmp_path, name, content) == expected


def test_a_cell_of_a_csv_file_may_be_long(tmp_path):
    assert read(tmp_path, "a.csv", f"prompt,x\n{'y' * 200_000},1\n") == [{"prompt": "y" * 200_000, "x": "1"}]


def test_what_came_is_quoted_in_part(tmp_path):
    assert "recursion" in reason(tmp_path, "a.json", "[" * 200_000)
    assert len(reason(tmp_path, "a.json", json.dumps(["a", ["x" * 9000]]))) <= 120


@pytest.mark.parametrize(
    "document",
    [
        [{"prompt": "a", "x": 1}, {"prompt": "b", "x": 2}],
        {"prompt": ["a", "b"], "x": [1, 2]},
        {"prompt": {"0": "a", "1": "b"}, "x": {"0": 1, "1": 2}},
        {"first": {"prompt": "a", "x": 1}, "second": {"prompt": "b", "x": 2}},
        {"version": 1, "data": [{"prompt": "a", "x": 1}, {"prompt": "b", "x": 2}]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_one_json_document_may_hold_its_rows_in_several_ways(tmp_path, document, indent):
    rows = [{"prompt": "a", "x": 1}, {"prompt": "b", "x": 2}]
    assert read(tmp_path, "a.json", json.dumps(document, indent=indent)) == rows


@pytest.mark.parametrize("row", [{"prompt": "a", "x": {"y": 1}}, {"prompt": "a", "turns": [{"y": 1}]}])
def test_one_object_is_one_row(tmp_path, row):
    assert read(tmp_path, "a.json", json.dumps(row, indent=1)) == read(tmp_path, "a.jsonl", json.dumps(row)) == [row]


def test_a_list_of_prompts_is_a_line_each_or_a_list_of_texts(tmp_path):
    rows = [{"prompt": "one, two"}, {"prompt": " three\u2028"}]
    assert read(tmp_path, "a.txt", "\ufeffone, two\r\n\r\n three\u2028\n") == rows
    assert read(tmp_path, "a.json", '["one, two", " three\u2028"]') == rows


def test_files_of_mmlu_itself_have_no_header_and_their_subject_in_the_name(tmp_path):
    row = {"question": 'Is "1, 2"?', "choices": ["1", "no", "a\nb", "d"], "subject": "high_school_physics"}
    for split, header in (("test", ""), ("dev", "question,A,B,C,D,answer\n")):
        content = header + '"Is ""1, 2""?",1,no,"a\nb",d,C\nq,1,2,3,4,A\n'
        first, second = read(tmp_path, f"high_school_physics_{split}.csv", content)
        assert {key: first[key] for key in row} == row
        assert (first["answer"], second["answer"]) == (2, 0)
