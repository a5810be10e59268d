"""The reference update and the task updates of one study, tensor by tensor, turned so that left is projected.

Memory is that of a few tensors, whatever the number of layers; on another device than the CPU the next tensor is read
while the last is factored.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from safety_spaces.geometry.bases import orient
from safety_spaces.geometry.checkpoints import Checkpoint, as_matrix, check_differs, check_same_tensors, update
from safety_spaces.tensors import Side, kind, project_from

REFERENCE = "reference"

Name = TypeVar("Name")
Read = TypeVar("Read")


class Updates:
    """Differences of checkpoints of one model: reference - base, and each task - reference (equations 1 and 2).

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
        check_differs(base, reference)
        self.base, self.reference, self.tasks = base, reference, dict(tasks)
        self._side = side
        self._device = device or torch.device("cpu")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors, sorted."""
        return self.reference.names

    def turned(self, name: str, D: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """A matrix of one tensor with the projected side on the left; the same call turns it back."""
        is_vector = len(self.reference.shape(name)) < 2
        return D if is_vector else orient(D, project_from(self._side, kind(name)))

    def shape(self, name: str) -> tuple[int, int]:
        """Rows and columns of one tensor as a matrix, the projected side first."""
        rows, columns = self.turned(name, as_matrix(torch.empty(self.reference.shape(name), device="meta"))).shape
        return rows, columns

    def weights(self, name: str) -> Float[Tensor, "M N"]:
        """The reference's weights of one tensor."""
        return self.turned(name, as_matrix(self.reference.tensor(name)).to(self._device))

    def plain(self, role: str, name: str) -> Float[Tensor, "M N"]:
        """The update of a task, or of the reference, of one tensor as it is, on the CPU."""
        if role == REFERENCE:
            return update(self.base, self.reference, name)
        return update(self.reference, self.tasks[role], name)

    def of(self, role: str, name: str) -> Float[Tensor, "M N"]:
        """The update of a task, or of the reference, of one tensor."""
        return self.turned(name, self.plain(role, name).to(self._device))

    def restored(self, name: str, D: Float[Tensor, "M N"]) -> Float[Tensor, "..."]:
        """A turned matrix in the shape of its tensor."""
        return self.turned(name, D).reshape(self.reference.shape(name))

    def each(self, names: Iterable[str], roles: Iterable[str]) -> Iterator[tuple[str, dict[str, Float[Tensor, "M N"]]]]:
        """Name after name, the updates of the roles."""
        wanted = tuple(roles)
        read = read_ahead(names, lambda name: {role: self.plain(role, name) for role in wanted}, self._device)
        for name, plain in read:
            # Taken out, so that what the caller drops is dropped.
            yield name, {role: self.turned(name, plain.pop(role).to(self._device)) for role in wanted}


def read_ahead(
    names: Iterable[Name], read: Callable[[Name], Read], device: torch.device
) -> Iterator[tuple[Name, Read]]:
    """What `read` returns for each name, in order; where the CPU only waits for another device, one name ahead."""
    if device.type == "cpu":
        yield from ((name, read(name)) for name in names)
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[tuple[Name, Future[Read]]] = deque()
        for name in names:
            waiting.append((name, pool.submit(read, name)))
            if len(waiting) > 1:
                earlier, found = waiting.popleft()
                yield earlier, found.result()
        for name, found in waiting:
            yield name, found.result()
