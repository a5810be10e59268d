"""Greedy generation: the same model and prompts give the same texts.

Both engines take the most probable token under the model's own distribution and stop at its end-of-text tokens. static
pads prompts of like length into batches that run to their longest answer; continuous puts a new prompt in the place of
each answer that ends (transformers' paged attention) and is CUDA's.
"""

from collections.abc import Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from safety_spaces.errors import UserError
from safety_spaces.evaluation.memory import halve_until_it_fits, in_batches
from safety_spaces.models.live import CausalModel

Engine = Literal["static", "continuous"]
CONTINUOUS_DEVICES = frozenset({"cuda"})
"""Elsewhere paged attention works too, but is slower than batches."""


class Tokens(NamedTuple):
    """A prompt and the answer that follows it; the answer is empty where none is read."""

    prompt: list[int]
    answer: list[int]

    @property
    def all(self) -> list[int]:
        """The tokens of one forward pass."""
        return [*self.prompt, *self.answer]


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
    """Return the answers of `generate_tokens` as texts without special tokens, each up to its first stop string."""
    how: dict[str, Any] = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "engine": engine}
    answered = generate_tokens(model, tokenizer, prompts, **how, stop_strings=stop_strings)
    texts = [tokenizer.decode(tokens.answer, skip_special_tokens=True) for tokens in answered]
    return [text[: min((text.find(stop) for stop in stop_strings if stop in text), default=None)] for text in texts]


def generate_tokens(
    model: CausalModel,
    tokenizer: Any,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    batch_size: int,
    engine: Engine = "static",
    stop_strings: Sequence[str] = (),
) -> list[Tokens]:
    """Return the tokens of each prompt and of its greedy continuation, in the order of the prompts.

    An answer ends before the first token that ends the text for the model, so neither that nor padding is in it; other
    special tokens are. It may end behind a stop string. `batch_size` is halved where memory does not suffice. Raises
    UserError when memory does not hold even one prompt, or the engine does not run on the device of the model.
    """
    from transformers import GenerationConfig

    device, end = model.device.type, model.generation_config.eos_token_id
    if engine == "continuous" and device not in CONTINUOUS_DEVICES:
        raise UserError(
            f"evaluation.generation.engine: expected static on {device}, got continuous, which needs CUDA; "
            "write engine: static"
        )
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=tokenizer.pad_token_id
    )
    asked = prompt_tokens(tokenizer, prompts)
    # Prompts of like length stand together, and the longest come first: where memory runs out, it does so at once.
    order = sorted(range(len(asked)), key=lambda index: -len(asked[index]))
    longest_first = [asked[index] for index in order]
    if engine == "static":
        answer = partial(_static, model, tokenizer, settings, stop_strings)
        found = list(in_batches(longest_first, answer, batch_size=batch_size))
    else:
        found, _ = halve_until_it_fits(partial(_continuous, model, settings, longest_first), batch_size)
    ends = end if isinstance(end, list) else [end]
    answers = {
        index: list(takewhile(lambda token: token not in ends, tokens))
        for index, tokens in zip(order, found, strict=True)
    }
    return [Tokens(prompt, answers[index]) for index, prompt in enumerate(asked)]


def prompt_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each prompt, with the special tokens that the tokenizer adds."""
    return [list(tokens) for tokens in tokenizer(list(prompts))["input_ids"]] if prompts else []


@torch.inference_mode()
def _static(
    model: CausalModel, tokenizer: Any, settings: Any, stop_strings: Sequence[str], prompts: Sequence[list[int]]
) -> list[list[int]]:
    tokens = {"input_ids": list(prompts)}
    padded = tokenizer.pad(tokens, padding_side="left", return_attention_mask=True, return_tensors="pt")
    length = padded["input_ids"].shape[1]

    def has_stopped(input_ids: Int[Tensor, "p tokens"], *_: object) -> Bool[Tensor, "p"]:
        """Ends an answer that holds a stop string; transformers' own criterion would find one within the prompt."""
        texts = tokenizer.batch_decode(input_ids[:, length:], skip_special_tokens=True)
        return torch.tensor([any(stop in text for stop in stop_strings) for text in texts], device=input_ids.device)

    stops = [has_stopped] if stop_strings else None
    output = model.generate(**padded.to(model.device), generation_config=settings, stopping_criteria=stops)
    answers: list[list[int]] = output[:, length:].tolist()
    return answers


@torch.no_grad()
def _continuous(model: CausalModel, settings: Any, prompts: Sequence[list[int]], batch_size: int) -> list[list[int]]:
    """Answer all prompts, at most `batch_size` at a time; stop strings end no answer, the text is cut later."""
    if not prompts:
        return []
    attention, manager = model.config._attn_implementation, None
    config = _continuous_config(max(map(len, prompts)) + settings.max_new_tokens, batch_size)
    try:
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
    # What went wrong in the engine's own thread is raised here.
    for error in filter(None, (outputs[request].error for request in requests)):
        if "out of memory" in error:
            raise torch.OutOfMemoryError(error)
        raise RuntimeError(f"continuous batching failed: {error}; evaluation.generation.engine: static does without it")
    return [outputs[request].generated_tokens for request in requests]


def _continuous_config(longest: int, batch_size: int) -> Any:
    """Room for the keys and values of `batch_size` prompts and their answers of at most `longest` tokens together.

    The attention stays the model's own: another one would have to be downloaded. No graph is recorded and no prefix
    kept, since both could outlive the weights that they were made with.
    """
    from transformers import ContinuousBatchingConfig

    return ContinuousBatchingConfig(
        num_blocks=batch_size * (longest // ContinuousBatchingConfig.page_size + 1),
        max_requests_per_batch=batch_size,
        allow_block_sharing=False,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=False,
    )
