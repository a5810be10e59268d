"""Fine-tuning: train the checkpoints of a study (paper, Section 2 and Appendix B).

    bash scripts/finetune.sh                 the miniature
    bash scripts/finetune.sh STUDY.yaml      a study of your own

Writes runs/<study>/seed-<seed>/checkpoints/{base,reference,useful,harmful,contaminated}:
ordinary Hugging Face folders. A finished checkpoint is not trained again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.finetune import finetune
from safety_spaces.processes import processes


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing."""
    arguments = parse_arguments(__doc__, argv)
    if is_preview(arguments):
        return 0
    written = finetune(arguments.roles, arguments.texts, device=arguments.device)
    return finish(written, arguments.study) if processes().is_first else 0


if __name__ == "__main__":
    sys.exit(main())
