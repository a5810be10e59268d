"""What came in the place of a reply, in the service's own words, and which setting helps."""

import json
import re
from typing import Any

import httpx2
import openai

from safety_spaces.errors import quote
from safety_spaces.study import KEY_VARIABLE
from safety_spaces.study import ServiceJudge as Settings

LEAST_SECRET = 8
"""Characters of the shortest key that is masked: shorter ones ("none", "EMPTY") are words that errors hold."""
OF_THE_SERVICE = (401, 402, 403, 404, 405, 407, 408, 409, 410, 429)
"""Statuses below 500 that say nothing of one text; others (413, 422, 451, 498) are as services refuse one."""
NO_CREDIT = "insufficient_quota"
CREDIT, VALID_KEY = "see to the account's credit", f"export a valid key in {KEY_VARIABLE}"
TEXT = "set its reply to text"
TOKENS = "set its tokens_field to {other_field}, or lower its max_reply_tokens"
REMEDIES = {
    "temperature": "set its temperature to null",
    "response_format": TEXT,
    "json_schema": TEXT,
    "max_completion_tokens": TOKENS,
    "max_tokens": TOKENS,
    "credit": CREDIT,
    "billing": CREDIT,
}
"""What every request of a judge has, as rejections name it -> which setting helps; the key has many names."""
OF_EVERY_REQUEST = re.compile("|".join((*REMEDIES, "api.?key")), re.IGNORECASE)
OF_ONE_TEXT = re.compile("context|messages|moderation|flagged", re.IGNORECASE)


def quoted(text: str, key: str) -> str:
    """Return a text as one line of at most 200 characters, the key masked."""
    return quote(text.replace(key, "***") if len(key) >= LEAST_SECRET else text, 200)


def is_rejection(error: openai.APIStatusError) -> bool:
    """Say whether the service refuses one request for what it says, and would refuse it again, others perhaps not."""
    moderated = error.status_code == 403 and OF_ONE_TEXT.search(said(error)) is not None
    return moderated or (400 <= error.status_code < 500 and error.status_code not in OF_THE_SERVICE)


def is_of_every_request(rejection: str) -> bool:
    """Say whether a rejection names what every request of a judge has, and none of the texts in it."""
    return OF_EVERY_REQUEST.search(rejection) is not None and OF_ONE_TEXT.search(rejection) is None


def said(error: openai.APIStatusError) -> str:
    """Return the status of an error and what its body says, whichever way the server writes it."""
    return f"status {error.status_code}, {_words(error.body) or 'without a word'}"


def _words(body: Any) -> str:
    match body:
        case {"metadata": {"raw": inner}} | {"error": inner} | {"message": inner} | {"detail": inner} | [inner]:
            return _words(inner)
        case str():
            return re.sub(r"<[^>]*>", " ", body).strip()
    return json.dumps(body) if body else ""


def advice(rejection: str, settings: Settings) -> str:
    """Return which setting helps where requests are rejected one after another."""
    if "context" in rejection:
        return "lower its max_reply_tokens, or give the server a longer context"
    named = OF_EVERY_REQUEST.search(rejection)
    if named is None:
        return "correct the judge in the study (temperature: null, reply: text or tokens_field: max_tokens may help)"
    (other_field,) = {"max_completion_tokens", "max_tokens"} - {settings.tokens_field}
    return REMEDIES.get(named[0].lower(), VALID_KEY).format(other_field=other_field)


def unreadable_advice(settings: Settings, *, cut: bool) -> str:
    """Return which setting helps where replies come and hold no score that can be read, cut short or not."""
    if cut:
        return "raise its max_reply_tokens, which cut the reply"
    form = f"{TEXT} and ask" if settings.reply == "structured" else "ask"
    return f"{form} for a line '#thescore: N' in its rubric, or name another model"


def reason(error: openai.OpenAIError, settings: Settings) -> tuple[str, str]:
    """Return what came in the place of a reply, and what to do about it."""
    match error:
        case openai.APIStatusError():
            return _of_status(error, settings)
        case openai.APITimeoutError():
            came = f"no whole reply within {settings.timeout:g} seconds"
            return came, "raise the judge's timeout or lower its concurrency"
    remedy, root = "start the server or correct the judge's base_url", error.__cause__ or error
    if isinstance(root, httpx2.ProxyError):
        remedy = "correct HTTPS_PROXY, or name the server in NO_PROXY"
    # The client says no more than that it could not connect.
    while deeper := root.__cause__ or root.__context__:
        root = deeper
    if "SSL" in str(root):
        remedy = "correct https in the judge's base_url, or name the server's certificate in SSL_CERT_FILE"
    return str(root), remedy


def _of_status(error: openai.APIStatusError, settings: Settings) -> tuple[str, str]:
    came, response = said(error), error.response
    if response.next_request is not None:
        redirect = f"status {error.status_code}, a redirect to {response.next_request.url}"
        return redirect, "write the base_url that it means"
    if "retry-after" in response.headers:
        came = f"Retry-After: {response.headers['retry-after']}, {came}"
    match error.status_code:
        case 401 | 403:
            return f"a refusal of the key, {came}", VALID_KEY
        case 404 | 405:
            is_usual = (settings.base_url or "/v1").rstrip("/").endswith("/v1")
            ending = "" if is_usual else ", which most servers end in /v1"
            return came, f"correct the judge's name or base_url in the study{ending}"
        case status if status == 402 or NO_CREDIT in (error.code, error.type):
            return came, CREDIT
        case 429:
            return came, f"wait, lower its concurrency, raise its retries, or {CREDIT}"
        case status if status > 429:
            return came, "wait until the service is well again"
    return came, advice(came, settings)
