"""The plain way, cell by cell: every cell factors its tensors again, as the published code does.

The formulas are the paper's, in torch.linalg alone. In float32 they are what our speed is compared with: one cell of
each kind is timed. In float64 they are what our numbers are compared with.

    python benchmarks/per_cell.py PART FOLDER DEVICE        one JSON object on stdout
"""

import json
import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import combinations
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from cases import BASES, ETAS, FRACTIONS, SCHEMES, SEED, STATE_ETAS
from material import PAIRS, ROLES, STATE_SETS, TASKS
from our_way import seconds_of
from torch import Tensor

from safety_spaces.geometry import Updates, open_checkpoint
from safety_spaces.geometry.bases import gaussian, stream

TIMED_FRACTION = 0.5
TIMED_ETA = 0.5
COMPARED_LAYER = ".layers.0."
"""The layer whose numbers are computed once more in float64."""


def open_updates(folder: Path, device: str) -> Updates:
    """Open the five checkpoints of a folder."""
    base, reference, *tasks = (open_checkpoint(folder / role) for role in ROLES)
    return Updates(base, reference, dict(zip(TASKS, tasks, strict=True)), device=torch.device(device))


def left_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """U and sigma of the thin SVD."""
    U, sigma, _ = torch.linalg.svd(matrix, full_matrices=False)
    return U, sigma


def parallel_part(D: Tensor, U: Tensor, rho: float) -> Tensor:
    """P_k D (equation 5) of columns U in order."""
    k = min(U.shape[1], max(1, math.floor(Fraction(str(rho)) * min(D.shape))))
    return U[:, :k] @ (U[:, :k].T @ D)


def energy_kept(D: Tensor, U: Tensor, rho: float) -> float:
    """|P_k D|^2 / |D|^2 (equation 7)."""
    return float(parallel_part(D, U, rho).norm() ** 2 / D.norm() ** 2)


def leading(U: Tensor, sigma: Tensor, eta: float) -> Tensor:
    """The fewest columns whose energy reaches eta of the total (Section 2)."""
    cumulative = sigma.double().square().cumsum(0) / sigma.double().square().sum()
    return U[:, : int((cumulative < eta * (1 - 1e-12)).sum()) + 1]


def mso(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], eta: float) -> float:
    """|Q_V' Q_W|^2 / min(k_V, k_W) (equations 8 to 11)."""
    V, W = leading(*first, eta), leading(*second, eta)
    return float((V.T @ W).norm() ** 2 / min(V.shape[1], W.shape[1]))


def plain_sweep(folder: Path, device: str) -> tuple[float, dict[str, float]]:
    """Seconds of all cells, from one cell of each basis; energies in float64."""
    updates = open_updates(folder, device)
    seconds, exact = 0.0, {}
    for name in updates.names:
        reference = updates.of("reference", name)
        D = {task: updates.of(task, name) for task in TASKS}
        noise = gaussian(reference.shape[0], min(reference.shape), stream("random", seed=SEED, draw=0, name=name))
        noise = noise.to(reference)

        for basis in BASES:
            seconds += seconds_of(lambda: sweep_cell(updates, name, noise if basis == "random" else None), device)  # noqa: B023
        if COMPARED_LAYER in name:
            exact |= dict(exact_energies(name, reference, noise, D))
    return seconds * len(FRACTIONS) * len(TASKS) * len(SCHEMES), exact


def sweep_cell(updates: Updates, name: str, noise: Tensor | None) -> object:
    """One tensor of one cell: read, factored (the reference update, or noise), projected."""
    reference, D = updates.of("reference", name), updates.of(TASKS[0], name)
    U, _ = left_vectors(reference if noise is None else noise)
    parallel = parallel_part(D, U, TIMED_FRACTION)
    return float(parallel.norm() ** 2 / D.norm() ** 2), parallel


def exact_energies(name: str, reference: Tensor, noise: Tensor, D: dict[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Energies of one tensor in float64. A Gaussian's frame is its Q, whose prefixes span what its columns span."""
    U, _ = left_vectors(reference.double())
    order = torch.randperm(U.shape[1], generator=stream("random_k", seed=SEED, draw=0, name=name))
    frames = {"top_k": U, "random_k": U[:, order.to(U.device)], "random": torch.linalg.qr(noise.double())[0]}
    for task, update in D.items():
        for basis, frame in frames.items():
            for rho in FRACTIONS:
                yield json.dumps([name, task, basis, rho]), energy_kept(update.double(), frame, rho)


def plain_mso(folder: Path, device: str) -> tuple[float, dict[str, float]]:
    """Seconds of all pairs and energy levels, from one of them; overlaps in float64."""
    updates = open_updates(folder, device)
    seconds, exact = 0.0, {}
    for name in updates.names:
        if len(updates.reference.shape(name)) == 1:
            continue
        D = {role: updates.of(role, name) for role in ("reference", "useful", "harmful")}
        seconds += timed_overlap(lambda: (updates.of("useful", name), updates.of("harmful", name)), device)  # noqa: B023
        if COMPARED_LAYER in name:
            spans = {role: left_vectors(matrix.double()) for role, matrix in D.items()}
            exact |= {
                json.dumps([name, first, second, eta]): mso(spans[first], spans[second], eta)
                for first, second in PAIRS
                for eta in ETAS
            }
    return seconds * len(PAIRS) * len(ETAS), exact


def plain_activations(folder: Path, device: str) -> tuple[float, dict[str, float]]:
    """Seconds of all pairs and energy levels, from one of them at the first state; its overlaps in float64."""
    count = json.loads((folder / "states.json").read_text())
    X = {
        name: torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="r")[:, 0].copy()).to(device).T
        for name in STATE_SETS
    }
    pairs = list(combinations(STATE_SETS, 2))
    seconds = timed_overlap(lambda: (X[STATE_SETS[0]], X[STATE_SETS[1]]), device) * count
    spans = {name: left_vectors(states.double()) for name, states in X.items()}
    exact = {
        json.dumps([0, first, second, eta]): mso(spans[first], spans[second], eta)
        for first, second in pairs
        for eta in STATE_ETAS
    }
    return seconds * len(pairs) * len(STATE_ETAS), exact


def timed_overlap(read: Callable[[], tuple[Tensor, Tensor]], device: str) -> float:
    """Seconds of one MSO that reads and factors both its matrices."""

    def cell() -> float:
        first, second = read()
        return mso(left_vectors(first), left_vectors(second), TIMED_ETA)

    return seconds_of(cell, device)


PLAIN = {"sweep": plain_sweep, "mso": plain_mso, "activations": plain_activations}


def main(part: str, folder: str, device: str) -> None:
    """Time the plain way of one part and print what it found."""
    seconds, exact = PLAIN[part.partition("-")[0]](Path(folder), device)
    print(json.dumps({"seconds": seconds, "found": exact}))


if __name__ == "__main__":
    main(*sys.argv[1:])
