"""Energy that stays of an update (equation 7), tensor by tensor and summed, beside its closed forms.

E_k = |P_k D|^2 / |D|^2
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.bases import Rounding
from safety_spaces.geometry.coordinates import Coordinates, Frames, coordinates
from safety_spaces.geometry.projection import Vectors, running_sum, squared_norm, vector_share
from safety_spaces.tensors import EMBEDDINGS, VECTOR_KINDS, layer, layer_total
from safety_spaces.tensors import kind as kind_of


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


def expected_energy(
    basis: str, k: int, shape: tuple[int, int], rank: int, *, span_energy: float, update_energy: float
) -> float | None:
    """Mean of |P_k D|^2 over draws of a basis: span_energy is |U'D|^2, update_energy |D|^2; None where none is drawn.

    random: (k/M) |D|^2, a k-dimensional Haar subspace of M dimensions. random_k: (k/r) |U'D|^2, k rows of r.
    """
    match basis:
        case "random":
            return k / shape[0] * update_energy
        case "random_k":
            return k / rank * span_energy if rank else 0.0
        case _:
            return None


def tensor_cells(
    name: str,
    frames: Frames,
    updates: Mapping[str, Float[Tensor, "M N"]],
    *,
    bases: Sequence[str],
    fractions: Sequence[float],
    draws: int,
    seed: int,
    rounding: Rounding = "floor",
    vectors: Vectors = "project",
    kind: str | None = None,
) -> Iterator[tuple[Coordinates, list[TensorEnergy]]]:
    """Coordinates of one tensor's updates in every basis and draw, and their energies at every fraction.

    frames hold the directions that are given, oriented as the updates are; kind is by name where it is not given.
    """
    M, N = next(iter(updates.values())).shape
    shape = (M, N)
    ks = dict(zip(fractions, frames.directions(fractions, shape, rounding=rounding), strict=True))
    norms = {task: squared_norm(D) for task, D in updates.items()}
    for found in coordinates(name, frames, updates, bases=bases, draws=draws, seed=seed, k=max(ks.values())):
        rank = frames.of(found.basis).shape[1]
        norm = norms[found.task]
        yield found, cell_energies(name, found, ks, shape, rank=rank, update_energy=norm, vectors=vectors, kind=kind)


def cell_energies(
    name: str,
    found: Coordinates,
    ks: Mapping[float, int],
    shape: tuple[int, int],
    *,
    rank: int,
    update_energy: float,
    vectors: Vectors = "project",
    kind: str | None = None,
) -> list[TensorEnergy]:
    """Energies of one task in one draw of a basis, at every fraction of ks; update_energy is |D|^2."""
    curve = running_sum(found.ordered.rows(found.energies[:, None], 0, len(found.ordered))[:, 0]).tolist()
    share = vector_share(shape, vectors)
    rows = []
    for fraction, wanted in ks.items():
        k = min(wanted, len(found.ordered))
        expected = expected_energy(found.basis, k, shape, rank, span_energy=curve[-1], update_energy=update_energy)
        place = (name, layer(name), kind or kind_of(name), found.basis, fraction, found.draw)
        row = TensorEnergy(*place, rank, k, curve[k], update_energy, expected)
        rows.append(row if share is None else _by_policy(row, share))
    return rows


@dataclass(frozen=True)
class _Sum:
    """What a total is over."""

    name: str
    layer: int | None = None
    kind: str = ""


def totals(rows: Iterable[TensorEnergy], *, vectors: Vectors = "project") -> list[TensorEnergy]:
    """Sums over tensors per basis, fraction and draw: `all`, `all_but_embeddings`, `layer:<n>` and `kind:<kind>`.

    A total's energy_kept is thus that of the whole update, not a mean of ratios; its kind is empty except by kind.
    Vectors that a policy takes out of the projection are summed by kind alone, so that what a total keeps under the
    parallel scheme and under the orthogonal one still adds to 1.
    """
    groups: defaultdict[tuple[_Sum, str, float, int], list[TensorEnergy]] = defaultdict(list)
    for row in rows:
        cell = (row.basis, row.fraction, row.draw)
        groups[_Sum(f"kind:{row.kind}", kind=row.kind), *cell].append(row)
        if vectors != "project" and row.kind in VECTOR_KINDS:
            continue
        groups[_Sum("all"), *cell].append(row)
        if row.kind not in EMBEDDINGS:
            groups[_Sum("all_but_embeddings"), *cell].append(row)
        if row.layer is not None:
            groups[_Sum(layer_total(row.layer), layer=row.layer), *cell].append(row)
    return [_total(*key, members) for key, members in groups.items()]


def _by_policy(row: TensorEnergy, share: float) -> TensorEnergy:
    energy = share * row.update
    expected = None if row.expected is None else energy
    return replace(row, k=round(share * row.rank), energy=energy, expected=expected)


def _total(of: _Sum, basis: str, fraction: float, draw: int, members: list[TensorEnergy]) -> TensorEnergy:
    def over(number: Callable[[TensorEnergy], float]) -> float:
        # fsum rounds once, so a total does not depend on the order of the tensors.
        return math.fsum(map(number, members))

    return TensorEnergy(
        name=of.name,
        layer=of.layer,
        kind=of.kind,
        basis=basis,
        fraction=fraction,
        draw=draw,
        rank=sum(row.rank for row in members),
        k=sum(row.k for row in members),
        energy=over(lambda row: row.energy),
        update=over(lambda row: row.update),
        expected=None if members[0].expected is None else over(lambda row: row.expected or 0.0),
    )
