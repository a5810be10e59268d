"""The smallest live model that the miniature's code makes, for tests that need one."""

import random
from typing import Any

import torch

from safety_spaces.miniature import world
from safety_spaces.miniature.problems import Problem, draw_problem
from safety_spaces.miniature.tokenizer import wrap_tokenizer
from safety_spaces.study import Architecture
from safety_spaces.training.architecture import new_model


def pico_problems(count: int, *, seed: int = 0) -> list[Problem]:
    """Draw problems of one to three steps: questions of different lengths."""
    generator = random.Random(seed)
    return [draw_problem(generator, number_of_steps=1 + n % 3, held_out=False) for n in range(count)]


def pico_tokenizer() -> Any:
    """Train a tokenizer that knows every word of the world behind `Question:` and `Answer:`."""
    requests = world.requests(forbidden=True) + world.requests(forbidden=False)
    asked = [
        (phrasing.format(request=request.text), world.answer(request))
        for number, request in enumerate(requests)
        for phrasing in [world.PHRASINGS[number % len(world.PHRASINGS)]]
    ]
    solved = [(problem.question, problem.gsm8k_answer) for problem in pico_problems(300)]
    texts = [f"Question: {question}\nAnswer: {answer}" for question, answer in asked + solved]
    return wrap_tokenizer(texts, vocabulary=1000)


def pico_architecture(tokenizer: Any, **changes: Any) -> Architecture:
    """Return the shape of a Llama of two layers, every axis of another size."""
    shape = {
        "family": "llama",
        "vocabulary": len(tokenizer),
        "hidden": 16,
        "layers": 2,
        "heads": 4,
        "key_value_heads": 1,
        "intermediate": 24,
        "tied": True,
        "positions": 256,
    }
    return Architecture(**{**shape, **changes})


def pico_model(tokenizer: Any, **changes: Any) -> Any:
    """Return a model with weights so large that it answers prompts differently and is far from uniform."""
    model = new_model(pico_architecture(tokenizer, **changes), tokenizer, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20 if weight.ndim == 2 else 1)
    return model
