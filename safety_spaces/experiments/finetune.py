"""The checkpoints of a study: base, reference and the three tasks of each seed (paper, Sections 2 to 4).

A finished checkpoint whose recipe is unchanged is not trained again; whether anything is left to train is decided
before torch is imported. Of several processes (`accelerate launch`, torchrun) the first decides and writes, all train.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safety_spaces.data.texts import Texts
from safety_spaces.experiments.stage import is_recorded, record
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.miniature.corpora import write_corpora
from safety_spaces.models.folders import is_checkpoint
from safety_spaces.models.roles import Roles, check_recipe, state_folder, training_notes
from safety_spaces.paths import ROOT
from safety_spaces.processes import processes
from safety_spaces.record import Stage
from safety_spaces.store import Cells, Layout, digest, file_digest, file_digests
from safety_spaces.study import Study

Result = TypeVar("Result")


class TrainedRole(NamedTuple):
    """One training: a role and the seed it is trained with."""

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
    study = roles.study
    trainings = _trainings(study)
    if not trainings and study.world is None:
        return []
    rows, lengths = _from_first(device, partial(_prepared, roles, texts, trainings))
    with Stage() as stage:
        jobs = _jobs(roles, texts, trainings, lengths, device=device)
        trained = do_jobs(roles, jobs, device=device, desc="trainings", stage=stage)
    folders = {one: roles.folder(*one) for one in trainings}
    made = [folder for one, folder in folders.items() if trained.get(one.name)]
    if trainings and processes().is_first and (made or not is_recorded(roles.layout, "finetune")):
        notes = {one: training_notes(folder) for one, folder in folders.items()}
        record(
            roles,
            "finetune",
            stage,
            device=device,
            sources=[note["sources"] for note in notes.values()],
            rows=rows,
            corpora=texts.facts(),
            weights_changed={
                one.name: note["share_of_weights_changed"] for one, note in notes.items() if study.parent(one.role)
            },
            # First to last tenth of the steps: whether a training learnt anything is seen here.
            losses={one.name: note.get("loss_by_tenth") for one, note in notes.items()},
        )
    return made


def _trainings(study: Study) -> list[TrainedRole]:
    trained = [role for role in study.order_of_roles() if role in study.trained_roles]
    return [TrainedRole(role, seed) for seed in study.seeds for role in trained]


def _prepared(roles: Roles, texts: Texts, trainings: Sequence[TrainedRole]) -> tuple[dict[str, int], dict[str, int]]:
    """Write the corpora, and check that each training can be made: processes, rows, given models.

    Returns the rows of each corpus that was written, and those that each missing role passes over.
    """
    study = roles.study
    for role, _ in trainings:
        processes().passes_of_each(study.training_of(role).accumulation, name=role)
    rows = prepare_corpora(study, roles.layout)
    missing = {one.role for one in trainings if not is_checkpoint(roles.folder(*one))}
    lengths = {role: len(texts.role_rows(role, study.seeds[0])) * study.training_of(role).epochs for role in missing}
    # Nothing may be trained from a base, and a mistake in its path would come to light after all trainings.
    for role in study.given_roles if missing else ():
        roles.finished(role, study.seeds[0])
    return rows, lengths


def prepare_corpora(study: Study, layout: Layout) -> dict[str, int]:
    """Write the corpora of a miniature once; return the number of rows of each. A study of real data has none.

    They are written again when the world's settings or its code have changed, or a file is missing or was edited.
    """
    if study.world is None:
        return {}

    def written() -> dict[str, str]:
        return file_digests([*layout.corpora.glob("*.jsonl"), layout.rubric])

    code = [file_digest(path) for path in sorted((ROOT / "safety_spaces" / "miniature").glob("*.py"))]
    world, template = digest([study.world.model_dump(), study.training.template, code]), study.training.template
    # The mark is written last: as long as it is missing the corpora are taken for unfinished.
    mark = Cells(layout.corpora)
    done = mark.get("world")
    if done is None or done["world"] != world or done["files"] != written():
        rows = write_corpora(layout.corpora, seed=study.world.seed, sizes=study.world.sizes, template=template)
        done = {"world": world, "rows": rows, "files": written()}
        mark.put("world", done)
    return {str(name): int(count) for name, count in done["rows"].items()}


def _jobs(
    roles: Roles, texts: Texts, trainings: Sequence[TrainedRole], lengths: Mapping[str, int], *, device: str | None
) -> list[Job]:
    """Return the trainings that may be left to do: those without a checkpoint, and what starts from them.

    `lengths` are the rows that a role passes over, by which the time left is told.
    """
    jobs: dict[TrainedRole, Job] = {}
    for one in trainings:
        parent = roles.study.parent(one.role)
        after = frozenset(of.name for of in jobs if of.role == parent and of.seed == one.seed)
        if not after and is_checkpoint(roles.folder(*one)):
            _from_first(device, partial(_left_to_train, roles, texts, one))
        else:
            train, together = partial(_train_if_missing, roles, texts, one, device), _together(roles.study, one, device)
            jobs[one] = Job(one.name, train, after=after, steps=lengths.get(one.role, 1), processes=together)
    return list(jobs.values())


def _together(study: Study, one: TrainedRole, device: str | None) -> int:
    """Return how many processes leave the bytes of one: two, where a step is the sum of two passes, on a CPU.

    Sums of more passes would depend on who adds which first, and a GPU has enough to do with one process.
    """
    from safety_spaces.models.device import ready_device

    on_cpu = ready_device(device, threads=study.threads).type == "cpu"
    return 2 if on_cpu and study.training_of(one.role).accumulation == 2 else 1


def _train_if_missing(roles: Roles, texts: Texts, one: TrainedRole, device: str | None) -> bool:
    """Train one role unless its checkpoint is finished; say whether it was trained."""
    # The first process comes here only when the checkpoint before this one has its name: the others find it.
    left = _from_first(device, partial(_left_to_train, roles, texts, one))
    if left is None:
        return False
    from safety_spaces.experiments.training import train_role

    rows, recipe = left
    train_role(roles, texts, *one, rows, recipe=recipe, device_name=device)
    return True


def _left_to_train(roles: Roles, texts: Texts, one: TrainedRole) -> tuple[list[dict[str, str]], dict[str, Any]] | None:
    """Return rows and recipe of a checkpoint that is to be trained, None where it is finished."""
    role, seed = one
    folder, parent, rows = roles.folder(role, seed), roles.study.parent(role), texts.role_rows(role, seed)
    recipe = {
        **roles.recipe_settings(role),
        "rows": digest(rows),
        "seed": int(digest([role, seed]), 16) % 2**31,
        "parent": roles.identity(parent, seed) if parent else None,
    }
    if not is_checkpoint(folder):
        return rows, recipe
    check_recipe(folder, recipe)
    # A kill between the renaming and the end of the training leaves it.
    shutil.rmtree(state_folder(folder), ignore_errors=True)
    return None


def _from_first(device: str | None, action: Callable[[], Result]) -> Result:
    """Return what `action` returns in the first process; alone there is nothing to wait for, and no torch to import."""
    if processes().count == 1:
        return action()
    from safety_spaces.training.together import from_first

    return from_first(action, cpu=device == "cpu")
