"""What a study does one by one, and what of it is left: found by the keys of what is done. Imports no torch.

Keys need what the checkpoints are, so of a seed whose checkpoints are not all there everything is left.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from safety_spaces.errors import UserError
from safety_spaces.evaluation.positions import position_name
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.experiments.activation_spaces import ANSWERS, Prompts, answer_tokens, overlap_keys, states_keys
from safety_spaces.experiments.answers import has_answers
from safety_spaces.experiments.cells import Cell, belongs_to_first_seed, energy_key, scored_cells, scores
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.projection import find_result
from safety_spaces.experiments.update_spaces import overlap_key
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.store import Cells
from safety_spaces.study import Metric, Position

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
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


def whole_work(command: Command, seeds: Sequence[int] | None = None) -> Work:
    """Return all that a study does in its seeds, or in those that are given; with --geometry-only no model is asked."""
    study = command.study
    seeds = study.seeds if seeds is None else seeds
    geometry = Work(
        energies=[(seed, task) for seed in seeds for task in study.tasks],
        overlaps=[] if study.update_spaces is None else list(seeds),
    )
    if command.geometry_only:
        return geometry
    scored = [one for seed in seeds for one in scored_cells(command, seed)]
    asked = replace(
        geometry, scores=scored, answers=[one for one in scored if not belongs_to_first_seed(study, one[0])]
    )
    if (settings := study.activation_spaces) is None:
        return asked
    read = [name for _ in seeds for _ in settings.checkpoints for name in settings.sets]
    return replace(
        asked,
        generated=[] if answer_tokens(study) is None else read,
        read=read,
        states=[(name, position) for name in read for position in settings.positions],
    )


def work_left(command: Command) -> Work:
    """Return what of a study is not done yet; a warning says where that cannot be found out, and then all is left."""
    parts = [_left_of_seed(command, seed) for seed in command.study.seeds]
    return Work(**{field.name: [one for part in parts for one in getattr(part, field.name)] for field in fields(Work)})


def _left_of_seed(command: Command, seed: int) -> Work:
    folders = [command.roles.folder(role, seed) for role in command.study.roles]
    # Keys need every checkpoint read whole, and nothing can be done without any cell.
    if not any(command.layout.cells(seed).glob("*.json")) or not all(map(is_checkpoint, folders)):
        return whole_work(command, [seed])
    try:
        geometry = _geometry_left(command, seed)
        return geometry if command.geometry_only else _asked_left(command, seed, geometry)
    except UserError as error:
        logger.warning("warning: seed %d: what is done is not taken off: %s", seed, error)
        return whole_work(command, [seed])


def _geometry_left(command: Command, seed: int) -> Work:
    study, done = command.study, Cells(command.layout.cells(seed))
    settings = study.update_spaces
    return Work(
        energies=[(seed, task) for task in study.tasks if done.get(energy_key(command, seed, task)) is None],
        overlaps=[seed] if settings and done.get(overlap_key(command, settings, seed)) is None else [],
    )


def _asked_left(command: Command, seed: int, geometry: Work) -> Work:
    missing = [score for score in scores(command, seed) if find_result(command, score) is None]
    asked = [
        (score.cell, score.metric)
        for score in missing
        if not belongs_to_first_seed(command.study, score.cell) and not has_answers(command, seed, score.answers)
    ]
    unasked = replace(geometry, scores=[(score.cell, score.metric) for score in missing], answers=asked)
    if (settings := command.study.activation_spaces) is None:
        return unasked
    prompts = {name: prompt_set(command.texts, settings, command.study.evaluation, name) for name in settings.sets}
    reads = [_states_left(command, seed, role, prompts) for role in settings.checkpoints]
    return replace(
        unasked,
        generated=[name for part in reads for name in part.generated],
        read=[name for part in reads for name in part.read],
        states=[one for part in reads for one in part.states],
    )


def _states_left(command: Command, seed: int, role: str, prompts: Prompts) -> Work:
    """What is left of the states of one checkpoint: files stay where another overlap of them is asked for."""
    done = Cells(command.layout.cells(seed))
    positions = [place for place, key in overlap_keys(command, seed, role, prompts).items() if done.get(key) is None]
    folders = {
        name: command.layout.states(seed) / key for name, key in states_keys(command, seed, role, prompts).items()
    }
    states = [
        (name, position)
        for name, folder in folders.items()
        for position in positions
        if not (folder / f"{position_name(position)}.npy").is_file()
    ]
    read = list(dict.fromkeys(name for name, _ in states))
    answered = [name for name in read if Cells(folders[name]).get(ANSWERS) is not None]
    generated = [] if answer_tokens(command.study) is None else [name for name in read if name not in answered]
    return Work(generated=generated, read=read, states=states)
