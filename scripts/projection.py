"""Projection analysis: experiments 1 and 2 (paper, Sections 3 and 4, Figures 2 and 3, Tables 1, 2, 4 and 5).

    python scripts/projection.py                    the miniature
    python scripts/projection.py STUDY.yaml         a study of your own
    python scripts/projection.py --geometry-only    energies and cosines, no generation

Projects every task update onto subspaces of the reference update and onto both controls, measures the energy kept, puts
the projected weights into the live model and scores it. Writes results/<study>/energy.csv and projection.csv. Killed at
any moment it goes on where it stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.projection.stage import project


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the tables."""
    arguments = parse_arguments(__doc__, argv, projects=True)
    if is_preview(arguments, needs_data=not arguments.geometry_only):
        return 0
    written = project(
        arguments.roles,
        arguments.texts,
        device=arguments.device,
        geometry_only=arguments.geometry_only,
        keep_factors=arguments.keep_factors,
    )
    return finish(written, arguments.study)


if __name__ == "__main__":
    sys.exit(main())
