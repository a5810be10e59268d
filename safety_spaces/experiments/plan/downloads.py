"""What a study takes from the hub: models and data sets, and which of them their owners give out on request."""

from collections.abc import Sequence

from safety_spaces.data.datasets import read_rows
from safety_spaces.data.table import find_data_set
from safety_spaces.data.texts import Texts
from safety_spaces.experiments.checks import data_uses
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.hub import cached_model, fetch_model, is_cached_data_set
from safety_spaces.models.roles import is_on_hub
from safety_spaces.progress import progress
from safety_spaces.study import Study

GATED = ("meta-llama/", "google/gemma-", "cohereforai/", "coherelabs/")
"""Beginnings of the names of models whose owners ask for a consent first."""


def download(texts: Texts) -> None:
    """Fetch every model and data set that the study names on the hub; files that are there are not fetched again.

    Raises UserError when one cannot be had: which, and how it can.
    """
    for name, revision in progress(_models(texts.study), desc="models"):
        fetch_model(name, revision)
    for name in progress(_data_sets(texts), desc="data sets"):
        read_rows(None, name)


def _models(study: Study) -> list[tuple[str, str | None]]:
    """Path and revision of every model of the hub that a study is given, each once: roles and judges."""
    models = [(recipe.path, recipe.revision) for recipe in study.given_roles.values()]
    models += [(judge.name, judge.revision) for judge in study.classifiers]
    return [model for model in dict.fromkeys(models) if is_on_hub(model[0])]


def _data_sets(texts: Texts) -> list[str]:
    """Every data set that is read from the hub. The small world writes its own."""
    names = sorted({use.dataset for use in data_uses(texts)}) if texts.study.world is None else []
    return [name for name in names if texts.path(name) is None]


def missing_models(study: Study) -> list[str]:
    """Return the models that the cache of this machine does not have whole; nothing is asked of the hub."""
    folders = {name: cached_model(name, revision) for name, revision in _models(study)}
    return [name for name, folder in folders.items() if folder is None or not is_checkpoint(folder)]


def missing_data_sets(texts: Texts) -> list[str]:
    """Return the data sets that the cache of this machine does not have; nothing is asked of the hub."""
    hubs = {name: find_data_set(name).hub for name in _data_sets(texts)}
    return [name for name, hub in hubs.items() if hub and not is_cached_data_set(hub.id, hub.revision)]


def on_request(models: Sequence[str], data_sets: Sequence[str]) -> list[str]:
    """Return the pages where access has to be asked for, of those that are to be downloaded."""
    pages = [name for name in models if name.lower().startswith(GATED)]
    hubs = [data_set.hub for name in data_sets if (data_set := find_data_set(name)).access]
    return [f"https://huggingface.co/{page}" for page in (*pages, *(f"datasets/{hub.id}" for hub in hubs if hub))]
