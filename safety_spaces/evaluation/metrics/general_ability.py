"""General ability: accuracy on multiple choice in MMLU's protocol, through lm-eval with the live model (Appendix J.1).

The tasks are lm-eval's own mmlu, one for each subject: the model is given a question with its four options and chooses
the letter that it finds most likely, so one forward pass answers a question. Only the rows and the number of worked
examples come from the study, as `--num_fewshot` would set it; the examples are the first rows of the subject.
"""

from typing import Any

from safety_spaces.errors import UserError
from safety_spaces.evaluation.gold_answers import COLUMNS, check_choice
from safety_spaces.evaluation.harness import LiveHarness, Rows, Sample, find_tasks, prepare_tasks
from safety_spaces.evaluation.metrics.harmfulness import Answer
from safety_spaces.models.live import CausalModel

TASKS = "mmlu/default"


def mmlu_tasks(*, test: Rows, few_shot: Rows, number_of_shots: int) -> dict[str, Any]:
    """Return lm-eval's tasks of the subjects in `test`, in the order in which they are first met there.

    Rows have MMLU's columns: `question`, `choices` (four texts), `answer` (0 to 3) and `subject`.

    Raises:
        UserError: lm-eval does not know a subject, `few_shot` has too few rows of one, or a row is unlike MMLU's.
    """
    found, splits = find_tasks(TASKS), {}
    for subject in dict.fromkeys(row["subject"] for row in test):
        name = f"mmlu_{subject}"
        if name not in found.all_subtasks:
            raise UserError(
                f"general_ability: expected subjects of MMLU as lm-eval spells them, got {subject!r}; "
                "correct the column subject of its data set"
            )
        examples = _of(subject, few_shot)
        if len(examples) < number_of_shots:
            raise UserError(
                f"general_ability: expected {number_of_shots} worked examples of {subject}, got {len(examples)}; "
                "lower evaluation.general_ability.fewshot or add rows to its fewshot_dataset"
            )
        splits[name] = {"dev": examples, "test": _of(subject, test)}
    return prepare_tasks(found, splits, number_of_shots=number_of_shots)


def _of(subject: str, rows: Rows) -> Rows:
    chosen = [row for row in rows if row["subject"] == subject]
    for row in chosen:
        check_choice(row)
    return [{column: row[column] for column in COLUMNS} for row in chosen]


class GeneralAbilityTask:
    """MMLU's protocol with everything but the weights prepared: build once, call for every cell."""

    def __init__(
        self, model: CausalModel, tokenizer: Any, tasks: dict[str, Any], *, limit: int | None, batch_size: int
    ) -> None:
        """Take the first `limit` questions of each subject; None takes all."""
        self._harness = LiveHarness(model, tokenizer, tasks, limit=limit, batch_size=batch_size)

    def __call__(self) -> list[Answer]:
        """Choose letters with the weights that the model has now; score 1 for the right one, else 0.

        Answers come subject by subject. Where memory does not suffice the batch size is halved, for the calls that
        follow too.

        Raises:
            UserError: memory does not hold even one prompt.
        """
        return [
            Answer(sample["arguments"][0][0], _chosen(sample), float(sample["acc"])) for sample in self._harness.ask()
        ]


def _chosen(sample: Sample) -> str:
    """Return the most likely letter; of equally likely ones the first, as lm-eval does."""
    likelihoods = [likelihood for likelihood, _ in sample["filtered_resps"]]
    letter: str = sample["arguments"][likelihoods.index(max(likelihoods))][1]
    return letter.strip()
