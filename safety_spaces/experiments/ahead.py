"""What can be asked for ahead of the work: what it will take, and all that it needs from the network."""

import sys

from safety_spaces.data.datasets import read_rows
from safety_spaces.experiments.card_memory import check_memory
from safety_spaces.experiments.checks import check_inputs
from safety_spaces.experiments.command import Command, check_name
from safety_spaces.experiments.downloads import hub_data_sets, named_models
from safety_spaces.experiments.plan import plan
from safety_spaces.models.hub import fetch_model
from safety_spaces.models.roles import is_on_hub
from safety_spaces.progress import progress


def ahead(command: Command, *, needs_data: bool = True, needs_models: bool = True) -> bool:
    """Do what --plan or --download ask for in place of the work; say whether one of them was given.

    What the study names outside of itself is looked at first, also for work that `needs_data` or `needs_models`.

    Raises:
        UserError: something that the study names is not there, its name is that of another study, a training cannot fit
            on the card that it names, or something cannot be downloaded.
    """
    check_name(command)
    if needs_models or command.plan or command.download:
        command.roles.check_given()
    if needs_data or command.download or (command.plan and not command.geometry_only):
        check_inputs(command.roles, command.texts)
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
    models = [model for model in named_models(command.study) if is_on_hub(model[0])]
    for name, revision in progress(models, desc="models"):
        fetch_model(name, revision)
    for name in progress(hub_data_sets(command), desc="data sets"):
        read_rows(None, name)
