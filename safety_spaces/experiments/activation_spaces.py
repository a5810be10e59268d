"""Experiment 4: overlap of the subspaces of hidden states (paper, Section 6, Appendix K).

What is already done is decided here, before torch is imported; what is missing is measured by `state_overlaps`.
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.evidence.tables import ACTIVATION_SPACES
from safety_spaces.experiments.command import Command, is_recorded, record
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.processes import all_found, processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage, write_table
from safety_spaces.store import Cells, digest, one_at_a_time
from safety_spaces.study import Position, Study, TokenWindow

logger = logging.getLogger(__name__)

Prompts = Mapping[str, list[str]]
"""The prompts of each prompt set."""

ANSWERS = "answers"
"""File of the generated tokens beside the states: the hours of a study, and other positions need them again."""


def compare_activations(command: Command) -> list[Path]:
    """Measure the missing overlaps of every seed and checkpoint, write activation_spaces.csv; return the file written.

    A study that compares none writes nothing.

    Raises:
        UserError: a checkpoint is missing, a prompt set has too few unique prompts, or no token at a position.
    """
    study, layout, settings = command.study, command.layout, command.study.activation_spaces
    if settings is None:
        logger.info("study %s compares no activations: its activation_spaces is null", study.name)
        return []
    prompts = {name: prompt_set(command.texts, settings, study.evaluation, name) for name in settings.sets}
    wanted = [(seed, role) for seed in study.seeds for role in settings.checkpoints]
    with Stage() as stage:
        missing = [one for one in processes().share(wanted) if _missing(command, *one, prompts)]
        jobs = [
            Job(f"states of {role}, seed {seed}", partial(_measure, command, seed, role, prompts))
            for seed, role in missing
        ]
        do_jobs(command, jobs, desc="states", stage=stage)
    found = all_found(
        {
            (seed, role, position): Cells(layout.cells(seed)).get(key)
            for seed, role in wanted
            for position, key in overlap_keys(command, seed, role, prompts).items()
        }
    )
    if found is None:
        return []
    with one_at_a_time(layout.lock):
        if missing or not is_recorded(command, "activation_spaces"):
            sources = [result["sources"] for result in found.values()]
            taken = {name: {"prompts": len(texts), "digest": digest(texts)} for name, texts in prompts.items()}
            record(command, "activation_spaces", stage, sources=sources, prompt_sets=taken)
        return [_write(command, found)]


def _write(command: Command, found: Mapping[tuple[int, str, Position], Mapping[str, Any]]) -> Path:
    path = command.layout.results_folder / "activation_spaces.csv"
    rows = [
        {"study": command.study.name, "seed": seed, "checkpoint": role, **row}
        for (seed, role, _), result in found.items()
        for row in result["rows"]
    ]
    write_table(path, ACTIVATION_SPACES, rows)
    return path


def overlap_keys(command: Command, seed: int, role: str, prompts: Prompts) -> dict[Position, str]:
    """Return the key of the overlaps at each position of the study."""
    settings = command.study.activation_spaces
    states = list(states_keys(command, seed, role, prompts).items())
    return {
        position: digest(["activation_spaces", _fields(position), states, settings.etas])
        for position in settings.positions
    }


def _fields(position: Position) -> Any:
    return position.model_dump() if isinstance(position, TokenWindow) else position


def states_keys(command: Command, seed: int, role: str, prompts: Prompts) -> dict[str, str]:
    """Return the key of each prompt set's hidden states: of their forward pass, whichever positions are read from it.

    Raises:
        UserError: a checkpoint is missing, or a window lies beyond the answers.
    """
    study = command.study
    new_tokens = answer_tokens(study)
    forward = {
        # A longer text, or another batch, changes the last digits of states that it need not change.
        "answers": None if new_tokens is None else [new_tokens, study.evaluation.generation.engine],
        "batch_size": study.evaluation.batch_size,
        "weights_dtype": study.projection.weights_dtype,
        "threads": study.threads,
        "checkpoint": command.roles.identity(role, seed),
    }
    return {name: digest(["states", forward, texts]) for name, texts in prompts.items()}


def answer_tokens(study: Study) -> int | None:
    """Return how many tokens a model answers at most before its states are read; None where no answer is read.

    Windows need no token beyond the last of them, and are the same in longer answers; the last token needs all.

    Raises:
        UserError: a window ends beyond the answers whose last token is read.
    """
    if study.activation_spaces is None:
        return None
    positions, limit = study.activation_spaces.positions, study.evaluation.harmfulness.max_new_tokens
    windows = [position for position in positions if isinstance(position, TokenWindow) and position.of == "generated"]
    stop = max((window.stop for window in windows), default=None)
    if "last_generated_token" not in positions:
        return stop
    if stop is not None and stop > limit:
        raise UserError(
            f"activation_spaces.positions: expected windows that stop by evaluation.harmfulness.max_new_tokens "
            f"({limit}), where answers end, got stop: {stop}; lower it or ask for more tokens"
        )
    return limit


def _missing(command: Command, seed: int, role: str, prompts: Prompts) -> dict[Position, str]:
    """Return the keys of the overlaps of one checkpoint that are not there, by position."""
    done = Cells(command.layout.cells(seed))
    return {
        position: key for position, key in overlap_keys(command, seed, role, prompts).items() if done.get(key) is None
    }


def _measure(command: Command, seed: int, role: str, prompts: Prompts) -> None:
    from safety_spaces.experiments.state_overlaps import collect_states, state_overlaps

    folders = {
        name: command.layout.states(seed) / key for name, key in states_keys(command, seed, role, prompts).items()
    }
    done, missing = Cells(command.layout.cells(seed)), _missing(command, seed, role, prompts)
    states = collect_states(command, seed, role, prompts, folders=folders, positions=tuple(missing))
    for position, key in progress(missing.items(), desc=f"overlaps of states of {role}, seed {seed}"):
        rows = state_overlaps(command, position, states[position])
        done.put(key, {"sources": command.layout.sources, "rows": rows})
