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

from safety_spaces.data.texts import Texts
from safety_spaces.experiments.corpora import prepare_corpora
from safety_spaces.experiments.stage import is_recorded, record
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import Roles, check_recipe, training_notes
from safety_spaces.processes import processes
from safety_spaces.record import Stage
from safety_spaces.store import digest
from safety_spaces.study import Existing, Study

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


def finetune(roles: Roles, texts: Texts, *, device: str | None) -> list[Path]:
    """Train every checkpoint that is not there yet; return the folders of those.

    Raises UserError when a checkpoint was trained from another recipe than the study's, a data set is missing or too
    small, or the processes cannot share out the passes of a step.
    """
    if not processes().is_first:
        # What every process finds the first one says.
        logging.getLogger("safety_spaces").setLevel(logging.ERROR)
    study, layout = roles.study, roles.layout
    trainings = _trainings(study)
    if not trainings and study.world is None:
        return []
    rows, lengths = _from_first(device, lambda: _prepared(roles, texts, trainings))
    with Stage() as stage:
        jobs = _jobs(roles, texts, trainings, lengths, device=device)
        trained = do_jobs(roles, jobs, device=device, desc="trainings", stage=stage)
    folders = [roles.folder(one.role, one.seed) for one in trainings if trained.get(one.name)]
    if trainings and processes().is_first and (folders or not is_recorded(layout, "finetune")):
        notes = {one: training_notes(roles.folder(one.role, one.seed)) for one in trainings}
        changed = {one.name: note["share_of_weights_changed"] for one, note in notes.items() if study.parent(one.role)}
        record(
            study,
            layout,
            "finetune",
            stage,
            device=device,
            sources=[note["sources"] for note in notes.values()],
            rows=rows,
            corpora=texts.facts(),
            weights_changed=changed,
            # First to last tenth of the steps: whether a training learnt anything is seen here.
            losses={one.name: note.get("loss_by_tenth") for one, note in notes.items()},
        )
    return folders


def _trainings(study: Study) -> list[TrainedRole]:
    trained = [role for role in study.order_of_roles() if not isinstance(study.roles[role], Existing)]
    shared = [TrainedRole(role, study.seeds[0]) for role in trained if not study.is_per_seed(role)]
    return shared + [TrainedRole(role, seed) for seed in study.seeds for role in trained if study.is_per_seed(role)]


def _prepared(roles: Roles, texts: Texts, trainings: Sequence[TrainedRole]) -> tuple[dict[str, int], dict[str, int]]:
    """Write the corpora, and check that each training can be made: processes, rows, given models.

    Returns the rows of each corpus that was written, and those that each missing role passes over.
    """
    study = roles.study
    for one in trainings:
        processes().passes_of_each(study.training_of(one.role).accumulation, name=one.role)
    rows = prepare_corpora(study, roles.layout)
    missing = {one.role for one in trainings if not is_checkpoint(roles.folder(one.role, one.seed))}
    lengths = {role: len(texts.role_rows(role)) * study.training_of(role).epochs for role in missing}
    # Nothing may be trained from a base, and a mistake in its path would come to light after all trainings.
    for role in study.given_roles if missing else ():
        roles.finished(role, study.seeds[0])
    return rows, lengths


def _jobs(
    roles: Roles, texts: Texts, trainings: Sequence[TrainedRole], lengths: Mapping[str, int], *, device: str | None
) -> list[Job]:
    """Return the trainings that may be left to do: those without a checkpoint, and what starts from them.

    `lengths` are the rows that a role passes over, by which the time left is told.
    """
    jobs: dict[TrainedRole, Job] = {}
    for one in trainings:
        parent = roles.study.parent(one.role)
        after = {of.name for of in jobs if of.role == parent and (of.seed == one.seed or of.role == "base")}
        if not after and is_checkpoint(roles.folder(one.role, one.seed)):
            _from_first(device, partial(_left_to_train, roles, texts, one))
        else:
            jobs[one] = Job(
                one.name,
                partial(_train_if_missing, roles, texts, one, device),
                after=frozenset(after),
                steps=lengths.get(one.role, 1),
                processes=_processes_together(roles.study, one.role, device),
            )
    return list(jobs.values())


def _processes_together(study: Study, role: str, device: str | None) -> int:
    """Return how many processes leave the bytes of one: two, where a step is the sum of two passes, on a CPU.

    Sums of more passes would depend on who adds which first, and a GPU has enough to do with one process.
    """
    from safety_spaces.models.device import ready_device

    on_cpu = ready_device(device, threads=study.threads).type == "cpu"
    return 2 if on_cpu and study.training_of(role).accumulation == 2 else 1


def _train_if_missing(roles: Roles, texts: Texts, one: TrainedRole, device: str | None) -> bool:
    """Train one role unless its checkpoint is finished; say whether it was trained."""
    # The first process comes here only when the checkpoint before this one has its name: the others find it.
    left = _from_first(device, lambda: _left_to_train(roles, texts, one))
    if left is None:
        return False
    from safety_spaces.experiments.training import train_role

    rows, recipe = left
    train_role(roles, texts, one.role, one.seed, rows, recipe=recipe, device_name=device)
    return True


def _left_to_train(roles: Roles, texts: Texts, one: TrainedRole) -> tuple[list[dict[str, str]], dict[str, Any]] | None:
    """Return rows and recipe of a checkpoint that is to be trained, None where it is finished."""
    folder, parent = roles.folder(one.role, one.seed), roles.study.parent(one.role)
    rows = texts.role_rows(one.role)
    # The seed of the base does not depend on those of the study.
    key = [one.role, one.seed if roles.study.is_per_seed(one.role) else None]
    recipe = {
        **roles.recipe_settings(one.role),
        "rows": digest(rows),
        "seed": int(digest(key), 16) % 2**31,
        "parent": roles.identity(parent, one.seed) if parent else None,
    }
    if not is_checkpoint(folder):
        return rows, recipe
    check_recipe(folder, recipe)
    # A kill between the renaming and the end of the training leaves it.
    shutil.rmtree(state_folder(folder), ignore_errors=True)
    return None


def state_folder(final: Path) -> Path:
    """Return where the states of a checkpoint's training lie: beside it, as long as it is not finished."""
    return final.with_name(f"{final.name}.state")


def _from_first(device: str | None, action: Callable[[], Result]) -> Result:
    """Return what `action` returns in the first process; alone there is nothing to wait for, and no torch to import."""
    if processes().count == 1:
        return action()
    from safety_spaces.training.together import from_first

    return from_first(action, cpu=device == "cpu")
