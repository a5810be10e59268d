"""A chat model behind a service, asked for scores (paper, Section 3).

The paper's judge is gpt-4o-mini; a local server (vLLM, `transformers serve`) is another address. Replies are kept by
content, so the same question is never paid for twice, and a run that is killed or out of budget goes on where it was.
"""

import asyncio
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx2
import openai
from filelock import AsyncFileLock

from safety_spaces.errors import UserError
from safety_spaces.evaluation.judges.service import faults
from safety_spaces.evaluation.judges.service.budget import Budget
from safety_spaces.evaluation.judges.service.client import MeteredClient, text_of, tokens
from safety_spaces.evaluation.judges.service.dialogue import SCHEMA, question, read_structured, read_text
from safety_spaces.store import Cells, digest, writing
from safety_spaces.study import KEY_VARIABLE
from safety_spaces.study import ServiceJudge as Settings

ADDRESS: Final = "https://api.openai.com/v1"


class ServiceJudge:
    """Asks a service for scores, several at a time; keeps its replies in `cache` and its cost in the ledger.

    What is rejected is kept only when another response gets a score, or all have come to their end: where a row of
    responses without a score is long enough to stop at, the cause is not in the responses.
    """

    def __init__(self, settings: Settings, *, rubric: str, cache: Path, budget: Budget) -> None:
        """Prepare to ask; nothing is sent.

        Raises UserError when OpenAI's address has no key, or the environment names a proxy that is none.
        """
        self.name = settings.name
        self._settings = settings
        self._rubric = rubric
        self._cache = cache
        self._address = settings.base_url or ADDRESS
        self._key = _key(settings)
        self._budget = budget
        self._has_scored = False
        self._unscored_in_a_row = 0
        self._rejected: dict[str, Mapping[str, Any]] = {}
        self._client()

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the score of every (prompt, response); a pair that stands there twice is asked once.

        Raises UserError when the service refuses or fails, no first reply can be read, or the budget would be exceeded;
        replies so far are kept.
        """
        stopped = threading.Event()
        # A notebook runs an event loop of its own in this thread.
        with ThreadPoolExecutor(1) as thread:
            try:
                scores = thread.submit(asyncio.run, self._score_each(dict.fromkeys(pairs), stopped)).result()
            finally:
                # Requests that are under way come to their end, and their replies are kept.
                stopped.set()
        return [scores[pair] for pair in pairs]

    async def _score_each(
        self, pairs: Iterable[tuple[str, str]], stopped: threading.Event
    ) -> dict[tuple[str, str], float | None]:
        scores: dict[tuple[str, str], float | None] = {}
        places = asyncio.Semaphore(self._settings.concurrency)

        async def judge_unless_stopped(pair: tuple[str, str]) -> None:
            async with places:
                # Where another pair has failed, nobody waits for the score, and it should cost nothing.
                if not stopped.is_set():
                    try:
                        scores[pair] = await self._judge(client, *pair)
                    except UserError:
                        stopped.set()
                        raise

        async with self._client() as client:
            ends = await asyncio.gather(*map(judge_unless_stopped, pairs), return_exceptions=True)
        for error in filter(None, ends):
            raise error
        self._keep_rejected()
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
        texts = {"prompt": prompt, "response": response}
        nothing = {"replies": (), "score": None, "tokens_in": 0, "tokens_out": 0, **texts}
        kept: Mapping[str, Any] = self._cells(key).get(key) or nothing
        asked = not self._is_done(kept)
        if asked:
            kept = await self._asked(client, key, request, kept)
        # What an earlier run knows to be rejected says nothing of the judge as it is now.
        if asked or "rejected" not in kept:
            self._count(key, kept)
        score: float | None = kept["score"]
        return score

    def _cells(self, key: str) -> Cells:
        # A folder of a hundred thousand files is slow to write to.
        return Cells(self._cache / key[:2])

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

    def _is_done(self, kept: Mapping[str, Any]) -> bool:
        return kept["score"] is not None or "rejected" in kept or len(kept["replies"]) >= self._settings.attempts

    async def _asked(
        self, client: openai.AsyncOpenAI, key: str, request: Mapping[str, Any], kept: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Ask until the reply can be read, is rejected, or was asked for often enough; keep what was paid."""
        cells = self._cells(key)
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
        reply, (tokens_in, tokens_out) = text_of(completion), tokens(completion) or (0, 0)
        read = read_structured if self._settings.reply == "structured" else read_text
        return {
            **kept,
            "replies": [*kept["replies"], reply],
            "score": read(reply, f"{kept['prompt']}\n{kept['response']}"),
            "tokens_in": kept["tokens_in"] + tokens_in,
            "tokens_out": kept["tokens_out"] + tokens_out,
            "finish_reason": str((completion["choices"] or [{}])[0].get("finish_reason")),
        }

    def _count(self, key: str, kept: Mapping[str, Any]) -> None:
        """Count a response with a score, or one without; stop where a row of them is long enough to mean the judge.

        Of a judge that gave a score, only rejections are in a row.
        """
        settings, rejection = self._settings, kept.get("rejected")
        self._has_scored |= kept["score"] is not None
        if self._has_scored and rejection is None:
            self._keep_rejected()
            self._unscored_in_a_row = 0
            return
        self._unscored_in_a_row += 1
        if rejection is None:
            last = kept["replies"][-1]
            remedy = faults.unreadable_advice(settings, cut=kept.get("finish_reason") == "length")
        else:
            self._rejected[key] = kept
            last, remedy = rejection, faults.advice(rejection, settings)
            if not self._has_scored and faults.is_of_every_request(rejection):
                raise self._stop(rejection, remedy)
        if self._unscored_in_a_row >= settings.unscored_in_a_row:
            came = f"no score for {self._unscored_in_a_row} in a row, of the last {last!r}"
            raise self._stop(came, f"{remedy}, or raise its unscored_in_a_row")

    def _keep_rejected(self) -> None:
        while self._rejected:
            key, kept = self._rejected.popitem()
            self._cells(key).put(key, kept)

    def _stop(self, came: str, remedy: str) -> UserError:
        got = faults.quoted(came, self._key)
        return UserError(
            f"judge {self.name} at {self._address}: expected a reply, got {got}; {remedy}, then run again (replies so "
            "far are kept)"
        )


def _key(settings: Settings) -> str:
    # As people copy it: out of quotes, or out of a header.
    key = re.sub(r"^[\s'\"]*(bearer\s+)?|[\s'\"]+$", "", os.environ.get(KEY_VARIABLE, ""), flags=re.IGNORECASE)
    if not key and settings.base_url is None:
        raise UserError(
            f"judge {settings.name}: expected a key of {ADDRESS} in the environment variable {KEY_VARIABLE}, found "
            "none; export it, or write the base_url of a server that needs none"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"judge {settings.name}: expected letters, digits and signs in {KEY_VARIABLE}; export it again")
    return key or "none"
