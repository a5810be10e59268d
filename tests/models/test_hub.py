"""A model of the hub is a folder of the cache, or one line that says how to get it."""

from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors

from safety_spaces.errors import UserError
from safety_spaces.models.hub import cached_model, fetch_model, is_hub_id

NAME = "somebody/some-model"


@pytest.mark.parametrize(
    ("name", "is_id"),
    [
        (NAME, True),
        ("a.b/c_d-1.5B", True),
        ("model", True),
        ("gpt2", True),
        ("a/b/c", False),
        ("a/b/", False),
        ("checkpoints/base", False),
        ("models/llama", False),
        ("runs", False),
        ("model.gguf", False),
        ("a/model.safetensors", False),
        ("a--b/c", False),
        ("a..b", False),
        ("~/a", False),
        ("$HOME/a", False),
        ("a\nb/c", False),
        ("größe/modell", False),
        ("a" * 97, False),
        ("/a/b", False),
        ("./a/b", False),
        ("./a", False),
        ("../a", False),
    ],
)
def test_a_hub_id_is_a_model_or_an_owner_and_a_model(name, is_id):
    assert is_hub_id(name) == is_id


def answer(monkeypatch, downloaded: BaseException | str, cached: str | None = None) -> list[dict]:
    """Let the library's download return a folder or raise; without a network it finds `cached` or nothing."""
    calls = []

    def snapshot_download(name, **options):
        calls.append({"name": name, **options})
        if options["local_files_only"]:
            if cached is None:
                raise errors.LocalEntryNotFoundError("nothing here")
            return cached
        if isinstance(downloaded, BaseException):
            raise downloaded
        return downloaded

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def refused(kind: type[errors.HfHubHTTPError]) -> errors.HfHubHTTPError:
    request = httpx2.Request("GET", "https://huggingface.co")
    return kind("no", response=httpx2.Response(403, request=request))


def test_a_cached_model_needs_no_network(monkeypatch):
    calls = answer(monkeypatch, AssertionError("asked the network"), cached="/cache/model")
    assert cached_model(NAME, "abc") == Path("/cache/model")
    assert {call["revision"] for call in calls} == {"abc"}
    assert all("*.safetensors" in call["allow_patterns"] for call in calls)


def test_a_model_that_is_not_there_is_downloaded(monkeypatch):
    answer(monkeypatch, "/cache/new")
    assert cached_model(NAME, None) is None
    assert fetch_model(NAME, None) == Path("/cache/new")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refused(errors.GatedRepoError), "ask for it at https://huggingface.co/somebody/some-model and log in"),
        (refused(errors.RepositoryNotFoundError), "expected a folder or a model of the hub, found neither"),
        (refused(errors.RevisionNotFoundError), "expected a revision of this model, got abc"),
        (refused(errors.HfHubHTTPError), "expected a folder, a downloaded model or a network, found none"),
        (errors.LocalEntryNotFoundError("no"), f"no {Path(NAME).absolute()}, and the hub is not reached"),
        (refused(errors.RepositoryNotFoundError), f"found neither .no {Path(NAME).absolute()}"),
        (errors.LocalEntryNotFoundError("no"), "run once with --download where there is a network"),
        (httpx2.ReadTimeout("the line is dead"), "some owners grant access on request, at https://huggingface.co/some"),
        (OSError(28, "No space left on device"), "cannot be downloaded .No space left on device.; free disk space"),
    ],
)
def test_what_cannot_be_had_is_one_line(monkeypatch, error, message):
    answer(monkeypatch, error)
    with pytest.raises(UserError, match=message) as raised:
        fetch_model(NAME, "abc")
    assert str(raised.value).startswith(f"{NAME}: ")
    assert "\n" not in str(raised.value)


def test_without_a_network_the_library_itself_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="run once with --download where there is a network"):
        fetch_model(NAME, None)
