"""What a study does one by one, and what of it is left: found by the keys of what is done. Imports no torch.

Keys need what the checkpoints are, so of a seed whose checkpoints are not all there everything is left.
"""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain, product
from typing import NamedTuple

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.experiments.projection.answers import has_answers
from safety_spaces.experiments.projection.cells import Cell, belongs_to_first_seed, cells
from safety_spaces.experiments.projection.stage import wanted_energies, wanted_scores
from safety_spaces.experiments.state_keys import answer_tokens, is_answered, state_file, states_folders, wanted_overlaps
from safety_spaces.experiments.update_spaces import wanted_overlaps as wanted_update_overlaps
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import Roles
from safety_spaces.study import Metric, Position, Study

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """What a study, or what is left of it, does one by one."""

    energies: Sequence[tuple[int, str]] = ()
    """Seeds and tasks."""
    scores: Sequence[tuple[Cell, Metric]] = ()
    answers: Sequence[tuple[Cell, Metric]] = ()
    overlaps: Sequence[int] = ()
    """Seeds whose overlaps of updates are measured."""
    generated: Sequence[str] = ()
    """Prompt sets that a checkpoint answers before its states are read."""
    read: Sequence[str] = ()
    states: Sequence[tuple[str, Position]] = ()


def _joined(parts: Iterable[Work]) -> Work:
    return Work(*(list(chain.from_iterable(of)) for of in zip(*parts, strict=True)))


def whole_work(study: Study, *, seeds: Sequence[int] | None = None, geometry_only: bool = False) -> Work:
    """Return all that a study does in its seeds, or in those that are given; with `geometry_only` no model is asked."""
    seeds = study.seeds if seeds is None else seeds
    energies = [(seed, task) for seed in seeds for task in study.tasks]
    overlaps = [*seeds] if study.update_spaces else []
    if geometry_only:
        return Work(energies, overlaps=overlaps)
    scores = [(cell, metric) for seed in seeds for cell, metrics in cells(study, seed).items() for metric in metrics]
    answers = [one for one in scores if not belongs_to_first_seed(study, one[0])]
    settings = study.activation_spaces
    read = [name for _ in seeds for _ in settings.checkpoints for name in settings.sets] if settings else []
    states = [(name, position) for name in read for position in settings.positions] if settings else []
    return Work(energies, scores, answers, overlaps, [] if answer_tokens(study) is None else read, read, states)


def work_left(roles: Roles, texts: Texts, *, geometry_only: bool = False) -> Work:
    """Return what of a study is not done yet; a warning says where that cannot be found out, and then all is left."""
    return _joined([_left_of_seed(roles, texts, seed, geometry_only) for seed in roles.study.seeds])


def _left_of_seed(roles: Roles, texts: Texts, seed: int, geometry_only: bool) -> Work:
    folders = [roles.folder(role, seed) for role in roles.study.roles]
    # Keys need every checkpoint read whole, and nothing can be done without any cell.
    if any(roles.layout.cells(seed).glob("*.json")) and all(map(is_checkpoint, folders)):
        try:
            asked = [] if geometry_only else [_scores_left(roles, texts, seed), *_states_left(roles, texts, seed)]
            return _joined([_geometry_left(roles, seed), *asked])
        except UserError as error:
            logger.warning("warning: seed %d: what is done is not taken off: %s", seed, error)
    return whole_work(roles.study, seeds=[seed], geometry_only=geometry_only)


def _geometry_left(roles: Roles, seed: int) -> Work:
    settings = roles.study.update_spaces
    overlaps = wanted_update_overlaps(roles, settings, [seed]).missing() if settings else []
    return Work(energies=wanted_energies(roles, [seed]).missing(), overlaps=overlaps)


def _scores_left(roles: Roles, texts: Texts, seed: int) -> Work:
    missing = wanted_scores(roles, texts, [seed]).missing()
    own = [score for score in missing if not belongs_to_first_seed(roles.study, score.cell)]
    unanswered = [score for score in own if not has_answers(roles.layout, seed, score.answers)]
    scores, answers = ([(one.cell, one.metric) for one in some] for some in (missing, unanswered))
    return Work(scores=scores, answers=answers)


def _states_left(roles: Roles, texts: Texts, seed: int) -> list[Work]:
    """What is left of each checkpoint's states: files stay where another overlap of them is asked for."""
    settings, evaluation = roles.study.activation_spaces, roles.study.evaluation
    if settings is None or evaluation is None:
        return []
    prompts = {name: prompt_set(texts, settings, name) for name in settings.sets}
    missing = wanted_overlaps(roles, settings, evaluation, prompts, [seed]).missing()
    parts = []
    for role in settings.checkpoints:
        folders = states_folders(roles, evaluation, seed, role, prompts)
        positions = [one.position for one in missing if one.role == role]
        states = [one for one in product(folders, positions) if not state_file(folders[one[0]], one[1]).is_file()]
        read = list(dict.fromkeys(name for name, _ in states))
        asks = answer_tokens(roles.study) is not None
        generated = [name for name in read if asks and not is_answered(folders[name])]
        parts.append(Work(generated=generated, read=read, states=states))
    return parts
