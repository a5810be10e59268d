"""The checkpoints of a study: base, reference and the three tasks of each seed (paper, Sections 2 to 4).

A finished checkpoint whose recipe is unchanged is not trained again; whether anything is left to train is decided
before torch is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.experiments.checkpoints import (
    check_recipe,
    checkpoint_folder,
    finished_checkpoint,
    identity,
    recipe_settings,
    training_notes,
)
from safety_spaces.experiments.command import Command, record
from safety_spaces.experiments.texts import prepare_corpora, role_rows
from safety_spaces.record import Stage
from safety_spaces.store import digest, is_checkpoint
from safety_spaces.study import Existing


@dataclass(frozen=True)
class Job:
    """One training: a role and the seed it is trained with; the base has the first seed of the study."""

    role: str
    seed: int


def finetune(command: Command) -> list[Path]:
    """Train every checkpoint that is not there yet; return the folders of those.

    Raises:
        UserError: a checkpoint was trained from another recipe than the study's, or a data set is missing or too small.
    """
    rows = prepare_corpora(command)
    jobs = _jobs(command)
    with Stage() as stage:
        trained = [job for job in jobs if _train_if_missing(command, job)]
    if trained:
        notes = {job: training_notes(checkpoint_folder(command, job.role, job.seed)) for job in jobs}
        changed = {
            f"{job.role} seed {job.seed}": note["share_of_weights_changed"]
            for job, note in notes.items()
            if command.study.parent(job.role)
        }
        sources = [note["sources"] for note in notes.values()]
        record(command, "finetune", stage, sources=sources, rows=rows, weights_changed=changed)
    return [checkpoint_folder(command, job.role, job.seed) for job in trained]


def _jobs(command: Command) -> list[Job]:
    study = command.study
    trained = [role for role in study.order_of_roles() if not isinstance(study.roles[role], Existing)]
    shared = [Job(role, study.seeds[0]) for role in trained if not study.is_per_seed(role)]
    return shared + [Job(role, seed) for seed in study.seeds for role in trained if study.is_per_seed(role)]


def _train_if_missing(command: Command, job: Job) -> bool:
    """Train one role unless its checkpoint is finished; say whether it was trained."""
    folder = checkpoint_folder(command, job.role, job.seed)
    rows = role_rows(command, job.role)
    recipe = _recipe(command, job, rows)
    if is_checkpoint(folder):
        check_recipe(folder, recipe)
        return False
    from safety_spaces.experiments.training import train_role

    train_role(command, job.role, job.seed, rows, recipe=recipe)
    return True


def _recipe(command: Command, job: Job, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return what determines a checkpoint: settings, rows, seed and the weights it starts from."""
    parent = command.study.parent(job.role)
    return {
        **recipe_settings(command, job.role),
        "rows": digest(rows),
        "seed": _training_seed(command, job),
        "parent": identity(finished_checkpoint(command, parent, job.seed)) if parent else None,
    }


def _training_seed(command: Command, job: Job) -> int:
    """Return the seed of one training; the base's does not depend on the seeds of the study."""
    key = [job.role, job.seed if command.study.is_per_seed(job.role) else None]
    return int(digest(key), 16) % 2**31
