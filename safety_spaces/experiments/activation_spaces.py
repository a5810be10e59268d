"""Experiment 4: overlap of the subspaces of hidden states (paper, Section 6, Appendix K).

What is already done is decided here, before torch is imported; what is missing is measured by `state_overlaps`.
"""

import logging
from functools import partial
from pathlib import Path

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.prompt_sets import prompt_set
from safety_spaces.experiments.stage import Tables, Wanted, run_stage
from safety_spaces.experiments.state_keys import Compared, Prompts, states_folders, wanted_overlaps
from safety_spaces.experiments.workers import Job, do_jobs
from safety_spaces.models.roles import Roles
from safety_spaces.processes import processes
from safety_spaces.progress import progress
from safety_spaces.record import Stage
from safety_spaces.store import digest

logger = logging.getLogger(__name__)


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
    prompts = {name: prompt_set(texts, settings, name) for name in settings.sets}
    overlaps = wanted_overlaps(roles, settings, evaluation, prompts)

    def work(stage: Stage) -> bool:
        left = {(one.seed, one.role) for one in overlaps.missing()}
        every = list(dict.fromkeys((one.seed, one.role) for one in overlaps.keys))
        missing = [one for one in processes().share(every) if one in left]
        jobs = [
            Job(f"states of {role}, seed {seed}", partial(_measure, overlaps, prompts, seed, role, device))
            for seed, role in missing
        ]
        return bool(do_jobs(roles, jobs, device=device, desc="states", stage=stage))

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

    return run_stage("activation_spaces", roles, device=device, work=work, tables=tables)


def _measure(overlaps: Wanted[Compared], prompts: Prompts, seed: int, role: str, device: str | None) -> None:
    from safety_spaces.experiments.state_overlaps import collect_states, state_overlaps
    from safety_spaces.models.device import ready_device

    roles = overlaps.roles
    settings, evaluation = roles.study.activation_spaces, roles.study.evaluation
    assert settings is not None
    assert evaluation is not None
    ready = ready_device(device, threads=roles.study.threads)
    folders = states_folders(roles, evaluation, seed, role, prompts)
    missing = [one for one in overlaps.missing() if (one.seed, one.role) == (seed, role)]
    positions = [one.position for one in missing]
    states = collect_states(roles, evaluation, seed, role, prompts, folders=folders, positions=positions, device=ready)
    for one in progress(missing, desc=f"overlaps of states of {role}, seed {seed}"):
        rows = state_overlaps(settings, one.position, states[one.position], device=ready)
        overlaps.put(one, {"sources": roles.layout.sources, "rows": rows})
