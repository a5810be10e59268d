"""Subspaces of activations: experiment 4 (paper, Section 6, Figure 5).

    python exp-4-activation_spaces/activation_space.py               the miniature
    python exp-4-activation_spaces/activation_space.py STUDY.yaml    a study of your own

Writes results/<study>/activation_spaces.csv: Mode Subspace Overlap of the hidden states of useful and harmful prompts
in the reference, useful and contaminated checkpoints, layer by layer, centred and not, with the chance level.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.experiments.activation_spaces import compare_activations
from safety_spaces.experiments.ahead import ahead
from safety_spaces.experiments.command import finish, parse_command, report_errors


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the table."""
    command = parse_command(__doc__, argv)
    if ahead(command):
        return 0
    return finish(compare_activations(command))


if __name__ == "__main__":
    sys.exit(main())
