"""Log-likelihoods of given texts: outcomes without a judge and without an end of the scale, from one forward pass."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from safety_spaces.data.datasets import is_text
from safety_spaces.data.table import Row
from safety_spaces.errors import UserError
from safety_spaces.evaluation.intervals import Estimate, student_interval
from safety_spaces.evaluation.metrics.metric import Answer, Ask, Metric, at_most
from safety_spaces.evaluation.prompt_sets import Use


class Likelihood(Metric):
    """The mean over prompts of sum_j w_j log p(text_j | prompt) / tokens(text_j), in nats a token."""

    by_itself = "likelihood"

    @property
    @abstractmethod
    def weights(self) -> dict[str, float]:
        """The columns of the texts that may follow a prompt, and the weight w of each."""

    def key(self) -> Any:
        """Return the prompts as the model reads them, with the texts that may follow them."""
        return [self.weights, self._texts()]

    def rows(self) -> list[Row]:
        """Return the rows that are read, prompt and texts of each."""
        columns, name = (self.texts.data_set(self.settings.dataset).prompt, *self.weights), self.settings.dataset
        rows = self.texts.rows(name, columns)[: self.settings.limit]
        for number, row in enumerate(rows, 1):
            if empty := [column for column in columns if not is_text(row[column]) or not row[column].strip()]:
                raise UserError(f"{name}: expected a text in the column {empty[0]} of row {number}; mend the data set")
        return rows

    def reads(self) -> Iterator[Use]:
        """Yield the rows."""
        yield Use(self.settings.dataset, {}, self.rows)

    def prompts(self) -> int:
        """Return the number of prompts."""
        return at_most(self.settings.limit, self.texts.size(self.settings.dataset))

    def prepare(self, model: Any, tokenizer: Any) -> Ask:
        """Turn prompts and texts into tokens once."""
        from safety_spaces.evaluation.harness import LiveLikelihood

        texts, weights = self._texts(), list(self.weights.values())
        live = LiveLikelihood(model, tokenizer, texts, batch_size=self.evaluation.batch_size)

        def ask() -> list[Answer]:
            means = live.mean_logs()
            return [
                Answer(prompt, "", sum(weight * log for weight, log in zip(weights, logs, strict=True)))
                for (prompt, _), logs in zip(texts, means, strict=True)
            ]

        return ask

    def estimate(self, scores: Sequence[float]) -> Estimate:
        """Return the mean with Student's interval."""
        return student_interval(scores)

    def _texts(self) -> list[tuple[str, list[str]]]:
        """The prompts, the template applied, and behind each the texts that may follow it."""
        template, name = self.texts.template(self.texts.study.prompt_template), self.settings.dataset
        prompt = self.texts.data_set(name).prompt
        return [
            (template.apply(row[prompt]), [template.separator + row[column] for column in self.weights])
            for row in self.rows()
        ]
