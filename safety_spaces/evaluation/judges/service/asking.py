"""A chat model behind a service, asked for scores (paper, Section 3).

The paper's judge is gpt-4o-mini; a local server (vLLM, `transformers serve`) is another address. Replies are kept by
content, so the same question is never paid for twice, and a run that is killed or out of budget goes on where it was.
"""

import asyncio
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
from filelock import AsyncFileLock

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service import faults
from safety_spaces.evaluation.judges.service.budget import Budget
from safety_spaces.evaluation.judges.service.client import MeteredClient, message, text_of, tokens
from safety_spaces.evaluation.judges.service.dialogue import SCHEMA, question, read_structured, read_text
from safety_spaces.store import Cells, digest, writing
from safety_spaces.study import KEY_VARIABLE
from safety_spaces.study import ServiceJudge as ServiceSettings

ADDRESS: Final = "https://api.openai.com/v1"
NO_KEY: Final = "none"
NOTHING: Final[Mapping[str, Any]] = {"replies": (), "score": None, "tokens_in": 0, "tokens_out": 0}
"""What is kept of a question before its first reply."""

READERS: Mapping[str, Callable[[str, str], float | None]] = {"structured": read_structured, "text": read_text}
"""`reply` of a study -> how a reply is read, given the judged text."""


@dataclass
class _Row:
    """Responses in a row without a score, of a judge that gave none yet or whose requests are rejected.

    What is rejected is kept only when the row has ended: if it never does, the cause is not in the responses.
    """

    has_scored: bool = False
    length: int = 0
    rejected: list[tuple[Cells, str, Mapping[str, Any]]] = field(default_factory=list)

    def keep(self) -> None:
        while self.rejected:
            cells, key, kept = self.rejected.pop()
            cells.put(key, kept)


class ServiceJudge:
    """Asks a service for scores, several at a time; keeps its replies in `cache` and its cost in the ledger."""

    def __init__(self, settings: ServiceSettings, *, rubric: str, cache: Path, budget: Budget) -> None:
        """Prepare to ask; nothing is sent.

        Raises UserError when OpenAI's address has no key, or the environment names a proxy that is none.
        """
        self._settings = settings
        self._rubric = rubric
        self._cache = cache
        self._address = settings.base_url or ADDRESS
        self._key = _key(settings)
        self._budget = budget
        self._row = _Row()
        self._client()

    @property
    def name(self) -> str:
        """The model that is asked."""
        return self._settings.name

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the score of every (prompt, response); a pair that stands there twice is asked once.

        Raises UserError when the service refuses or fails, no first reply can be read, or the budget would be exceeded;
        replies so far are kept.
        """
        different, stopped = list(dict.fromkeys(pairs)), threading.Event()
        # A notebook runs an event loop of its own in this thread.
        with ThreadPoolExecutor(1) as thread:
            try:
                scores = thread.submit(asyncio.run, self._score_each(different, stopped)).result()
            finally:
                # Requests that are under way come to their end, and their replies are kept.
                stopped.set()
        return [scores[pair] for pair in pairs]

    async def _score_each(
        self, pairs: Sequence[tuple[str, str]], stopped: threading.Event
    ) -> dict[tuple[str, str], float | None]:
        places = asyncio.Semaphore(self._settings.concurrency)

        async def judge_unless_stopped(pair: tuple[str, str]) -> float | None:
            async with places:
                # Where another pair has failed, nobody waits for the score, and it should cost nothing.
                if stopped.is_set():
                    return None
                try:
                    return await self._judge(client, *pair)
                except UserError:
                    stopped.set()
                    raise

        async with self._client() as client:
            results = await asyncio.gather(*map(judge_unless_stopped, pairs), return_exceptions=True)
        scores = {}
        for pair, result in zip(pairs, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            scores[pair] = result
        self._row.keep()
        return scores

    def _client(self) -> openai.AsyncOpenAI:
        settings = self._settings
        try:
            return openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._address,
                timeout=settings.timeout,
                max_retries=settings.retries,
                http_client=MeteredClient(self._budget, settings),
            )
        # What the environment names as a proxy is read here.
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise UserError(
                f"judge {self.name} at {self._address}: expected addresses in base_url, HTTPS_PROXY and ALL_PROXY that "
                f"the client knows, got {faults.quoted(str(error), self._key)}; correct them"
            ) from error

    async def _judge(self, client: openai.AsyncOpenAI, prompt: str, response: str) -> float | None:
        request = self._request(prompt, response)
        # The address too: a local server may call its model what it likes.
        key = digest([self._address, request])
        # A folder of a hundred thousand files is slow to write to.
        cells = Cells(self._cache / key[:2])
        kept: Mapping[str, Any] = cells.get(key) or {**NOTHING, "prompt": prompt, "response": response}
        asked = not self._is_done(kept)
        if asked:
            kept = await self._asked(client, cells, key, request, kept)
        # What an earlier run knows to be rejected says nothing of the judge as it is now.
        if asked or "rejected" not in kept:
            self._count(cells, key, kept)
        score: float | None = kept["score"]
        return score

    async def _asked(
        self, client: openai.AsyncOpenAI, cells: Cells, key: str, request: Mapping[str, Any], kept: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Ask until the reply can be read, is rejected, or was asked for often enough; keep what was paid."""
        lock = cells.folder / f".{key}.lock"
        with writing(lock):
            cells.folder.mkdir(parents=True, exist_ok=True)
            # Another process may be paying for the same reply just now.
            async with AsyncFileLock(lock, run_in_executor=False):
                kept = cells.get(key) or kept
                try:
                    while not self._is_done(kept):
                        kept = await self._asked_again(client, kept, request)
                        if "rejected" not in kept:
                            await asyncio.to_thread(cells.put, key, kept)
                finally:
                    lock.unlink(missing_ok=True)
        return kept

    def _is_done(self, kept: Mapping[str, Any]) -> bool:
        return kept["score"] is not None or "rejected" in kept or len(kept["replies"]) >= self._settings.attempts

    def _request(self, prompt: str, response: str) -> dict[str, Any]:
        """Everything that the score depends on."""
        settings = self._settings
        request: dict[str, Any] = {
            "model": settings.name,
            "messages": [{"role": "user", "content": question(self._rubric, prompt, response)}],
            settings.tokens_field: settings.max_reply_tokens,
        }
        if settings.temperature is not None:
            request["temperature"] = settings.temperature
        if settings.reply == "structured":
            schema = {"name": "judgement", "strict": True, "schema": SCHEMA}
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    async def _asked_again(
        self, client: openai.AsyncOpenAI, kept: Mapping[str, Any], request: Mapping[str, Any]
    ) -> dict[str, Any]:
        try:
            came = await client.post("/chat/completions", cast_to=httpx2.Response, body=request)
        except openai.OpenAIError as error:
            if isinstance(error, openai.APIStatusError) and faults.is_rejection(error):
                return {**kept, "rejected": faults.quoted(faults.said(error), self._key)}
            raise self._stop(*faults.reason(error, self._settings)) from error
        completion = came.json()
        reply = text_of(message(completion) or {})
        tokens_in, tokens_out = tokens(completion.get("usage")) or (0, 0)
        return {
            **kept,
            "replies": [*kept["replies"], reply],
            "score": READERS[self._settings.reply](reply, f"{kept['prompt']}\n{kept['response']}"),
            "tokens_in": kept["tokens_in"] + tokens_in,
            "tokens_out": kept["tokens_out"] + tokens_out,
            "finish_reason": str((completion["choices"] or [{}])[0].get("finish_reason")),
        }

    def _count(self, cells: Cells, key: str, kept: Mapping[str, Any]) -> None:
        """Count a response with a score, or one without; stop where a row of them is long enough to mean the judge."""
        row, settings, rejection = self._row, self._settings, kept.get("rejected")
        row.has_scored = row.has_scored or kept["score"] is not None
        if row.has_scored and rejection is None:
            row.keep()
            row.length = 0
            return
        row.length += 1
        if rejection is not None:
            row.rejected.append((cells, key, kept))
            if not row.has_scored and faults.is_of_every_request(rejection):
                raise self._stop(rejection, faults.advice(rejection, settings))
        if row.length >= settings.unscored_in_a_row:
            last = kept["replies"][-1] if rejection is None else rejection
            is_cut = kept.get("finish_reason") == "length"
            remedy = faults.advice(rejection, settings) if rejection else faults.unreadable_advice(settings, cut=is_cut)
            came = f"no score for {row.length} in a row, of the last {last!r}"
            raise self._stop(came, f"{remedy}, or raise its unscored_in_a_row")

    def _stop(self, came: str, remedy: str) -> UserError:
        got = faults.quoted(came, self._key)
        return UserError(
            f"judge {self.name} at {self._address}: expected a reply, got {got}; {remedy}, then run again (replies so "
            "far are kept)"
        )


def _key(settings: ServiceSettings) -> str:
    # As people copy it: out of quotes, or out of a header.
    key = re.sub(r"^[\s'\"]*(bearer\s+)?|[\s'\"]+$", "", os.environ.get(KEY_VARIABLE, ""), flags=re.IGNORECASE)
    if not key and settings.base_url is None:
        raise UserError(
            f"judge {settings.name}: expected a key of {ADDRESS} in the environment variable {KEY_VARIABLE}, found "
            "none; export it, or write the base_url of a server that needs none"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"judge {settings.name}: expected letters, digits and signs in {KEY_VARIABLE}; export it again")
    return key or NO_KEY
