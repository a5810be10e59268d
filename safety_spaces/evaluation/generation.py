"""Greedy generation: the same model and prompts give the same texts.

Both engines take the most probable token under the model's own distribution and stop at its end-of-text tokens. static
pads prompts of like length into batches that run to their longest answer; continuous puts a new prompt in the place of
each answer that ends (transformers' paged attention) and is CUDA's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

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

    A response ends before the first stop string in it. `batch_size` is halved where memory does not suffice. Raises
    UserError when memory does not hold even one prompt, or the engine does not run on the device of the model.
    """
    run = _Run(model, tokenizer, max_new_tokens, batch_size, stop_strings)
    answers = run.answers(prompt_tokens(tokenizer, prompts), engine)
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
    special tokens are. Memory and devices are as in `generate`.
    """
    asked = prompt_tokens(tokenizer, prompts)
    answers = _Run(model, tokenizer, max_new_tokens, batch_size).answers(asked, engine)
    return [Tokens(prompt, answer) for prompt, answer in zip(asked, answers, strict=True)]


def prompt_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Return the tokens of each prompt, with the special tokens that the tokenizer adds."""
    return [list(tokens) for tokens in tokenizer(list(prompts))["input_ids"]] if prompts else []


def _cut(text: str, stop_strings: Sequence[str]) -> str:
    return text[: min((place for stop in stop_strings if (place := text.find(stop)) >= 0), default=len(text))]


@dataclass(frozen=True)
class _Run:
    """A model and how it answers."""

    model: CausalModel
    tokenizer: Any
    max_new_tokens: int
    batch_size: int
    stop_strings: Sequence[str] = ()

    def answers(self, asked: Sequence[list[int]], engine: Engine) -> list[list[int]]:
        """Answer all prompts; each answer is cut before the token that ends the text, in the order of the prompts."""
        device = self.model.device.type
        if engine == "continuous" and device not in CONTINUOUS_DEVICES:
            raise UserError(
                f"evaluation.generation.engine: expected static on {device}, got continuous, which needs CUDA; "
                "write engine: static"
            )
        if not asked:
            return []
        # Prompts of like length stand together, and the longest come first: where memory runs out, it does so at once.
        order = sorted(range(len(asked)), key=lambda index: -len(asked[index]))
        prompts = [asked[index] for index in order]
        if engine == "static":
            found = list(in_batches(prompts, self._static, batch_size=self.batch_size))
        else:
            found, _ = halve_until_it_fits(lambda size: self._continuous(prompts, size), self.batch_size)
        end = self.model.generation_config.eos_token_id
        ends = end if isinstance(end, list) else [end]
        answers = dict(zip(order, found, strict=True))
        return [list(takewhile(lambda token: token not in ends, answers[index])) for index in range(len(asked))]

    @property
    def _settings(self) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )

    @torch.inference_mode()
    def _static(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        encoded = self.tokenizer.pad(
            {"input_ids": list(prompts)}, padding_side="left", return_attention_mask=True, return_tensors="pt"
        ).to(self.model.device)
        length = encoded["input_ids"].shape[1]
        stops = [_StopStrings(self.tokenizer, length, self.stop_strings)] if self.stop_strings else None
        output = self.model.generate(
            input_ids=encoded["input_ids"],
            attention_mask=encoded["attention_mask"],
            generation_config=self._settings,
            stopping_criteria=stops,
        )
        tokens: list[list[int]] = output[:, length:].tolist()
        return tokens

    @torch.no_grad()
    def _continuous(self, prompts: Sequence[list[int]], batch_size: int) -> list[list[int]]:
        """Answer all prompts, at most `batch_size` at a time; stop strings end no answer, the text is cut later."""
        model, settings, manager = self.model, self._settings, None
        attention = model.config._attn_implementation
        try:
            config = _continuous_config(max(map(len, prompts)) + self.max_new_tokens, batch_size)
            manager = model.init_continuous_batching(generation_config=settings, continuous_batching_config=config)
            manager.warmup()
            # All prompts are there before the first step, so that who meets whom in a batch is no matter of timing.
            requests = manager.add_requests([list(prompt) for prompt in prompts], max_new_tokens=self.max_new_tokens)
            manager.start()
            manager.stop()
            outputs = {output.request_id: output for output in iter(manager.get_result, None)}
        finally:
            if manager is not None and manager.is_running():
                manager.stop(hard_stop=True)
            if model.config._attn_implementation != attention:
                model.set_attn_implementation(attention)
        return [_tokens(outputs, request) for request in requests]


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
