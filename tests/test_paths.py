"""Paths are read as a person writes them, and what they name is looked for where README says."""

from pathlib import Path

import pytest

from safety_spaces.errors import UserError
from safety_spaces.paths import ROOT, expanded, is_there, resolve_path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, the home folder and the variable HERE."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "HERE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


@pytest.mark.parametrize("path", ["~/a/b", "$HOME/a/b", "$HERE/a/b", "${HERE}/a/b", "${HERE}/a/../a/b"])
def test_home_and_variables_are_written_out(here: Path, path: str) -> None:
    assert expanded(path).resolve() == resolve_path(path).resolve() == here / "a/b"


@pytest.mark.parametrize("path", ["a/b", "a~/b", "/a/b", "./a", "../a", "a b/c", "100$"])
def test_other_paths_stay(path: str) -> None:
    assert expanded(path) == Path(path)


def test_a_name_that_is_there_as_it_stands_is_left_alone(here: Path) -> None:
    (here / "price$list.csv").touch()
    assert expanded("price$list.csv") == Path("price$list.csv")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("$NOWHERE/a", r"^\$NOWHERE/a: expected the environment variable NOWHERE, found none"),
        ("a/${NOWHERE}", "the environment variable NOWHERE, found none; set it"),
        ("$EMPTY/a", "the environment variable EMPTY, found none"),
        ("~no-such-user/a", "^~no-such-user/a: expected the home folder of a user, found none"),
        ("", "expected a path, got an empty one"),
        (" ", "expected a path, got an empty one"),
    ],
)
def test_what_cannot_be_written_out_is_said(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        expanded(path)


def test_the_working_directory_comes_before_the_clone(here: Path) -> None:
    assert resolve_path("configs/paper.yaml") == ROOT / "configs/paper.yaml"
    (here / "configs").mkdir()
    (here / "configs/paper.yaml").touch()
    assert resolve_path("configs/paper.yaml") == here / "configs/paper.yaml"
    assert resolve_path("nowhere/base") == here / "nowhere/base"


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "nowhere"])
def test_a_path_that_no_system_has_is_not_there(name: str) -> None:
    assert not is_there(Path(name))
    assert resolve_path(name) == Path.cwd() / name


def test_a_link_that_leads_nowhere_is_there(here: Path) -> None:
    (here / "loop").symlink_to(here / "loop")
    assert is_there(Path("loop"))
