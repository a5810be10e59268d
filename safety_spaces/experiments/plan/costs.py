"""What a study will cost: bytes of the card, tokens, hours and money, counted before any work.

Generations are counted whole, prompts of activations at most. Hours are upper bounds, and dollars those of one reply
each, from what the study says of card and judge.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from safety_spaces.data.texts import Texts
from safety_spaces.errors import UserError
from safety_spaces.evaluation.metrics import every_metric
from safety_spaces.evaluation.prompt_sets import number_of_prompts
from safety_spaces.experiments.plan.sizes import Shapes, parameters
from safety_spaces.experiments.plan.work import Work
from safety_spaces.experiments.projection.cells import belongs_to_first_seed, energies_per_task
from safety_spaces.experiments.state_keys import answer_tokens
from safety_spaces.paths import resolve_path
from safety_spaces.study import Architecture, Metric, MixedCorpus, ServiceJudge, Study, Training

WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "bf16_stochastic": 2, "bf16_kahan": 2}
LIVE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TEXTS = {"pretrain": 1, "sft": 1, "dpo": 2}
"""Texts of one row: preference optimisation reads the chosen and the rejected response."""
PROMPT_TOKENS = 256
"""Allowance for a prompt of any of the data sets."""


def weight_bytes(training: Training) -> int:
    """Return the bytes of one stored weight."""
    return WEIGHT_BYTES[training.precision]


def optimiser_bytes(training: Training) -> int:
    """Return the bytes of one weight's optimiser state: two moments, and what Kahan summation keeps of rounding."""
    moment = 1 if training.optimizer == "adamw_8bit" else weight_bytes(training)
    return 2 * moment + (2 if training.precision == "bf16_kahan" else 0)


def training_bytes(training: Training, method: str) -> dict[str, int]:
    """Return the bytes on the card of one weight in training, by what they are for."""
    weights = weight_bytes(training)
    optimiser = 0 if training.optimizer == "adamw_offload" else optimiser_bytes(training)
    parts = {"weights": weights, "gradients": weights, "optimiser": optimiser}
    return {**parts, "reference": weights} if method == "dpo" else parts


def activation_bytes(training: Training, method: str, shape: Architecture) -> int:
    """Return an estimate of the activations and logits of one forward pass; a layer alone where they are recomputed."""
    tokens = TEXTS[method] * training.batch_size * training.max_length
    # Attention and MLP keep about 16 vectors of the residual width and 4 of the MLP's.
    layer = (16 * shape.hidden + 4 * shape.intermediate) * weight_bytes(training)
    kept = layer + shape.layers * shape.hidden * weight_bytes(training)
    held = kept if training.gradient_checkpointing else shape.layers * layer
    # Logits and their gradient in float32, and the logits in the model's own format.
    return tokens * (held + shape.vocabulary * 10)


def live_bytes(study: Study, shapes: Shapes, shape: Architecture | None) -> dict[str, int]:
    """Return the bytes on the card of the live model: weights, and keys and values of the longest batch or an edit.

    The larger counts of the two that are never there together.
    """
    # In float32: update, basis, the part inside, the part kept, the reference's weights.
    edit = 5 * 4 * max(map(math.prod, shapes.values()))
    cache = cache_bytes(study, shape)
    larger = {"cache": cache} if cache >= edit else {"editing a tensor": edit}
    return {"weights": parameters(shapes) * LIVE_BYTES[study.projection.weights_dtype], **larger}


def cache_bytes(study: Study, shape: Architecture | None) -> int:
    """Return the bytes of the keys and values of the longest batch; 0 where the shape of the model is not known."""
    evaluation = study.evaluation
    if shape is None or evaluation is None:
        return 0
    # Of utility, the longer: worked examples stand before each question.
    tokens = PROMPT_TOKENS * (1 + evaluation.utility.fewshot) + evaluation.utility.max_new_tokens
    width = shape.hidden // shape.heads * shape.key_value_heads
    return evaluation.batch_size * tokens * shape.layers * 2 * width * LIVE_BYTES[study.projection.weights_dtype]


@dataclass(frozen=True)
class Counts:
    """How often models are asked in the whole study, by metric, and for how many tokens at most."""

    energies: int
    models: int
    scores: int
    asked: Mapping[Metric, int]
    judged: Mapping[Metric, int]
    """Answers that are scored."""
    generations: int
    """Answers that are written; of multiple choice the likelihood is read, and nothing is."""
    new_tokens: int
    read: int
    """Prompts whose hidden states are read."""
    states: int


def counts(texts: Texts, work: Work) -> Counts:
    """Count what models are asked and what is read of them in some work.

    Raises UserError when a data set that is here lacks a column, or has no row that the study asks for.
    """
    study = texts.study
    metrics = {} if study.evaluation is None else every_metric(texts, study.evaluation)
    asked = Counter(metric for _, metric in work.answers)
    judged = Counter(metric for cell, metric in work.scores if not belongs_to_first_seed(study, cell))
    prompts = {name: metrics[name].prompts() for name in judged | asked}
    settings, names = study.activation_spaces, dict.fromkeys((*work.read, *(name for name, _ in work.states)))
    sets = {name: number_of_prompts(texts, settings, name) for name in names} if settings else {}
    written = {name: asked[name] * prompts[name] for name in asked if metrics[name].new_tokens}
    return Counts(
        energies=len(work.energies) * energies_per_task(study),
        models=len({cell for cell, _ in work.answers}),
        scores=len(work.scores),
        asked={name: number * prompts[name] for name, number in asked.items()},
        judged={name: number * prompts[name] for name, number in judged.items()},
        generations=sum(written.values()),
        new_tokens=sum(number * metrics[name].new_tokens for name, number in written.items())
        + sum(sets[name] * (answer_tokens(study) or 0) for name in work.generated),
        read=sum(sets[name] for name in work.read),
        states=sum(sets[name] * position.states_of_prompt for name, position in work.states),
    )


def corpus_rows(texts: Texts, name: str) -> int | None:
    """Return the number of rows of a corpus, at most; None where the study takes all of a set of unknown size.

    Raises UserError when the data set has fewer rows than the study asks for.
    """
    corpus = texts.study.corpora[name]
    if not isinstance(corpus, MixedCorpus):
        there = texts.size(corpus.dataset, corpus.where)
        _check_rows(corpus.rows or 0, there, name=name)
        return corpus.rows or there
    useful, harmful = corpus_rows(texts, corpus.useful), corpus_rows(texts, corpus.harmful)
    if corpus.mixing == "replace":
        _check_rows(round(corpus.harmful_share * (useful or 0)), harmful, name=name)
        return useful
    return None if useful is None or harmful is None else useful + harmful


def _check_rows(wanted: int, there: int | None, *, name: str) -> None:
    if there is not None and wanted > there:
        raise UserError(f"corpora.{name}: expected at least {wanted:,} rows, got {there:,}; ask for fewer in the study")


def training_hours(training: Training, method: str, weights: int, rows: int, flops: float) -> float:
    """Return an upper bound of the hours of one training: every row as long as rows may be."""
    # A weight and token: two forward, four backward; activations computed again and a reference model add two each.
    per_token = 6 + 2 * (training.gradient_checkpointing + (method == "dpo"))
    return per_token * weights * rows * TEXTS[method] * training.max_length * training.epochs / flops / 3600


def generation_hours(
    study: Study, weights: int, shape: Architecture | None, new_tokens: int, bandwidth: float
) -> float:
    """Return an upper bound of the hours of generation: weights and cache are read once for every token of a batch."""
    if not new_tokens or study.evaluation is None:
        return 0.0
    read = weights * LIVE_BYTES[study.projection.weights_dtype] + cache_bytes(study, shape)
    return new_tokens / study.evaluation.batch_size * read / bandwidth / 3600


def judge_dollars(judge: ServiceJudge, calls: int, *, response_tokens: int) -> float:
    """Return what a judge charges for one reply each: rubric, prompt, the longest response, the longest reply.

    A token has about four characters.
    """
    rubric = resolve_path(judge.rubric)
    characters = len(rubric.read_text(encoding="utf-8")) if rubric.is_file() else 0
    sent = characters / 4 + PROMPT_TOKENS + response_tokens
    return calls * (sent * judge.price.input + judge.max_reply_tokens * judge.price.output) / 1e6


def size(number: int | float | None) -> str:
    """Return a number of bytes as text, in units of 1000."""
    if number is None:
        return "not counted"
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
