"""Mode Subspace Overlap of any two models against a third: of FIRST - THIRD and SECOND - THIRD (paper, Section 5).

    python scripts/mso.py FIRST SECOND --against THIRD
    python scripts/mso.py aligned harmful --against base --eta 0.1 0.5 0.9 --csv overlap.csv

Each is a Hugging Face folder, the id of a model of the hub, or a LoRA folder that adds to THIRD. Prints the overlap
beside its chance level and the signed cosine: means over all matrices, by kind, and by layer. Writes FILE, a row per
matrix and energy level, with --csv alone.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import check_device, check_place, report_errors
from safety_spaces.errors import UserError
from safety_spaces.evidence.tables import UPDATE_SPACES
from safety_spaces.libraries import prepare_libraries
from safety_spaces.paths import expanded
from safety_spaces.record import csv_bytes
from safety_spaces.store import write_atomically

ETAS = (0.5, 0.9)


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Compare, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", metavar="FIRST")
    parser.add_argument("second", metavar="SECOND")
    parser.add_argument("--against", required=True, metavar="THIRD", help="what both are updates of")
    parser.add_argument("--eta", type=float, nargs="+", default=ETAS, help="energy levels (default: 0.5 0.9)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 ... (default: CUDA where there is one)")
    parser.add_argument("--csv", type=expanded, metavar="FILE", help="also write every matrix to FILE")
    given = parser.parse_args(argv)
    if wrong := [eta for eta in given.eta if not 0 < eta <= 1]:
        raise UserError(f"--eta {wrong[0]:g}: expected energy levels above 0 and up to 1")
    check_device(given.device)
    if given.csv is not None:
        if given.csv.is_dir():
            raise UserError(f"--csv {given.csv}: expected the path of a file, got a folder; name a file in it")
        if given.csv.suffix == ".safetensors":
            raise UserError(f"--csv {given.csv}: expected the path of a table, got that of weights; name another file")
        check_place("--csv", given.csv, given.csv.parent)
    prepare_libraries(logging.INFO)
    from safety_spaces.experiments.summary import overlap_table
    from safety_spaces.experiments.weight_overlaps import folder_overlaps
    from safety_spaces.models.device import choose_device

    device, _ = choose_device(given.device)
    etas = sorted(set(given.eta))
    rows = folder_overlaps(given.first, given.second, given.against, etas=etas, device=device)
    sys.stdout.write(overlap_table(rows))
    if given.csv is not None:
        write_atomically(given.csv, csv_bytes(UPDATE_SPACES[2:], rows))
        sys.stdout.write(f"wrote {given.csv}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
