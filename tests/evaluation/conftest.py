"""One live model for all tests of behaviour; a test that changes its weights puts them back."""

import pytest
import torch

from tests.pico_model import pico_model, pico_problems, pico_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return pico_tokenizer()


@pytest.fixture(scope="session")
def make_model(tokenizer):
    """A function from (tied, dtype) to a model for evaluation, always with the same weights."""

    def make(*, tied=True, dtype=torch.float32):
        return pico_model(tokenizer, tied=tied).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def model(make_model):
    return make_model()


@pytest.fixture(scope="session")
def prompts():
    """Eleven prompts of different lengths, not in the order of their lengths, one of them twice."""
    questions = [problem.question for problem in pico_problems(10, seed=1)]
    prompts = [f"Question: {question}\nAnswer:" for question in [*questions, questions[4]]]
    assert len({len(prompt) for prompt in prompts}) > 5
    assert prompts != sorted(prompts, key=len)
    return prompts


@pytest.fixture
def hold_two(model, monkeypatch):
    """A function that leaves the model memory for two prompts at once; returns the sizes of the batches it is asked."""

    def hold():
        answer, sizes = model.generate, []

        def generate_few(*, input_ids, **settings):
            sizes.append(len(input_ids))
            if len(input_ids) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return answer(input_ids=input_ids, **settings)

        monkeypatch.setattr(model, "generate", generate_few)
        return sizes

    return hold
