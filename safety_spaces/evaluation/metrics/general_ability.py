"""General ability: accuracy on multiple choice in MMLU's protocol (paper, Appendix J.1).

The tasks are lm-eval's own mmlu, one for each subject: the model is given a question with its four options and chooses
the letter that it finds most likely, so one forward pass answers a question. Only the rows and the number of worked
examples come from the study, as `--num_fewshot` would set it; the examples are the first rows of the subject.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from safety_spaces.data.datasets import is_text
from safety_spaces.data.table import Row
from safety_spaces.errors import UserError, quote
from safety_spaces.evaluation.metrics.metric import Accuracy, Answer, at_most

CHOICES = 4
COLUMNS = ("question", "choices", "answer")


class GeneralAbility(Accuracy):
    """The share of questions whose right letter is the most likely one; the limit is of each subject."""

    name = "general_ability"
    label = "general ability (accuracy)"
    short = "ability"
    by_itself = "likelihood"

    def rows_of(self, name: str) -> list[Row]:
        """Return rows in the columns of MMLU; raises UserError when one cannot be right."""
        rows = self.texts.rows(name, (*COLUMNS, "subject"))
        for row in rows:
            _check(row)
        return rows

    def prompts(self) -> int:
        """Return the number of questions of all subjects."""
        texts, limit, name = self.texts, self.settings.prompts, self.settings.dataset
        if texts.is_here(name):
            subjects = Counter(row["subject"] for row in texts.rows(name, ("subject",)))
            return sum(at_most(limit, number) for number in subjects.values())
        groups = texts.data_set(name).groups if texts.study.world is None else None
        return at_most(groups * limit if groups and limit else None, texts.size(name))

    def column(self, name: str) -> list[Any]:
        """Return a column of the questions, subject by subject as they are asked."""
        rows, limit = self.texts.rows(self.settings.dataset, (name, "subject")), self.settings.prompts
        subjects = dict.fromkeys(row["subject"] for row in rows)
        return [row[name] for subject in subjects for row in [r for r in rows if r["subject"] == subject][:limit]]

    def tasks(self) -> dict[str, Any]:
        """Return lm-eval's tasks of the subjects, in the order in which the questions first name them.

        Raises UserError when lm-eval does not know a subject, or there are too few worked examples of one.
        """
        from safety_spaces.evaluation.harness import find_tasks, prepare_tasks

        (test, few_shot), shots = self.rows(), self.settings.fewshot
        found, splits = find_tasks("mmlu/default"), {}
        for subject in dict.fromkeys(row["subject"] for row in test):
            name = f"mmlu_{subject}"
            if name not in found.all_subtasks:
                raise UserError(
                    f"general_ability: expected subjects of MMLU as lm-eval spells them, got {subject!r}; "
                    "correct the column subject of its data set"
                )
            examples = _of(subject, few_shot)
            if len(examples) < shots:
                raise UserError(
                    f"general_ability: expected {shots} worked examples of {subject}, got {len(examples)}; "
                    "lower evaluation.general_ability.fewshot or add rows to its fewshot_dataset"
                )
            splits[name] = {"dev": examples, "test": _of(subject, test)}
        return prepare_tasks(found, splits, number_of_shots=shots)

    def answer(self, sample: Mapping[str, Any]) -> Answer:
        """Return the most likely letter, of equals the first, as lm-eval does; 1 if it is right, else 0."""
        likelihoods = [likelihood for likelihood, _ in sample["filtered_resps"]]
        letter: str = sample["arguments"][likelihoods.index(max(likelihoods))][1]
        return Answer(sample["arguments"][0][0], letter.strip(), float(sample["acc"]))


def _of(subject: str, rows: list[Row]) -> list[Row]:
    return [{column: row[column] for column in COLUMNS} for row in rows if row["subject"] == subject]


def _check(row: Row) -> None:
    question, choices, answer = (row[column] for column in COLUMNS)
    where = f"for {quote(repr(question))} of {row['subject']}; mend its data set"
    if not isinstance(choices, list | tuple) or len(choices) != CHOICES or not all(map(is_text, (question, *choices))):
        raise UserError(f"general_ability: expected {CHOICES} texts as choices, got {quote(repr(choices))} {where}")
    if type(answer) is not int or answer not in range(CHOICES):
        raise UserError(
            f"general_ability: expected a number from 0 to {CHOICES - 1} as answer, got {quote(repr(answer))} {where}"
        )
