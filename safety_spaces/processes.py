"""Several processes on one study: who does what, without a word between them.

`accelerate launch` and torchrun tell each process its number in the environment; processes of a cluster's job array can
be given RANK and WORLD_SIZE by hand. Work is divided by number alone, so any process may die and be started again.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from safety_spaces.errors import UserError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """The number of this process, from 0, and how many there are."""

    index: int = 0
    count: int = 1

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of this process: every count-th."""
        return list(items[self.index :: self.count])

    def passes_of_each(self, accumulation: int, *, name: str) -> int:
        """Return the forward passes that each process does for one step of a training.

        Raises UserError when the passes of a step cannot be shared out equally.
        """
        passes, rest = divmod(accumulation, self.count)
        if rest:
            raise UserError(
                f"{name}: expected training.accumulation to be a multiple of the {self.count} processes, got "
                f"{accumulation}; change it or the number of processes"
            )
        return passes

    @property
    def is_first(self) -> bool:
        """Whether this process does what is to be done once."""
        return self.index == 0


def processes() -> Processes:
    """Return what the launcher says in RANK and WORLD_SIZE; one process without a launcher.

    Raises UserError when they are not both numbers with 0 <= RANK < WORLD_SIZE.
    """
    if not {"RANK", "WORLD_SIZE"} & os.environ.keys():
        return Processes()
    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise UserError(f"RANK={rank} WORLD_SIZE={size}: expected numbers with 0 <= RANK < WORLD_SIZE; correct them")
    return Processes(int(rank), int(size))


def all_found(found: Mapping[Key, Result | None]) -> dict[Key, Result] | None:
    """Return the results where none is missing; else None, and the log says that other processes still make some."""
    there = {key: result for key, result in found.items() if result is not None}
    if len(there) == len(found):
        return there
    logger.info("%d results are left to other processes; the last one writes the tables", len(found) - len(there))
    return None
