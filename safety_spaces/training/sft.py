"""Supervised training on rows of text: pretraining on whole texts, fine-tuning on completions (paper, Appendix B).

TRL's SFTTrainer does both; what is decided here is that only completions carry loss, in which precision the optimiser
steps, and that nothing but weights and tokenizer is left behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from safety_spaces.errors import UserError
from safety_spaces.study import Training

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""`training.precision` -> dtype of the weights that the optimiser steps; bf16 has no float32 copy, as in the paper."""


@dataclass(frozen=True)
class Trained:
    """What a training did: optimiser steps taken and the mean loss over them."""

    steps: int
    loss: float


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
) -> Trained:
    """Train `model` on rows {text} or {prompt, completion} and write weights and tokenizer to the folder `output`.

    Only completions carry loss where rows have them. The model is changed. Same rows, settings and seed give the same
    weights on one machine with the same number of threads.

    Raises:
        UserError: the folder cannot be written.
    """
    with TemporaryDirectory() as state:
        trainer = SFTTrainer(
            model=model,
            args=_trainer_arguments(Path(state), settings, seed=seed, device=device),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer,
            callbacks=[_Progress(name)],
        )
        # Both print every log line; the loss goes to recipe.json instead.
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        result = trainer.train()
        _save(trainer.model, tokenizer, output)
    return Trained(steps=result.global_step, loss=result.training_loss)


def _save(model: Any, tokenizer: Any, output: Path) -> None:
    try:
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{output}: cannot be written ({reason}); free disk space or write elsewhere") from error


def _trainer_arguments(state: Path, settings: Training, *, seed: int, device: torch.device) -> SFTConfig:
    return SFTConfig(
        output_dir=str(state),
        seed=seed,
        data_seed=seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        num_train_epochs=settings.epochs,
        max_length=settings.max_length,
        weight_decay=settings.weight_decay,
        optim="adamw_torch_fused",
        bf16=False,
        activation_checkpointing=False,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
    )


class _Progress(TrainerCallback):  # type: ignore[misc]
    """One progress bar per training, in place of the trainer's tables."""

    def __init__(self, name: str) -> None:
        self._bar = tqdm(desc=f"train {name}", disable=None)

    def on_train_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        self._bar.reset(total=state.max_steps)

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_train_end(self, _arguments: Any, _state: Any, _control: Any, **_: Any) -> None:
        self._bar.close()
