"""One part our way, in a process of its own: its seconds, its peak of anonymous memory, and the numbers it found.

python benchmarks/our_way.py PART FOLDER DEVICE        one JSON object on stdout
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from cases import BASES, ETAS, FRACTIONS, SEED, STATE_ETAS
from material import PAIRS, STATE_SETS, TASKS

from safety_spaces.geometry import (
    Updates,
    moment_factors,
    mso_curve,
    open_checkpoint,
    precision_on,
    state_moments,
    sweep,
    update_overlaps,
)

SAMPLED_EVERY = 0.01
FIRST_LAYER = ".layers.0."


def open_updates(folder: Path, device: str) -> Updates:
    """Open the five checkpoints of a folder."""
    opened = {role: open_checkpoint(folder / role) for role in ("base", "reference", *TASKS)}
    tasks = {task: opened[task] for task in TASKS}
    return Updates(opened["base"], opened["reference"], tasks, device=torch.device(device))


def run_sweep(folder: Path, device: str) -> dict[str, float]:
    """Every cell of every tensor; return the energies kept."""
    updates, precision = open_updates(folder, device), precision_on(torch.device(device))[0]
    cells = sweep(updates, bases=BASES, fractions=FRACTIONS, draws=1, seed=SEED, precision=precision)
    return {
        json.dumps([cell.energy.name, cell.task, cell.energy.basis, cell.energy.fraction]): cell.energy.energy_kept
        for cell in cells
        if cell.energy.energy_kept is not None
    }


def run_mso(folder: Path, device: str) -> dict[str, float]:
    """Every pair of updates at every energy level; return the overlaps."""
    updates, precision = open_updates(folder, device), precision_on(torch.device(device))[0]
    names = [name for name in updates.names if len(updates.reference.shape(name)) > 1]
    return {
        json.dumps([name, first, second, overlap.eta]): overlap.mso
        for name, D in updates.each(names, ("reference", "useful", "harmful"))
        for first, second, _, curve in update_overlaps(D, PAIRS, ETAS, precision=precision)
        for overlap in curve
    }


def run_activations(folder: Path, device: str) -> dict[str, float]:
    """Every pair of prompt sets at every state and energy level, from their files; return the overlaps."""
    overlaps = {}
    for index in range(json.loads((folder / "states.json").read_text())):
        moments = {
            name: state_moments(folder / f"{name}.npy", index, device=torch.device(device)) for name in STATE_SETS
        }
        factors = {name: moment_factors(moment, centred=False) for name, moment in moments.items()}
        for first, second in combinations(STATE_SETS, 2):
            for overlap in mso_curve(factors[first], factors[second], STATE_ETAS):
                overlaps[json.dumps([index, first, second, overlap.eta])] = overlap.mso
    return overlaps


RUNS: dict[str, Callable[[Path, str], dict[str, float]]] = {
    "sweep": run_sweep,
    "mso": run_mso,
    "activations": run_activations,
}


def wait_for(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def gemm_rate(shapes: Iterable[tuple[int, int]], device: str) -> float:
    """Return float32 operations per second of the products U C of these tensors, each the median of five."""
    flops = seconds = 0.0
    for M, N in shapes:
        n = min(M, N)
        U, C = torch.randn(M, n, device=device), torch.randn(n, N, device=device)
        flops += 2.0 * M * n * N
        seconds += statistics.median(seconds_of(lambda: U @ C, device) for _ in range(5))  # noqa: B023
    return flops / seconds


def seconds_of(call: Callable[[], object], device: str) -> float:
    """Return the seconds of one call."""
    wait_for(device)
    start = time.perf_counter()
    call()
    wait_for(device)
    return time.perf_counter() - start


def product_shapes(part: str, folder: Path) -> list[tuple[int, int]]:
    """Return the shapes of the matrices of one part: those of the first layer, or one set of states."""
    if part.startswith("activations"):
        prompts, _, hidden = np.load(folder / f"{STATE_SETS[0]}.npy", mmap_mode="r").shape
        return [(hidden, prompts)]
    reference = open_checkpoint(folder / "reference")
    shapes = [reference.shape(name) for name in reference.names if FIRST_LAYER in name]
    return [(shape[0], shape[1]) for shape in shapes if len(shape) > 1]


def anonymous_memory() -> int:
    """Return the resident anonymous memory of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextmanager
def sampled_peak() -> Iterator[list[int]]:
    """Sample this process's anonymous memory while the block runs; the list's only element is the peak in bytes."""
    peak, over = [anonymous_memory()], threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLED_EVERY):
            peak[0] = max(peak[0], anonymous_memory())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def main(part: str, folder: str, device: str) -> None:
    """Measure one part and print what was found."""
    with sampled_peak() as peak:
        start = time.perf_counter()
        found = RUNS[part.partition("-")[0]](Path(folder), device)
        wait_for(device)
        seconds = time.perf_counter() - start
    rate = gemm_rate(product_shapes(part, Path(folder)), device)
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak[0], "gemm_flops_per_second": rate, "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
