"""Torch made ready for a study: threads, device, and the reason for the device."""

import functools
import logging
import os

import datasets
import torch
import transformers

from safety_spaces.errors import UserError

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""`projection.weights_dtype` -> dtype of the live model."""


def ready_device(name: str | None, *, threads: int) -> torch.device:
    """Set the threads, on which the last bits of a sum depend, and return the device; UserError if it is not there."""
    torch.set_num_threads(threads)
    # Libraries draw a bar for every small step; the experiments draw one for each that a person waits for.
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # It warns of every live model that it was not given by name, which is what we mean to do.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return _announced_device(name)


@functools.cache
def _announced_device(name: str | None) -> torch.device:
    device, reason = choose_device(name)
    logger.info("device: %s (%s)", device, reason)
    return device


def choose_device(name: str | None) -> tuple[torch.device, str]:
    """Return the device to run on and why: the one asked for, else CUDA where there is one, else the CPU.

    Of several CUDA devices a process that a launcher started takes the one of its number (LOCAL_RANK). Raises UserError
    when the device asked for is not there, or there are more processes than devices; there is no silent fall-back.
    """
    if name is not None:
        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"--device {name}: expected a device of this machine; use --device cpu or leave it out"
            ) from error
        return torch.device(name), "asked for with --device"
    if not torch.cuda.is_available():
        return torch.device("cpu"), "no CUDA device was found"
    if (rank := os.environ.get("LOCAL_RANK")) is None:
        return torch.device("cuda"), "CUDA is available"
    if not (rank.isdecimal() and int(rank) < torch.cuda.device_count()):
        raise UserError(
            f"LOCAL_RANK={rank}: expected the number of one of {torch.cuda.device_count()} CUDA devices; "
            "start one process per device or name one with --device"
        )
    return torch.device("cuda", int(rank)), f"CUDA is available, LOCAL_RANK is {rank}"
