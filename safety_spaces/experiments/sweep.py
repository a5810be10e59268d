"""Answers of projected models: weights in place and generation, one cell after the other (equations 5 and 6).

A cell is found in memory only while it is asked; its answers are on disk before the next one begins.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.evaluation.metrics import Ask, metric_of
from safety_spaces.experiments.answers import write_answers
from safety_spaces.experiments.cells import NO_SCHEME, Cell, Score
from safety_spaces.experiments.command import Command
from safety_spaces.experiments.energies import Subspaces
from safety_spaces.geometry.bases import ordered_basis
from safety_spaces.geometry.projection import kept, parallel_parts
from safety_spaces.models.checkpoints import Checkpoint, fitted
from safety_spaces.models.device import ready_device
from safety_spaces.models.live import LiveWeights, WeightEdit
from safety_spaces.models.loading import live_model, open_role, role_tokenizer
from safety_spaces.study import Metric
from safety_spaces.tensors import layer


@dataclass(frozen=True)
class Session:
    """All that serves every cell of a seed: the live weights, what is asked of them, and what they are made from."""

    weights: LiveWeights
    metrics: Mapping[Metric, Ask]
    subspaces: Subspaces


def open_session(command: Command, seed: int, tasks: Sequence[str], metrics: Sequence[Metric]) -> Session:
    """Load the model of a seed and prepare what it will be asked.

    Raises:
        UserError: a checkpoint is missing or unlike the others, or a data set is missing.
    """
    subspaces, model = (
        Subspaces(command, seed, tasks),
        live_model(
            command.roles, "reference", seed, device=ready_device(command.device, threads=command.study.threads)
        ),
    )
    weights = LiveWeights(model, subspaces.updates.reference.tensor)
    return Session(weights, _metrics(command, seed, model, metrics), subspaces)


def answer_cell(command: Command, scores: Sequence[Score], session: Session) -> None:
    """Ask the model of one cell what it will be scored for, and store its answers.

    Raises:
        UserError: memory does not suffice for one prompt, or the disk is full.
    """
    cell, subspaces = scores[0].cell, session.subspaces
    delivered = session.weights.write(_edits(command, subspaces, cell))
    for score in scores:
        facts = {"metric": score.metric, **asdict(cell), **asdict(delivered)}
        write_answers(command, cell.seed, score.answers, session.metrics[score.metric](), facts)


def _metrics(command: Command, seed: int, model: Any, names: Sequence[Metric]) -> Mapping[Metric, Ask]:
    """Prepare what is asked of every cell: everything but the weights."""
    tokenizer, evaluation = role_tokenizer(command.roles, "reference", seed), command.study.evaluation
    assert evaluation is not None
    return {name: metric_of(name, command.texts, evaluation).prepare(model, tokenizer) for name in names}


def _baseline(command: Command, reference: Checkpoint, cell: Cell) -> Iterator[WeightEdit]:
    """A checkpoint as it is: its own weights, no update; of another vocabulary the rows that the live model has."""
    if cell.task == "reference":
        return
    checkpoint = open_role(command.roles, cell.task, cell.seed)
    for name in reference.names:
        weights = fitted(checkpoint, reference, name)
        yield WeightEdit(name, weights, torch.zeros_like(weights))


def _edits(command: Command, subspaces: Subspaces, cell: Cell) -> Iterator[WeightEdit]:
    """W_A plus the part of the task update that the cell keeps, one tensor at a time; none is read that keeps nothing.

    The parallel part is summed over all fractions up to the cell's own, so a cell has the same weights whichever
    others were scored before it; no more directions are read or drawn than the cell keeps.
    """
    updates = subspaces.updates
    if cell.scheme == NO_SCHEME:
        yield from _baseline(command, updates.reference, cell)
        return
    names = updates.names if cell.others != "out" else [name for name in updates.names if cell.projects(layer(name))]
    for name, D in updates.each(names, [cell.task]):
        update = D[cell.task]
        part = _part(command, subspaces, cell, name, update) if cell.projects(layer(name)) else update
        yield WeightEdit(name, updates.reference.tensor(name), updates.restored(name, part))


def _part(
    command: Command, subspaces: Subspaces, cell: Cell, name: str, update: Float[Tensor, "M N"]
) -> Float[Tensor, "M N"]:
    """The part of one tensor's update that lies inside or outside the cell's subspace."""
    assert cell.scheme != NO_SCHEME
    settings, frames = command.study.projection, subspaces.frames(name)
    shape = subspaces.updates.shape(name)
    ks = frames.directions(cell.fractions(settings.fractions), shape, rounding=settings.rounding)
    basis = ordered_basis(
        cell.basis,
        frames.of(cell.basis),
        k=ks[-1],
        seed=cell.seed,
        draw=cell.draw or 0,
        name=name,
        device=update.device,
    )
    *_, parallel = parallel_parts(update, basis, ks, vectors=settings.vectors)
    return kept(update, parallel, cell.scheme, vectors=settings.vectors)
