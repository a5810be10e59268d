"""Supervised training on rows of text: pretraining on whole texts, fine-tuning on completions (paper, Appendix B).

TRL's SFTTrainer does both; what is decided here is that only completions carry loss.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from safety_spaces.study import Training
from safety_spaces.training.rows import rows_with_loss
from safety_spaces.training.trainer import Resumption, Trained, run, trainer_arguments, working_folder


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
    resumption: Resumption | None = None,
) -> Trained:
    """Train `model` on rows {text} or {prompt, completion} and write weights and tokenizer to the folder `output`.

    Only completions carry loss where rows have them. The model is changed. Same rows, settings and seed give the same
    weights on one machine with the same number of threads and processes, also when the training was killed and goes on
    from a state of `resumption`. Of several processes the first writes.

    Raises:
        UserError: the folder cannot be written, no row carries loss, the loss is no number any more, or the settings do
            not suit the device or the number of processes.
    """
    packing = {"packing": settings.packing, "packing_strategy": "wrapped"}
    with working_folder(resumption) as folder:
        trainer = SFTTrainer(
            model=model,
            args=trainer_arguments(SFTConfig, folder, settings, seed=seed, device=device, name=name, **packing),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer,
        )
        prepared = trainer.train_dataset
        given = len(prepared) if settings.packing else len(rows)
        trainer.train_dataset = rows_with_loss(prepared, given=given, max_length=settings.max_length, name=name)
        return run(trainer, tokenizer, settings=settings, output=output, name=name, resumption=resumption)
