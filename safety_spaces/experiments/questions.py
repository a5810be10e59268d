"""What the models of a study are asked: word problems, multiple choice, prompts that a judge reads, prompt sets."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from safety_spaces.data.datasets import toxic_rows
from safety_spaces.data.selection import draw_rows, unique_prompts
from safety_spaces.data.table import Row, find_data_set
from safety_spaces.data.templates import Template
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.texts import data_rows, named_template
from safety_spaces.study import Harmfulness, Metric, OverRefusal

logger = logging.getLogger(__name__)

NO_TEMPLATE = "none"
TOXIGEN = "toxigen"


def evaluation_template(command: Command) -> Template:
    """Return the template that harmful prompts and prompt sets are put in.

    Raises:
        UserError: no template has the study's name, or the model has no chat template.
    """
    study = command.study
    return named_template(command, study.training.template if study.evaluation.template == "training" else NO_TEMPLATE)


def utility_rows(command: Command) -> tuple[list[Row], list[Row]]:
    """Return the word problems of the utility metric, and those that worked examples are drawn from.

    Raises:
        UserError: a data set is missing or unlike its table entry.
    """
    settings = command.study.evaluation.utility
    return data_rows(command, settings.dataset), data_rows(command, settings.fewshot_dataset)


def general_ability_rows(command: Command) -> tuple[list[Row], list[Row]]:
    """Return the questions of the general ability metric, and the worked examples of their subjects.

    Raises:
        UserError: a data set is missing or unlike its table entry.
    """
    settings = command.study.evaluation.general_ability
    assert settings is not None
    return data_rows(command, settings.dataset), data_rows(command, settings.fewshot_dataset)


@dataclass(frozen=True)
class AskedPrompts:
    """Prompts that a model answers freely: as a judge reads them, and the template that they are asked in."""

    goals: tuple[str, ...]
    template: Template
    max_new_tokens: int

    @property
    def texts(self) -> list[str]:
        """The texts that the model continues."""
        return [self.template.apply(goal) for goal in self.goals]


def asked_prompts(command: Command, metric: Metric) -> AskedPrompts:
    """Return the prompts of a judged metric: harmful ones for harmfulness, harmless ones for over_refusal.

    Raises:
        UserError: the data set is missing or unlike its table entry.
    """
    evaluation = command.study.evaluation
    settings = evaluation.over_refusal if metric == "over_refusal" else evaluation.harmfulness
    assert settings is not None
    where = settings.where if isinstance(settings, OverRefusal) else None
    prompt = find_data_set(settings.dataset).prompt
    goals = [row[prompt] for row in data_rows(command, settings.dataset, where)]
    if isinstance(settings, Harmfulness) and settings.prompts == "published":
        goals = published_prompts(goals)
    return AskedPrompts(tuple(goals[: settings.limit]), evaluation_template(command), settings.max_new_tokens)


def published_prompts(goals: Sequence[str]) -> list[str]:
    """Return the goals as the published code read them: the last one left out, each cut at its first comma."""
    return [goal.split(",")[0] for goal in goals[:-1]]


def activation_prompts(command: Command, name: str) -> list[str]:
    """Return the prompts of one prompt set of the activation experiment, each once, the template applied.

    Public sets repeat prompts: where fewer are there than the study asks for, all are taken, and the log says so.

    Raises:
        UserError: the data set is missing or unlike its table entry.
    """
    settings = command.study.activation_spaces
    selection, prompts = settings.sets[name], different_prompts(command, name)
    wanted = min(settings.prompts, len(prompts))
    if wanted < settings.prompts:
        logger.warning("warning: %s: %d prompts were asked for, all %d are taken", name, settings.prompts, wanted)
    template = evaluation_template(command)
    return [template.apply(prompt) for prompt in draw_rows(prompts, wanted, seed=selection.seed, name=name)]


def different_prompts(command: Command, name: str) -> list[str]:
    """Return all prompts that one prompt set of the activation experiment is drawn from, each once.

    Raises:
        UserError: the data set is missing or unlike its table entry.
    """
    settings = command.study.activation_spaces
    selection = settings.sets[name]
    rows = data_rows(command, selection.dataset, selection.where)
    if selection.dataset == TOXIGEN and settings.toxigen == "toxic":
        rows = toxic_rows(rows)
    return unique_prompts(rows, find_data_set(selection.dataset))
