"""The reference update and the task updates of one study, tensor by tensor, turned so that left is projected.

Memory is that of a few tensors, whatever the number of layers; on another device than the CPU the next tensor is read
while the last is factored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from safety_spaces.errors import warn_once
from safety_spaces.models.checkpoints import Checkpoint, as_matrix, check_differs, check_same_tensors, update
from safety_spaces.tensors import Side

REFERENCE = "reference"

Name = TypeVar("Name")
Read = TypeVar("Read")


class Updates:
    """Differences of checkpoints of one model: reference - base, and each task - reference (equations 1 and 2).

    Of an embedding or a head whose number of tokens differs, the rows that base and reference share are compared; rows
    that a task lacks have not changed. So what is found of a task depends on no other task. A warning says so.

    Raises UserError when the checkpoints hold other tensors, or base equals reference.
    """

    def __init__(
        self,
        base: Checkpoint,
        reference: Checkpoint,
        tasks: Mapping[str, Checkpoint],
        *,
        side: Side = "left",
        device: torch.device | None = None,
    ) -> None:
        for other in (base, *tasks.values()):
            check_same_tensors(reference, other)
        if side == "residual":
            reference.check_faces_residual()
        check_differs(base, reference)
        _warn_of_vocabularies(reference, (base, *tasks.values()))
        self.base, self.reference, self.tasks = base, reference, dict(tasks)
        self._side = side
        self._device = device or torch.device("cpu")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, sorted."""
        return self.reference.names

    def turned(self, name: str, D: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A matrix of one tensor with the projected side on the left; the same call turns it back."""
        is_matrix = len(self.reference.shape(name)) > 1
        return D.T if is_matrix and self.reference.projected(name, self._side) == "right" else D

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of one tensor as a matrix, the projected side first."""
        matrix = as_matrix(torch.empty(self.reference.shape(name), device="meta"))[: self._rows(name)]
        rows, columns = self.turned(name, matrix).shape
        return rows, columns

    def plain(self, role: str, name: str) -> Float[Tensor, "M N"]:
        """The update of a task, or of the reference, of one tensor as it is, on the CPU."""
        if role == REFERENCE:
            return update(self.base, self.reference, name)
        D = update(self.reference, self.tasks[role], name)
        return _with_rows(D[: self._rows(name)], self._rows(name))

    def of(self, role: str, name: str) -> Float[Tensor, "M N"]:
        """The update of a task, or of the reference, of one tensor."""
        return self.turned(name, self.plain(role, name).to(self._device))

    def restored(self, name: str, D: Float[Tensor, "M N"]) -> Float[Tensor, "..."]:
        """A turned update in the shape of the reference's tensor, with zeros in the rows that the base has not."""
        shape = self.reference.shape(name)
        return _with_rows(self.turned(name, D), shape[0] if shape else 1).reshape(shape)

    def each(self, names: Iterable[str], roles: Iterable[str]) -> Iterator[tuple[str, dict[str, Float[Tensor, "M N"]]]]:
        """Name after name, the updates of the roles."""
        wanted = tuple(roles)
        read = read_ahead(names, lambda name: {role: self.plain(role, name) for role in wanted}, self._device)
        for name, plain in read:
            # Taken out, so that what the caller drops is dropped.
            yield name, {role: self.turned(name, plain.pop(role).to(self._device)) for role in wanted}

    def _rows(self, name: str) -> int:
        """Rows of one tensor that base and reference share."""
        return min(len(as_matrix(torch.empty(of.shape(name), device="meta"))) for of in (self.base, self.reference))


def _with_rows(D: Float[Tensor, "M N"], rows: int) -> Float[Tensor, "R N"]:
    """D with zeros below, as many as are missing."""
    return D if len(D) == rows else pad(D, (0, 0, 0, rows - len(D)))


def _warn_of_vocabularies(reference: Checkpoint, others: Sequence[Checkpoint]) -> None:
    for name in reference.names:
        if any(other.shape(name) != reference.shape(name) for other in others):
            sizes = ", ".join(f"{of.shape(name)[0]} in {of.folder}" for of in (reference, *others))
            warn_once(f"the number of tokens differs, shared rows alone are compared: rows of {name} are {sizes}")
            return


def read_ahead(
    names: Iterable[Name], read: Callable[[Name], Read], device: torch.device
) -> Iterator[tuple[Name, Read]]:
    """What `read` returns for each name, in order; where the CPU only waits for another device, one name ahead."""
    if device.type == "cpu":
        yield from ((name, read(name)) for name in names)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        begun = ((name, pool.submit(read, name)) for name in names)
        now = next(begun, None)
        while now is not None:
            (name, found), now = now, next(begun, None)
            yield name, found.result()
