"""Mode Subspace Overlap of weight updates and of hidden states (equations 8 to 11)."""

from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from safety_spaces.behaviour.live import load_model, load_tokenizer
from safety_spaces.behaviour.states import write_states
from safety_spaces.experiments.checkpoints import finished_checkpoint
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.device import DTYPES, ready_device
from safety_spaces.experiments.energies import Updates
from safety_spaces.geometry.bases import factor
from safety_spaces.geometry.checkpoints import kind, layer
from safety_spaces.geometry.overlap import Moments, Overlap, moment_factors, mso_curve, update_cosine
from safety_spaces.store import Cells

ROWS_AT_ONCE = 4096
"""States read into memory at once; the result does not depend on it beyond rounding."""


def update_overlaps(command: Command, seed: int, *, done: Cells, key: str) -> list[dict[str, Any]]:
    """Return the rows of update_spaces.csv of one seed; what is done of each tensor is kept under `key`.

    Vectors (1-D tensors) span one direction each and are left out.
    """
    ready_device(command)
    settings = command.study.update_spaces
    roles = sorted({role for pair in settings.pairs for role in pair})
    updates = Updates(command, seed, [role for role in roles if role != "reference"])
    matrices = [name for name in updates.names if len(updates.reference.shape(name)) > 1]
    rows: list[dict[str, Any]] = []
    for name in tqdm(matrices, desc=f"overlaps, seed {seed}", disable=None):
        tensor_key = f"{key}-{name}"
        if (found := done.get(tensor_key)) is None:
            found = {"rows": _tensor_overlaps(command, updates, name, roles)}
            done.put(tensor_key, found)
        rows += found["rows"]
    return rows


def _tensor_overlaps(command: Command, updates: Updates, name: str, roles: list[str]) -> list[dict[str, Any]]:
    D = {role: updates.plain(role, name) for role in roles}
    factors = {role: factor(matrix) for role, matrix in D.items()}
    rows = []
    for first, second in command.study.update_spaces.pairs:
        cosine = update_cosine(D[first], D[second])
        for overlap in mso_curve(factors[first], factors[second], command.study.update_spaces.etas):
            place = {"pair": f"{first}-{second}", "tensor": name, "layer": layer(name), "kind": kind(name)}
            rows.append({**place, **_columns(overlap), "cosine": cosine})
    return rows


def activation_overlaps(
    command: Command, seed: int, role: str, prompts: dict[str, list[str]], *, folder: str
) -> list[dict[str, Any]]:
    """Return the rows of activation_spaces.csv of one checkpoint; its states stay in files, one per prompt set."""
    states = {
        name: command.layout.states(seed) / folder / f"{name}.npy" for name in command.study.activation_spaces.sets
    }
    if missing := [name for name, path in states.items() if not path.is_file()]:
        _collect_states(command, seed, role, {name: (states[name], prompts[name]) for name in missing})
    settings = command.study.activation_spaces
    rows = []
    number_of_states = np.load(next(iter(states.values())), mmap_mode="r").shape[1]
    for index in range(number_of_states):
        moments = {name: _moments(path, index) for name, path in states.items()}
        for centred in (False, True):
            factors = {name: moment_factors(moment, centred=centred) for name, moment in moments.items()}
            for first, second in combinations(settings.sets, 2):
                place = {
                    "pair": f"{first}-{second}",
                    "layer": index,
                    "depth": index / (number_of_states - 1),
                    "position": settings.position,
                    "centred": centred,
                    "n_first": moments[first].n,
                    "n_second": moments[second].n,
                }
                curve = mso_curve(factors[first], factors[second], settings.etas)
                rows += [{**place, **_columns(overlap)} for overlap in curve]
    return rows


def _collect_states(command: Command, seed: int, role: str, wanted: dict[str, tuple[Path, list[str]]]) -> None:
    checkpoint = finished_checkpoint(command, role, seed)
    device = ready_device(command)
    model = load_model(checkpoint, device=device, dtype=DTYPES[command.study.projection.weights_dtype])
    tokenizer = load_tokenizer(checkpoint)
    evaluation = command.study.evaluation
    for path, prompts in wanted.values():
        write_states(
            path,
            model,
            tokenizer,
            prompts,
            position=command.study.activation_spaces.position,
            batch_size=evaluation.batch_size,
            max_new_tokens=evaluation.harmfulness.max_new_tokens,
        )


def _moments(path: Path, index: int) -> Moments:
    """Moments of one state over all prompts, in shards of a fixed order."""
    states = np.load(path, mmap_mode="r")
    total = Moments.empty(states.shape[2])
    for start in range(0, len(states), ROWS_AT_ONCE):
        total = total.update(_tensor(states[start : start + ROWS_AT_ONCE, index]))
    return total


def _tensor(rows: np.ndarray) -> Float[Tensor, "p d"]:
    return torch.from_numpy(np.ascontiguousarray(rows))


def _columns(overlap: Overlap) -> dict[str, Any]:
    columns = asdict(overlap)
    columns["mso_chance"] = columns.pop("chance")
    if min(overlap.k_first, overlap.k_second) == 0:
        # A side that does not vary spans nothing: there is no overlap to speak of, not an overlap of zero.
        columns |= {"mso": None, "mso_chance": None}
    return columns
