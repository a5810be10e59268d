"""What a study takes from the hub: models and data sets, and which of them their owners give out on request."""

from safety_spaces.data.table import find_data_set
from safety_spaces.experiments.checks import data_uses
from safety_spaces.experiments.command import Command
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.hub import cached_model, is_cached_data_set, is_gated
from safety_spaces.models.roles import is_on_hub
from safety_spaces.study import ClassifierJudge, Existing, Study


def named_models(study: Study) -> list[tuple[str, str | None]]:
    """Return path and revision of every model that a study is given, each once: roles and judges."""
    models = [(recipe.path, recipe.revision) for recipe in study.roles.values() if isinstance(recipe, Existing)]
    models += [(judge.name, judge.revision) for judge in study.judges if isinstance(judge, ClassifierJudge)]
    return list(dict.fromkeys(models))


def hub_data_sets(command: Command) -> list[str]:
    """Return every data set that is read from the hub. The small world writes its own."""
    names = sorted({name for name, *_ in data_uses(command.texts)}) if command.study.world is None else []
    return [name for name in names if command.texts.path(name) is None]


def downloads(command: Command) -> tuple[list[str], list[str]]:
    """Return the models and the data sets that the cache of this machine does not have; nothing is asked of the hub."""
    given = [model for model in named_models(command.study) if is_on_hub(model[0])]
    models = [name for name, revision in given if not _is_whole(name, revision)]
    hubs = {name: find_data_set(name).hub for name in hub_data_sets(command)}
    return models, [name for name, hub in hubs.items() if hub and not is_cached_data_set(hub.id, hub.revision)]


def _is_whole(name: str, revision: str | None) -> bool:
    folder = cached_model(name, revision)
    return folder is not None and is_checkpoint(folder)


def on_request(models: list[str], data_sets: list[str]) -> list[str]:
    """Return the pages where access has to be asked for, of those that are to be downloaded."""
    pages = [name for name in models if is_gated(name)]
    hubs = [data_set.hub for name in data_sets if (data_set := find_data_set(name)).access]
    return [f"https://huggingface.co/{page}" for page in (*pages, *(f"datasets/{hub.id}" for hub in hubs if hub))]
