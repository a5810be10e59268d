"""Report: the figures, the findings and the premises of a study, from its tables alone.

    python scripts/report.py                the miniature
    python scripts/report.py STUDY.yaml     a study of your own

Writes results/<study>/README.md and figures. Tables that somebody has edited are refused; when the sources have changed
since the tables were made, the report says so.
"""

import sys
from collections.abc import Sequence

from safety_spaces.evidence.report import write_report
from safety_spaces.experiments.command import finish, parse_command, report_errors, sources_changed
from safety_spaces.experiments.plan import plan


@report_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Draw and write."""
    command = parse_command(__doc__, argv)
    if command.plan:
        print(plan(command))
        return 0
    folder = command.layout.results_folder
    write_report(folder, command.study, sources_changed=sources_changed(command))
    return finish([folder / "README.md"])


if __name__ == "__main__":
    sys.exit(main())
