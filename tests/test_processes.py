"""Work is divided by number alone: nothing twice, nothing left out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_spaces.errors import UserError
from safety_spaces.processes import Processes, all_found, processes


@given(items=st.lists(st.integers(), max_size=20), count=st.integers(1, 5))
def test_the_shares_of_all_processes_are_the_whole(items, count):
    shares = [Processes(index, count).share(items) for index in range(count)]
    assert sorted(item for share in shares for item in share) == sorted(items)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_launcher_says_which_process_this_is(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes() == Processes(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="RANK= WORLD_SIZE=3: expected numbers"):
        processes()
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert processes() == Processes(2, 3)
    assert not processes().is_first


@pytest.mark.parametrize(("rank", "size"), [("3", "3"), ("-1", "2"), ("one", "2"), ("0", "")])
def test_a_number_that_cannot_be_is_refused(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(UserError, match=f"RANK={rank} WORLD_SIZE={size}: expected numbers with 0 <= RANK < WORLD_SIZE"):
        processes()


def test_passes_are_shared_out_equally():
    assert Processes(1, 3).passes_of_each(6, name="useful") == 2
    message = "useful: expected training.accumulation to be a multiple of the 4 processes, got 6"
    with pytest.raises(UserError, match=message):
        Processes(0, 4).passes_of_each(6, name="useful")


def test_results_are_whole_or_left_to_others(caplog):
    caplog.set_level("INFO")
    assert all_found({"a": 1, "b": 0}) == {"a": 1, "b": 0}
    assert not caplog.messages
    assert all_found({"a": 1, "b": None, "c": None}) is None
    assert "2 results are left to other processes; the last one writes the tables" in caplog.messages[0]
