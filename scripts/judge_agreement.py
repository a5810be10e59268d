"""Judge agreement: do the judges of a study score the same responses alike?

    python scripts/judge_agreement.py                the miniature
    python scripts/judge_agreement.py STUDY.yaml     a study of your own

Writes results/<study>/judge_agreement.csv: Cohen's kappa, weighted kappa and Spearman's correlation for each two of
the judges under evaluation.harmfulness (judge and compared_judges), on the responses that scripts/projection.py saved.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.judge_agreement import compare_judges


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Score the saved responses with every judge, and compare."""
    arguments = parse_arguments(__doc__, argv)
    if is_preview(arguments, needs_data=False):
        return 0
    return finish(compare_judges(arguments.roles, arguments.texts, device=arguments.device), arguments.study)


if __name__ == "__main__":
    sys.exit(main())
