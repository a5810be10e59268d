"""Greedy generation: the same model and prompts give the same texts.

Both engines take the most probable token under the model's own distribution and stop at its end-of-text tokens. static
pads prompts of like length into batches that run to their longest answer; continuous puts a new prompt in the place of
each answer that ends (transformers' paged attention) and is CUDA's.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.evaluation.memory import halve_until_it_fits, in_batches
from safety_spaces.evaluation.positions import Tokens
from safety_spaces.models.live import CausalModel

Engine = Literal["static", "continuous"]
CONTINUOUS_DEVICES = frozenset({"cuda"})
"""Elsewhere paged attention works too, but is slower than batches."""


def generate(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    engine: Engine = "static",
    stop_strings: Sequence[str] = (),
) -> list[str]:
    """Return the greedy continuation of each prompt, without special tokens, in the order of the prompts.

    A response ends before the first stop string in it. `batch_size` is halved where memory does not suffice.

    Raises:
        UserError: memory does not hold even one prompt, or the engine does not run on the device of the model.
    """
    answers = _answers(
        model,
        tokenizer,
        prompt_tokens(tokenizer, prompts),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        engine=engine,
        stop_strings=stop_strings,
    )
    return [_cut(tokenizer.decode(answer, skip_special_tokens=True), stop_strings) for answer in answers]


def generate_tokens(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    engine: Engine = "static",
) -> list[Tokens]:
    """Return the tokens of each prompt and of its greedy continuation, in the order of the prompts.

    An answer ends before the first token that ends the text for the model, so neither that nor padding is in it; other
    special tokens are. `batch_size` is halved where memory does not suffice.

    Raises:
        UserError: memory does not hold even one prompt, or the engine does not run on the device of the model.
    """
    asked = prompt_tokens(tokenizer, prompts)
    answers = _answers(
        model, tokenizer, asked, max_new_tokens=max_new_tokens, batch_size=batch_size, engine=engine, stop_strings=()
    )
    return [Tokens(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]


def prompt_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each prompt, with the special tokens that the tokenizer adds."""
    return [list(tokens) for tokens in tokenizer(list(prompts))["input_ids"]] if prompts else []


def _answers(
    model: CausalModel,
    tokenizer: Any,
    asked: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    engine: Engine,
    stop_strings: Sequence[str],
) -> list[list[int]]:
    """Answer all prompts; each answer is cut before the token that ends the text, in the order of the prompts."""
    if engine == "continuous" and model.device.type not in CONTINUOUS_DEVICES:
        raise UserError(
            f"evaluation.generation.engine: expected static on {model.device.type}, got continuous, which needs CUDA; "
            "write engine: static"
        )
    if not asked:
        return []
    # Prompts of like length stand together, and the longest come first: where memory runs out, it does so at once.
    order = sorted(range(len(asked)), key=lambda index: -len(asked[index]))
    found = _ENGINES[engine](
        model,
        tokenizer,
        [asked[index] for index in order],
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop_strings=stop_strings,
    )
    ends = _ends_of_text(model)
    answers: list[list[int]] = [[] for _ in asked]
    for index, tokens in zip(order, found, strict=True):
        answers[index] = list(takewhile(lambda token: token not in ends, tokens))
    return answers


def _ends_of_text(model: CausalModel) -> frozenset[int]:
    """The tokens that end a text in the checkpoint's generation settings: one, several or none."""
    ends = model.generation_config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


def _cut(text: str, stop_strings: Sequence[str]) -> str:
    return text[: min((place for stop in stop_strings if (place := text.find(stop)) >= 0), default=len(text))]


def _greedy(model: CausalModel, tokenizer: Any, max_new_tokens: int) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=model.generation_config.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _static(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_strings: Sequence[str],
) -> list[list[int]]:
    settings = _greedy(model, tokenizer, max_new_tokens)
    answer = partial(_static_batch, model, tokenizer, settings=settings, stop_strings=stop_strings)
    return list(in_batches(prompts, answer, batch_size=batch_size))


@torch.inference_mode()
def _static_batch(
    model: CausalModel, tokenizer: Any, prompts: Sequence[list[int]], *, settings: Any, stop_strings: Sequence[str]
) -> list[list[int]]:
    encoded = tokenizer.pad(
        {"input_ids": list(prompts)}, padding_side="left", return_attention_mask=True, return_tensors="pt"
    ).to(model.device)
    length = encoded["input_ids"].shape[1]
    output = model.generate(
        input_ids=encoded["input_ids"],
        attention_mask=encoded["attention_mask"],
        generation_config=settings,
        stopping_criteria=[_StopStrings(tokenizer, length, stop_strings)] if stop_strings else None,
    )
    tokens: list[list[int]] = output[:, length:].tolist()
    return tokens


class _StopStrings:
    """Ends an answer that holds a stop string; transformers' own criterion would also find one within the prompt."""

    def __init__(self, tokenizer: Any, prompt_length: int, stop_strings: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = prompt_length
        self._stop_strings = stop_strings

    def __call__(self, input_ids: Int[Tensor, "p tokens"], *_: object) -> Bool[Tensor, "p"]:
        texts = self._tokenizer.batch_decode(input_ids[:, self._prompt_length :], skip_special_tokens=True)
        found = [any(stop in text for stop in self._stop_strings) for text in texts]
        return torch.tensor(found, device=input_ids.device)


def _continuous(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop_strings: Sequence[str],  # noqa: ARG001 - this engine ends at end-of-text tokens only; the text is cut later
) -> list[list[int]]:
    settings = _greedy(model, tokenizer, max_new_tokens)
    answers, _ = halve_until_it_fits(partial(_continuous_answers, model, prompts, settings), batch_size)
    return answers


@torch.no_grad()
def _continuous_answers(
    model: CausalModel, prompts: Sequence[list[int]], settings: Any, batch_size: int
) -> list[list[int]]:
    """Answer all prompts, at most `batch_size` at a time, with the weights that the model has now."""
    attention = model.config._attn_implementation
    manager = None
    try:
        config = _continuous_config(max(map(len, prompts)) + settings.max_new_tokens, batch_size)
        manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=config)
        manager.warmup()
        # All prompts are there before the first step, so that who meets whom in a batch is no matter of timing.
        requests = manager.add_requests([list(prompt) for prompt in prompts], max_new_tokens=settings.max_new_tokens)
        manager.start()
        manager.stop()
        outputs = {output.request_id: output for output in iter(manager.get_result, None)}
    finally:
        if manager is not None and manager.is_running():
            manager.stop(hard_stop=True)
        if model.config._attn_implementation != attention:
            model.set_attn_implementation(attention)
    return [_tokens(outputs, request) for request in requests]


def _continuous_config(longest: int, batch_size: int) -> Any:
    """Room for the keys and values of `batch_size` prompts and their answers of at most `longest` tokens together.

    The attention stays the model's own: another one would have to be downloaded. No graph is recorded and no prefix
    kept, since both could outlive the weights that they were made with.
    """
    from transformers import ContinuousBatchingConfig

    page = ContinuousBatchingConfig.page_size
    return ContinuousBatchingConfig(
        num_blocks=batch_size * (longest // page + 1),
        max_requests_per_batch=batch_size,
        allow_block_sharing=False,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=False,
    )


def _tokens(outputs: Mapping[str, Any], request: str) -> list[int]:
    """The tokens of one answer; what went wrong in the engine's own thread is raised here."""
    error = outputs[request].error
    if error is not None and "out of memory" in error:
        raise torch.OutOfMemoryError(error)
    if error is not None:
        raise RuntimeError(f"continuous batching failed: {error}; evaluation.generation.engine: static does without it")
    tokens: list[int] = outputs[request].generated_tokens
    return tokens


class _Engine(Protocol):
    def __call__(
        self,
        model: CausalModel,
        tokenizer: Any,
        prompts: Sequence[list[int]],
        /,
        *,
        max_new_tokens: int,
        batch_size: int,
        stop_strings: Sequence[str],
    ) -> list[list[int]]: ...


_ENGINES: Mapping[Engine, _Engine] = {"static": _static, "continuous": _continuous}
