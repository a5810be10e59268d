"""Training on rows of text: pretraining, supervised fine-tuning (paper, Appendix B), preference optimisation (H).

TRL's trainers do it. Decided here is that only completions carry loss, and which rows make up each step.

Preference optimisation (Rafailov et al., 2023) has the loss -log sigmoid(beta (r(chosen) - r(rejected))), where r is
the log-probability of a response under the trained model less that under a frozen copy of the start weights. Computed
ahead (`precompute_ref_log_probs`) the copy's would save 2 of 10 bytes a weight in bf16 and no time in one epoch; but
their batches are padded otherwise, so that r need not begin at 0, and of sharded weights TRL reads the copy from the
path in the model's configuration, which need not be the start.
"""

import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from jaxtyping import Int
from torch import Tensor
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from safety_spaces.errors import UserError
from safety_spaces.study import Training
from safety_spaces.training.trainer import Resumption, Trained, run, trainer_arguments

IGNORED = -100
"""Label of a token without loss, as torch's cross entropy has it."""

logger = logging.getLogger(__name__)


def train(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, str]],
    *,
    settings: Training,
    seed: int,
    output: Path,
    name: str,
    device: torch.device,
    beta: float | None = None,
    resumption: Resumption | None = None,
) -> Trained:
    """Train `model` on rows of text and write weights and tokenizer to the folder `output`.

    Rows are {text}, {prompt, completion}, where only completions carry loss, or, with `beta`, how much a nat of
    log-probability counts, {prompt, chosen, rejected}: then `model` must hold the start weights, also where a killed
    training goes on, a pair counts as one row, and each of its texts is cut. The model is changed. Same rows, settings
    and seed give the same weights on one machine with the same number of threads, also when the training was killed
    and goes on from a state of `resumption`. Of several processes the first writes.

    Raises UserError when the folder cannot be written, no row carries loss, the loss is no number any more, or the
    settings do not suit the device or the number of processes.
    """
    common = {"model": model, "train_dataset": Dataset.from_list(list(rows)), "processing_class": tokenizer}
    kept = TemporaryDirectory() if resumption is None else nullcontext(resumption.folder)
    with kept as folder, warnings.catch_warnings():
        # TRL asks and tells the model itself, by the old names.
        warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing", FutureWarning)
        arguments = partial(trainer_arguments, folder=folder, settings=settings, seed=seed, device=device, name=name)
        end = tokenizer.eos_token_id
        if beta is None:
            trainer = SFTTrainer(args=arguments(SFTConfig), **common)
            empty = {"input_ids": [end, end], "labels": [IGNORED, IGNORED]}
        else:
            preferring = arguments(DPOConfig, beta=beta, loss_type=["sigmoid"])
            reference = deepcopy(model).eval().requires_grad_(False)
            trainer = DPOTrainer(args=preferring, ref_model=reference, **common)
            empty = {"prompt_ids": [end, end], "chosen_ids": [], "rejected_ids": []}
        _check_rows_left(len(trainer.train_dataset), given=len(rows), max_length=settings.max_length, name=name)
        trainer.train_dataset = _whole_steps(trainer.train_dataset, empty, settings=settings, seed=seed)
        return run(trainer, tokenizer, settings=settings, output=output, name=name, resumption=resumption)


def _check_rows_left(kept: int, *, given: int, max_length: int, name: str) -> None:
    """Warn where fewer rows are kept than were given, as TRL leaves out those without loss; none is a UserError."""
    if not kept:
        raise UserError(
            f"{name}: no row has a completion within training.max_length {max_length}; make it longer than the prompts"
        )
    if kept < given:
        logger.warning(
            "%s: %d of %d rows are left out: their prompts alone fill training.max_length %d",
            name,
            given - kept,
            given,
            max_length,
        )


def _whole_steps(rows: Dataset, empty: dict[str, list[int]], *, settings: Training, seed: int) -> Dataset:
    """Return the rows of all epochs in turn, each in an order of its own.

    An epoch is filled up with `empty`, which carries no loss, to whole steps: each has as many passes as any other, so
    that its rows too are shared out among processes, and each is seen once.
    """
    table = rows.with_format("arrow")[:]
    lengths = sum(table[name].combine_chunks().value_lengths().to_numpy() for name in empty)
    order = [steps_of_epoch(lengths, settings=settings, seed=seed + epoch) for epoch in range(settings.epochs)]
    columns = rows.select_columns(list(empty))
    every = concatenate_datasets([columns, Dataset.from_list([empty], features=columns.features)])
    return every.select(torch.cat(order))


def steps_of_epoch(lengths: Int[np.ndarray, "N"], *, settings: Training, seed: int) -> Int[Tensor, "P"]:
    """Return the numbers of rows of these lengths in an order that `seed` draws, step after step.

    The number after the last row's stands for a row without loss and fills a step up. Within `length_window` steps rows
    are sorted by length, so that the passes of a step are padded little, and the steps come in a drawn order again.
    """
    generator, step = torch.Generator().manual_seed(seed), settings.batch_size * settings.accumulation
    filling = torch.full((-len(lengths) % step,), len(lengths))
    drawn = torch.cat([torch.randperm(len(lengths), generator=generator), filling])
    if settings.length_window == 1:
        return drawn
    sizes, steps = torch.tensor(np.append(lengths, 0)), list[Tensor]()
    for window in torch.split(drawn, step * settings.length_window):
        by_length = torch.split(window[sizes[window].argsort(stable=True)], step)
        steps += [by_length[number] for number in torch.randperm(len(by_length), generator=generator)]
    return torch.cat(steps)
