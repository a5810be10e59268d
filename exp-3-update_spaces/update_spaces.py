"""Subspaces of weight updates: experiment 3 (paper, Section 5, Figure 4).

    bash exp-3-update_spaces/update_spaces.sh               the miniature
    bash exp-3-update_spaces/update_spaces.sh STUDY.yaml    a study of your own

Writes results/<study>/update_spaces.csv: Mode Subspace Overlap of useful, harmful and reference update at every energy
level eta, tensor by tensor, with the chance level and the signed cosine beside it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.update_spaces import compare_updates


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the table."""
    arguments = parse_arguments(__doc__, argv)
    if is_preview(arguments, needs_data=False):
        return 0
    return finish(compare_updates(arguments.roles, device=arguments.device), arguments.study)


if __name__ == "__main__":
    sys.exit(main())
