"""What does not depend on weights is done once; what does is done at every call."""

import random

import pytest
from lm_eval import utils
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from safety_spaces.evaluation.harness import FEWEST_ROWS, LiveHarness, LiveModel, find_tasks, prepare_tasks
from tests.pico_model import pico_problems

COUNTS = {"gsm8k": 5, "gsm8k_cot": 3}
SHOTS = 2


def rows(count, *, seed):
    return [{"question": p.question, "answer": p.gsm8k_answer} for p in pico_problems(count, seed=seed)]


@pytest.fixture
def tasks():
    splits = {
        name: {"train": rows(4, seed=1), "test": rows(count, seed=count)} for name, count in reversed(COUNTS.items())
    }
    tasks = prepare_tasks(find_tasks("gsm8k"), splits, number_of_shots=SHOTS)
    for task in tasks.values():
        task.set_config("generation_kwargs", {"max_gen_toks": 3}, update=True)
    return tasks


@pytest.fixture
def harness(model, tokenizer, tasks):
    def harness(*, limit=None, batch_size=2):
        return LiveHarness(model, tokenizer, tasks, limit=limit, batch_size=batch_size)

    return harness


def asked(samples):
    return list(dict.fromkeys((sample["doc"]["question"], sample["doc_id"]) for sample in samples))


def test_samples_come_in_the_order_of_the_tasks_then_of_their_questions(harness):
    expected = [
        (row["question"], number)
        for count in reversed(COUNTS.values())
        for number, row in enumerate(rows(count, seed=count))
    ]
    assert asked(harness().ask()) == expected


def test_only_the_first_call_builds_requests_and_tokens(harness, tokenizer, monkeypatch):
    built, tokenised, rendered = [], [], []
    context, encode, render = ConfigurableTask.fewshot_context, tokenizer.encode, utils.apply_template
    monkeypatch.setattr(
        ConfigurableTask, "fewshot_context", lambda self, doc, **more: built.append(doc) or context(self, doc, **more)
    )
    monkeypatch.setattr(tokenizer, "encode", lambda text, **more: tokenised.append(text) or encode(text, **more))

    monkeypatch.setattr(utils, "apply_template", lambda *given: rendered.append(given) or render(*given))

    def done():
        # Stop strings become tokens batch by batch.
        return len(built), len([text for text in tokenised if "?" in text])

    prepared = harness()
    first = prepared.ask()
    assert rendered
    rendered.clear()
    assert done() == (sum(COUNTS.values()), sum(COUNTS.values()))
    assert prepared.ask() == first
    assert not rendered
    assert done() == (sum(COUNTS.values()), sum(COUNTS.values()))


def test_tasks_that_two_share_are_asked_as_each_of_them_says(harness):
    few, all_of_them = harness(limit=2), harness()
    assert [len(asked(one.ask())) for one in (few, all_of_them, few)] == [4, 8, 4]
    assert few.ask() == [sample for sample in all_of_them.ask() if sample["doc_id"] < 2]


def test_whoever_changes_tokens_changes_them_for_nobody_else(harness):
    live = harness()._live
    live.tok_encode("wake the amber lantern").append(7)
    expected = live.tokenizer.encode("wake the amber lantern")
    assert live.tok_encode("wake the amber lantern") == expected
    assert live.tok_encode("wake the amber lantern", left_truncate_len=2) == expected[-2:]
    assert live.tok_encode("wake the amber lantern", None, 3) == expected[-3:]


def test_tasks_are_prepared_without_a_word(tasks, caplog):
    assert list(tasks) == list(reversed(COUNTS))
    assert caplog.get_records("setup") == []


@pytest.mark.parametrize("batch_size", [1, 3, 40])
def test_only_logits_of_continuations_are_computed_and_the_likelihoods_are_those_of_lm_eval(
    model, tokenizer, batch_size
):
    """Contexts of all lengths, some beyond the model's longest; continuations of one token and more."""
    generator, longest = random.Random(3), model.config.max_position_embeddings
    contexts = [
        generator.choices(range(3, len(tokenizer)), k=length) for length in (1, 2, 9, 40, 41, longest, longest + 7)
    ]
    requests = [
        (None, context, generator.choices(range(3, len(tokenizer)), k=length))
        for context in contexts
        for length in (1, 1, 1, 4, 5)
        if length <= len(context)
    ]
    settings = {"pretrained": model, "tokenizer": tokenizer, "batch_size": batch_size}
    expected = HFLM(**settings)._loglikelihood_tokens(requests)
    shapes = []
    counting = model.lm_head.register_forward_hook(lambda _module, _given, logits: shapes.append(logits.shape[:2]))
    found = LiveModel(model, tokenizer, batch_size=batch_size)._loglikelihood_tokens(requests)
    counting.remove()
    for (own, is_greedy), (theirs, is_theirs) in zip(found, expected, strict=True):
        assert own == pytest.approx(theirs, rel=1e-5)
        assert is_greedy == is_theirs
    assert sum(rows for rows, _ in shapes) == len({(*c, *last[:-1]) for _, c, last in requests})
    assert max(tokens for _, tokens in shapes) <= FEWEST_ROWS + 5 * min(batch_size, len(contexts))
