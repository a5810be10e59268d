"""Utility: accuracy on word problems in GSM8K's protocol (paper, Section 3).

The task is lm-eval's own gsm8k. Only the rows, the number of worked examples and the length of an answer come from the
study, as `--num_fewshot` and `--gen_kwargs` would set them.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from safety_spaces.data.table import Row
from safety_spaces.errors import UserError, quote
from safety_spaces.evaluation.metrics.metric import Accuracy, Answer

TASK = "gsm8k"
GOLD = re.compile(r"(?s)(?:(.*####)\s*|\s*)(?=\S*[0-9])(-?[$0-9.,]{2,}|-?[0-9]+)\s*")
"""A worked answer: its steps, four hashes, and a number as lm-eval's flexible-extract can find it in a response."""


class Utility(Accuracy):
    """The share of problems whose answer is the last number of the response."""

    name = "utility"
    label = "utility (accuracy)"
    short = "utility"
    is_main = True
    by_itself = "exact_match"
    filter = "flexible-extract"

    def rows_of(self, name: str) -> list[Row]:
        """Return rows in the columns of GSM8K; raises UserError when one cannot be right."""
        data_set, answer = self.texts.data_set(name), self.answer_column(name)
        rows = self.texts.rows(name, data_set.texts)
        return problems(rows, question=data_set.prompt, answer=answer, source=name)

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


def problems(rows: Sequence[Row], *, question: str, answer: str, source: str) -> list[Row]:
    """Return word problems in GSM8K's columns; spaces before and behind the number, which lm-eval compares, are fixed.

    Raises UserError when an answer does not end in a number, as lm-eval would score every response 0 in silence.
    """
    found = []
    for number, row in enumerate(rows, 1):
        if (gold := GOLD.fullmatch(row[answer])) is None:
            came = f"{quote(repr(row[answer][-40:]))} at the end of row {number}"
            raise UserError(f"{source}: expected answers that end in #### and a number, got {came}; mend the data set")
        found.append({"question": row[question], "answer": " ".join(filter(None, gold.groups()))})
    return found
