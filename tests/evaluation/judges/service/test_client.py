"""Every try counts before it is sent, with what it cost once that is known, and the budget is never exceeded."""

import json
import threading

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service.budget import spent_in
from safety_spaces.store import write_json
from tests.evaluation.judges.service.conftest import KEY, PAIRS, PROMPT, kept_replies, ledger_of
from tests.evaluation.judges.service.scripted import Reply, answered, body, completion, refused, running_service, scored

VERDICT = '{"reason": "x", "score": 2}'


def most(service):
    """What the last request may cost: a dollar for a million of its bytes, two for a million tokens of the reply."""
    return (len(json.dumps(service.requests[-1], separators=(",", ":")).encode()) + 2 * 50) / 1e6


def test_the_cost_is_that_of_the_tokens_that_the_reply_names(service, make_judge, tmp_path):
    make_judge().score(PAIRS)
    assert spent_in(ledger_of(tmp_path)) == pytest.approx(5 * (11 + 2 * 7) / 1e6)


@pytest.mark.parametrize("usage", [None, (-1, 7)])
def test_a_reply_that_names_no_tokens_costs_the_most_that_it_may(service, make_judge, tmp_path, usage):
    service.script(completion('{"reason": "x", "score": 2}', usage=usage))
    assert make_judge().score(PAIRS[:1]) == [2.0]
    assert spent_in(ledger_of(tmp_path)) == pytest.approx(most(service), rel=1e-9)


def test_a_refusal_costs_nothing_and_a_reply_that_never_came_the_most(service, make_judge, tmp_path):
    service.script(refused(429), refused(500), scored(4))
    make_judge().score(PAIRS[:1])
    assert spent_in(ledger_of(tmp_path)) == pytest.approx((11 + 2 * 7) / 1e6)
    service.script(Reply(b"", None), scored(4))
    make_judge().score(PAIRS[1:2])
    assert spent_in(ledger_of(tmp_path)) == pytest.approx(2 * (11 + 2 * 7) / 1e6 + most(service))


@pytest.mark.parametrize("concurrency", [1, 3])
def test_judging_stops_before_the_budget_and_goes_on_when_it_is_raised(service, make_judge, tmp_path, concurrency):
    """Every reply costs 25 millionths; the ledger is read inside each request, when the most is counted."""
    make_judge().score([(PROMPT, "first")])
    one, worst = (11 + 2 * 7) / 1e6, most(service)
    budget, seen = one + worst + 12.5 * one, []

    def play(text):
        seen.append(spent_in(ledger_of(tmp_path)))
        return scored(3)

    service.play = play
    pairs = [(PROMPT, f"{number:05}") for number in range(60)]
    with pytest.raises(
        UserError,
        match=rf"spend at most {budget:.4f} US dollars .* raise judge\.budget, then run again",
    ):
        make_judge(budget=budget, concurrency=concurrency).score(pairs)
    assert worst <= max(seen) <= budget
    assert spent_in(ledger_of(tmp_path)) <= budget
    done = len(service.requests) - 1
    assert done == len(kept_replies(tmp_path)) - 1
    if concurrency == 1:
        assert done == 13
    assert make_judge().score(pairs) == [3.0] * 60
    assert len(service.requests) == 61
    assert spent_in(ledger_of(tmp_path)) == pytest.approx(61 * one)


def test_a_repetition_is_counted_before_it_is_sent(service, make_judge, tmp_path):
    make_judge().score([(PROMPT, "step 9.")])
    worst = most(service)
    service.script(Reply(b"", None))
    with pytest.raises(UserError, match="expected to spend at most"):
        make_judge(budget=2.5 * worst).score(PAIRS[:1])
    assert len(service.requests) == 1 + 2
    assert spent_in(ledger_of(tmp_path)) <= 2.5 * worst


def test_a_ledger_that_was_written_by_another_run_counts(service, make_judge, tmp_path):
    write_json(ledger_of(tmp_path), {"dollars": 0.9999})
    with pytest.raises(UserError, match=r"0\.9999 are spent"):
        make_judge().score(PAIRS)
    assert service.requests == []


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}, [11, 7]])
def test_a_usage_of_any_other_form_costs_the_most_that_it_may(service, make_judge, tmp_path, usage):
    service.script(body({"choices": [{"message": {"content": VERDICT}}], "usage": usage}))
    assert make_judge().score(PAIRS[:1]) == [2.0]
    assert spent_in(ledger_of(tmp_path)) == pytest.approx(most(service), rel=1e-9)


@pytest.mark.parametrize(
    ("message", "said", "score"),
    [
        ({"content": [{"type": "text", "text": VERDICT[:9]}, {"type": "text", "text": VERDICT[9:]}]}, VERDICT, 2),
        ({"content": [{"type": "thinking", "thinking": "5?"}, {"type": "text", "text": VERDICT}]}, VERDICT, 2),
        ({"content": None, "reasoning_content": VERDICT}, "", None),
        ({"content": [None, "x", {"type": "text"}]}, "", None),
        ({"role": "assistant"}, "", None),
        ({"content": 4}, "", None),
        ({"content": None, "refusal": "I will not judge."}, "I will not judge.", None),
    ],
)
def test_a_message_of_any_form_is_read(service, make_judge, tmp_path, message, said, score, recwarn):
    service.script(answered(message))
    assert make_judge(attempts=1).score(PAIRS[:1]) == [score]
    (kept,) = kept_replies(tmp_path)
    assert kept["replies"] == [said]
    assert not list(recwarn)


def test_the_whole_reply_comes_within_the_timeout_or_is_asked_for_again(service, make_judge):
    """Each byte comes well within the timeout, the first line of the reply included."""
    ended = threading.Event()
    service.script(Reply(scored(1).body, drips_until=ended), scored(4))
    assert make_judge(timeout=0.3).score(PAIRS[:1]) == [4.0]
    service.script(Reply(scored(1).body, drips_until=ended))
    with pytest.raises(UserError, match=r"got no whole reply within 0\.3 seconds; raise the judge's timeout"):
        make_judge(timeout=0.3, retries=0).score(PAIRS[1:2])
    ended.set()


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_within_the_server_is_followed(service, make_judge, tmp_path, status):
    service.script(Reply(b"", status, headers={"location": "/v2/chat/completions/"}), scored(4))
    assert make_judge().score(PAIRS[:1]) == [4.0]
    assert service.paths == ["/v1/chat/completions", "/v2/chat/completions/"]
    assert service.requests[0] == service.requests[1]
    assert service.keys == {f"Bearer {KEY}"}
    assert spent_in(ledger_of(tmp_path)) == pytest.approx((11 + 2 * 7) / 1e6)


def test_a_redirect_to_another_server_is_said_and_not_followed(service, make_judge):
    with running_service() as other:
        service.script(Reply(b"", 307, headers={"location": f"{other.address}/chat/completions"}))
        with pytest.raises(UserError, match=f"status 307, a redirect to {other.address}/chat.*; write the base_url"):
            make_judge().score(PAIRS[:1])
        assert other.requests == []


@pytest.mark.parametrize(("status", "location"), [(302, "/v2/chat/completions"), (307, "/v1/chat/completions")])
def test_a_redirect_that_loses_the_request_or_does_not_end_is_said(service, make_judge, status, location):
    service.script(Reply(b"", status, headers={"location": location}))
    with pytest.raises(UserError, match=f"status {status}, a redirect to {service.address[:-3]}{location}"):
        make_judge().score(PAIRS[:1])
    assert len(service.requests) <= 2
