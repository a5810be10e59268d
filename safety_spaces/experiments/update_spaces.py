"""Experiment 3: overlap of the subspaces of weight updates (paper, Section 5).

What is already done is decided here, before torch is imported; what is missing is measured by `weight_overlaps`.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safety_spaces.experiments.stage import Tables, Wanted, run_stage
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.models.roles import Roles
from safety_spaces.record import Stage
from safety_spaces.store import digest
from safety_spaces.study import UpdateSpaces

logger = logging.getLogger(__name__)


def compare_updates(roles: Roles, *, device: str | None) -> list[Path]:
    """Measure the overlaps of every seed that are missing and write update_spaces.csv; return the file written.

    A study that leaves them to another one writes nothing. Raises UserError when a checkpoint is missing or unlike the
    others, or base equals reference.
    """
    study, settings = roles.study, roles.study.update_spaces
    if settings is None:
        logger.info("study %s compares no updates: its update_spaces is null", study.name)
        return []
    overlaps = wanted_overlaps(roles, settings)

    def work(stage: Stage) -> bool:
        missing = overlaps.missing()
        jobs = [Job(f"overlaps, seed {seed}", partial(_measure, roles, settings, seed, device)) for seed in missing]
        do_jobs(roles, jobs, device=device, desc="overlaps", stage=stage)
        return bool(missing)

    def tables() -> Tables | None:
        if (found := overlaps.found()) is None:
            return None
        rows = ({"study": study.name, "seed": seed, **row} for seed, result in found.items() for row in result["rows"])
        return Tables({"update_spaces": rows}, [result["sources"] for result in found.values()])

    return run_stage("update_spaces", study=study, layout=roles.layout, device=device, work=work, tables=tables)


def wanted_overlaps(roles: Roles, settings: UpdateSpaces, seeds: Sequence[int] | None = None) -> Wanted[int]:
    """Return the results of the experiment, one a seed: their keys hold pairs, energy levels and checkpoints."""
    study = roles.study
    names = ("base", "reference", *sorted({role for pair in study.update_pairs for role in pair} - {"reference"}))
    how = [study.update_pairs, settings.etas, study.projection.tied, study.threads]
    identities = {
        seed: {role: roles.identity(role, seed) for role in names}
        for seed in study.seeds
        if seeds is None or seed in seeds
    }
    keys = {seed: (seed, digest(["update_spaces", how, found])) for seed, found in identities.items()}
    return Wanted(study, roles.layout, keys)


def _measure(roles: Roles, settings: UpdateSpaces, seed: int, device: str | None) -> None:
    from safety_spaces.experiments.weight_overlaps import weight_overlaps
    from safety_spaces.models.device import ready_device

    overlaps = wanted_overlaps(roles, settings)
    ready = ready_device(device, threads=roles.study.threads)
    rows = weight_overlaps(roles, settings, seed, device=ready, key=overlaps.keys[seed][1])
    if rows is not None:
        overlaps.put(seed, {"sources": roles.layout.sources, "rows": rows})
