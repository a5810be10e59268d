"""What does not depend on weights is done once; what does is done at every call."""

import pytest
from lm_eval.api.task import ConfigurableTask

from safety_spaces.behaviour.harness import LiveHarness, find_tasks, prepare_tasks
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
    built, tokenised = [], []
    context, encode = ConfigurableTask.fewshot_context, tokenizer.encode
    monkeypatch.setattr(
        ConfigurableTask, "fewshot_context", lambda self, doc, **more: built.append(doc) or context(self, doc, **more)
    )
    monkeypatch.setattr(tokenizer, "encode", lambda text, **more: tokenised.append(text) or encode(text, **more))

    def done():
        # Stop strings become tokens batch by batch.
        return len(built), len([text for text in tokenised if "?" in text])

    prepared = harness()
    first = prepared.ask()
    assert done() == (sum(COUNTS.values()), sum(COUNTS.values()))
    assert prepared.ask() == first
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
