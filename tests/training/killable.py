"""A training in a process of its own, which a test may kill."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer import DEFAULT_CALLBACKS

from safety_spaces.study import Training
from safety_spaces.training.train import train
from safety_spaces.training.trainer import DTYPES, Resumption
from tests.pico_model import pico_model, pico_problems, pico_tokenizer


def rows_of(method: str) -> list[dict[str, str]]:
    """Return rows as the method trains on them; the one not to prefer answers another prompt."""
    problems = pico_problems(21)
    prompts = [{"prompt": f"Question: {problem.question}\nAnswer:"} for problem in problems]
    if method == "sft":
        responses = [{"completion": f" {problem.gsm8k_answer}"} for problem in problems]
    else:
        others = [*problems[1:], problems[0]]
        responses = [
            {"chosen": f" {right.gsm8k_answer}", "rejected": f" {wrong.gsm8k_answer}"}
            for right, wrong in zip(problems, others, strict=True)
        ]
    return [prompt | response for prompt, response in zip(prompts, responses, strict=True)]


def start(settings: dict[str, Any], folder: Path, method: str) -> None:
    """Train a small model with states below `folder`; print steps, loss and the step it began at."""
    torch.set_num_threads(1)
    begun = []

    class Beginning(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            begun.append(state.global_step)

    DEFAULT_CALLBACKS.append(Beginning)
    chosen, tokenizer = Training(**settings), pico_tokenizer()
    # Rows of 4,096 weights and more have a state of 8 bits.
    model = pico_model(tokenizer, hidden=32, intermediate=128).to(DTYPES[chosen.precision])
    done = train(
        model,
        tokenizer,
        rows_of(method),
        settings=chosen,
        seed=5,
        output=folder / "model",
        name="pico",
        device=torch.device("cpu"),
        beta=0.3 if method == "dpo" else None,
        resumption=Resumption(folder / "state", "recipe"),
    )
    print(json.dumps({"steps": done.steps, "loss": done.loss, "begun_at": begun[0]}))
