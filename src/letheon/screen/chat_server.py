"""A language model behind an OpenAI-compatible server (vLLM, Ollama, llama.cpp, …): asked patiently, within a budget.

Nothing that is asked or answered is written anywhere, nor does it enter an error.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from letheon import recipe
from letheon.errors import InputError, require_extra

T = TypeVar("T")
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, and at most; each wait is twice the one before, less a random part up to half."""
PATIENCE = 300.0
"""The longest Retry-After that is waited for, in seconds."""
BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers after which another try may succeed."""
FAILURES = 8
"""Questions in a row without an answer after which the server is given up."""


class UnansweredError(Exception):
    """A question without an answer; says why in words that quote nothing."""


class ChatServer:
    """A model behind a server, as a context manager that many threads may use.

    Args:
        settings: Address, model, patience and budget.

    Raises:
        MissingExtraError: The HTTP client is not installed.
    """

    def __init__(self, settings: recipe.Api):
        require_extra("asking a server", "api")
        import httpx2

        self._settings = settings
        self._http = httpx2
        local = recipe.is_loopback(settings.url)
        self._client = httpx2.Client(
            headers=_headers(settings.url),
            timeout=settings.timeout,
            limits=httpx2.Limits(max_connections=settings.concurrency),
            # A proxy in the environment would carry away what is meant for this machine.
            trust_env=not local,
        )
        self._address = settings.url.rstrip("/") + "/chat/completions"
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._form = 0
        self._answered = False
        self._failures = 0
        self._quiet_until = 0.0
        self.requests = self.tokens = 0

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def stop(self) -> None:
        """Let no thread wait or ask any more."""
        self._stopped.set()

    def ask(self, messages: Sequence[dict[str, str]], schema: dict[str, Any], read: Callable[[str], T]) -> T:
        """Ask, and ask again where the server is busy, fails, or says what cannot be read.

        Args:
            messages: What is asked.
            schema: JSON schema of the answer, for servers that can hold a model to one.
            read: Reads the answer; ValueError where it cannot.

        Raises:
            UnansweredError: There is no answer to this question: the budget is spent, or all tries are.
            InputError: There will be none to any.
        """
        why, readable = "", True
        for attempt in range(self._settings.tries):
            if attempt:
                self._stopped.wait(pause(attempt))
            try:
                said = self._post(messages, schema, attempt, readable)
            except _TryAgainError as again:
                why = str(again)
                continue
            try:
                found = read(said.text)
            except ValueError:
                why, readable = "no verdict in the answer" + ", which was cut off" * said.cut, False
                continue
            with self._lock:
                self._failures = 0
            return found
        self._failed(why)
        raise UnansweredError(f"no answer from the server in {self._settings.tries} tries ({why})")

    def _post(
        self, messages: Sequence[dict[str, str]], schema: dict[str, Any], attempt: int, readable: bool
    ) -> _Said:
        """One try; a server that does not know how an answer's form is asked for is asked in a plainer way."""
        for form in range(self._form, len(FORMS)):
            # One that asks for a rest gets it from all threads.
            self._stopped.wait(self._quiet_until - time.monotonic())
            self._spend()
            payload = {
                "model": self._settings.model,
                "messages": list(messages),
                # The same question at temperature 0 would get the same unreadable answer.
                **FORMS[form](schema, self._settings.answer_tokens, 0.0 if readable else 0.7, attempt),
            }
            response = self._send(payload)
            if response.status_code not in REFUSALS or form == len(FORMS) - 1:
                break
        if response.status_code != 200:
            self._refused(response)
        with self._lock:
            self._form = max(self._form, form)
        return self._said(response, payload)

    def _send(self, payload: dict[str, Any]) -> Any:
        try:
            response = self._client.post(self._address, json=payload)
        except self._http.ConnectError:
            if not self._answered:
                self._end("no server answers there (screen.api.url); start it, or mend the address")
            raise _TryAgainError("no connection") from None
        except self._http.TimeoutException:
            raise _TryAgainError(f"nothing within {self._settings.timeout:g} s") from None
        except self._http.TransportError as error:
            raise _TryAgainError(type(error).__name__) from None
        self._answered = True
        return response

    def _refused(self, response: Any) -> NoReturn:
        """Raise what an answer other than 200 means."""
        status, code = response.status_code, _error_code(response)
        why = f"HTTP {status}{f', {code}' if code else ''}"
        if status in (401, 403):
            self._end(f"{why}; put a key for this server into the environment variable {KEYS[0]}")
        if status == 404:
            self._end(f"{why}; check screen.api.url (up to /v1) and screen.api.model ({self._settings.model})")
        if status not in BUSY or code == "insufficient_quota":
            self._failed(why)
            raise UnansweredError(f"the server refused ({why})")
        wait = _retry_after(response.headers.get("Retry-After"))
        if wait > PATIENCE:
            self._failed(why)
            raise UnansweredError(f"the server asks for a wait of {wait:.0f} s ({why})")
        with self._lock:
            self._quiet_until = max(self._quiet_until, time.monotonic() + wait)
        raise _TryAgainError(why)

    def _said(self, response: Any, payload: dict[str, Any]) -> _Said:
        try:
            raw = response.json()
            choice = raw["choices"][0]
            text = str(choice["message"]["content"] or "")
        except (ValueError, LookupError, TypeError):
            raise _TryAgainError("an answer in another form than OpenAI's") from None
        used = (raw.get("usage") or {}).get("total_tokens")
        with self._lock:
            # A server that does not count: four characters are about a token.
            self.tokens += used if isinstance(used, int) else (len(str(payload)) + len(text)) // 4
        return _Said(text, cut=choice.get("finish_reason") == "length")

    def _spend(self) -> None:
        """Count a request, if the budget has one left."""
        if self._stopped.is_set():
            raise UnansweredError("stopped")
        most, tokens = self._settings.max_requests, self._settings.max_tokens
        with self._lock:
            if most is not None and self.requests >= most:
                raise UnansweredError(f"the budget of {most} requests is spent (screen.api.max_requests)")
            if tokens is not None and self.tokens >= tokens:
                raise UnansweredError(f"the budget of {tokens} tokens is spent (screen.api.max_tokens)")
            self.requests += 1

    def _failed(self, why: str) -> None:
        with self._lock:
            self._failures += 1
            failures = self._failures
        if failures >= FAILURES:
            self._end(
                f"no answer to {failures} questions in a row (the last: {why}); what was answered is kept: "
                "mend the server, and run again to go on"
            )

    def _end(self, why: str) -> NoReturn:
        """No question will be answered any more: none that waits need be asked."""
        self.stop()
        raise InputError(f"{self._settings.url}: {why}") from None


def pause(attempt: int) -> float:
    """Seconds to wait before another try, after so many that have failed."""
    longest: float = FIRST_WAIT * 2 ** (attempt - 1)
    return min(LONGEST_WAIT, longest) * random.uniform(0.5, 1)


class _TryAgainError(Exception):
    """A try that failed, in words that quote nothing."""


@dataclass(frozen=True)
class _Said:
    """A text that the server gave, and whether it was cut off there."""

    text: str
    cut: bool


Form = Callable[[dict[str, Any], int, float, int], dict[str, Any]]


def _with_schema(schema: dict[str, Any], tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    held = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": schema}}
    return {**_plain(schema, tokens, temperature, seed), "response_format": held}


def _with_json(schema: dict[str, Any], tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    return {**_plain(schema, tokens, temperature, seed), "response_format": {"type": "json_object"}}


def _plain(schema: dict[str, Any], tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    return {"max_tokens": tokens, "temperature": temperature, "seed": seed}


def _bare(schema: dict[str, Any], tokens: int, temperature: float, seed: int) -> dict[str, Any]:
    """For models that think first and refuse a temperature."""
    return {"max_completion_tokens": tokens}


FORMS: tuple[Form, ...] = (_with_schema, _with_json, _plain, _bare)
"""What a request says besides the question; the first that the server knows is kept."""
REFUSALS = (400, 422)
"""Answers to a request that the server does not understand."""
KEYS = ("LETHEON_API_KEY", "OPENAI_API_KEY")
"""Environment variables of keys. The second is for OpenAI, and goes nowhere else."""


def _headers(url: str) -> dict[str, str]:
    key = os.environ.get(KEYS[0])
    if not key and urlsplit(url).hostname == "api.openai.com":
        key = os.environ.get(KEYS[1])
    return {"Authorization": f"Bearer {key.strip()}"} if key else {}


def _error_code(response: Any) -> str | None:
    """The code of an error, if it is a mere word: a message might quote what was asked."""
    try:
        error = response.json()["error"]
        code = error.get("code") or error.get("type")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    return code if isinstance(code, str) and re.fullmatch(r"[a-zA-Z_]{1,40}", code) else None


def _retry_after(value: str | None) -> float:
    """Seconds, given as such or as a date; 0 where nothing is asked for."""
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
