"""Several processes on one training: the first does what is done once, the others wait for it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from safety_spaces.errors import UserError

Result = TypeVar("Result")

LONGEST_WAIT = timedelta(hours=12)
"""How long the others wait while the first downloads, or writes a large checkpoint."""


def from_first(action: Callable[[], Result], *, cpu: bool) -> Result:
    """Call `action` in the first process and return its result in all: plain values, since they are sent.

    Every process that a launcher started must come here; it is the point where they meet.

    Raises UserError in the first process when the action raises it, and in all when no launcher has told them where to
    meet; the others raise SystemExit then, and leave the message to the first.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" not in os.environ:
        raise UserError("WORLD_SIZE: expected one process, or a launcher; use accelerate launch or torchrun")
    # Without a GPU accelerate takes every process for one of its own, unless it is told.
    state = PartialState(cpu=cpu or not torch.cuda.is_available(), timeout=LONGEST_WAIT)
    message: list[Any] = [False, None]
    try:
        if state.is_main_process:
            message = [True, action()]
    except UserError:
        broadcast_object_list(message)
        raise
    broadcast_object_list(message)
    if not message[0]:
        raise SystemExit(2)
    return message[1]  # type: ignore[no-any-return]


@contextmanager
def member(number: int, *, of: int, port: int) -> Iterator[None]:
    """Make this process one of several that meet at a port of this machine, as a launcher does; alone at the end."""
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": of, "LOCAL_WORLD_SIZE": of, "MASTER_PORT": port}
    environment = {name: str(value) for name, value in told.items()}
    # accelerate would take half of the cores for each; the study's number of threads is set later.
    environment |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in environment}
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ.update(environment)
    try:
        yield
    finally:
        # Also tells the others, who wait for this one, that it has failed.
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
