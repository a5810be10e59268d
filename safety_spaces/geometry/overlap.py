"""Mode Subspace Overlap of two updates or of two sets of states, at every energy level (equations 8 to 11)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.factorisation import Factors, Precision, factor
from safety_spaces.geometry.subspace import Overlap, cosine, inner, prefix_overlaps, squared_norm


def mso_curve(first: Factors, second: Factors, etas: Sequence[float]) -> dict[float, Overlap]:
    """MSO at each eta of two factorisations with the same number of rows d."""
    ks = [(first.modes(eta), second.modes(eta)) for eta in etas]
    return dict(zip(etas, prefix_overlaps(first.U, second.U, ks), strict=True))


def update_overlaps(
    D: Mapping[str, Float[Tensor, "M N"]],
    pairs: Iterable[tuple[str, str]],
    etas: Sequence[float],
    *,
    precision: Precision = "float64",
) -> Iterator[tuple[str, str, float, dict[float, Overlap]]]:
    """Each pair of updates of one tensor: its signed cosine and its MSO curve; every update is factored once."""
    factors = {role: factor(matrix, precision=precision) for role, matrix in D.items()}
    for first, second in pairs:
        yield first, second, update_cosine(D[first], D[second]), mso_curve(factors[first], factors[second], etas)


def update_cosine(first: Float[Tensor, "M N"], second: Float[Tensor, "M N"]) -> float:
    """Signed cosine of two updates; MSO cannot tell an update from its negative, this can."""
    return cosine(inner(first, second), squared_norm(first), squared_norm(second))
