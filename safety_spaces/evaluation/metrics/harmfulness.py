"""Harmfulness: the mean score in [1, 5] that a judge gives to answers to forbidden prompts (paper, Section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
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
        """Return the score of every (forbidden prompt, response), in the order of the pairs."""


@dataclass(frozen=True)
class Answer:
    """One scored response: correctness in {0, 1} for utility, a judge's score in [1, 5], or None if unparsed."""

    prompt: str
    response: str
    score: float | None


def judge_responses(judge: Judge, prompts: Sequence[str], responses: Sequence[str]) -> list[Answer]:
    """Score every response; an unparsed one stays in the list with score None, so that it is counted."""
    pairs = list(zip(prompts, responses, strict=True))
    scores = judge.score(pairs)
    return [Answer(prompt, response, score) for (prompt, response), score in zip(pairs, scores, strict=True)]
