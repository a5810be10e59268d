"""Report: the figures, the findings and the premises of a study, from its tables alone.

    python scripts/report.py                the miniature
    python scripts/report.py STUDY.yaml     a study of your own

Writes results/<study>/README.md and figures, unless they are up to date. Tables that somebody has edited are refused;
when the sources have changed since the tables were made, the report says so.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# The code of this clone, whichever one is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from safety_spaces.command_line import finish, is_preview, parse_arguments, report_errors
from safety_spaces.experiments.report import report


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write what has changed."""
    arguments = parse_arguments(__doc__, argv)
    if is_preview(arguments, needs_data=False, needs_models=False):
        return 0
    return finish(report(arguments.roles, arguments.texts), arguments.study)


if __name__ == "__main__":
    sys.exit(main())
