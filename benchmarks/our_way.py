"""One part our way, in a process of its own: its seconds, its peak of anonymous memory, and the numbers it found.

The weights go through the functions that the commands call: the pass that measures energies, the parts that cells keep,
and the pass that measures overlaps, on a study of five folders.

python benchmarks/our_way.py PART FOLDER DEVICE        one JSON object on stdout
"""

import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import combinations, product
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from cases import BASES, ETAS, FRACTIONS, SCHEMES, SEED, STATE_ETAS
from material import PAIRS, ROLES, STATE_SETS, TASKS

from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.energies import Subspaces, measure_energies
from safety_spaces.experiments.projection.weights import KeptParts
from safety_spaces.experiments.weight_overlaps import weight_overlaps
from safety_spaces.geometry import moment_factors, mso_curve, open_checkpoint, state_moments
from safety_spaces.models.roles import Roles
from safety_spaces.store import Layout, write_json
from safety_spaces.study import UpdateSpaces, load_study

SAMPLED_EVERY = 0.01
FIRST_LAYER = ".layers.0."


def study_of(folder: Path) -> Roles:
    """Write a study of the five checkpoints of a folder; return its roles."""
    projection = {"bases": BASES, "fractions": FRACTIONS, "energy_draws": 1, "score_draws": 1, "scored": []}
    settings = {
        "name": "benchmark",
        "model": "benchmark",
        "seeds": [SEED],
        "threads": torch.get_num_threads(),
        "roles": {role: {"path": str(folder / role)} for role in ROLES},
        "projection": projection,
        "update_spaces": {"etas": ETAS, "pairs": PAIRS},
        "activation_spaces": None,
        "evaluation": None,
    }
    # JSON is YAML.
    write_json(folder / "study.yaml", settings)
    study = load_study(folder / "study.yaml")
    return Roles(study, Layout(folder / "results", folder / "runs", study.name))


def run_sweep(folder: Path, device: str) -> dict[str, float]:
    """Measure the energies of every cell, and make the part that each keeps; return the energies kept."""
    roles, on = study_of(folder), torch.device(device)
    energies = measure_energies(roles, SEED, TASKS, keys=TASKS, device=on, keep_factors=True)
    assert energies is not None
    parts = KeptParts(Subspaces(roles, SEED, TASKS, device=on, keep_factors=True))
    for task, basis, fraction, scheme in product(TASKS, BASES, FRACTIONS, SCHEMES):
        for _ in parts.of(Cell(SEED, task, scheme, basis, fraction, 0)):
            pass
    return {
        json.dumps([row["tensor"], task, row["basis"], row["fraction"]]): row["energy_kept"]
        for task, measured in energies.items()
        for row in measured["rows"]
        if row["energy_kept"] is not None
    }


def run_mso(folder: Path, device: str) -> dict[str, float]:
    """Every pair of updates at every energy level; return the overlaps."""
    roles, settings = study_of(folder), UpdateSpaces(etas=ETAS, pairs=PAIRS)
    rows = weight_overlaps(roles, settings, SEED, device=torch.device(device), key="benchmark")
    assert rows is not None
    return {json.dumps([row["tensor"], *row["pair"].split("-"), row["eta"]]): row["mso"] for row in rows}


def run_activations(folder: Path, device: str) -> dict[str, float]:
    """Every pair of prompt sets at every state and energy level, from their files; return the overlaps."""
    overlaps = {}
    for index in range(json.loads((folder / "states.json").read_text())):
        moments = {
            name: state_moments(folder / f"{name}.npy", index, device=torch.device(device)) for name in STATE_SETS
        }
        factors = {name: moment_factors(moment, centred=False) for name, moment in moments.items()}
        for first, second in combinations(STATE_SETS, 2):
            for eta, overlap in mso_curve(factors[first], factors[second], STATE_ETAS).items():
                overlaps[json.dumps([index, first, second, eta])] = overlap.mso
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
