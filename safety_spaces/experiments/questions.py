"""What the models of a study are asked: word problems, multiple choice, prompts that a judge reads, prompt sets."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from safety_spaces.data.datasets import toxic_rows
from safety_spaces.data.selection import draw_rows, unique_prompts
from safety_spaces.data.table import Row
from safety_spaces.data.templates import Template
from safety_spaces.errors import UserError
from safety_spaces.evaluation.gold_answers import COLUMNS, check_choice, problems
from safety_spaces.experiments.command import Command
from safety_spaces.study import Harmfulness, Metric, OverRefusal, Selection

logger = logging.getLogger(__name__)

TOXIGEN = "toxigen"


def evaluation_template(command: Command) -> Template:
    """Return the template that harmful prompts and prompt sets are put in.

    Raises:
        UserError: it is that of the model, which has none.
    """
    return command.texts.template(command.study.prompt_template)


def utility_rows(command: Command) -> tuple[list[Row], list[Row]]:
    """Return the word problems of the utility metric, and those that worked examples are drawn from.

    Raises:
        UserError: a data set is missing or unlike its table entry.
    """
    settings = command.study.evaluation.utility
    return _problems(command, settings.dataset), _problems(command, settings.fewshot_dataset)


def _problems(command: Command, name: str) -> list[Row]:
    data_set = command.texts.data_set(name)
    if data_set.response is None:
        raise UserError(f"evaluation.utility: expected a data set with answers, got {name}, which has none")
    rows = command.texts.rows(name, data_set.texts)
    return problems(rows, question=data_set.prompt, answer=data_set.response, source=name)


def general_ability_rows(command: Command) -> tuple[list[Row], list[Row]]:
    """Return the questions of the general ability metric, and the worked examples of their subjects.

    Raises:
        UserError: a data set is missing or unlike its table entry.
    """
    settings = command.study.evaluation.general_ability
    assert settings is not None
    return _choices(command, settings.dataset), _choices(command, settings.fewshot_dataset)


def _choices(command: Command, name: str) -> list[Row]:
    rows = command.texts.rows(name, (*COLUMNS, "subject"))
    for row in rows:
        check_choice(row)
    return rows


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
    goals = _goals(command, settings)
    if isinstance(settings, Harmfulness) and settings.prompts == "published":
        goals = published_prompts(goals)
    return AskedPrompts(tuple(goals[: settings.limit]), evaluation_template(command), settings.max_new_tokens)


def _goals(command: Command, settings: Harmfulness | OverRefusal) -> list[str]:
    where = settings.where if isinstance(settings, OverRefusal) else None
    prompt = command.texts.data_set(settings.dataset).prompt
    return [row[prompt] for row in command.texts.rows(settings.dataset, (prompt,), where)]


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
    selection = command.study.activation_spaces.sets[name]
    return unique_prompts(_selected(command, selection), command.texts.data_set(selection.dataset))


def _selected(command: Command, selection: Selection) -> list[Row]:
    data_set = command.texts.data_set(selection.dataset)
    filters = selection.dataset == TOXIGEN and command.study.activation_spaces.toxigen == "toxic"
    columns = data_set.columns if filters else (data_set.prompt,)
    rows = command.texts.rows(selection.dataset, columns, selection.where)
    return toxic_rows(rows) if filters else rows


def data_uses(command: Command) -> Iterator[tuple[str, Mapping[str, Any], Callable[[], Any]]]:
    """Yield every data set that the study reads, the conditions on its rows, and what reads it as the work will."""
    study, evaluation = command.study, command.study.evaluation
    for name, corpus in command.texts.trained_corpora().items():
        yield corpus.dataset, corpus.where, partial(command.texts.drawn, name)
    for selection in study.activation_spaces.sets.values() if study.activation_spaces else ():
        yield selection.dataset, selection.where, partial(_selected, command, selection)
    if evaluation is None:
        return
    for dataset in (evaluation.utility.dataset, evaluation.utility.fewshot_dataset):
        yield dataset, {}, partial(_problems, command, dataset)
    if (ability := evaluation.general_ability) is not None:
        for dataset in (ability.dataset, ability.fewshot_dataset):
            yield dataset, {}, partial(_choices, command, dataset)
    yield evaluation.harmfulness.dataset, {}, partial(_goals, command, evaluation.harmfulness)
    if (refused := evaluation.over_refusal) is not None:
        yield refused.dataset, refused.where, partial(_goals, command, refused)
