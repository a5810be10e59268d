"""Utility: accuracy on word problems in GSM8K's protocol, through lm-eval with the live model (paper, Section 3).

The task is lm-eval's own gsm8k. Only the rows, the number of worked examples and the length of an answer come from the
study, as `--num_fewshot` and `--gen_kwargs` would set them.
"""

from typing import Any

from safety_spaces.evaluation.harness import LiveHarness, Rows, find_tasks, prepare_tasks
from safety_spaces.evaluation.metrics.harmfulness import Answer
from safety_spaces.models.live import CausalModel

TASK = "gsm8k"
FILTER = "flexible-extract"
"""The last number of the response is its answer."""


def gsm8k_task(*, test: Rows, few_shot: Rows, number_of_shots: int, max_new_tokens: int) -> Any:
    """Return lm-eval's gsm8k over rows with `question` and `answer`; worked examples are drawn from `few_shot`."""
    splits = {TASK: {"train": _columns(few_shot), "test": _columns(test)}}
    task = prepare_tasks(find_tasks(TASK), splits, number_of_shots=number_of_shots)[TASK]
    task.set_config("generation_kwargs", {"max_gen_toks": max_new_tokens}, update=True)
    return task


def _columns(rows: Rows) -> Rows:
    return [{"question": row["question"], "answer": row["answer"]} for row in rows]


class UtilityTask:
    """GSM8K's protocol with everything but the weights prepared: build once, call for every cell."""

    def __init__(self, model: CausalModel, tokenizer: Any, task: Any, *, limit: int | None, batch_size: int) -> None:
        self._harness = LiveHarness(model, tokenizer, {TASK: task}, limit=limit, batch_size=batch_size)

    def __call__(self) -> list[Answer]:
        """Answer the problems with the weights that the model has now; score 1 for a right answer, else 0.

        Where memory does not suffice the batch size is halved, for the calls that follow too.

        Raises:
            UserError: memory does not hold even one prompt.
        """
        return [
            Answer(sample["arguments"][0][0], sample["resps"][0][0], float(sample["exact_match"]))
            for sample in self._harness.ask()
            if sample["filter"] == FILTER
        ]
