"""Torch made ready for a study: threads, device, and the reason for the device."""

import logging

import torch

from safety_spaces.behaviour.live import choose_device
from safety_spaces.experiments.command import Command

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""`projection.weights_dtype` -> dtype of the live model."""


def ready_device(command: Command) -> torch.device:
    """Set the study's number of threads, on which the last bits of a sum depend, and return the device to run on.

    Raises:
        UserError: the device asked for is not there.
    """
    torch.set_num_threads(command.study.threads)
    device, reason = choose_device(command.device)
    logger.info("device: %s (%s)", device, reason)
    return device
