"""Experiment 3: overlap of the subspaces of weight updates (paper, Section 5).

What is already done is decided here, before torch is imported; what is missing is measured by `weight_overlaps`.
"""

import logging
from collections.abc import Sequence
from functools import partial
from itertools import chain
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
        measure = partial(_measure, settings, overlaps, device)
        jobs = [Job(f"overlaps, seed {seed}", partial(measure, seed)) for seed in overlaps.missing()]
        return bool(do_jobs(roles, jobs, device=device, desc="overlaps", stage=stage))

    def tables() -> Tables | None:
        if (found := overlaps.found()) is None:
            return None
        rows = ({"study": study.name, "seed": seed, **row} for seed, result in found.items() for row in result["rows"])
        return Tables({"update_spaces": rows}, [result["sources"] for result in found.values()])

    return run_stage("update_spaces", roles, device=device, work=work, tables=tables)


def wanted_overlaps(roles: Roles, settings: UpdateSpaces, seeds: Sequence[int] | None = None) -> Wanted[int]:
    """Return the results of the experiment, one a seed: their keys hold pairs, energy levels and checkpoints."""
    study = roles.study
    names = dict.fromkeys(("base", "reference", *sorted(chain(*study.update_pairs))))
    how = [study.update_pairs, settings.etas, study.projection.tied, study.threads]
    keys = {}
    for seed in study.seeds if seeds is None else seeds:
        identities = {role: roles.identity(role, seed) for role in names}
        keys[seed] = (seed, digest(["update_spaces", how, identities]))
    return Wanted(roles, keys)


def _measure(settings: UpdateSpaces, overlaps: Wanted[int], device: str | None, seed: int) -> None:
    from safety_spaces.experiments.weight_overlaps import weight_overlaps
    from safety_spaces.models.device import ready_device

    roles, key = overlaps.roles, overlaps.keys[seed][1]
    ready = ready_device(device, threads=roles.study.threads)
    if (rows := weight_overlaps(roles, settings, seed, device=ready, key=key)) is not None:
        overlaps.put(seed, {"sources": roles.layout.sources, "rows": rows})
