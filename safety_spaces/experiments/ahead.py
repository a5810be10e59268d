"""What can be asked for ahead of the work: what it will take, and all that it needs from the network."""

import sys

from tqdm import tqdm

from safety_spaces.data.datasets import read_rows
from safety_spaces.experiments.checkpoints import check_given, is_on_hub
from safety_spaces.experiments.command import Command, check_name
from safety_spaces.experiments.inputs import check_inputs
from safety_spaces.experiments.plan import check_memory, plan
from safety_spaces.experiments.questions import data_uses
from safety_spaces.experiments.texts import data_path
from safety_spaces.hub import fetch_model
from safety_spaces.study import ClassifierJudge, Existing


def ahead(command: Command, *, needs_data: bool = True, needs_models: bool = True) -> bool:
    """Do what --plan or --download ask for in place of the work; say whether one of them was given.

    What the study names outside of itself is looked at first, also for work that `needs_data` or `needs_models`.

    Raises:
        UserError: something that the study names is not there, its name is that of another study, a training cannot fit
            on the card that it names, or something cannot be downloaded.
    """
    check_name(command)
    if needs_models or command.plan or command.download:
        check_given(command)
    if needs_data or command.plan or command.download:
        check_inputs(command)
    if command.plan:
        sys.stdout.write(f"{plan(command)}\n")
        check_memory(command)
    elif command.download:
        download(command)
    return command.plan or command.download


def download(command: Command) -> None:
    """Fetch every model and data set that the study names on the hub; files that are there are not fetched again.

    Raises:
        UserError: one cannot be had; which, and how it can.
    """
    study = command.study
    models = [(recipe.path, recipe.revision) for recipe in study.roles.values() if isinstance(recipe, Existing)]
    judges = study.evaluation.judges
    models += [(judge.name, judge.revision) for judge in judges if isinstance(judge, ClassifierJudge)]
    for path, revision in tqdm([model for model in models if is_on_hub(model[0])], "models", disable=None):
        fetch_model(path, revision)
    # The small world writes its own.
    names = sorted({name for name, *_ in data_uses(command)}) if study.world is None else []
    for name in tqdm(names, "data sets", disable=None):
        if data_path(command, name) is None:
            read_rows(None, name)
