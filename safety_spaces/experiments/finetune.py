"""The checkpoints of a study: base, reference and the three tasks of each seed (paper, Sections 2 to 4).

A finished checkpoint whose recipe is unchanged is not trained again; whether anything is left to train is decided
before torch is imported. Of several processes (`accelerate launch`, torchrun) the first decides and writes, all train.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safety_spaces.experiments.command import Command, is_recorded, record
from safety_spaces.experiments.corpora import prepare_corpora
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import check_recipe, training_notes
from safety_spaces.processes import processes
from safety_spaces.record import Stage
from safety_spaces.store import digest
from safety_spaces.study import Existing
from safety_spaces.training.passes import passes_of_each

Result = TypeVar("Result")


@dataclass(frozen=True)
class TrainedRole:
    """One training: a role and the seed it is trained with; the base has the first seed of the study."""

    role: str
    seed: int

    @property
    def name(self) -> str:
        """As run.json and the log say it."""
        return f"{self.role} seed {self.seed}"


def finetune(command: Command) -> list[Path]:
    """Train every checkpoint that is not there yet; return the folders of those.

    Raises:
        UserError: a checkpoint was trained from another recipe than the study's, a data set is missing or too small, or
            the processes cannot share out the passes of a step.
    """
    if not processes().is_first:
        # What every process finds the first one says.
        logging.getLogger("safety_spaces").setLevel(logging.ERROR)
    trainings = _trainings(command)
    if not trainings and command.study.world is None:
        return []
    rows, lengths = _from_first(command, lambda: _prepared(command, trainings))
    with Stage() as stage:
        trained = do_jobs(command, _jobs(command, trainings, lengths), desc="trainings", stage=stage)
    folders = [command.roles.folder(one.role, one.seed) for one in trainings if trained.get(one.name)]
    if trainings and processes().is_first and (folders or not is_recorded(command, "finetune")):
        _record(command, trainings, stage, rows)
    return folders


def _jobs(command: Command, trainings: Sequence[TrainedRole], lengths: Mapping[str, int]) -> list[Job]:
    """Return the trainings that may be left to do: those without a checkpoint, and what starts from them.

    `lengths` are the rows that a role passes over, by which the time left is told.
    """
    jobs: dict[TrainedRole, Job] = {}
    for one in trainings:
        parent = command.study.parent(one.role)
        after = {of.name for of in jobs if of.role == parent and (of.seed == one.seed or of.role == "base")}
        if not after and is_checkpoint(command.roles.folder(one.role, one.seed)):
            _from_first(command, partial(_left_to_train, command, one))
        else:
            jobs[one] = Job(
                one.name,
                partial(_train_if_missing, command, one),
                after=frozenset(after),
                steps=lengths.get(one.role, 1),
            )
    return list(jobs.values())


def _record(command: Command, trainings: Sequence[TrainedRole], stage: Stage, rows: dict[str, int]) -> None:
    notes = {one: training_notes(command.roles.folder(one.role, one.seed)) for one in trainings}
    changed = {
        one.name: note["share_of_weights_changed"] for one, note in notes.items() if command.study.parent(one.role)
    }
    # First to last tenth of the steps: whether a training learnt anything is seen here.
    losses = {one.name: note.get("loss_by_tenth") for one, note in notes.items()}
    sources = [note["sources"] for note in notes.values()]
    facts = command.texts.facts()
    record(
        command, "finetune", stage, sources=sources, rows=rows, corpora=facts, weights_changed=changed, losses=losses
    )


def _trainings(command: Command) -> list[TrainedRole]:
    study = command.study
    trained = [role for role in study.order_of_roles() if not isinstance(study.roles[role], Existing)]
    shared = [TrainedRole(role, study.seeds[0]) for role in trained if not study.is_per_seed(role)]
    return shared + [TrainedRole(role, seed) for seed in study.seeds for role in trained if study.is_per_seed(role)]


def _prepared(command: Command, trainings: Sequence[TrainedRole]) -> tuple[dict[str, int], dict[str, int]]:
    """Write the corpora, and check that each training can be made: processes, rows, given models.

    Returns the rows of each corpus that was written, and those that each missing role passes over.
    """
    for one in trainings:
        passes_of_each(command.study.training_of(one.role), processes=processes().count, name=one.role)
    rows = prepare_corpora(command.study, command.layout)
    missing = [one for one in trainings if not is_checkpoint(command.roles.folder(one.role, one.seed))]
    lengths = {
        role: len(command.texts.role_rows(role)) * command.study.training_of(role).epochs
        for role in {one.role for one in missing}
    }
    # Nothing may be trained from a base, and a mistake in its path would come to light after all trainings.
    for role in (role for role, recipe in command.study.roles.items() if missing and isinstance(recipe, Existing)):
        command.roles.finished(role, command.study.seeds[0])
    return rows, lengths


def _train_if_missing(command: Command, one: TrainedRole) -> bool:
    """Train one role unless its checkpoint is finished; say whether it was trained."""
    # The first process comes here only when the checkpoint before this one has its name: the others find it.
    left = _from_first(command, lambda: _left_to_train(command, one))
    if left is None:
        return False
    from safety_spaces.experiments.training import train_role

    rows, recipe = left
    train_role(command, one.role, one.seed, rows, recipe=recipe)
    return True


def _left_to_train(command: Command, one: TrainedRole) -> tuple[list[dict[str, str]], dict[str, Any]] | None:
    """Return rows and recipe of a checkpoint that is to be trained, None where it is finished."""
    folder = command.roles.folder(one.role, one.seed)
    rows = command.texts.role_rows(one.role)
    recipe = _recipe(command, one, rows)
    if not is_checkpoint(folder):
        return rows, recipe
    check_recipe(folder, recipe)
    # A kill between the renaming and the end of the training leaves it.
    shutil.rmtree(state_folder(folder), ignore_errors=True)
    return None


def state_folder(final: Path) -> Path:
    """Return where the states of a checkpoint's training lie: beside it, as long as it is not finished."""
    return final.with_name(f"{final.name}.state")


def _from_first(command: Command, action: Callable[[], Result]) -> Result:
    """Return what `action` returns in the first process; alone there is nothing to wait for, and no torch to import."""
    if processes().count == 1:
        return action()
    from safety_spaces.training.together import from_first

    return from_first(action, cpu=command.device == "cpu")


def _recipe(command: Command, one: TrainedRole, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return what determines a checkpoint: settings, rows, seed and the weights it starts from."""
    parent = command.study.parent(one.role)
    return {
        **command.roles.recipe_settings(one.role),
        "rows": digest(rows),
        "seed": _training_seed(command, one),
        "parent": command.roles.identity(parent, one.seed) if parent else None,
    }


def _training_seed(command: Command, one: TrainedRole) -> int:
    """Return the seed of one training; the base's does not depend on the seeds of the study."""
    key = [one.role, one.seed if command.study.is_per_seed(one.role) else None]
    return int(digest(key), 16) % 2**31
