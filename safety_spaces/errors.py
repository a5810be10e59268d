"""What a user should know: the one kind of error that he can mend, and warnings that a run goes on in spite of."""

import functools
import logging

logger = logging.getLogger(__name__)


class UserError(Exception):
    """A mistake in a study, a file or a command: a line that says what was expected, what came and what to do.

    A study that is wrong in several places has a line for each.
    """

    def __init__(self, *problems: str) -> None:
        # What is quoted may hold any separator of lines.
        super().__init__(*(" ".join(problem.splitlines()) for problem in problems))

    def __str__(self) -> str:
        return "\n".join(self.args)


def quote(value: object, length: int = 120) -> str:
    """Return the beginning of what came, on one line: a file's columns or a library's reason may be pages long."""
    line = " ".join(str(value).split())
    return line if len(line) <= length else f"{line[: length - 4]} ..."


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once in a process: every seed and every stage opens the same folders again."""
    logger.warning("warning: %s", message)
