"""lm-eval with the live model: its own tasks over rows of the study, with everything but the weights prepared.

Tasks are read from the installed package: prompts, choices, stop strings, metrics and extraction are its. Only the rows
and the number of worked examples come from the study, the latter as `--num_fewshot` would set it. `evaluate` is called
on the tasks, because `simple_evaluate` lists every installed package and calls git each time; what else
`simple_evaluate` does for these tasks is done here.
"""

import contextlib
import io
import itertools
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import torch
from datasets import Dataset
from jaxtyping import Float
from lm_eval.api.task import ConfigurableTask
from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from lm_eval.models.utils_hf import pad_and_concat
from lm_eval.tasks import TaskManager
from torch import Tensor

from safety_spaces.evaluation.memory import halve_until_it_fits
from safety_spaces.models.live import CausalModel

FEWEST_ROWS = 4
"""Matrix products of fewer rows than this have kernels of their own on CPUs."""

Rows = Sequence[Mapping[str, Any]]
Request = tuple[Any, list[int], list[int]]
"""What lm-eval asks a likelihood of: the texts, the tokens of the context, those of the continuation."""
Sample = Mapping[str, Any]
"""What lm-eval logs of one question under one filter: arguments, resps, the scores by the names of its metrics."""


class PreparedTask(ConfigurableTask):  # type: ignore[misc]
    """A task of lm-eval that builds requests and targets once: no weights change them, and they take most of a call."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._built_for: Mapping[str, Any] | None = None
        self._targets: dict[str, Any] = {}
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def download(self, *_: object, **__: object) -> None:
        """Take the rows of the study; lm-eval's own way warns of an option of its command line, once a task."""
        self.dataset = self.config.custom_dataset()

    def build_all_requests(self, **settings: Any) -> None:
        """Build the requests that the command line builds, or take back the answers that they got before."""
        if settings != self._built_for:
            self.set_fewshot_seed(DEFAULT_OTHER_SEED)
            super().build_all_requests(**settings)
            self._built_for = settings
        for request in self.instances:
            request.resps, request.filtered_resps = [], {}

    def doc_to_target(self, doc: Mapping[str, Any], *template: Any) -> Any:
        """Return the right answer of a question; lm-eval would compile its template anew, four times a question."""
        key = repr((doc, template))
        if key not in self._targets:
            self._targets[key] = super().doc_to_target(doc, *template)
        return self._targets[key]


class LiveModel(HFLM):  # type: ignore[misc]
    """The live model as lm-eval asks it; a text becomes tokens once, however many cells are asked it."""

    def __init__(self, model: CausalModel, tokenizer: Any, *, batch_size: int) -> None:
        self._tokens: dict[Any, array[int]] = {}
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

    def tok_encode(self, string: str, *arguments: Any, **settings: Any) -> list[int]:
        """Return the tokens of a text, a list of its own for every caller."""
        key = (string, arguments, *sorted(settings.items()))
        if key not in self._tokens:
            # Four bytes a token: a benchmark of many long questions is held whole.
            self._tokens[key] = array("I", super().tok_encode(string, *arguments, **settings))
        return self._tokens[key].tolist()

    def _loglikelihood_tokens(self, requests: Sequence[Request], **_: object) -> list[tuple[float, bool]]:
        """Answer in lm-eval's batches, but compute no logits that nobody reads.

        Those of every token are the largest tensor of all: 18 GB for a batch of MMLU with five worked examples.
        """
        order = Collator(
            requests,
            lambda asked: (-len(asked[1] + asked[2]), tuple(asked[1] + asked[2])),
            group_by="contexts",
            group_fn=lambda asked: asked[1] + asked[2][:-1],
        )
        answers = []
        for batch in order.get_batched(n=self.batch_size):
            for asked, logs in zip(batch, self._continuation_logs(batch), strict=True):
                for _, continuation, own in order.get_cache(*asked, logs.unsqueeze(0)):
                    read = own[0, -len(continuation) :]
                    tokens = torch.tensor(continuation, device=read.device)
                    likelihood = float(read.gather(1, tokens.unsqueeze(1)).sum())
                    answers.append((likelihood, bool((read.argmax(-1) == tokens).all())))
        found: list[tuple[float, bool]] = order.get_original(answers)
        return found

    @torch.inference_mode()
    def _continuation_logs(self, batch: Sequence[Request]) -> list[Float[Tensor, "tokens vocabulary"]]:
        """Return the log-probabilities before each token of each continuation, from one pass over all rows."""
        given = [
            torch.tensor((context + continuation)[:-1][-self.max_length :], device=self.device)
            for _, context, continuation in batch
        ]
        spans = [range(len(row) - len(asked[2]), len(row)) for row, asked in zip(given, batch, strict=True)]
        padded = pad_and_concat(max(map(len, given)), given, padding_side="right")
        if self.model._supports_logits_to_keep():
            # Products of a row or two are summed in another order than lm-eval's, so some more are computed.
            places = sorted({*range(padded.shape[1])[:FEWEST_ROWS], *itertools.chain(*spans)})
            logits = self.model(padded, logits_to_keep=torch.tensor(places, device=self.device)).logits
        else:
            places = list(range(padded.shape[1]))
            logits = self.model(padded).logits
        starts = [places.index(span.start) for span in spans]
        return [
            row[start : start + len(span)].log_softmax(-1)
            for row, start, span in zip(logits, starts, spans, strict=True)
        ]


class LiveLikelihood:
    """Log-likelihoods of texts under the weights that the live model has now; tokens are made once."""

    def __init__(
        self, model: CausalModel, tokenizer: Any, texts: Sequence[tuple[str, Sequence[str]]], *, batch_size: int
    ) -> None:
        """Take prompts and, of each, the texts that may follow it."""
        self._live = LiveModel(model, tokenizer, batch_size=batch_size)
        pairs = [(prompt, text) for prompt, following in texts for text in following]
        self._requests: list[Request] = [(pair, *self._live._encode_pair(*pair)) for pair in pairs]
        self._numbers = [len(following) for _, following in texts]
        self._batch_size = batch_size

    def mean_logs(self) -> list[list[float]]:
        """Return the mean log-likelihood of a token of every text, in nats, by prompt.

        Raises UserError when memory does not hold even one text.
        """
        logs, self._batch_size = halve_until_it_fits(self._logs, self._batch_size)
        found = iter(log / len(asked[2]) for log, asked in zip(logs, self._requests, strict=True))
        return [list(itertools.islice(found, number)) for number in self._numbers]

    def _logs(self, batch_size: int) -> list[float]:
        self._live.batch_size_per_gpu = batch_size
        return [log for log, _ in self._live._loglikelihood_tokens(self._requests)]


def find_tasks(folder: str) -> TaskManager:
    """Return the index of the tasks in one of lm-eval's task folders; all of its folders would take seconds."""
    return TaskManager(include_defaults=False, include_path=Path(lm_eval.__file__).parent / "tasks" / folder)


def prepare_tasks(
    found: TaskManager, splits: Mapping[str, Mapping[str, Rows]], *, number_of_shots: int
) -> dict[str, Any]:
    """Return tasks of an index over rows (task -> split -> rows), in the order given."""
    tasks = [
        {
            "task": name,
            "class": PreparedTask,
            "num_fewshot": number_of_shots,
            "custom_dataset": partial(_data_sets, rows),
        }
        for name, rows in splits.items()
    ]
    # A group is lm-eval's way to change fields of tasks that it has.
    loaded = found.load([{"group": "prepared", "task": tasks}])["tasks"]
    return {name: loaded[name] for name in splits}


def _data_sets(splits: Mapping[str, Rows]) -> dict[str, Dataset]:
    return {split: Dataset.from_list([dict(row) for row in rows]) for split, rows in splits.items()}


class LiveHarness:
    """Tasks of lm-eval on the live model: build once, ask for every cell."""

    def __init__(
        self, model: CausalModel, tokenizer: Any, tasks: Mapping[str, Any], *, limit: int | None, batch_size: int
    ) -> None:
        """Take the first `limit` questions of each task; None takes all."""
        self._tasks = dict(tasks)
        self._live = LiveModel(model, tokenizer, batch_size=batch_size)
        self._limit = limit
        self._batch_size = batch_size

    def ask(self) -> list[Sample]:
        """Ask the weights that the model has now; samples come in the order of the tasks, then of their questions.

        Where memory does not suffice the batch size is halved, for the calls that follow too. Raises UserError when it
        does not hold even one prompt.
        """
        samples, self._batch_size = halve_until_it_fits(self._evaluate, self._batch_size)
        return [sample for name in self._tasks for sample in sorted(samples[name], key=lambda sample: sample["doc_id"])]

    def _evaluate(self, batch_size: int) -> dict[str, list[Sample]]:
        self._live.batch_size_per_gpu = batch_size
        # lm-eval draws progress bars at every call; the sweep has one of its own over all cells.
        with contextlib.redirect_stderr(io.StringIO()):
            result = lm_eval.evaluate(
                lm=self._live, task_dict={"tasks": self._tasks}, limit=self._limit, bootstrap_iters=0, log_samples=True
            )
        samples: dict[str, list[Sample]] = result["samples"]
        return samples
