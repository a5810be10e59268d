"""Utility: accuracy on word problems in GSM8K's protocol, through lm-eval with the live model (paper, Section 3).

The task is lm-eval's gsm8k over local JSON lines: greedy, raw "Question: ... Answer:" prompts, the last number of the
response (flexible-extract) against the number after "####". Of its stop strings "Question:" is kept; the others are
end-of-text marks of particular tokenizers, which end generation as EOS does. The task is built once and `evaluate` is
called on it, because `simple_evaluate` lists every installed package and calls git each time.
"""

import contextlib
import io
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from safety_spaces.behaviour.harmfulness import Answer
from safety_spaces.behaviour.live import CausalModel

TASK = "gsm8k_local"


def gsm8k_task(*, test: Path, few_shot: Path, number_of_shots: int, max_new_tokens: int, cache: Path) -> dict[str, Any]:
    """Return lm-eval's gsm8k (version 3) as a task over local files with the columns question and answer."""
    return {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"train": str(few_shot), "test": str(test)}, "cache_dir": str(cache)},
        "output_type": "generate_until",
        "training_split": "train",
        "fewshot_split": "train",
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{answer}}",
        "num_fewshot": number_of_shots,
        "generation_kwargs": {
            "until": ["Question:"],
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": max_new_tokens,
        },
        "metric_list": [
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "ignore_case": True,
                "ignore_punctuation": False,
                "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"],
            }
        ],
        "filter_list": [
            {
                "name": "flexible-extract",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"},
                    {"function": "take_first"},
                ],
            }
        ],
    }


class UtilityTask:
    """GSM8K's protocol with everything but the weights prepared: build once, call for every cell."""

    def __init__(
        self, model: CausalModel, tokenizer: Any, task: dict[str, Any], *, limit: int | None, batch_size: int
    ) -> None:
        self._tasks = TaskManager(include_defaults=False).load([task])
        self._live = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self._limit = limit

    def __call__(self) -> list[Answer]:
        """Answer the problems with the weights that the model has now; score 1 for a right answer, else 0."""
        # lm-eval draws two progress bars per call; the sweep has one of its own over all cells.
        with contextlib.redirect_stderr(io.StringIO()):
            result = lm_eval.evaluate(
                lm=self._live, task_dict=self._tasks, limit=self._limit, bootstrap_iters=0, log_samples=True
            )
        samples = sorted(result["samples"][TASK], key=lambda sample: sample["doc_id"])
        return [
            Answer(sample["arguments"][0][0], sample["resps"][0][0], float(sample["exact_match"])) for sample in samples
        ]
