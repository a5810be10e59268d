"""What came in the place of a reply, in the service's own words, and which setting helps."""

import json
import re
from typing import Any

import httpx2
import openai

from safety_spaces.errors import quote
from safety_spaces.study import KEY_VARIABLE
from safety_spaces.study import ServiceJudge as ServiceSettings

LONGEST_QUOTE = 200
LEAST_SECRET = 8
"""Characters of the shortest key that is masked: shorter ones ("none", "EMPTY") are words that errors hold."""
BAD_REQUEST, UNAUTHORIZED, PAYMENT, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, TOO_MANY = 400, 401, 402, 403, 404, 405, 429
OF_THE_SERVICE = (UNAUTHORIZED, PAYMENT, FORBIDDEN, NOT_FOUND, NOT_ALLOWED, 407, 408, 409, 410, TOO_MANY)
"""Statuses below 500 that say nothing of one text; others (413, 422, 451, 498) are as services refuse one."""
NO_CREDIT = "insufficient_quota"
CREDIT, VALID_KEY = "see to the account's credit", f"export a valid key in {KEY_VARIABLE}"
OF_EVERY_REQUEST = re.compile(
    "temperature|response_format|json_schema|max_completion_tokens|max_tokens|api.?key|credit|billing", re.IGNORECASE
)
OF_ONE_TEXT = re.compile("context|messages|moderation|flagged", re.IGNORECASE)


def quoted(text: str, key: str) -> str:
    """Return a text as one line of at most 200 characters, the key masked."""
    return quote(text.replace(key, "***") if len(key) >= LEAST_SECRET else text, LONGEST_QUOTE)


def is_rejection(error: openai.APIStatusError) -> bool:
    """Say whether the service refuses one request for what it says, and would refuse it again, others perhaps not."""
    moderated = error.status_code == FORBIDDEN and OF_ONE_TEXT.search(said(error)) is not None
    return moderated or (BAD_REQUEST <= error.status_code < 500 and error.status_code not in OF_THE_SERVICE)


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


def advice(rejection: str, settings: ServiceSettings) -> str:
    """Return which setting helps where requests are rejected one after another."""
    if "context" in rejection:
        return "lower its max_reply_tokens, or give the server a longer context"
    named = OF_EVERY_REQUEST.search(rejection)
    match named and named[0].lower():
        case None:
            return (
                "correct the judge in the study (temperature: null, reply: text or tokens_field: max_tokens may help)"
            )
        case "temperature":
            return "set its temperature to null"
        case "response_format" | "json_schema":
            return "set its reply to text"
        case "max_completion_tokens" | "max_tokens":
            (other,) = {"max_completion_tokens", "max_tokens"} - {settings.tokens_field}
            return f"set its tokens_field to {other}, or lower its max_reply_tokens"
        case "credit" | "billing":
            return CREDIT
    return VALID_KEY


def unreadable_advice(settings: ServiceSettings, *, cut: bool) -> str:
    """Return which setting helps where replies come and hold no score that can be read, cut short or not."""
    if cut:
        return "raise its max_reply_tokens, which cut the reply"
    form = "set its reply to text and ask" if settings.reply == "structured" else "ask"
    return f"{form} for a line '#thescore: N' in its rubric, or name another model"


def reason(error: openai.OpenAIError, settings: ServiceSettings) -> tuple[str, str]:
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


def _of_status(error: openai.APIStatusError, settings: ServiceSettings) -> tuple[str, str]:
    status, came, ahead = error.status_code, said(error), error.response.next_request
    if ahead is not None:
        return f"status {status}, a redirect to {ahead.url}", "write the base_url that it means"
    if "retry-after" in error.response.headers:
        came = f"Retry-After: {error.response.headers['retry-after']}, {came}"
    if status in (UNAUTHORIZED, FORBIDDEN):
        return f"a refusal of the key, {came}", VALID_KEY
    if status in (NOT_FOUND, NOT_ALLOWED):
        ending = "" if (settings.base_url or "/v1").rstrip("/").endswith("/v1") else ", which most servers end in /v1"
        return came, f"correct the judge's name or base_url in the study{ending}"
    if status == PAYMENT or NO_CREDIT in (error.code, error.type):
        return came, CREDIT
    if status == TOO_MANY:
        return came, f"wait, lower its concurrency, raise its retries, or {CREDIT}"
    return came, "wait until the service is well again" if status > TOO_MANY else advice(came, settings)
