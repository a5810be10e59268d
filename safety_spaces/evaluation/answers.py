"""What a model answered, and what it is worth."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """One response: correctness in {0, 1}, a judge's score in [1, 5], or None where it is not scored or not parsed."""

    prompt: str
    response: str
    score: float | None
