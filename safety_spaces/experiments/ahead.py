"""What can be asked for ahead of the work: what it will take, and all that it needs from the network."""

import sys
from collections.abc import Iterator

from safety_spaces.data.datasets import read_rows
from safety_spaces.experiments.checkpoints import is_on_hub
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.inputs import check_inputs
from safety_spaces.experiments.plan import check_memory, plan
from safety_spaces.experiments.texts import data_path
from safety_spaces.hub import fetch_model
from safety_spaces.progress import progress
from safety_spaces.study import ClassifierJudge, Existing, SingleCorpus, Study


def ahead(command: Command, *, needs_data: bool = True) -> bool:
    """Do what --plan or --download ask for in place of the work; say whether one of them was given.

    What the study names outside of itself is looked at first, also for work that `needs_data`.

    Raises:
        UserError: something that the study names is not there, a training cannot fit on the card that it names, or
            something cannot be downloaded.
    """
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
    for path, revision in progress([model for model in models if is_on_hub(model[0])], desc="models"):
        fetch_model(path, revision)
    # The small world writes its own.
    for name in progress(sorted(set(_data_sets(study))) if study.world is None else [], desc="data sets"):
        if data_path(command, name) is None:
            read_rows(None, name)


def _data_sets(study: Study) -> Iterator[str]:
    yield from (corpus.dataset for corpus in study.corpora.values() if isinstance(corpus, SingleCorpus))
    yield from (selection.dataset for selection in study.activation_spaces.sets.values())
    evaluation = study.evaluation
    yield from (evaluation.utility.dataset, evaluation.utility.fewshot_dataset, evaluation.harmfulness.dataset)
    if (ability := evaluation.general_ability) is not None:
        yield from (ability.dataset, ability.fewshot_dataset)
    if evaluation.over_refusal is not None:
        yield evaluation.over_refusal.dataset
