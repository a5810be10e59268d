"""How far a long step has come: a bar on a terminal; elsewhere, in a file or the log of a cluster, a line a minute."""

import io
import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

MINUTE = 60.0
LINE = "{desc}: {n_fmt} of {total_fmt} done, {elapsed} so far, about {remaining} left{postfix}"

logger = logging.getLogger(__name__)


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    desc: str,
    total: int | None = None,
    shown: bool = True,
    inner: bool = False,
    note: Callable[[], str] | None = None,
) -> "Progress":
    """Return a bar over `iterable`, or one that is updated by hand; both are closed at the end, as those of tqdm are.

    `note` gives what else a line says, such as what was spent. An `inner` step, which another one holds, has no lines
    of its own and leaves no bar behind.
    """
    # Workers share a terminal, where one bar is drawn, by the process that started them.
    if sys.stderr.isatty() and multiprocessing.parent_process() is None:
        return Progress(iterable, desc=desc, total=total, leave=not inner, disable=not shown, note=note)
    return _Lines(iterable, desc=desc, total=total, disable=inner or not shown, note=note)


class Progress(tqdm):  # type: ignore[type-arg]
    """A bar of tqdm whose time left follows from the mean of all that is done: one cell takes longer than another."""

    def __init__(self, *arguments: Any, note: Callable[[], str] | None, **options: Any) -> None:
        self._note = note
        super().__init__(*arguments, **options, smoothing=0)  # type: ignore[call-overload]

    @property
    def format_dict(self) -> dict[str, Any]:
        """What the bar and the line say."""
        return {**super().format_dict, "postfix": self._note() if self._note else None}


class _Lines(Progress):
    """A bar that nobody sees: a thread says how far it is, also while one item takes an hour."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Updated at each item, so that a line says what is done when it is written.
        super().__init__(*arguments, file=io.StringIO(), mininterval=0, bar_format=LINE, **options)
        self._closed = threading.Event()
        if not self.disable:
            threading.Thread(target=say, args=(self, self._closed.wait), daemon=True).start()

    def close(self) -> None:
        """Say no more."""
        if hasattr(self, "_closed"):
            self._closed.set()
        super().close()


def say(bar: Progress, wait: Callable[[float], bool]) -> None:
    """Log a bar as one line a minute, until `wait`, given the seconds, says that it is closed."""
    while not wait(MINUTE):
        logger.info("%s", str(bar))
