"""A request that is rejected for what it says is counted; one that fails for what the study says stops with advice."""

import pytest

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service.budget import spent_in
from tests.evaluation.judges.service.conftest import KEY, PAIRS, PROMPT, kept_replies, ledger_of
from tests.evaluation.judges.service.scripted import Reply, body, completion, refused, scored

FILTERED = "The prompt was filtered by the content management policy."
LONG = "This model's maximum context length is 64 tokens; reduce the messages or max_tokens."
MANY = [(PROMPT, f"text {number:03}") for number in range(40)]


@pytest.mark.parametrize(
    ("rejection", "words"),
    [
        (refused(400, FILTERED), f"status 400, {FILTERED}"),
        (refused(400, LONG), f"status 400, {LONG}"),
        (refused(413, "too large"), "status 413, too large"),
        (refused(451, "blocked"), "status 451, blocked"),
        (
            body({"detail": [{"loc": ["body", "messages"], "msg": "bad"}]}, 422),
            'status 422, {"loc": ["body", "messages"]',
        ),
        (refused(403, "Your input was flagged."), "status 403, Your input was flagged."),
        (body({"error": {"message": "Provider error", "metadata": {"raw": FILTERED}}}, 400), f"status 400, {FILTERED}"),
        (body({"choices": None, "error": {"message": FILTERED, "code": 400}}), f"status 400, {FILTERED}"),
        (body({"error": f"no {KEY}"}, 400), "status 400, no ***"),
        (Reply(b"<p>request blocked</p>", 400, "text/html"), "status 400, request blocked"),
    ],
)
def test_one_rejected_response_is_unparsed_and_never_asked_about_again(service, make_judge, tmp_path, rejection, words):
    service.play = lambda text: rejection if "step 2." in text else scored(4)
    assert make_judge(concurrency=1).score(PAIRS) == [4, None, 4, 4, 4]
    (kept,) = (entry for entry in kept_replies(tmp_path) if entry["score"] is None)
    assert kept["rejected"].startswith(words)
    assert kept["replies"] == []
    asked = len(service.requests)
    assert asked == len(PAIRS)
    assert make_judge(attempts=3).score(PAIRS) == [4, None, 4, 4, 4]
    assert len(service.requests) == asked


@pytest.mark.parametrize("choices", [[], None, [{"message": None, "finish_reason": "content_filter"}]])
def test_a_reply_without_a_message_is_unparsed_and_counted(service, make_judge, choices):
    """So services say too that they filtered what their model wrote; an error beside it is another thing."""
    service.play = lambda text: body({"choices": choices}) if "step 2." in text else scored(4)
    assert make_judge(concurrency=1).score(PAIRS) == [4, None, 4, 4, 4]
    assert make_judge(concurrency=1).score(PAIRS) == [4, None, 4, 4, 4]
    assert len(service.requests) == len(PAIRS) + 1


def test_the_first_response_may_be_the_rejected_one_and_a_few_alone_are_counted(service, make_judge, tmp_path):
    service.play = lambda text: refused(400, FILTERED) if "step 1." in text or "step 2." in text else scored(4)
    assert make_judge(concurrency=1).score(PAIRS[:2]) == [None, None]
    assert len(kept_replies(tmp_path)) == 2
    assert make_judge(concurrency=1).score(PAIRS) == [None, None, 4, 4, 4]


def test_many_rejected_in_a_row_stop_and_are_asked_about_again(service, make_judge, tmp_path):
    """Ten scores, then nothing but rejections: what is wrong is not in the texts, and may be mended at the server."""
    service.play = lambda text: scored(4) if "text 00" in text else refused(400, "no such engine")
    stop = (
        "no score for 7 in a row, of the last 'status 400, no such engine'; correct the judge in the study .*, or raise"
    )
    with pytest.raises(UserError, match=rf"{stop} its unscored_in_a_row, then run again"):
        make_judge(concurrency=1, unscored_in_a_row=7).score(MANY)
    assert len(service.requests) == 10 + 7
    assert [entry["score"] for entry in kept_replies(tmp_path)] == [4.0] * 10
    service.play = lambda text: scored(2)
    assert make_judge().score(MANY) == [4.0] * 10 + [2.0] * 30


def test_what_an_earlier_run_knows_to_be_rejected_stops_nothing(service, make_judge):
    """The words name credit, and more of them stand in a row than may: both would stop if they were news."""
    service.play = lambda text: scored(4) if "text 000" in text else refused(400, "no credit is given for this")
    assert make_judge(concurrency=1, unscored_in_a_row=50).score(MANY) == [4.0] + [None] * 39
    assert make_judge(concurrency=1).score([*MANY[1:], MANY[0]]) == [None] * 39 + [4.0]


def test_rejections_are_counted_from_one_cell_to_the_next(service, make_judge):
    service.script(refused(400, "no such engine"))
    judge = make_judge(concurrency=1, unscored_in_a_row=7)
    assert judge.score(MANY[:4]) == [None] * 4
    with pytest.raises(UserError, match="no score for 7 in a row"):
        judge.score(MANY[4:8])


def test_a_readable_reply_ends_the_row(service, make_judge):
    fifth = [f"text {number:03}" for number in range(4, 40, 5)]
    service.play = lambda text: scored(4) if any(each in text for each in fifth) else refused(400, FILTERED)
    assert make_judge(concurrency=1, unscored_in_a_row=5).score(MANY) == [None, None, None, None, 4.0] * 8


@pytest.mark.parametrize(
    ("changes", "words", "advice"),
    [
        ({}, "Unsupported value: 'temperature' does not support 0 with this model.", "set its temperature to null"),
        ({}, "`response_format` is not supported by this model", "set its reply to text"),
        ({}, "Unknown parameter: json_schema", "set its reply to text"),
        ({}, "Extra inputs are not permitted: max_completion_tokens", "set its tokens_field to max_tokens"),
        ({"tokens_field": "max_tokens"}, "Unsupported: 'max_tokens'", "set its tokens_field to max_completion_tokens"),
        ({}, "API key not valid. Please pass a valid API key.", "export a valid key in OPENAI_API_KEY"),
        ({}, "Your credit balance is too low.", "see to the account's credit"),
    ],
)
def test_what_every_request_has_stops_at_once_and_names_the_setting(
    service, make_judge, tmp_path, changes, words, advice
):
    service.script(refused(400, words))
    with pytest.raises(UserError, match=rf"got status 400, {words[:20]}.*; {advice}[^,]*(, or lower|, and ask|, then)"):
        make_judge(concurrency=1, **changes).score(PAIRS)
    assert len(service.requests) == 1
    assert kept_replies(tmp_path) == []


def test_the_settings_that_the_advice_names_are_what_is_sent(service, make_judge):
    assert make_judge(tokens_field="max_tokens").score(PAIRS[:1]) == [1.0]
    assert service.requests[0]["max_tokens"] == 50
    assert "max_completion_tokens" not in service.requests[0]


def test_a_context_that_is_too_short_for_all_is_no_matter_of_the_field(service, make_judge):
    service.script(refused(400, LONG))
    with pytest.raises(UserError, match=r"no score for 10 in a row.*; lower its max_reply_tokens, or give the server"):
        make_judge(concurrency=1).score(MANY)


@pytest.mark.parametrize(
    ("reply", "changes", "advice"),
    [
        (completion("I cannot judge this."), {}, "'I cannot judge this.'; set its reply to text and ask for a line"),
        (completion("4 of 5"), {"reply": "text"}, "'4 of 5'; ask for a line '#thescore: N' in its rubric"),
        (completion("", finish="length"), {}, "''; raise its max_reply_tokens, which cut the reply"),
    ],
)
def test_where_no_first_reply_can_be_read_one_is_quoted_and_no_more_is_paid(
    service, make_judge, reply, changes, advice
):
    service.script(reply)
    for _ in range(2):
        with pytest.raises(UserError, match=f"got no score for 10 in a row, of the last {advice}.* unscored_in_a_row"):
            make_judge(concurrency=1, attempts=2, **changes).score(MANY)
        assert len(service.requests) == 20
    with pytest.raises(UserError, match="no score for 12 in a row"):
        make_judge(concurrency=1, attempts=2, unscored_in_a_row=12, **changes).score(MANY)
    assert len(service.requests) == 24


def test_unreadable_replies_after_a_score_stop_nothing(service, make_judge):
    service.play = lambda text: scored(4) if "text 000" in text else completion("hm")
    assert make_judge(concurrency=1, attempts=1).score(MANY) == [4.0] + [None] * 39


@pytest.mark.parametrize(
    ("fault", "tries", "words"),
    [
        (refused(402, "pay"), 1, "status 402, pay; see to the account's credit"),
        (
            body({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429),
            1,
            "status 429, You exceeded your quota; see to the account's credit",
        ),
        (
            body({"error": {"message": "slow"}}, 429, retry_after="3600"),
            1,
            "Retry-After: 3600, status 429, slow; wait,",
        ),
        (body({"message": "down"}, 503, retry_after="900"), 1, "Retry-After: 900, status 503, down; wait until the"),
        (Reply(b"who?", 401, "text/plain"), 1, "a refusal of the key, status 401, who.; export a valid key"),
        (body({"detail": "Not Found"}, 404), 1, "status 404, Not Found; correct the judge's name or base_url"),
        (Reply(b"", 405), 1, "status 405, without a word; correct the judge's name or base_url"),
        (body([{"error": {"message": "listed"}}], 500, retry_after_ms="1"), 3, "status 500, listed; wait until"),
        (body({"choices": None, "error": {"message": "busy", "code": 429}}, retry_after_ms="1"), 3, "status 429, busy"),
        (Reply(b'data: {"choices": []}', kind="text/event-stream"), 3, "a reply that is no chat completion: data: "),
    ],
)
def test_faults_are_tried_again_only_where_that_may_help(service, make_judge, fault, tries, words, monkeypatch):
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.0)
    service.script(fault)
    with pytest.raises(UserError, match=words) as raised:
        make_judge(concurrency=1).score(PAIRS)
    assert len(service.requests) == tries
    assert "\n" not in str(raised.value)


def test_an_error_of_status_200_without_a_code_is_tried_again_and_then_a_rejection(service, make_judge):
    fault = body({"choices": None, "error": "no worker"}, retry_after_ms="1")
    service.script(fault, fault, fault, scored(4))
    assert make_judge(concurrency=1).score(PAIRS[:2]) == [None, 4]


def test_an_address_without_the_usual_ending_is_said(service, make_judge):
    service.script(body({"detail": "Not Found"}, 404))
    with pytest.raises(UserError, match="base_url in the study, which most servers end in /v1, then run again"):
        make_judge(base_url=service.address.removesuffix("/v1")).score(PAIRS)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/v1", r"\[Errno 111\].*; start the server or correct the judge's base_url"),
        ("http://nowhere.invalid/v1", r"\[Errno -\d\].*; start the server or correct the judge's base_url"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line_and_costs_nothing(make_judge, tmp_path, address, words):
    with pytest.raises(UserError, match=words) as raised:
        make_judge(base_url=address, retries=0).score(PAIRS[:1])
    assert "\n" not in str(raised.value)
    assert spent_in(ledger_of(tmp_path)) == 0


def test_https_to_a_server_without_it_names_both_remedies(service, make_judge):
    with pytest.raises(UserError, match=r"correct https in the judge's base_url, or name .* in SSL_CERT_FILE"):
        make_judge(base_url=service.address.replace("http:", "https:"), retries=0).score(PAIRS[:1])


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "odd://127.0.0.1:9"])
def test_a_proxy_that_the_client_does_not_know_is_one_line(make_judge, monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(
        UserError, match="expected addresses in base_url, HTTPS_PROXY and ALL_PROXY that the client knows"
    ):
        make_judge()


@pytest.mark.parametrize(
    "written", [f'"{KEY}"', f"'{KEY}'\n", f"{KEY}\r\n", f"Bearer {KEY}", f' "bearer  {KEY}" ', KEY]
)
def test_a_key_is_read_as_people_copy_it(service, make_judge, monkeypatch, written):
    monkeypatch.setenv("OPENAI_API_KEY", written)
    make_judge().score(PAIRS[:1])
    assert service.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", [None, "none", "EMPTY"])
def test_a_key_that_is_no_secret_masks_no_word(service, make_judge, monkeypatch, key):
    monkeypatch.delenv("OPENAI_API_KEY")
    if key is not None:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    service.script(refused(401, "none of the EMPTY engines"))
    with pytest.raises(UserError, match="none of the EMPTY engines"):
        make_judge().score(PAIRS[:1])
