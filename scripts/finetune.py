"""Fine-tuning: train the checkpoints of a study (paper, Section 2 and Appendix B).

    bash scripts/finetune.sh                 the miniature
    bash scripts/finetune.sh STUDY.yaml      a study of your own

Writes runs/<study>/checkpoints/base and runs/<study>/seed-<seed>/checkpoints/{reference,useful,harmful,contaminated}:
ordinary Hugging Face folders. A finished checkpoint is not trained again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.experiments.ahead import ahead
from safety_spaces.experiments.command import finish, parse_command, report_errors
from safety_spaces.experiments.finetune import finetune
from safety_spaces.processes import processes


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing."""
    command = parse_command(__doc__, argv)
    if ahead(command):
        return 0
    written = finetune(command)
    return finish(written) if processes().is_first else 0


if __name__ == "__main__":
    sys.exit(main())
