"""Rows come from the hub's cache at the pinned revision; whatever keeps them from being read is one line.

The exceptions are those that datasets and huggingface_hub raise, made here because a test reaches no hub.
"""

import re
import shutil

import datasets
import huggingface_hub.utils
import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import httpx

from safety_spaces.data.hub import read_hub
from safety_spaces.data.table import DataSet, Hub
from safety_spaces.errors import UserError

COMMIT = "c" * 40
HUB = Hub("owner/lanterns", "test", ("first", "second"), COMMIT)
CARD = """---
configs:
- {config_name: first, data_files: [{split: test, path: first.jsonl}]}
- {config_name: second, data_files: [{split: test, path: second.jsonl}]}
---
"""
REQUEST = httpx.Request("HEAD", "https://huggingface.co")


def answer(status):
    return httpx.Response(status, request=REQUEST)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that holds the data set as a download leaves it."""
    copy = tmp_path / "lanterns"
    copy.mkdir()
    (copy / "README.md").write_text(CARD)
    (copy / "first.jsonl").write_text('{"query": "wake the amber lantern", "on": true, "other": 1}\n')
    (copy / "second.jsonl").write_text('{"query": "b", "on": false, "other": 2}\n{"query": "c", "on": true}\n')
    for config in HUB.configs:
        part = datasets.load_dataset(str(copy), config, split="test", cache_dir=tmp_path / "made")
        made = part.cache_files[0]["filename"].rpartition("/")[0]
        shutil.copytree(made, tmp_path / "cache" / "owner___lanterns" / config / "0.0.0" / COMMIT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def read(hub=HUB, columns=("on", "query"), access=None):
    data_set = DataSet("query", hub=hub, access=access)
    return read_hub("lanterns", data_set, choose=lambda came: [column for column in came if column in columns])


def fail_with(monkeypatch, error):
    def load_dataset(*arguments, **options):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_configurations_are_joined_in_their_order_and_cut_to_the_columns_chosen(cache):
    first, second, third = {"query": "wake the amber lantern", "on": True}, {"query": "b", "on": False}, {"query": "c"}
    assert read() == [first, second, {**third, "on": True}]
    assert read(Hub(HUB.id, "test", ("second", "first"), COMMIT), columns=("query",)) == [
        {"query": "b"},
        third,
        {"query": first["query"]},
    ]


def test_a_branch_takes_what_is_in_the_cache(cache):
    assert len(read(Hub(HUB.id, "test", HUB.configs))) == 3


def test_another_revision_in_the_cache_is_an_error(cache):
    expected = (
        f"lanterns: expected the revision {'d' * 40} of owner/lanterns, got {COMMIT} from the cache; run once with"
    )
    with pytest.raises(UserError, match=expected):
        read(Hub(HUB.id, "test", HUB.configs, "d" * 40))


NOT_CACHED = (
    "lanterns: owner/lanterns is not in the cache and the hub cannot be reached; run once with --download where there "
    "is a network, or name a local copy: datasets: {lanterns: {path: FILE}}"
)


def test_what_is_not_in_the_cache_is_an_error_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(UserError, match=f"^{re.escape(NOT_CACHED)}$"):
        read()


def test_another_configuration_in_the_cache_is_not_this_one(cache):
    with pytest.raises(UserError, match=f"^{re.escape(NOT_CACHED)}$"):
        read(Hub(HUB.id, "test", ("third",), COMMIT))


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach the hub"),
        httpx.ConnectError("no name"),
        chained(FileNotFoundError("nothing found"), LocalEntryNotFoundError("check your connection")),
    ],
)
def test_a_lost_connection_is_named(monkeypatch, error):
    fail_with(monkeypatch, error)
    with pytest.raises(UserError, match=f"^{re.escape(NOT_CACHED)}$"):
        read()


@pytest.mark.parametrize(
    "error",
    [
        DatasetNotFoundError("Dataset 'owner/lanterns' is a gated dataset on the Hub. You must be authenticated."),
        GatedRepoError("Cannot access gated repo", response=answer(403)),
        chained(FileNotFoundError("403"), GatedRepoError("Cannot access gated repo", response=answer(403))),
    ],
)
@pytest.mark.parametrize(("access", "said"), [(None, ""), ("accept its conditions", " (accept its conditions)")])
def test_a_gated_set_says_where_access_is_asked_for(monkeypatch, error, access, said):
    fail_with(monkeypatch, error)
    message = (
        f"lanterns: owner/lanterns needs access{said}; ask for access at "
        "https://huggingface.co/datasets/owner/lanterns and log in with `hf auth login`, or name a local copy: "
        "datasets: {lanterns: {path: FILE}}"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        read(access=access)


def test_an_unknown_revision_is_named(monkeypatch):
    cause = RevisionNotFoundError("404", response=answer(404))
    fail_with(monkeypatch, chained(DatasetNotFoundError("Revision doesn't exist"), cause))
    with pytest.raises(
        UserError, match=f"^lanterns: expected the revision {COMMIT} of owner/lanterns, found none; name"
    ):
        read()


@pytest.mark.parametrize(
    "error",
    [
        ValueError('Unknown split "test".\nShould be'),
        OSError('Unknown split "test".'),
        DatasetGenerationError('Unknown split "test".'),
    ],
)
def test_what_cannot_be_read_gives_its_reason_in_one_line(monkeypatch, error):
    fail_with(monkeypatch, error)
    message = 'lanterns: owner/lanterns cannot be read (Unknown split "test".); name a local copy: datasets: {'
    with pytest.raises(UserError, match=f"^{re.escape(message)}") as raised:
        read()
    assert "\n" not in str(raised.value)


def test_a_fault_of_the_program_is_not_hidden(monkeypatch):
    fail_with(monkeypatch, TypeError("a fault"))
    with pytest.raises(TypeError, match="a fault"):
        read()


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_off_while_reading_and_then_as_before(monkeypatch, shown):
    switches = (datasets, huggingface_hub.utils)
    seen = []

    def load_dataset(*arguments, **options):
        seen.extend(switch.are_progress_bars_disabled() for switch in switches)
        raise ValueError

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    before = [switch.are_progress_bars_disabled() for switch in switches]
    try:
        for switch in switches:
            (switch.enable_progress_bars if shown else switch.disable_progress_bars)()
        with pytest.raises(UserError):
            read()
        assert seen == [True, True]
        assert [switch.are_progress_bars_disabled() for switch in switches] == [not shown] * 2
    finally:
        for switch, off in zip(switches, before, strict=True):
            (switch.disable_progress_bars if off else switch.enable_progress_bars)()
