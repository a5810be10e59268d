"""Experiment 4: overlap of the subspaces of hidden states (paper, Section 6, Appendix K).

What is already done is decided here, before torch is imported; what is missing is measured by `state_overlaps`.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.experiments.stage import Tables, Wanted, run_stage, share
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.models.roles import Roles
from safety_spaces.progress import progress
from safety_spaces.record import Stage
from safety_spaces.store import Cells, digest
from safety_spaces.study import ActivationSpaces, Evaluation, Position, Study

logger = logging.getLogger(__name__)

Prompts = Mapping[str, list[str]]
"""The prompts of each prompt set."""

ANSWERS = "answers"
"""File of the generated tokens beside the states: the hours of a study, and other positions need them again."""


class Compared(NamedTuple):
    """One result: the overlaps of a checkpoint's states at a position."""

    seed: int
    role: str
    position: Position


def compare_activations(roles: Roles, texts: Texts, *, device: str | None) -> list[Path]:
    """Measure the missing overlaps of every seed and checkpoint, write activation_spaces.csv; return the file written.

    A study that compares none writes nothing. Raises UserError when a checkpoint is missing, a prompt set has too few
    unique prompts, or no token at a position.
    """
    study = roles.study
    settings, evaluation = study.activation_spaces, study.evaluation
    if settings is None or evaluation is None:
        logger.info("study %s compares no activations: its activation_spaces is null", study.name)
        return []
    prompts = {name: prompt_set(texts, settings, evaluation, name) for name in settings.sets}
    overlaps = wanted_overlaps(roles, settings, evaluation, prompts)

    def work(stage: Stage) -> bool:
        missing = share(list(dict.fromkeys((one.seed, one.role) for one in overlaps.missing())))
        jobs = [
            Job(f"states of {role}, seed {seed}", partial(_measure, roles, overlaps, prompts, seed, role, device))
            for seed, role in missing
        ]
        do_jobs(roles, jobs, device=device, desc="states", stage=stage)
        return bool(missing)

    def tables() -> Tables | None:
        if (found := overlaps.found()) is None:
            return None
        rows = (
            {"study": study.name, "seed": one.seed, "checkpoint": one.role, **row}
            for one, result in found.items()
            for row in result["rows"]
        )
        taken = {name: {"prompts": len(texts), "digest": digest(texts)} for name, texts in prompts.items()}
        sources = [result["sources"] for result in found.values()]
        return Tables({"activation_spaces": rows}, sources, {"prompt_sets": taken})

    return run_stage("activation_spaces", study=study, layout=roles.layout, device=device, work=work, tables=tables)


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
            states = list(states_keys(roles, evaluation, seed, role, prompts).items())
            for position in settings.positions:
                key = digest(["activation_spaces", position.key, states, settings.etas])
                keys[Compared(seed, role, position)] = (seed, key)
    return Wanted(roles.study, roles.layout, keys)


def states_keys(roles: Roles, evaluation: Evaluation, seed: int, role: str, prompts: Prompts) -> dict[str, str]:
    """Return the key of each prompt set's hidden states: of their forward pass, whichever positions are read from it.

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
    return {name: digest(["states", forward, texts]) for name, texts in prompts.items()}


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
    if not needed:
        return None
    return study.evaluation.harmfulness.max_new_tokens if None in needed else max(filter(None, needed))


def _measure(
    roles: Roles, overlaps: Wanted[Compared], prompts: Prompts, seed: int, role: str, device: str | None
) -> None:
    from safety_spaces.experiments.state_overlaps import collect_states, state_overlaps
    from safety_spaces.models.device import ready_device

    settings, evaluation = roles.study.activation_spaces, roles.study.evaluation
    assert settings is not None and evaluation is not None
    ready = ready_device(device, threads=roles.study.threads)
    keys = states_keys(roles, evaluation, seed, role, prompts)
    folders = {name: roles.layout.states(seed) / key for name, key in keys.items()}
    missing = [one for one in overlaps.missing() if (one.seed, one.role) == (seed, role)]
    positions = tuple(one.position for one in missing)
    states = collect_states(roles, evaluation, seed, role, prompts, folders=folders, positions=positions, device=ready)
    for one in progress(missing, desc=f"overlaps of states of {role}, seed {seed}"):
        rows = state_overlaps(settings, one.position, states[one.position], device=ready)
        overlaps.put(one, {"sources": roles.layout.sources, "rows": rows})
