"""Experiment 4: overlap of the subspaces of hidden states (paper, Section 6).

What is already done is decided here, before torch is imported; what is missing is measured by `overlaps`.
"""

from pathlib import Path
from typing import Any

from safety_spaces.evidence.tables import ACTIVATION_SPACES
from safety_spaces.experiments.checkpoints import finished_checkpoint, identity
from safety_spaces.experiments.command import Command, record
from safety_spaces.experiments.texts import activation_prompts
from safety_spaces.store import Cells, Stage, digest, write_table


def compare_activations(command: Command) -> list[Path]:
    """Measure the missing overlaps of every seed and checkpoint, write activation_spaces.csv; return the file written.

    Raises:
        UserError: a checkpoint is missing, or a prompt set has too few unique prompts.
    """
    study, layout = command.study, command.layout
    prompts = {name: activation_prompts(command, name) for name in study.activation_spaces.sets}
    wanted = [(seed, role) for seed in study.seeds for role in study.activation_spaces.checkpoints]
    with Stage() as stage:
        measured = [one for one in wanted if _measure(command, *one, prompts)]
    if measured:
        record(command, "activation_spaces", stage)
    rows: list[dict[str, Any]] = []
    for seed, role in wanted:
        found = Cells(layout.cells(seed)).get(_key(command, seed, role, prompts)) or {}
        rows += [{"study": study.name, "seed": seed, "checkpoint": role, **row} for row in found["rows"]]
    path = layout.results_folder / "activation_spaces.csv"
    write_table(path, ACTIVATION_SPACES, rows)
    return [path]


def _key(command: Command, seed: int, role: str, prompts: dict[str, list[str]]) -> str:
    settings = command.study.activation_spaces
    content = identity(finished_checkpoint(command, role, seed))
    generated = command.study.evaluation.harmfulness.max_new_tokens
    position = [settings.position, generated if settings.position == "last_generated_token" else None]
    return digest(["activation_spaces", prompts, position, settings.etas, content, command.study.threads])


def _measure(command: Command, seed: int, role: str, prompts: dict[str, list[str]]) -> bool:
    """Measure one checkpoint's overlaps unless they are there; say whether anything was measured."""
    done, key = Cells(command.layout.cells(seed)), _key(command, seed, role, prompts)
    if done.get(key) is not None:
        return False
    from safety_spaces.experiments.overlaps import activation_overlaps

    done.put(key, {"rows": activation_overlaps(command, seed, role, prompts, folder=key)})
    return True
