"""Answers of projected models: the part of an update that a cell keeps, written into the live weights (equations 5, 6).

A cell is found in memory only while it is asked; its answers are on disk before the next one begins.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.data.texts import Texts
from safety_spaces.evaluation.metrics import Ask, metric_of
from safety_spaces.experiments.projection.answers import write_answers
from safety_spaces.experiments.projection.cells import Cell
from safety_spaces.experiments.projection.energies import Subspaces
from safety_spaces.experiments.projection.keys import Score
from safety_spaces.geometry.bases import Bases
from safety_spaces.geometry.energies import vector_share
from safety_spaces.geometry.subspace import Subspace, inner, squared_norm
from safety_spaces.models.checkpoints import fitted
from safety_spaces.models.device import ready_device
from safety_spaces.models.live import LiveWeights, WeightEdit
from safety_spaces.models.loading import live_model, open_role, role_tokenizer
from safety_spaces.models.roles import Roles
from safety_spaces.study import Metric
from safety_spaces.tensors import MATCHED, layer

REMEMBERED_BYTES = 2**30
"""Of what the cells of one task, basis and draw have in common; what does not fit is read and computed again."""


@dataclass
class _Sum:
    """A task update D of one tensor, and what the first k directions of a basis hold of it."""

    D: Float[Tensor, "M N"]
    bases: Bases
    parallel: Float[Tensor, "M N"]
    subspace: Subspace | None = None
    k: int = 0


class KeptParts:
    """What the cells of one seed keep of a task's update, tensor by tensor (equations 5 and 6).

    P_k D is summed over the study's fractions up to the cell's own, so a cell has the same weights whichever others
    were made before it, and no more directions are read or drawn than it keeps. Where cells of one task, basis and draw
    come one after the other, fractions ascending, each adds to the sum of the last, as far as `limit` bytes go.
    """

    def __init__(self, subspaces: Subspaces, *, limit: int = REMEMBERED_BYTES) -> None:
        self.updates, self._subspaces, self._limit = subspaces.updates, subspaces, limit
        self._forget(None)

    def of(self, cell: Cell) -> Iterator[tuple[str, Float[Tensor, "..."]]]:
        """Yield each tensor that keeps anything, and the part of its update kept, valid until the next cell."""
        if (group := cell.directions(self._subspaces.settings.claim)) != self._group:
            self._forget(group)
        names = [name for name in self.updates.names if cell.others != "out" or cell.projects(layer(name))]
        read = self.updates.each([name for name in names if name not in self._sums], [cell.task])
        for name in names:
            sum_of = self._sums.get(name) or self._begin(name, next(read)[1].pop(cell.task))
            part = self._part(cell, sum_of) if cell.projects(layer(name)) else sum_of.D
            yield name, self.updates.restored(name, part)

    def _forget(self, group: tuple[str, str, int] | None) -> None:
        self._group, self._left = group, self._limit
        self._sums: dict[str, _Sum] = {}

    def _begin(self, name: str, D: Float[Tensor, "M N"]) -> _Sum:
        begun = _Sum(D, self._subspaces.bases(name), torch.zeros_like(D))
        # The update, the sum, and a frame of at most as many columns as rows.
        held = 2 * D.nbytes + len(D) * min(D.shape) * D.element_size()
        if self._left >= held:
            self._left -= held
            self._sums[name] = begun
        return begun

    def _part(self, cell: Cell, begun: _Sum) -> Float[Tensor, "M N"]:
        """What a cell keeps of one tensor's update D: a dose of it, or what lies inside or outside a subspace."""
        if cell.dose is not None:
            return cell.dose * begun.D
        kept = self._side(cell, begun)
        return along(kept, begun.D) if cell.basis == MATCHED else kept

    def _side(self, cell: Cell, begun: _Sum) -> Float[Tensor, "M N"]:
        """The part of one tensor's update that lies inside or outside the subspace of a basis."""
        settings, D = self._subspaces.settings, begun.D
        _, basis, draw = cell.directions(settings.claim)
        if (share := vector_share(D.shape, settings.vectors)) is not None:
            # A vector that a policy takes out of the projection is the same under both schemes.
            return torch.zeros_like(D).add_(D, alpha=share)
        ks = begun.bases.counts(settings.fractions, rounding=settings.rounding)
        wanted = ks[len(cell.fractions(settings.fractions)) - 1]
        if begun.k > wanted:
            begun.parallel.zero_()
            begun.k = 0
        if begun.subspace is None:
            # Of the largest fraction: a random frame of other columns differs in the last bits of those that it shares.
            begun.subspace = begun.bases.subspace(basis, k=ks[-1], draw=draw, device=D.device)
        for k in (k for k in ks if begun.k < k <= wanted):
            begun.subspace.add_part(begun.parallel, D, begun.k, k)
            begun.k = k
        return begun.parallel if cell.scheme == "parallel" else D - begun.parallel


def along(kept: Float[Tensor, "M N"], D: Float[Tensor, "M N"]) -> Float[Tensor, "M N"]:
    """Return a D with a = <kept, D>/|D|^2, what an edit keeps along its update; 0 where the update D is 0."""
    return D * (inner(kept, D) / square if (square := squared_norm(D)) else 0.0)


@dataclass(frozen=True)
class Session:
    """All that serves every cell of a seed: the live weights, what the model is asked, what its weights are made of."""

    weights: LiveWeights
    metrics: Mapping[Metric, Ask]
    parts: KeptParts


def open_session(
    roles: Roles, texts: Texts, seed: int, tasks: Sequence[str], metrics: Sequence[Metric], device: str | None
) -> Session:
    """Load the model of a seed and prepare what it will be asked.

    Raises UserError when a checkpoint is missing or unlike the others, cannot be given weights tensor by tensor, or a
    data set is missing.
    """
    ready = ready_device(device, threads=roles.study.threads)
    parts = KeptParts(Subspaces(roles, seed, tasks, device=ready, keep_factors=True))
    reference = parts.updates.reference
    reference.check_is_live()
    model, tokenizer = live_model(roles, "reference", seed, device=ready), role_tokenizer(roles, "reference", seed)
    evaluation = roles.study.evaluation
    assert evaluation is not None
    asks = {name: metric_of(name, texts, evaluation).prepare(model, tokenizer) for name in metrics}
    return Session(LiveWeights(model, reference.tensor), asks, parts)


def answer_cell(roles: Roles, scores: Sequence[Score], session: Session) -> None:
    """Ask the model of one cell what it will be scored for, and store its answers.

    Raises UserError when memory does not suffice for one prompt, or the disk is full.
    """
    cell = scores[0].cell
    delivered = session.weights.write(cell_edits(roles, session.parts, cell))
    for score in scores:
        facts = {"metric": score.metric, **asdict(cell), **asdict(delivered)}
        write_answers(roles.layout, cell.seed, score.answers, session.metrics[score.metric](), facts)


def cell_edits(roles: Roles, parts: KeptParts, cell: Cell) -> Iterator[WeightEdit]:
    """Yield the weights of a cell, tensor by tensor: the reference's plus the part of the task update that it keeps.

    A baseline has the weights of its checkpoint, and no update; of another vocabulary the rows that the live model has.
    """
    reference = parts.updates.reference
    if not cell.is_baseline:
        yield from (WeightEdit(name, reference.tensor(name), part) for name, part in parts.of(cell))
    elif cell.task != "reference":
        checkpoint = open_role(roles, cell.task, cell.seed)
        for name in reference.names:
            weights = fitted(checkpoint, reference, name)
            yield WeightEdit(name, weights, torch.zeros_like(weights))
