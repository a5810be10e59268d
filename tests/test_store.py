"""A run that is killed at any moment resumes, and what made a result names it."""

import errno
import hashlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces import store
from safety_spaces.errors import UserError
from safety_spaces.store import Cells, Layout

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)

KILLED = """
import os, sys
from pathlib import Path
from safety_spaces.store import write_atomically
if {phase!r} == "rename":
    os.replace = lambda *_: os._exit(9)
else:
    os.fsync = lambda *_: os._exit(9)
write_atomically(Path(sys.argv[1]), b"new")
"""


@pytest.mark.parametrize("phase", ["write", "rename"])
def test_a_killed_write_leaves_the_old_file_and_its_rest_is_removed(tmp_path: Path, phase: str) -> None:
    path = tmp_path / "cell[1].json"
    path.write_bytes(b"old")
    killed = subprocess.run([sys.executable, "-c", KILLED.format(phase=phase), str(path)], check=False)
    assert killed.returncode == 9
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    store.write_atomically(path, b"newer")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"newer"


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    running, gone = (tmp_path / f".a.json.{platform.node()}.{process}.tmp" for process in (os.getppid(), 2**22 + 1))
    elsewhere = tmp_path / f".a.json.another-machine.{os.getpid()}.tmp"
    for partial in (running, gone, elsewhere):
        partial.touch()
    store.write_atomically(path, b"new")
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", running.name, elsewhere.name}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_write_that_fails_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"a\.json: cannot be written \(.+\); free disk space or write elsewhere"):
        store.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        store.write_atomically(tmp_path / "file" / "below" / "a.json", b"")


def test_partial_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "checkpoints" / "useful"
    final.with_name("useful.partial").mkdir(parents=True)
    (final.with_name("useful.partial") / "rest of a killed run").touch()
    with pytest.raises(ZeroDivisionError), store.partial_folder(final):
        _ = 1 / 0
    assert not final.exists()
    with store.partial_folder(final) as folder:
        assert folder == tmp_path / "checkpoints" / "useful.partial"
        assert not list(folder.iterdir())
        (folder / "config.json").touch()
    assert [path.name for path in final.parent.iterdir()] == ["useful"]
    assert [path.name for path in final.iterdir()] == ["config.json"]


def test_partial_folder_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").touch()
    message = r"base: expected no folder or an empty one; move it away"
    with pytest.raises(UserError, match=message), store.partial_folder(tmp_path / "base"):
        pass


@given(st.dictionaries(st.text(), json_values, min_size=2))
def test_digest_ignores_the_order_of_keys_only(value: dict[str, Any]) -> None:
    assert store.digest(dict(reversed(value.items()))) == store.digest(value)
    assert store.digest(value) == store.digest(json.loads(json.dumps(value)))
    assert len(store.digest(value)) == 16


@given(finite)
def test_digest_sees_the_last_bit_of_a_float(value: float) -> None:
    following = math.nextafter(value, math.inf)
    assert math.isinf(following) or store.digest([value]) != store.digest([following])


def test_digest_tells_kinds_apart() -> None:
    values: list[Any] = [1, 1.0, "1", True, None, [1], {"1": 1}]
    assert len({store.digest(value) for value in values}) == len(values)
    with pytest.raises(ValueError, match="JSON compliant"):
        store.digest(math.nan)


@given(st.dictionaries(st.text(), json_values))
def test_cells_return_what_was_put(result: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cells = Cells(Path(folder) / "cells")
        assert cells.get("key") is None
        cells.put("key", result)
        assert repr(cells.get("key")) == repr(result)
        assert cells.get("other") is None


@pytest.mark.parametrize("content", [b"", b'{"value": 0.', b"[1]", b"\xff\xfe\xfa", b"null"])
def test_a_broken_cell_is_absent(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key.json").write_bytes(content)
    assert Cells(tmp_path).get("key") is None


def test_a_missing_number_is_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        Cells(tmp_path).put("key", {"value": math.nan})


def test_layout_is_the_documented_one() -> None:
    layout = Layout(Path("results"), Path("runs"), "mini")
    paths = {
        "results/mini": layout.results_folder,
        "runs/judge": layout.judge,
        "runs/mini/corpora": layout.corpora,
        "runs/mini/seed-3/checkpoints/base": layout.checkpoint("base", seed=3),
        "runs/mini/seed-3/checkpoints/useful": layout.checkpoint("useful", seed=3),
        "runs/mini/seed-3/checkpoints/useful-2": layout.checkpoint("useful", seed=3, replicate=2),
        "runs/mini/seed-3/cells": layout.cells(3),
        "runs/mini/seed-3/responses": layout.responses(3),
        "runs/mini/seed-3/states": layout.states(3),
        "runs/mini/seed-3/factors": layout.factors(3),
    }
    assert [path.as_posix() for path in paths.values()] == list(paths)


def test_digests_of_files_are_by_name_and_leave_out_what_is_not_there(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).write_text("same")
    (tmp_path / "folder").mkdir()
    found = store.file_digests(tmp_path / name for name in ("b", "missing", "folder", "a"))
    assert list(found) == ["a", "b"]
    assert found["a"] == found["b"] == store.file_digest(tmp_path / "a") == store.content_digest(b"same")


def test_source_digest_sees_what_makes_results_and_nothing_else(tmp_path: Path) -> None:
    readers = ["safety_spaces/evidence/figures/a.py", "safety_spaces/experiments/report.py", "scripts/report.py"]

    def fill(root: Path) -> list[Path]:
        names = ["safety_spaces/geometry/bases.py", "scripts/projection.py", "exp-4-x/a.py", "pyproject.toml"]
        files = [root / name for name in [*names, "configs/study.yaml", "configs/parent.yaml"]]
        for file in [*files, *(root / name for name in readers)]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(file.name)
        return files

    files = fill(tmp_path / "a")
    digest = store.source_digest(tmp_path / "a", files[-2:])
    assert digest == store.source_digest(tmp_path / "b", fill(tmp_path / "b")[-2:])
    for name in ("safety_spaces/__pycache__/a.pyc", "scripts/__pycache__/a.pyc", "tests/a.py", "configs/other.yaml"):
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).touch()
        assert store.source_digest(tmp_path / "a", files[-2:]) == digest, name
    for file in files:
        before = file.read_text()
        file.write_text("changed")
        assert store.source_digest(tmp_path / "a", files[-2:]) != digest, file
        file.write_text(before)
    # What reads results leaves the proof of them, and has a digest of its own.
    for name in readers:
        reading = store.reader_digest(tmp_path / "a")
        (tmp_path / "a" / name).write_text("changed")
        assert store.source_digest(tmp_path / "a", files[-2:]) == digest, name
        assert store.reader_digest(tmp_path / "a") != reading, name


def test_a_large_file_of_the_hubs_cache_is_not_read_to_learn_its_digest(tmp_path: Path) -> None:
    content = b"weights"
    name = hashlib.sha256(content).hexdigest()
    blob = tmp_path / "blobs" / name
    blob.parent.mkdir()
    blob.write_bytes(content)
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert store.file_digest(link) == store.content_digest(content)
    blob.write_bytes(b"")
    assert store.file_digest(link) == store.content_digest(content)
    # A small file is named by another digest, and is read.
    small = tmp_path / "blobs" / ("a" * 40)
    small.write_bytes(b"text")
    assert store.file_digest(small) == store.content_digest(b"text")
