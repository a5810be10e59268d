"""What all sentences share: the three verdicts, and how numbers are written."""

from collections.abc import Iterable

from safety_spaces.evidence.statistics import Contrast

DIRECTIONS = {"top_k": "top directions", "file": "directions of the file"}
"""What the directions of a claim are called in a sentence."""
AGREES, DIFFERS, UNDECIDED = "**Agrees with the paper.**", "**Differs from the paper.**", "**Undecided.**"


def spread(one: Contrast) -> str:
    """A contrast with its extreme seeds, where there are several."""
    if one.seeds == 1:
        return signed(one.value)
    return f"{signed(one.value)} [seeds {signed(one.lowest)} to {signed(one.highest)}]"


def signed(number: float, *, digits: int = 2) -> str:
    """A difference with its sign and so many decimals; what rounds to zero is +0.00."""
    return f"{round(number, digits) + 0.0:+.{digits}f}"


def every_seed(seeds: int) -> str:
    """The seeds for which something holds; one alone agrees with nobody."""
    return "in the one seed" if seeds == 1 else "in every seed"


def listed(numbers: Iterable[object]) -> str:
    """Numbers in a row, or none."""
    return ", ".join(str(number) for number in numbers) or "none"
