"""What the results of experiment 4 are found by, and where the hidden states lie. No torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_jsonable_python

from safety_spaces.experiments.stage import Wanted
from safety_spaces.models.roles import Roles
from safety_spaces.store import Cells, digest
from safety_spaces.study import ActivationSpaces, Evaluation, Position, Study

Prompts = Mapping[str, list[str]]
"""The prompts of each prompt set."""

ANSWERS = "answers"
"""File of the generated tokens beside the states: the hours of a study, and other positions need them again."""


class Compared(NamedTuple):
    """One result: the overlaps of a checkpoint's states at a position."""

    seed: int
    role: str
    position: Position


def wanted_overlaps(
    roles: Roles,
    settings: ActivationSpaces,
    evaluation: Evaluation,
    prompts: Prompts,
    seeds: Sequence[int] | None = None,
) -> Wanted[Compared]:
    """Return the results of the experiment: their keys hold position, energy levels and the states compared."""
    keys = {}
    for seed in roles.study.seeds if seeds is None else seeds:
        for role in settings.checkpoints:
            folders = states_folders(roles, evaluation, seed, role, prompts)
            states = [(name, folder.name) for name, folder in folders.items()]
            for position in settings.positions:
                key = digest(["activation_spaces", to_jsonable_python(position), states, settings.etas])
                keys[Compared(seed, role, position)] = (seed, key)
    return Wanted(roles, keys)


def states_folders(roles: Roles, evaluation: Evaluation, seed: int, role: str, prompts: Prompts) -> dict[str, Path]:
    """Return the folder of each prompt set's hidden states: one for a forward pass, whichever positions are read of it.

    Raises UserError when a checkpoint is missing.
    """
    study = roles.study
    new_tokens = answer_tokens(study)
    forward = {
        # A longer text, or another batch, changes the last digits of states that it need not change.
        "answers": None if new_tokens is None else [new_tokens, evaluation.generation.engine],
        "batch_size": evaluation.batch_size,
        "weights_dtype": study.projection.weights_dtype,
        "threads": study.threads,
        "checkpoint": roles.identity(role, seed),
    }
    every = roles.layout.states(seed)
    return {name: every / digest(["states", forward, texts]) for name, texts in prompts.items()}


def state_file(folder: Path, position: Position) -> Path:
    """Return the file of the states of one prompt set at a position."""
    return folder / f"{position.name}.npy"


def is_answered(folder: Path) -> bool:
    """Say whether the answers to one prompt set, whose states are read in a folder, are there."""
    return Cells(folder).get(ANSWERS) is not None


def answer_tokens(study: Study) -> int | None:
    """Return how many tokens a model answers at most before its states are read; None where no answer is read.

    Windows need no token beyond the last of them, and are the same in longer answers; the last token needs all.
    """
    if study.activation_spaces is None or study.evaluation is None:
        return None
    needed = [position.answer_tokens for position in study.activation_spaces.positions if position.reads_answer]
    return study.evaluation.harmfulness.max_new_tokens if None in needed else max(filter(None, needed), default=None)
