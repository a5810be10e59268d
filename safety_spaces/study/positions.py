"""Positions: which tokens of a prompt and its answer give hidden states (Section 6, Appendix K.2).

Tokens are counted from 0. A prompt's are all that the tokenizer makes of it, the special tokens that it adds included;
an answer's end before the token that ends the text.
"""

from enum import StrEnum, auto, nonmember
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from safety_spaces.study.fields import NotNegative, Positive, Problems, Settings, refusal


class SingleToken(StrEnum):
    """One token of each text. last_column is the published code's: column -1 of the batch, padded or not."""

    last_prompt_token = auto()
    last_generated_token = auto()
    last_column = auto()

    is_window = nonmember(False)
    is_averaged = nonmember(False)
    states_of_prompt = nonmember(1)
    prompt_window = nonmember(None)
    answer_tokens = nonmember(None)

    @property
    def words(self) -> str:
        """The position in words."""
        return self.value.replace("_", " ")

    @property
    def reads_answer(self) -> bool:
        """Whether the position lies in the answer, so that the model generates before its states are read."""
        return self is SingleToken.last_generated_token

    @property
    def table_columns(self) -> dict[str, Any]:
        """The columns of activation_spaces.csv that name the position."""
        return {"position": self.value, **dict.fromkeys(WINDOW_COLUMNS)}

    def span(self, prompt: int, length: int, width: int) -> range:
        """Return the columns that are read of a text of `length` tokens, `prompt` of them its prompt's.

        `width` is that of the batch, padded on the right. The last generated token is the last one before the end of
        the text: the prompt's where the answer is empty.
        """
        end = {"last_prompt_token": prompt, "last_generated_token": length, "last_column": width}[self.value]
        return range(end - 1, end)


class TokenWindow(Settings):
    """Early tokens of a prompt or of an answer, counted from 0 (Appendix K.2)."""

    is_window: ClassVar[bool] = True
    of: Literal["prompt", "generated"] = Field(description="Whether tokens of the prompt or of the answer are taken.")
    start: NotNegative = Field(0, description="First token of the window.")
    stop: Positive = Field(description="Token before which the window ends.")
    combine: Literal["stacked", "averaged"] = Field(description="Whether tokens give a state each, or all their mean.")

    def _problems(self) -> Problems:
        if self.stop <= self.start:
            yield refusal("stop", f"expected more than start ({self.start}), got {self.stop}")

    @property
    def name(self) -> str:
        """A name for files and messages, such as prompt-0-5-stacked."""
        return f"{self.of}-{self.start}-{self.stop}-{self.combine}"

    @property
    def words(self) -> str:
        """The position in words."""
        return f"{self.of} tokens {self.start} to {self.stop - 1}, {self.combine}"

    @property
    def is_averaged(self) -> bool:
        """Whether all tokens of a text give one state, their mean."""
        return self.combine == "averaged"

    @property
    def reads_answer(self) -> bool:
        """Whether the position lies in the answer, so that the model generates before its states are read."""
        return self.of == "generated"

    @property
    def prompt_window(self) -> range | None:
        """The tokens, counted from the first of a prompt, that an early window of the prompt reads."""
        return None if self.reads_answer else range(self.start, self.stop)

    @property
    def states_of_prompt(self) -> int:
        """Number of states that one prompt gives, at most."""
        return 1 if self.is_averaged else self.stop - self.start

    @property
    def table_columns(self) -> dict[str, Any]:
        """The columns of activation_spaces.csv that name the position."""
        return {"position": "early_window", **{column: getattr(self, column[7:]) for column in WINDOW_COLUMNS}}

    @property
    def answer_tokens(self) -> int | None:
        """Number of tokens of the answer that the window needs: it is the same in longer ones. The last needs all."""
        return self.stop if self.reads_answer else None

    def span(self, prompt: int, length: int, width: int) -> range:  # noqa: ARG002
        """Return the columns that are read of a text, as for a single token; none where it is too short."""
        first, end = (prompt, length) if self.reads_answer else (0, prompt)
        return range(min(first + self.start, end), min(first + self.stop, end))


WINDOW_COLUMNS = ("window_of", "window_start", "window_stop", "window_combine")


def _form(content: Any) -> str:
    return "(window)" if isinstance(content, dict | TokenWindow) else "(token)"


Position = Annotated[
    Annotated[SingleToken, Field(strict=False), Tag("(token)")] | Annotated[TokenWindow, Tag("(window)")],
    Discriminator(_form),
]
"""One token of each text by its name, or an early window; both answer the same questions."""
