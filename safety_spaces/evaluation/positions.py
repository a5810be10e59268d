"""The tokens of a text that a position names, and how many states they give (Section 6, Appendix K.2)."""

from collections.abc import Iterable
from typing import NamedTuple

from safety_spaces.study import Position


class Tokens(NamedTuple):
    """A prompt and the answer that follows it; the answer is empty where none is read."""

    prompt: list[int]
    answer: list[int]

    @property
    def all(self) -> list[int]:
        """The tokens of one forward pass."""
        return [*self.prompt, *self.answer]

    def columns(self, position: Position, *, width: int) -> range:
        """Return the columns of the text, padded on the right to `width`, that a position names."""
        return position.span(len(self.prompt), len(self.all), width)


def number_of_states(position: Position, texts: Iterable[Tokens]) -> int:
    """Return how many states a position has in texts: one for each token, or one for each text that has any."""
    counts = (len(text.columns(position, width=len(text.all))) for text in texts)
    return sum(min(count, 1) if position.is_averaged else count for count in counts)
