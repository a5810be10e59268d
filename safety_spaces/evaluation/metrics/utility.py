"""Utility: accuracy on word problems in GSM8K's protocol (paper, Section 3).

The task is lm-eval's own gsm8k. Only the rows, the number of worked examples and the length of an answer come from the
study, as `--num_fewshot` and `--gen_kwargs` would set them.
"""

from collections.abc import Mapping
from typing import Any

from safety_spaces.data.table import Row
from safety_spaces.errors import UserError
from safety_spaces.evaluation.answers import Answer
from safety_spaces.evaluation.gold_answers import problems
from safety_spaces.evaluation.metrics.metric import Accuracy

TASK = "gsm8k"


class Utility(Accuracy):
    """The share of problems whose answer is the last number of the response."""

    name = "utility"
    label = "utility (accuracy)"
    short = "utility"
    is_main = True
    filter = "flexible-extract"

    def rows_of(self, name: str) -> list[Row]:
        """Return rows in the columns of GSM8K; raises UserError when one cannot be right."""
        data_set = self.texts.data_set(name)
        if data_set.response is None:
            raise UserError(f"evaluation.utility: expected a data set with answers, got {name}, which has none")
        rows = self.texts.rows(name, data_set.texts)
        return problems(rows, question=data_set.prompt, answer=data_set.response, source=name)

    def tasks(self) -> dict[str, Any]:
        """Return lm-eval's gsm8k; worked examples are drawn at random, the same for every model."""
        from safety_spaces.evaluation.harness import find_tasks, prepare_tasks

        test, few_shot = self.rows()
        splits = {TASK: {"train": few_shot, "test": test}}
        tasks = prepare_tasks(find_tasks(TASK), splits, number_of_shots=self.settings.fewshot)
        tasks[TASK].set_config("generation_kwargs", {"max_gen_toks": self.new_tokens}, update=True)
        return tasks

    def answer(self, sample: Mapping[str, Any]) -> Answer:
        """Return a response, 1 for a right one, else 0."""
        return Answer(sample["arguments"][0][0], sample["resps"][0][0], float(sample["exact_match"]))
