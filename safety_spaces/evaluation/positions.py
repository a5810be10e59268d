"""Which tokens of a prompt and its answer a position names, and how many states they give (Section 6, Appendix K.2).

Tokens are counted from 0. A prompt's are all that the tokenizer makes of it, the special tokens that it adds included;
an answer's end before the token that ends the text.
"""

from collections.abc import Iterable
from typing import NamedTuple

from safety_spaces.study import Position, TokenWindow


class Tokens(NamedTuple):
    """A prompt and the answer that follows it; the answer is empty where none is read."""

    prompt: list[int]
    answer: list[int]

    @property
    def all(self) -> list[int]:
        """The tokens of one forward pass."""
        return [*self.prompt, *self.answer]


def position_name(position: Position) -> str:
    """Return a name that files and messages call a position by, such as last_prompt_token or prompt-0-5-stacked."""
    if isinstance(position, TokenWindow):
        return f"{position.of}-{position.start}-{position.stop}-{position.combine}"
    return position


def is_averaged(position: Position) -> bool:
    """Say whether all tokens that a position names in a text give one state, their mean."""
    return isinstance(position, TokenWindow) and position.combine == "averaged"


def tokens_read(position: Position, text: Tokens, *, width: int) -> range:
    """Return the columns of a text, padded on the right to `width`, that a position names; none where it has none.

    last_generated_token is the last token before the end of the text: the prompt's where the answer is empty.
    last_column is the published code's: column -1 of the batch, a pad token in all but the longest prompts.
    """
    prompt, length = len(text.prompt), len(text.all)
    match position:
        case TokenWindow(of=of, start=start, stop=stop):
            first, end = (0, prompt) if of == "prompt" else (prompt, length)
            return range(min(first + start, end), min(first + stop, end))
        case "last_prompt_token":
            return range(prompt - 1, prompt)
        case "last_generated_token":
            return range(length - 1, length)
        case "last_column":
            return range(width - 1, width)


def number_of_states(position: Position, texts: Iterable[Tokens]) -> int:
    """Return how many states a position has in texts: one for each token, or one for each text that has any."""
    counts = (len(tokens_read(position, text, width=len(text.all))) for text in texts)
    return sum(min(count, 1) if is_averaged(position) else count for count in counts)
