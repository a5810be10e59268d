"""Energy that stays of an update (equation 7), tensor by tensor and summed, beside its closed forms.

E_k = |P_k D|^2 / |D|^2,  with C = U'D the running sum of C's squared row norms, for all k at once
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Float64
from torch import Tensor

from safety_spaces.geometry.bases import Bases
from safety_spaces.geometry.subspace import row_energies, squared_norm
from safety_spaces.tensors import EMBEDDINGS, VECTOR_KINDS, Rounding, Vectors, draws, kind, layer, layer_total


@dataclass(frozen=True)
class TensorEnergy:
    """Energy of one task update inside one basis, for one tensor or summed over several (tensor `all`, ...).

    energy is |P_k D|^2, update |D|^2, expected the closed form of energy for a random basis (None for top_k and file).
    """

    name: str
    layer: int | None
    kind: str
    basis: str
    fraction: float
    draw: int
    rank: int
    k: int
    energy: float
    update: float
    expected: float | None

    @property
    def energy_kept(self) -> float | None:
        """The energy-kept ratio (equation 7); None where there is no update to keep."""
        return self.energy / self.update if self.update else None

    @property
    def energy_expected(self) -> float | None:
        """The closed form of energy_kept for a random basis; None for the others and where there is no update."""
        return self.expected / self.update if self.update and self.expected is not None else None


def tensor_energies(
    bases: Bases,
    updates: Mapping[str, Float[Tensor, "M N"]],
    *,
    names: Sequence[str],
    fractions: Sequence[float],
    number_of_draws: int,
    rounding: Rounding = "floor",
    vectors: Vectors = "project",
    of_kind: str | None = None,
) -> dict[str, list[TensorEnergy]]:
    """Energies of each task update of one tensor, oriented as the bases, in every basis, at every fraction and draw."""
    ks = dict(zip(fractions, bases.counts(fractions, rounding=rounding), strict=True))
    norms = {task: squared_norm(D) for task, D in updates.items()}
    device = next(iter(updates.values())).device
    place = (bases.name, layer(bases.name), of_kind or kind(bases.name))
    share, frame = vector_share(bases.shape, vectors), None
    held: dict[str, Float64[Tensor, "n"]] = {}
    rows: dict[str, list[TensorEnergy]] = {task: [] for task in updates}
    for basis, draw in [(one, draw) for one in names for draw in draws(one, number_of_draws)]:
        subspace = bases.subspace(basis, k=max(ks.values()), draw=draw, device=device)
        if subspace.frame is not frame:
            # top_k and every draw of random_k share one product U'D.
            frame = subspace.frame
            held = {task: row_energies(frame.to(D).T @ D) for task, D in updates.items()}
        for task, norm in norms.items():
            curve, rank = subspace.running_energies(held[task]), bases.rank(basis)
            for rho, wanted in ks.items():
                k = min(wanted, len(subspace))
                energy, expected = curve[k], bases.expected_energy(basis, k, update=norm, span=curve[-1])
                if share is not None:
                    k, energy, expected = round(share * rank), share * norm, None if expected is None else share * norm
                rows[task].append(TensorEnergy(*place, basis, rho, draw, rank, k, energy, norm, expected))
    return rows


def vector_share(shape: Sequence[int], vectors: Vectors) -> float | None:
    """Share of a vector's update (N = 1) that counts as parallel by policy; None where the basis decides."""
    return None if shape[1] > 1 else {"project": None, "keep": 1.0, "drop": 0.0}[vectors]


def totals(rows: Iterable[TensorEnergy], *, vectors: Vectors = "project") -> list[TensorEnergy]:
    """Sums over tensors per basis, fraction and draw: `all`, `all_but_embeddings`, `layer:<n>` and `kind:<kind>`.

    A total's energy_kept is thus that of the whole update, not a mean of ratios; its kind is empty except by kind.
    Vectors that a policy takes out of the projection are summed by kind alone, so that what a total keeps under the
    parallel scheme and under the orthogonal one still adds to 1.
    """
    groups: defaultdict[tuple[str, int | None, str, str, float, int], list[TensorEnergy]] = defaultdict(list)
    for row in rows:
        cell = (row.basis, row.fraction, row.draw)
        groups[f"kind:{row.kind}", None, row.kind, *cell].append(row)
        if vectors != "project" and row.kind in VECTOR_KINDS:
            continue
        groups["all", None, "", *cell].append(row)
        if row.kind not in EMBEDDINGS:
            groups["all_but_embeddings", None, "", *cell].append(row)
        if row.layer is not None:
            groups[layer_total(row.layer), row.layer, "", *cell].append(row)
    return [_total(place, members) for place, members in groups.items()]


def matched_energies(rows: Iterable[TensorEnergy], *, vectors: Vectors = "project") -> dict[float, tuple[float, float]]:
    """Energy kept of the whole update by the control matched, parallel and orthogonal, at every fraction rho.

    `rows` are single tensors in the claim's basis. Each keeps a_t D_t, a_t = E_t inside and 1 - E_t outside (design of
    the control: the same inner product with D_t as the claim's part has), so sum_t a_t^2 |D_t|^2 of sum_t |D_t|^2.
    """
    counted = [row for row in rows if vectors == "project" or row.kind not in VECTOR_KINDS]
    found = {}
    for rho in dict.fromkeys(row.fraction for row in counted):
        doses = [(row.energy_kept or 0.0, row.update) for row in counted if row.fraction == rho]
        whole = math.fsum(update for _, update in doses)
        sums = (math.fsum(a**2 * update for a, update in of) for of in (doses, [(1 - a, n) for a, n in doses]))
        inside, outside = (total / whole if whole else 0.0 for total in sums)
        found[rho] = inside, outside
    return found


def _total(place: tuple[str, int | None, str, str, float, int], members: Sequence[TensorEnergy]) -> TensorEnergy:
    # fsum rounds once, so a total does not depend on the order of the tensors.
    energy, update = math.fsum(row.energy for row in members), math.fsum(row.update for row in members)
    expected = [row.expected for row in members if row.expected is not None]
    rank, k = sum(row.rank for row in members), sum(row.k for row in members)
    return TensorEnergy(*place, rank, k, energy, update, math.fsum(expected) if expected else None)
