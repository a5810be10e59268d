"""The prompt sets of the activation experiment."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from safety_spaces.data.datasets import toxic_rows
from safety_spaces.data.selection import draw_rows, unique_prompts
from safety_spaces.data.table import Row
from safety_spaces.data.texts import Texts
from safety_spaces.study import ActivationSpaces, Selection

logger = logging.getLogger(__name__)

TOXIGEN = "toxigen"


class Use(NamedTuple):
    """A data set, the values that columns of its rows must have, and what reads it as the work will."""

    dataset: str
    where: Mapping[str, Any]
    read: Callable[[], Any]


def prompt_set(texts: Texts, settings: ActivationSpaces, name: str) -> list[str]:
    """Return the prompts of a set, each once, the template applied.

    Public sets repeat prompts: where fewer are there than the study asks for, all are taken, and the log says so.
    Raises UserError when the data set is missing or unlike its table entry.
    """
    prompts = different_prompts(texts, settings, name)
    wanted = min(settings.prompts, len(prompts))
    if wanted < settings.prompts:
        logger.warning("warning: %s: %d prompts were asked for, all %d are taken", name, settings.prompts, wanted)
    template = texts.template(texts.study.prompt_template)
    return [template.apply(prompt) for prompt in draw_rows(prompts, wanted, seed=settings.sets[name].seed, name=name)]


def different_prompts(texts: Texts, settings: ActivationSpaces, name: str) -> list[str]:
    """Return all prompts that a set is drawn from, each once."""
    selection = settings.sets[name]
    return unique_prompts(_selected(texts, settings, selection), texts.data_set(selection.dataset))


def number_of_prompts(texts: Texts, settings: ActivationSpaces, name: str) -> int:
    """Return how many prompts a set has, at most where its data are not here."""
    selection = settings.sets[name]
    if texts.is_here(selection.dataset):
        return min(settings.prompts, len(different_prompts(texts, settings, name)))
    rows = texts.size(selection.dataset, selection.where)
    return settings.prompts if rows is None else min(settings.prompts, rows)


def reads_of_sets(texts: Texts, settings: ActivationSpaces) -> Iterator[Use]:
    """Yield what is read for each prompt set."""
    for selection in settings.sets.values():
        yield Use(selection.dataset, selection.where, partial(_selected, texts, settings, selection))


def _selected(texts: Texts, settings: ActivationSpaces, selection: Selection) -> list[Row]:
    data_set = texts.data_set(selection.dataset)
    filters = selection.dataset == TOXIGEN and settings.toxigen == "toxic"
    rows = texts.rows(selection.dataset, data_set.columns if filters else (data_set.prompt,), selection.where)
    return toxic_rows(rows) if filters else rows
