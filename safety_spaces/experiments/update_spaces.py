"""Experiment 3: overlap of the subspaces of weight updates (paper, Section 5).

What is already done is decided here, before torch is imported; what is missing is measured by `overlaps`.
"""

import logging
from functools import partial
from pathlib import Path

from safety_spaces.evidence.tables import UPDATE_SPACES
from safety_spaces.experiments.command import Command, is_recorded, record
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.processes import all_found
from safety_spaces.record import Stage, write_table
from safety_spaces.store import Cells, digest, one_at_a_time
from safety_spaces.study import UpdateSpaces

logger = logging.getLogger(__name__)


def compare_updates(command: Command) -> list[Path]:
    """Measure the overlaps of every seed that are missing and write update_spaces.csv; return the file written.

    A study that leaves them to another one writes nothing.

    Raises:
        UserError: a checkpoint is missing or unlike the others, or base equals reference.
    """
    study, layout, settings = command.study, command.layout, command.study.update_spaces
    if settings is None:
        logger.info("study %s compares no updates: its update_spaces is null", study.name)
        return []
    with Stage() as stage:
        missing = [seed for seed in study.seeds if not _is_measured(command, settings, seed)]
        jobs = [Job(f"overlaps, seed {seed}", partial(_measure, command, settings, seed)) for seed in missing]
        do_jobs(command, jobs, desc="overlaps", stage=stage)
    found = all_found(
        {seed: Cells(layout.cells(seed)).get(overlap_key(command, settings, seed)) for seed in study.seeds}
    )
    if found is None:
        return []
    path = layout.results_folder / "update_spaces.csv"
    rows = [{"study": study.name, "seed": seed, **row} for seed, result in found.items() for row in result["rows"]]
    with one_at_a_time(layout.lock):
        if missing or not is_recorded(command, "update_spaces"):
            record(command, "update_spaces", stage, sources=[result["sources"] for result in found.values()])
        write_table(path, UPDATE_SPACES, rows)
    return [path]


def overlap_key(command: Command, settings: UpdateSpaces, seed: int) -> str:
    """Return the key of one seed's overlaps: the pairs, the energy levels and the checkpoints."""
    pairs = command.study.update_pairs
    roles = ("base", "reference", *sorted({role for pair in pairs for role in pair} - {"reference"}))
    identities = [command.roles.identity(role, seed) for role in roles]
    how = [pairs, settings.etas, command.study.projection.tied, command.study.threads]
    return digest(["update_spaces", how, dict(zip(roles, identities, strict=True))])


def _is_measured(command: Command, settings: UpdateSpaces, seed: int) -> bool:
    return Cells(command.layout.cells(seed)).get(overlap_key(command, settings, seed)) is not None


def _measure(command: Command, settings: UpdateSpaces, seed: int) -> None:
    from safety_spaces.experiments.overlaps import weight_overlaps

    done, key = Cells(command.layout.cells(seed)), overlap_key(command, settings, seed)
    rows = weight_overlaps(command, settings, seed, done=done, key=key)
    if rows is not None:
        done.put(key, {"sources": command.layout.sources, "rows": rows})
