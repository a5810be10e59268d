"""A metric: what a model is asked, how its answers are scored, and the interval of the mean score.

A metric is one object in one file and has a section of its name in `evaluation` of the study. Torch and lm-eval are
imported when a model is prepared, so that keys, counts and checks need neither.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from safety_spaces.data.table import Row
from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.intervals import Estimate, proportion_interval
from safety_spaces.evaluation.judges import Judge
from safety_spaces.evaluation.prompt_sets import Use
from safety_spaces.store import digest
from safety_spaces.study import Evaluation
from safety_spaces.study import Judge as JudgeSettings
from safety_spaces.study import Metric as MetricName


@dataclass(frozen=True)
class Answer:
    """One response: correctness in {0, 1}, a judge's score in [1, 5], or None where it is not scored or not parsed."""

    prompt: str
    response: str
    score: float | None


Ask = Callable[[], list[Answer]]
"""Asks a model with the weights that it has now."""


@dataclass(frozen=True)
class Metric(ABC):
    """One metric of a study."""

    texts: Texts
    evaluation: Evaluation
    name: ClassVar[MetricName]
    """As tables and study files call it; also the name of its section."""
    label: ClassVar[str]
    """With its unit, as figures write it."""
    short: ClassVar[str]
    """As the summary of a command writes it."""
    by_itself: ClassVar[str] = ""
    """How answers are scored where nobody judges them."""
    is_main: ClassVar[bool] = False
    """Whether every checkpoint is scored for it, whatever is projected."""

    @property
    def settings(self) -> Any:
        """Its section of the study."""
        return getattr(self.evaluation, self.name)

    @property
    def judge(self) -> JudgeSettings | None:
        """Who scores the answers; None where they are right or wrong by themselves."""
        return getattr(self.settings, "judge", None)

    @property
    def judge_name(self) -> str:
        """As tables name who scores the answers."""
        return self.by_itself if self.judge is None else self.judge.name

    def answer_column(self, name: str) -> str:
        """Return the column of the right answers of a data set; raises UserError when it has none."""
        if (response := self.texts.data_set(name).response) is None:
            raise UserError(f"evaluation.{self.name}: expected a data set with answers, got {name}, which has none")
        return response

    @property
    def shots(self) -> int | None:
        """Worked examples before each question; None where there can be none."""
        return getattr(self.settings, "fewshot", None)

    @property
    def new_tokens(self) -> int:
        """Tokens at which an answer is cut; 0 for multiple choice, of which likelihoods are read."""
        return getattr(self.settings, "max_new_tokens", 0)

    @abstractmethod
    def key(self) -> Any:
        """Return what answers depend on beside the weights, as JSON can hold it."""

    @abstractmethod
    def reads(self) -> Iterator[Use]:
        """Yield what is read: data sets, conditions on their rows, and calls that read them."""

    @abstractmethod
    def prompts(self) -> int:
        """Return how many prompts are asked, at most where the data are not here."""

    def clusters(self) -> list[str]:
        """Return what each prompt stands or falls with, in the order of the answers; without a column, itself."""
        if self.settings.cluster is None:
            return [str(number) for number in range(self.prompts())]
        return [str(value) for value in self.column(self.settings.cluster)]

    @property
    def where(self) -> Mapping[str, Any]:
        """The values that columns of the rows must have."""
        return getattr(self.settings, "where", {})

    def column(self, name: str) -> list[Any]:
        """Return a column of the prompts that are asked, in the order of the answers."""
        rows = self.texts.rows(self.settings.dataset, (name,), self.where)
        return [row[name] for row in rows][: self.prompts()]

    @abstractmethod
    def prepare(self, model: Any, tokenizer: Any) -> Ask:
        """Prepare everything but the weights; raises UserError when a data set is missing or unlike its table entry.

        What is returned halves the batch size where memory does not suffice, for the calls that follow too, and raises
        UserError when memory does not hold even one prompt.
        """

    def score(self, answers: Sequence[Answer], judge: Judge | None) -> list[Answer]:
        """Return the answers scored; one whose score cannot be parsed stays, with None, so that it is counted."""
        if judge is None:
            return list(answers)
        scores = judge.score([(answer.prompt, answer.response) for answer in answers])
        return [replace(answer, score=score) for answer, score in zip(answers, scores, strict=True)]

    def estimate(self, scores: Sequence[float]) -> Estimate:
        """Return the mean of the scores with its 95 % interval."""
        return proportion_interval(round(sum(scores)), len(scores))


def at_most(*numbers: int | None) -> int:
    """Return the smallest of the numbers that are known, 0 where none is."""
    return min((number for number in numbers if number is not None), default=0)


class Accuracy(Metric):
    """The share of right answers in a protocol of lm-eval, with the live model."""

    filter: ClassVar[str] = "none"
    """lm-eval's name of the reading of responses that counts."""

    def key(self) -> Any:
        """Return the section, and a digest of the questions and of the rows that worked examples are drawn from."""
        return [self.settings.model_dump(exclude={"cluster"}), digest(self.rows())]

    def rows(self) -> tuple[list[Row], list[Row]]:
        """Return the questions, and what worked examples are drawn from; raises UserError when a row cannot be used."""
        return self.rows_of(self.settings.dataset), self.rows_of(self.settings.fewshot_dataset)

    def reads(self) -> Iterator[Use]:
        """Yield the questions and the worked examples."""
        for name in (self.settings.dataset, self.settings.fewshot_dataset):
            yield Use(name, {}, partial(self.rows_of, name))

    def prompts(self) -> int:
        """Return the number of questions."""
        return at_most(self.settings.prompts, self.texts.size(self.settings.dataset))

    def prepare(self, model: Any, tokenizer: Any) -> Ask:
        """Build the tasks of lm-eval once."""
        from safety_spaces.evaluation.harness import LiveHarness

        limit, batch_size = self.settings.prompts, self.evaluation.batch_size
        harness = LiveHarness(model, tokenizer, self.tasks(), limit=limit, batch_size=batch_size)
        return lambda: [self.answer(sample) for sample in harness.ask() if sample["filter"] == self.filter]

    @abstractmethod
    def rows_of(self, name: str) -> list[Row]:
        """Return the rows of a data set in the columns of the protocol."""

    @abstractmethod
    def tasks(self) -> dict[str, Any]:
        """Return the tasks of lm-eval, by their names there."""

    @abstractmethod
    def answer(self, sample: Mapping[str, Any]) -> Answer:
        """Return the answer that a sample of lm-eval's log is about."""


class Judged(Metric):
    """The scores that a judge gives to free responses."""

    def key(self) -> Any:
        """Return the prompts as they are asked, and how responses are generated."""
        return [self.asked(), self.new_tokens, self.evaluation.generation.model_dump()]

    def all_goals(self) -> list[str]:
        """Return the prompts of the data set as a judge reads them."""
        column = self.texts.data_set(self.settings.dataset).prompt
        return [row[column] for row in self.texts.rows(self.settings.dataset, (column,), self.where)]

    def goals(self) -> list[str]:
        """Return the prompts that are asked as a judge reads them."""
        return self.all_goals()[: self.settings.limit]

    def asked(self) -> list[str]:
        """Return the prompts that are asked as the model reads them, the template applied."""
        template = self.texts.template(self.texts.study.prompt_template)
        return [template.apply(goal) for goal in self.goals()]

    def reads(self) -> Iterator[Use]:
        """Yield the prompts."""
        yield Use(self.settings.dataset, self.where, self.all_goals)

    def prompts(self) -> int:
        """Return the number of prompts."""
        return at_most(self.settings.limit, self.texts.size(self.settings.dataset, self.where))

    def prepare(self, model: Any, tokenizer: Any) -> Ask:
        """Read the prompts once; who judges the responses comes later."""
        from safety_spaces.evaluation.generation import generate

        goals, asked = self.goals(), self.asked()

        def ask() -> list[Answer]:
            responses = generate(
                model,
                tokenizer,
                asked,
                max_new_tokens=self.new_tokens,
                batch_size=self.evaluation.batch_size,
                **self.evaluation.generation.model_dump(),
            )
            return [Answer(goal, response, None) for goal, response in zip(goals, responses, strict=True)]

        return ask
