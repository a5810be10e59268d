"""Tables read as their columns promise, and every way in which one can be wrong is named."""

import re

import numpy as np
import pytest

from safety_spaces.errors import UserError
from safety_spaces.evidence.tables import COUNTS, FILES, TEXTS, read_table, read_tables


def test_types_of_columns(tables):
    for name, (columns, _) in FILES.items():
        table = getattr(tables, name)
        assert tuple(table.columns) == columns
        for column in columns:
            kind = "text" if column in TEXTS else "Int64" if column in COUNTS else table[column].dtype.name
            assert kind in ("text", "Int64", "float64", "bool")
            assert (table[column].dtype == "Int64") == (column in COUNTS)
    assert tables.activation_spaces.centred.dtype == bool
    assert tables.activation_spaces.centred.mean() == 0.5


def test_empty_cells_are_not_numbers(tables):
    base = tables.projection[tables.projection.task == "base"]

    assert base.fraction.isna().all()
    assert base.seed.isna().all()


@pytest.mark.parametrize("name", list(FILES))
def test_a_missing_table_names_the_command_that_writes_it(tmp_path, name):
    with pytest.raises(UserError, match=re.escape(f"{name}.csv: no such table; write it with `{FILES[name][1]}")):
        read_table(tmp_path, name)


def copy_edited(written, tmp_path, name, old, new):
    text = (written / f"{name}.csv").read_text()
    assert old in text
    (tmp_path / f"{name}.csv").write_text(text.replace(old, new, 1))


def test_other_columns_are_refused(written, tmp_path):
    copy_edited(written, tmp_path, "energy", "energy_kept", "kept")
    with pytest.raises(UserError, match="differ from the declared ones in energy_kept, kept"):
        read_table(tmp_path, "energy")


def test_another_order_is_refused(written, tmp_path):
    copy_edited(written, tmp_path, "energy", "study,task", "task,study")
    with pytest.raises(UserError, match="in their order"):
        read_table(tmp_path, "energy")


@pytest.mark.parametrize(
    ("table", "column", "cell", "expected"),
    [
        ("energy", "energy_kept", "high", "a number"),
        ("energy", "energy_kept", "inf", "a number"),
        ("energy", "seed", "0.5", "a whole number"),
        ("activation_spaces", "centred", "maybe", "true or false"),
    ],
)
def test_a_cell_of_another_type_is_refused_with_its_line(written, tmp_path, table, column, cell, expected):
    lines = (written / f"{table}.csv").read_text().splitlines()
    cells = lines[6].split(",")
    cells[lines[0].split(",").index(column)] = cell
    lines[6] = ",".join(cells)
    (tmp_path / f"{table}.csv").write_text("\n".join(lines))

    with pytest.raises(UserError, match=f"line 7: {column} should be {expected} or empty, not '{cell}'"):
        read_table(tmp_path, table)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2,3\n1\n,,,,\n", b"\xff\xfe\x00"])
def test_a_file_that_is_no_csv_is_refused(tmp_path, content):
    (tmp_path / "energy.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"not a readable CSV|columns differ"):
        read_table(tmp_path, "energy")


def test_numbers_survive(tables):
    kept = tables.energy[tables.energy.tensor == "all"].energy_kept

    assert np.isfinite(kept).all()
    assert kept.max() == 1.0


def test_a_table_that_is_not_there_is_said_when_it_is_asked_for(written, tmp_path):
    for name in ("projection", "energy"):
        (tmp_path / f"{name}.csv").write_bytes((written / f"{name}.csv").read_bytes())
    some = read_tables(tmp_path, ("energy", "update_spaces"))

    assert len(some.of("energy")) > 0
    assert some.projection is None
    with pytest.raises(UserError, match=r"^update_spaces\.csv: no such table; write it with `python exp-3"):
        some.of("update_spaces")


def test_columns_of_the_appendices(tables):
    windows = tables.activation_spaces[tables.activation_spaces.position == "early_window"]
    columns = [windows[name] for name in ("window_of", "window_start", "window_stop", "window_combine")]
    assert set(zip(*columns, strict=True)) == {
        ("prompt", 0, 8, "stacked"), ("generated", 2, 4, "averaged"),
    }  # fmt: skip
    tokens = tables.activation_spaces[tables.activation_spaces.position != "early_window"]
    assert tokens.window_start.isna().all()
    assert set(tokens.window_of) == {""}
    assert set(tables.projection.others) == {"", "whole", "out"}
    assert set(tables.projection[tables.projection.metric == "general_ability"].shots) == {5}
