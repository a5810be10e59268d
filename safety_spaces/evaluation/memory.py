"""Batches that are halved where memory does not suffice, so that one long prompt does not end a day's work."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from safety_spaces.errors import UserError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")


def halve_until_it_fits(attempt: Callable[[int], Result], batch_size: int) -> tuple[Result, int]:
    """Return what `attempt` returns for the first of batch_size, half of it, ... 1 that memory holds, and that size.

    Raises UserError when memory does not hold even one prompt.
    """
    while True:
        try:
            return attempt(batch_size), batch_size
        except (torch.OutOfMemoryError, MemoryError) as error:
            if batch_size == 1:
                raise UserError(
                    "out of memory: expected room for 1 prompt on the device, got none; use a larger device, "
                    "projection.weights_dtype: bfloat16 or fewer max_new_tokens"
                ) from error
        # Out here the exception is gone, and with it the frames that held the tensors of the failed attempt.
        gc.collect()
        torch.cuda.empty_cache()
        logger.warning("memory does not hold %d prompts at once: going on with %d", batch_size, batch_size // 2)
        batch_size //= 2


def in_batches(
    items: Sequence[Item], answer: Callable[[Sequence[Item]], Sequence[Result]], *, batch_size: int
) -> Iterator[Result]:
    """Yield one result per item, in order, asking `answer` for at most `batch_size` at a time.

    A batch that memory does not hold is halved; the size that worked is kept for the batches that follow. Raises
    UserError when memory does not hold even one prompt.
    """
    while items:
        attempt = partial(_answer_first, answer, items)
        results, batch_size = halve_until_it_fits(attempt, min(batch_size, len(items)))
        yield from results
        items = items[len(results) :]


def _answer_first(
    answer: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], number: int
) -> Sequence[Result]:
    return answer(items[:number])
