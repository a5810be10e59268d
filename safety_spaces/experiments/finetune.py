"""The checkpoints of a study: base, reference and the three tasks of each seed (paper, Sections 2 to 4).

A finished checkpoint whose recipe is unchanged is not trained again; whether anything is left to train is decided
before torch is imported.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.experiments.checkpoints import RECIPE_FILE, checkpoint_folder, finished_checkpoint, identity
from safety_spaces.experiments.command import Command, record
from safety_spaces.experiments.texts import prepare_corpora, role_rows
from safety_spaces.store import Stage, digest, is_checkpoint
from safety_spaces.study import Existing, FineTuned, Pretrained


@dataclass(frozen=True)
class Job:
    """One training: a role and the seed it is trained with; the base has the first seed of the study."""

    role: str
    seed: int


def finetune(command: Command) -> list[Path]:
    """Train every checkpoint that is not there yet; return the folders of all.

    Raises:
        UserError: a checkpoint was trained from another recipe than the study's, or a data set is missing or too small.
    """
    rows = prepare_corpora(command)
    jobs = _jobs(command)
    with Stage() as stage:
        trained = {job: facts for job in jobs if (facts := _train_if_missing(command, job)) is not None}
    if trained:
        share = {
            f"{job.role} seed {job.seed}": facts["share_of_weights_changed"]
            for job, facts in trained.items()
            if command.study.parent(job.role)
        }
        record(command, "finetune", stage, rows=rows, weights_changed=share)
    return list(dict.fromkeys(checkpoint_folder(command, job.role, job.seed) for job in jobs))


def _jobs(command: Command) -> list[Job]:
    study = command.study
    trained = [role for role in study.order_of_roles() if not isinstance(study.roles[role], Existing)]
    shared = [Job(role, study.seeds[0]) for role in trained if not study.is_per_seed(role)]
    return shared + [Job(role, seed) for seed in study.seeds for role in trained if study.is_per_seed(role)]


def _train_if_missing(command: Command, job: Job) -> dict[str, Any] | None:
    """Train one role unless its checkpoint is finished; return what is to be recorded, None if nothing was trained."""
    folder = checkpoint_folder(command, job.role, job.seed)
    rows = role_rows(command, job.role)
    recipe = _recipe(command, job, rows)
    if is_checkpoint(folder):
        _check_recipe(folder, recipe)
        return None
    from safety_spaces.experiments.training import train_role

    return train_role(command, job.role, job.seed, rows, recipe=recipe)


def _recipe(command: Command, job: Job, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return what determines a checkpoint: settings, rows, seed and the weights it starts from."""
    study = command.study
    recipe = study.roles[job.role]
    parent = study.parent(job.role)
    return {
        "training": study.training_of(job.role).model_dump(),
        "method": recipe.method if isinstance(recipe, FineTuned | Pretrained) else None,
        "architecture": recipe.architecture.model_dump() if isinstance(recipe, Pretrained) else None,
        "rows": digest(rows),
        "seed": _training_seed(command, job),
        "threads": study.threads,
        "parent": identity(finished_checkpoint(command, parent, job.seed)) if parent else None,
    }


def _training_seed(command: Command, job: Job) -> int:
    """Return the seed of one training; the base's does not depend on the seeds of the study."""
    key = [job.role, job.seed if command.study.is_per_seed(job.role) else None]
    return int(digest(key), 16) % 2**31


def _check_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    path = folder / RECIPE_FILE
    before = json.loads(path.read_text()) if path.is_file() else {}
    if changed := [key for key, value in json.loads(json.dumps(recipe)).items() if before.get(key) != value]:
        raise UserError(
            f"{folder}: expected a checkpoint trained from this study, its {', '.join(changed)} differ; "
            "move the folder away to train it again, or give the study another name"
        )
