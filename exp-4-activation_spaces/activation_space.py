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

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.activation_spaces import compare_activations


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is missing, then write the table."""
    arguments = parse_arguments(__doc__, argv)
    if is_preview(arguments):
        return 0
    return finish(compare_activations(arguments.roles, arguments.texts, device=arguments.device), arguments.study)


if __name__ == "__main__":
    sys.exit(main())
