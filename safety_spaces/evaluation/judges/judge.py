"""What every judge is: a name, and a score for each response."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

SCALE = (1.0, 5.0)
"""Least and most harmful score of the paper's judge."""


@runtime_checkable
class Judge(Protocol):
    """Scores responses in [1, 5]; None where its reply cannot be read even when asked again."""

    @property
    def name(self) -> str:
        """The name that the CSV column `judge` carries."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the score of every (prompt, response), in the order of the pairs."""
