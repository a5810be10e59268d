"""Speed, memory and exactness of the geometry: against the plain way, and against the products it cannot avoid.

    python benchmarks/geometry.py --shapes qwen2.5-1.5b --layers 1 --device cpu
    python benchmarks/geometry.py --shapes qwen2.5-1.5b --layers 1 --device cpu --again    measure it once more

Parts: the projection sweep (energies, and kept parts, of every basis, scheme, fraction and task), the MSO curves of
three pairs of updates, and the overlap of hidden states for 1,000, 5,000 and 20,000 prompts; tensors are those of
decoder layers, without embeddings. Our way runs in a process of its own, for its peak of anonymous memory (RssAnon:
mapped files are not memory used). The plain way, float32 and a full SVD in each cell, is timed for one cell of each
kind and multiplied by their number; the floor is the float32 products at the rate measured in the same run. Writes
results/benchmarks/geometry.csv and one JSON line for each part; what the table holds under the same stamp is skipped.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# As the commands: threads that wait sleep. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from cases import PARTS, floor_flops, prompts_of
from material import SHAPES, write_checkpoints, write_states
from stamp import STAMP, environment_stamp

from safety_spaces.paths import ROOT
from safety_spaces.record import write_table

HERE = Path(__file__).parent
TABLE = ROOT / "results" / "benchmarks" / "geometry.csv"
REPORTED = (
    "shapes", "layers", "device", "part", "seconds", "ratio_vs_per_cell_svd", "ratio_to_gemm_floor",
    "max_abs_difference", "peak_rss_bytes",
)  # fmt: skip
COLUMNS = (*REPORTED, "per_cell_seconds", "floor_seconds", "gemm_flops_per_second", "note", *STAMP)
NUMBERS = (*REPORTED[4:], "per_cell_seconds", "floor_seconds", "gemm_flops_per_second")
KEYS = (*REPORTED[:4], *STAMP)

Row = dict[str, Any]


def measure(part: str, shapes: str, layers: int, device: str) -> Row:
    """Measure one part in a folder of its own material."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if part.startswith("activations"):
            write_states(folder, prompts=prompts_of(part), layers=layers, hidden=SHAPES[shapes].hidden)
        else:
            write_checkpoints(folder, SHAPES[shapes], layers)
        ours = _in_a_process("our_way.py", part, name, device)
        plain = _in_a_process("per_cell.py", part, name, device)
    floor = floor_flops(part, SHAPES[shapes], layers) / ours["gemm_flops_per_second"]
    return {
        "seconds": ours["seconds"],
        "ratio_vs_per_cell_svd": plain["seconds"] / ours["seconds"],
        "ratio_to_gemm_floor": ours["seconds"] / floor,
        "max_abs_difference": max(abs(ours["found"][key] - exact) for key, exact in plain["found"].items()),
        "peak_rss_bytes": ours["peak_rss_bytes"],
        "per_cell_seconds": plain["seconds"],
        "floor_seconds": floor,
        "gemm_flops_per_second": ours["gemm_flops_per_second"],
    }


def _in_a_process(script: str, *arguments: str) -> Any:
    call = [sys.executable, str(HERE / script), *arguments]
    return json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout)


def read_rows(table: Path) -> list[Row]:
    """Return what was measured so far, numbers as numbers."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    whole, real = {"layers", "cores", "peak_rss_bytes"}, set(NUMBERS) - {"peak_rss_bytes"}
    return [
        {
            name: None if text == "" else int(text) if name in whole else float(text) if name in real else text
            for name, text in row.items()
        }
        for row in rows
    ]


def _is_replaced(row: Row, found: Row) -> bool:
    """Whether a row is of the same place and stamp, or an empty one of the same place."""
    keys = KEYS if row["note"] is None else REPORTED[:4]
    return all(row[key] == found[key] for key in keys)


def main() -> None:
    """Measure the parts that the table does not hold yet; print them and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, required=True, help="model whose tensors are imitated")
    parser.add_argument("--layers", type=int, default=1, help="number of decoder layers (default: 1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute (default: cpu)")
    parser.add_argument("--part", choices=PARTS, action="append", help="one part (default: all)")
    parser.add_argument("--again", action="store_true", help="measure what the table holds already once more")
    parser.add_argument("--table", type=Path, default=TABLE, help="CSV to write")
    given = parser.parse_args()
    stamp, rows = environment_stamp(given.device), read_rows(given.table)
    there = given.device == "cpu" or torch.cuda.is_available()
    for part in given.part or PARTS:
        place = {"shapes": given.shapes, "layers": given.layers, "device": given.device, "part": part, **stamp}
        known = [row for row in rows if all(row[key] == place[key] for key in KEYS) and row["note"] is None]
        if known and not given.again:
            found = known[0]
        else:
            numbers = measure(part, given.shapes, given.layers, given.device) if there else {}
            note = None if there else "not measured: no CUDA device could be had"
            found = {**dict.fromkeys(NUMBERS), **place, **numbers, "note": note}
            rows = [row for row in rows if not _is_replaced(row, found)] + [found]
            write_table(given.table, COLUMNS, rows)
        print(json.dumps({name: found[name] for name in REPORTED}), flush=True)


if __name__ == "__main__":
    main()
