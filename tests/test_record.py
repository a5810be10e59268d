"""Tables and the run record: same rows, same bytes, and no edit of a person is lost."""

import csv
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces import record
from safety_spaces.errors import UserError
from safety_spaces.record import Stage

finite = st.floats(allow_nan=False, allow_infinity=False)
COLUMNS = ("task", "layers", "fraction", "centred", "value")
ROWS: list[dict[str, Any]] = [
    {"task": "useful", "layers": "all", "fraction": 0.5, "centred": True, "value": 2 / 3},
    {"task": "useful", "layers": 10, "fraction": 0.25, "centred": False, "value": 1234567},
    {"task": "useful", "layers": 2, "fraction": 0.25, "centred": False, "value": 1e-9},
    {"task": 'a,"b"\n', "layers": "all", "fraction": None, "centred": False, "value": None},
    {"task": "useful", "layers": "all", "fraction": None, "centred": False, "value": 1.0},
]
TEXT = """task,layers,fraction,centred,value
"a,""b""
",all,,false,
useful,2,0.25,false,1e-09
useful,10,0.25,false,1234567
useful,all,,false,1
useful,all,0.5,true,0.666667
"""


def test_a_table_is_sorted_and_exact_in_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "projection.csv"
    for rows in (ROWS, ROWS[::-1], ROWS[2:] + ROWS[:2]):
        record.write_table(path, COLUMNS, rows)
        assert path.read_bytes() == TEXT.encode()
    record.check_unedited(tmp_path, path.name)


# Python's csv quotes no lone carriage return; cells hold names, which have none.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1)


@given(st.lists(st.tuples(finite, st.integers(), texts)))
def test_tables_are_read_back(values: list[tuple[float, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        record.write_table(
            path, ("x", "n", "text"), [dict(zip(("x", "n", "text"), row, strict=True)) for row in values]
        )
        with path.open(newline="", encoding="utf-8") as file:
            rows = [(float(x), int(n), text) for x, n, text in list(csv.reader(file))[1:]]
    assert rows == [(float(f"{x:.6g}"), n, text) for x, n, text in sorted(values)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, r"expected the columns \['a', 'b'\], got \['a'\]"),
        ({"a": 1, "b": 2, "c": 3}, "expected the columns"),
        ({"a": 1, "b": math.nan}, "expected text, a finite number or None in a table, got nan"),
        ({"a": 1, "b": -math.inf}, "a finite number"),
        ({"a": 1, "b": [1]}, "a finite number"),
        ({"a": 1, "b": np.int64(1234567)}, "a finite number"),
    ],
)
def test_a_row_that_is_not_one_is_refused(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record.write_table(tmp_path / "t.csv", ("a", "b"), [row])
    assert not list(tmp_path.iterdir())


def test_an_edited_table_is_neither_lost_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    message = r"t\.csv: not as run\.json records it, edited by hand: move it away or delete it, then run again"
    record.write_table(path, ("a",), [{"a": 1}])
    path.write_text("a\n2\n")
    with pytest.raises(UserError, match=message):
        record.write_table(path, ("a",), [{"a": 3}])
    with pytest.raises(UserError, match=message):
        record.check_unedited(tmp_path, "t.csv")
    assert path.read_text() == "a\n2\n"
    path.unlink()
    with pytest.raises(UserError, match=r"t\.csv: expected a table, found none; run the experiment that writes it"):
        record.check_unedited(tmp_path, "t.csv")
    record.write_table(path, ("a",), [{"a": 3}])
    record.check_unedited(tmp_path, "t.csv")


def test_without_a_record_nothing_is_advised_that_loses_a_table(tmp_path: Path) -> None:
    record.write_table(tmp_path / "t.csv", ("a",), [{"a": 1}])
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"t\.csv: expected run\.json beside it, found none; restore run") as caught:
        record.check_unedited(tmp_path, "t.csv")
    assert "delete" not in str(caught.value)
    # What the advice promises: the experiment finds the same rows, and vouches for its table again.
    record.write_table(tmp_path / "t.csv", ("a",), [{"a": 1}])
    record.check_unedited(tmp_path, "t.csv")


def test_a_table_of_unknown_origin_is_kept(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a\n2\n")
    with pytest.raises(UserError, match="move it away"):
        record.write_table(tmp_path / "t.csv", ("a",), [{"a": 3}])


@pytest.mark.parametrize("survived", range(3))
def test_a_kill_between_table_and_record_looks_like_no_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    path = tmp_path / "t.csv"
    record.write_table(path, ("a",), [{"a": 1}])
    replace, renames = Path.replace, iter(range(9))

    def killed_later(self: Path, target: Path) -> Path:
        if next(renames) == survived:
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed_later)
        with pytest.raises(KeyboardInterrupt):
            record.write_table(path, ("a",), [{"a": 2}])
    record.check_unedited(tmp_path, "t.csv")
    record.write_table(path, ("a",), [{"a": 3}])
    assert path.read_text() == "a\n3\n"


def test_stages_add_up_in_the_record(tmp_path: Path) -> None:
    assert record.read_record(tmp_path) == {}
    record.write_table(tmp_path / "t.csv", ("a",), [])
    first = {"seconds": 1.5, "peak_memory_bytes": 10, "sources": ["aa"]}
    second = {"seconds": 2.5, "peak_memory_bytes": 20, "sources": ["aa", "bb"]}
    record.record_stage(tmp_path, "finetune", **first, device="cpu", rows={"useful": 3}, seeds=[0, 1])
    record.record_stage(tmp_path, "projection", **second, device="cuda", rows={"harmful": 4})
    found = record.read_record(tmp_path)
    assert found["stages"] == {"finetune": first, "projection": second}
    assert (found["device"], found["rows"], found["seeds"]) == ("cuda", {"useful": 3, "harmful": 4}, [0, 1])
    record.check_unedited(tmp_path, "t.csv")


def test_a_broken_record_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: expected a JSON object; restore it, or move it"):
        record.record_stage(tmp_path, "finetune", seconds=1.0, peak_memory_bytes=1, sources=[])
    assert (tmp_path / "run.json").read_text() == "{"


def test_a_stage_measures_time_and_memory() -> None:
    with Stage() as stage:
        held = bytearray(8 * 2**20)
    assert stage.seconds > 0
    assert stage.peak_memory_bytes > len(held)


def test_a_table_that_a_later_record_does_not_know_is_kept(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        record.write_table(tmp_path / name, ["x"], [{"x": 1}])
        if name == "a.csv":
            (tmp_path / "run.json").unlink()
    record.check_unedited(tmp_path, "b.csv")
    with pytest.raises(UserError, match=r"a\.csv: expected it in run\.json, which is of later experiments alone; move"):
        record.check_unedited(tmp_path, "a.csv")
