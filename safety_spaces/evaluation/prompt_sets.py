"""The prompt sets of the activation experiment."""

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from safety_spaces.data.datasets import toxic_rows
from safety_spaces.data.selection import draw_rows, unique_prompts
from safety_spaces.data.texts import Texts
from safety_spaces.study import ActivationSpaces

logger = logging.getLogger(__name__)


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
    data_set = texts.data_set(selection.dataset)
    is_filtered = selection.dataset == "toxigen" and settings.toxigen == "toxic"
    columns = data_set.columns if is_filtered else (data_set.prompt,)
    rows = texts.rows(selection.dataset, columns, selection.where)
    return unique_prompts(toxic_rows(rows) if is_filtered else rows, data_set)


def number_of_prompts(texts: Texts, settings: ActivationSpaces, name: str) -> int:
    """Return how many prompts a set has, at most where its data are not here."""
    dataset, where = settings.sets[name].dataset, settings.sets[name].where
    is_here = texts.is_here(dataset)
    found = len(different_prompts(texts, settings, name)) if is_here else texts.size(dataset, where)
    return settings.prompts if found is None else min(settings.prompts, found)


def reads_of_sets(texts: Texts, settings: ActivationSpaces) -> Iterator[Use]:
    """Yield what is read for each prompt set."""
    for name, selection in settings.sets.items():
        yield Use(selection.dataset, selection.where, partial(different_prompts, texts, settings, name))
