"""Torch made ready for a study: threads, device, and the reason for the device."""

import functools
import logging

import datasets
import torch
import transformers

from safety_spaces.behaviour.live import choose_device
from safety_spaces.experiments.command import Command
from safety_spaces.geometry.factorisation import Precision, precision_on

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""`projection.weights_dtype` -> dtype of the live model."""


def ready_device(command: Command) -> torch.device:
    """Set the study's number of threads, on which the last bits of a sum depend, and return the device to run on.

    Raises:
        UserError: the device asked for is not there.
    """
    torch.set_num_threads(command.study.threads)
    # Libraries draw a bar for every small step; the experiments draw one for each that a person waits for.
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # It warns of every live model that it was not given by name, which is what we mean to do.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return _announced_device(command.device)


@functools.cache
def factor_precision(device: torch.device) -> Precision:
    """Return the precision that updates are factored in on a device, and log why."""
    precision, reason = precision_on(device)
    logger.info("factors: %s (%s)", precision, reason)
    return precision


@functools.cache
def _announced_device(name: str | None) -> torch.device:
    device, reason = choose_device(name)
    logger.info("device: %s (%s)", device, reason)
    return device
