"""Where the paper shows what a figure draws, in words.

Files are named by the paper's number, the first of the numbers where several models share one. The paper's text does
not always say which model a figure shows; then all its numbers are named.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from safety_spaces.evidence.findings.paper import models_of_paper
from safety_spaces.evidence.grid import Grid

REFERENCES = {"aligned": "aligned reference", "safety_tuned": "safety-tuned reference", "dpo": "DPO reference"}


@dataclass(frozen=True)
class Shown:
    """Where the paper shows something for one kind of reference; for all of its models where none is named."""

    item: str
    reference_kind: str = "aligned"
    models: tuple[str, ...] = ()
    file: str | None = None
    """Name of the file under this kind of reference where it is not the figure's own."""


def answer(shown: Sequence[Shown], grid: Grid) -> str:
    """Say which item of the paper a figure answers to, or whose likeness it is where the paper shows another case."""
    if (found := _shown_for(shown, grid)) is not None:
        return f"answers to {found.item} of the paper"
    of_kind = [one for one in shown if one.reference_kind == grid.reference_kind]
    case = "such model" if of_kind else REFERENCES[grid.reference_kind]
    return f"drawn like {(of_kind or shown)[0].item} of the paper, which shows no {case} there"


def _shown_for(shown: Sequence[Shown], grid: Grid) -> Shown | None:
    # A model that the paper does not have at all stands for any of the paper's own.
    same_kind = [one for one in shown if one.reference_kind == grid.reference_kind]
    if grid.model not in models_of_paper():
        return same_kind[0] if same_kind else None
    exact = [one for one in same_kind if grid.model in one.models]
    return next(iter(exact or [one for one in same_kind if not one.models]), None)
