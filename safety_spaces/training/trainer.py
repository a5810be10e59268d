"""One training, whatever its loss: a study's settings as arguments of TRL's trainers, the run, and what is left behind.

Decided here are the precision in which the optimiser steps, from where a killed training goes on, that it stops at a
loss that is no number, and that nothing but weights and tokenizer is left.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors import SafetensorError
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from safety_spaces.errors import UserError
from safety_spaces.processes import processes
from safety_spaces.progress import Progress, progress
from safety_spaces.study import Training
from safety_spaces.training.optimizers import adamw
from safety_spaces.training.states import KeepLast, last_state
from safety_spaces.training.together import from_first

DTYPES = {"fp32": torch.float32, **dict.fromkeys(("bf16", "bf16_stochastic", "bf16_kahan"), torch.bfloat16)}
"""`training.precision` -> dtype of the weights that the optimiser steps; bf16 has no float32 copy, as in the paper."""


@dataclass(frozen=True)
class Trained:
    """What a training did: optimiser steps taken, the mean loss over them and over each tenth of them in turn."""

    steps: int
    loss: float
    loss_by_tenth: tuple[float, ...]


@dataclass(frozen=True)
class Resumption:
    """Where a training keeps the states it goes on from, and the digest of what makes them."""

    folder: Path
    recipe: str


def trainer_arguments(
    kind: type[TrainingArguments],
    *,
    folder: Path | str,
    settings: Training,
    seed: int,
    device: torch.device,
    name: str,
    **own: Any,
) -> TrainingArguments:
    """Return a study's settings as the arguments of a trainer of TRL; `own` are those that this kind alone has.

    Raises UserError when the device is another GPU than the first, or the processes cannot share out a step's passes.
    """
    if device.index:
        raise UserError(
            f"--device {device}: training runs on the first GPU it sees; set CUDA_VISIBLE_DEVICES={device.index}"
        )
    passes = processes().passes_of_each(settings.accumulation, name=name)
    arguments = kind(
        output_dir=str(folder),
        seed=seed,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=passes,
        # The rows of all epochs come in the order of their steps.
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=settings.max_length,
        weight_decay=settings.weight_decay,
        bf16=False,
        activation_checkpointing=settings.gradient_checkpointing,
        use_cpu=device.type == "cpu",
        dataloader_pin_memory=device.type != "cpu",
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if settings.save_every else "no",
        save_steps=settings.save_every or 1,
        ddp_find_unused_parameters=False,
        report_to="none",
        **own,
    )
    # Without a launcher the trainer would spread a batch over every GPU it sees, each with a batch of its own.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def run(
    trainer: Trainer, tokenizer: Any, *, settings: Training, output: Path, name: str, resumption: Resumption | None
) -> Trained:
    """Train, from the newest whole state where there is one, and write weights and tokenizer to the folder `output`.

    Raises UserError when the folder cannot be written, the loss is no number any more, or the optimiser does not suit
    the device or the number of processes.
    """
    arguments = trainer.args
    trainer.optimizer_cls_and_kwargs = adamw(settings, device=arguments.device, processes=arguments.world_size)
    # Both print every log line; the loss goes to recipe.json instead.
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    with progress(desc=f"train {name}", shown=PartialState().is_main_process) as bar:
        trainer.add_callback(_Watch(bar, name))
        result = trainer.train(resume_from_checkpoint=_state(trainer, resumption))
    _save(trainer, tokenizer, output)
    # From the log, which a state holds: the trainer's own mean begins anew when it goes on.
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tenths = tuple(fmean(part) for part in np.array_split(losses, min(10, len(losses))))
    return Trained(steps=result.global_step, loss=fmean(losses), loss_by_tenth=tenths)


def _state(trainer: Trainer, resumption: Resumption | None) -> str | None:
    if resumption is None:
        return None
    folder, recipe = resumption.folder, resumption.recipe
    trainer.add_callback(KeepLast(folder, recipe))
    state = from_first(lambda: last_state(folder, recipe), cpu=trainer.args.use_cpu)
    return str(state) if state else None


def _save(trainer: Trainer, tokenizer: Any, output: Path) -> None:
    # Where weights are sharded every process gives its part; None means that the model has them all.
    weights = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None
    if not PartialState().is_main_process:
        return
    try:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(output, state_dict=weights)
        tokenizer.save_pretrained(output)
    except SafetensorError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{output}: cannot be written ({reason}); free disk space or write elsewhere") from error


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Moves the bar of a training, and stops it at the first loss that is no number: no later step can mend it."""

    def __init__(self, bar: Progress, name: str) -> None:
        self._bar, self._name = bar, name

    def on_train_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        self._bar.reset(total=state.max_steps)
        # Steps of an earlier process took no time of this one.
        self._bar.n = self._bar.initial = state.global_step

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)

    def on_log(self, _arguments: Any, state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        if not math.isfinite(logs.get("loss", 0.0)):
            raise UserError(
                f"{self._name}: the loss is {logs['loss']} at step {state.global_step}; lower training.learning_rate"
            )
