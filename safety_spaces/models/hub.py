"""Models of the Hugging Face hub, used in place: the folder of the library's own cache, downloaded once."""

import re
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError

HUB_ID = re.compile(r"(?!.*(--|\.\.))(\w([\w.-]*\w)?/)?\w([\w.-]{0,94}\w)?", re.ASCII)
FILE_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".json", ".yaml", ".git")
LOCAL_FOLDERS = frozenset({"checkpoints", "data", "models", "output", "outputs", "results", "runs", "weights"})
"""Where people keep models: what lies below these, and is not there, is a mistake in a path and no id."""
WANTED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
UNWANTED_FILES = ("original/*", "consolidated*", "onnx/*")
"""Copies of the weights in the formats of other programs, in some repositories."""


def is_hub_id(name: str) -> bool:
    """Say whether a name has the form model or owner/model; a relative path may have it too."""
    is_local = name.split("/")[0] in LOCAL_FOLDERS or name.endswith(FILE_SUFFIXES)
    return HUB_ID.fullmatch(name) is not None and not is_local


def is_cached_data_set(name: str, revision: str) -> bool:
    """Say whether a data set is in the cache, whole or not; never asks the network."""
    return cached_model(name, revision, repo_type="dataset", allow_patterns=None, ignore_patterns=None) is not None


def cached_model(name: str, revision: str | None, **options: Any) -> Path | None:
    """Return the folder of a model that is in the cache, whole or not, else None; never asks the network."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(name, revision, local_files_only=True, **options)
    except LocalEntryNotFoundError:
        return None


def fetch_model(name: str, revision: str | None) -> Path:
    """Return the folder of a model of the hub, downloaded where it is not there; raises UserError when it cannot be."""
    import httpx2
    from huggingface_hub import errors

    page, here = f"https://huggingface.co/{name}", f"no {Path(name).absolute()}"
    try:
        return _snapshot(name, revision, local_files_only=False)
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name}: expected a model that may be downloaded, its owner grants access on request; ask for it at "
            f"{page} and log in with `hf auth login`, or name a local folder"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name}: expected a revision of this model, got {revision}; correct it") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: expected a folder or a model of the hub, found neither ({here}); correct the path"
        ) from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, httpx2.TransportError) as error:
        raise UserError(
            f"{name}: expected a folder, a downloaded model or a network, found none ({here}, and the hub is not "
            "reached); run once with --download where there is a network, or name a local folder (some owners grant "
            f"access on request, at {page})"
        ) from error
    except OSError as error:
        raise UserError(f"{name}: cannot be downloaded ({error.strerror or error}); free disk space") from error


def _snapshot(name: str, revision: str | None, **options: Any) -> Path:
    from huggingface_hub import snapshot_download

    patterns = {"allow_patterns": list(WANTED_FILES), "ignore_patterns": list(UNWANTED_FILES)}
    return Path(snapshot_download(name, revision=revision, **(patterns | options)))
