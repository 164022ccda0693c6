"""A small OpenAI-compatible server on loopback, which says what a test tells it to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Payload = dict[str, Any]


@dataclass
class Reply:
    """What the server answers: a chat completion with this content, or another body."""

    content: str | None = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    delay: float = 0.0
    finish: str = "stop"
    tokens: int | None = 10

    def encoded(self) -> bytes:
        """The body."""
        if self.content is None:
            return self.body.encode()
        message = {"role": "assistant", "content": self.content}
        whole: Payload = {"choices": [{"index": 0, "message": message, "finish_reason": self.finish}]}
        if self.tokens is not None:
            whole["usage"] = {"total_tokens": self.tokens}
        return json.dumps(whole).encode()


@dataclass
class Seen:
    """A request: its body and its headers, and how many were under way with it."""

    payload: Payload
    headers: dict[str, str]
    path: str
    at_once: int


class OpenAIServer:
    """Holds the script of a test and what has been asked."""

    def __init__(self, answer: Callable[[Payload, int], Reply | str]):
        self.answer = answer
        self.seen: list[Seen] = []
        self.url = ""
        self._lock = threading.Lock()
        self._open = 0

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        payload = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self._open += 1
            number = len(self.seen)
            self.seen.append(Seen(payload, dict(handler.headers), handler.path, self._open))
        said = self.answer(payload, number)
        reply = said if isinstance(said, Reply) else Reply(said)
        time.sleep(reply.delay)
        with self._lock:
            self._open -= 1
        body = reply.encoded()
        handler.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@contextmanager
def serving(answer: Callable[[Payload, int], Reply | str]) -> Iterator[OpenAIServer]:
    """A server that answers each request, by its payload and its number, in the block."""
    script = OpenAIServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                script.handle(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
