"""Every HTTP request of a judge, bounded in time and counted: the client repeats what fails, and each try may cost.

Servers differ in how they say that something failed. What the protocol has no word for is put into its words here, so
that the client repeats what may go better next time and nothing else.
"""

import asyncio
import json
import re
from typing import Any

import httpx2
import openai

from safety_spaces.evaluation.judges.service.budget import Budget
from safety_spaces.evaluation.judges.service.faults import NO_CREDIT
from safety_spaces.study import ServiceJudge as Settings


class MeteredClient(openai.DefaultAsyncHttpxClient):
    """Sends a request and reads the whole reply within the timeout, and counts what it costs against a budget."""

    def __init__(self, budget: Budget, settings: Settings) -> None:
        super().__init__(timeout=settings.timeout, follow_redirects=False)
        self._budget = budget
        self._settings = settings

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request; a reply that is no chat completion is raised as a fault of the server.

        What it cost is counted in the place of the most that it may; where nobody says what it cost, the most stays.
        Raises UserError when the budget would be exceeded.
        """
        # No tokenizer makes more tokens than bytes, and the request holds more bytes than its messages.
        most = self._cost(len(request.content), self._settings.max_reply_tokens)
        self._budget.reserve(most)
        try:
            # The client's own timeout starts anew with every byte.
            async with asyncio.timeout(self._settings.timeout):
                response = await self._within_the_origin(request, **options)
        except httpx2.ConnectError:
            self._budget.settle(most, 0.0)
            raise
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the reply came too slowly", request=request) from error
        try:
            content = json.loads(response.content)
        except (ValueError, RecursionError):
            content = None
        _put_into_words_of_the_protocol(response, content)
        if response.is_success and message(content) is None:
            raise httpx2.RemoteProtocolError(f"a reply that is no chat completion: {response.text}", request=request)
        used = tokens(content) if response.is_success else (0, 0)
        if used is not None:
            self._budget.settle(most, self._cost(*used))
        return response

    def _cost(self, tokens_in: int, tokens_out: int) -> float:
        price = self._settings.price
        return (tokens_in * price.input + tokens_out * price.output) / 1_000_000

    async def _within_the_origin(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request, and once more where it is redirected, whole, to a place that may be told the key."""
        response = await super().send(request, **options)
        ahead = response.next_request
        # The key is left in the redirected request only if scheme, host and port stay, or http becomes https.
        if ahead is None or ahead.method != request.method or "authorization" not in ahead.headers:
            return response
        return await super().send(ahead, **options)


def tokens(completion: Any) -> tuple[int, int] | None:
    """Return the tokens in and out that a completion's usage names, or None where it does not."""
    match completion.get("usage"):
        case {"prompt_tokens": int(tokens_in), "completion_tokens": int(tokens_out)} if min(tokens_in, tokens_out) >= 0:
            return tokens_in, tokens_out
    return None


def message(content: Any) -> dict[str, Any] | None:
    """Return the message of a chat completion, an empty one where it was filtered, or None where a reply is none."""
    match content:
        case {"choices": [{"message": dict(found)}, *_]}:
            return found
        case {"choices": None | [] | [{"message": None}, *_]} if not content.get("error"):
            return {}
    return None


def text_of(completion: Any) -> str:
    """Return what a message says, be it one text, a list of parts or the refusal to say anything; "" for nothing."""
    found = message(completion) or {}
    content = found.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    # Other parts are thought, or are no text.
    said = [
        part.get("text")
        for part in parts
        if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")
    ]
    return "".join(text for text in said if isinstance(text, str)) or str(found.get("refusal") or "")


def _put_into_words_of_the_protocol(response: httpx2.Response, content: Any) -> None:
    """Give an error in a reply of status 200 its own status, and say of a spent account that waiting does not help."""
    error = content.get("error") if isinstance(content, dict) else None
    code, kind = (str(error.get("code")), error.get("type")) if isinstance(error, dict) else ("", None)
    if response.is_success and error and message(content) is None:
        if re.fullmatch("[45][0-9]{2}", code):
            response.status_code = int(code)
        else:
            response.status_code, response.headers["x-should-retry"] = httpx2.codes.BAD_REQUEST, "true"
    if NO_CREDIT in (code, kind):
        response.headers["x-should-retry"] = "false"
