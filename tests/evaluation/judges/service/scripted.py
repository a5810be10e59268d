"""A chat service on loopback that plays a script, for tests of the judge that asks one."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends back; no status closes the connection without a word."""

    body: bytes
    status: int | None = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    waits_for: threading.Event | None = None
    drips_until: threading.Event | None = None
    """The whole reply, its first line too, comes byte by byte until then."""


def completion(text: str | None, *, usage: tuple[int, int] | None = (11, 7), finish: str = "stop") -> Reply:
    """A chat completion with a text and the tokens that it names."""
    return answered({"role": "assistant", "content": text}, usage=usage, finish=finish)


def answered(message: dict[str, Any], *, usage: tuple[int, int] | None = (11, 7), finish: str = "stop") -> Reply:
    """A chat completion with a message of any form."""
    content: dict[str, Any] = {
        "id": "1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
    }  # fmt: skip
    if usage:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return body(content)


def body(content: Any, status: int = 200, **headers: str) -> Reply:
    """Any JSON, with headers whose underscores stand for hyphens."""
    return Reply(
        json.dumps(content).encode(), status, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def scored(score: int) -> Reply:
    """A structured reply."""
    return completion(json.dumps({"reason": "It says so.", "score": score}))


def refused(status: int, message: str = "no") -> Reply:
    """An error of the protocol that may be tried again at once."""
    return body({"error": {"message": message}}, status, retry_after_ms="1")


@dataclass
class Service:
    """The running server: who was asked what, how often, and how many requests were under way together."""

    address: str
    play: Callable[[str], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, *replies: Reply) -> None:
        """Play the replies in turn, whoever asks; the last one for ever."""
        left = list(replies)
        self.play = lambda text: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def running_service() -> Iterator[Service]:
    """Serve on a free port of loopback until the block ends."""
    service = Service("", lambda text: scored(1))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with service.lock:
                service.requests.append(request)
                service.paths.append(self.path)
                service.keys.add(self.headers["authorization"])
                service.under_way += 1
                service.most_under_way = max(service.most_under_way, service.under_way)
                reply = service.play(request["messages"][0]["content"])
            if reply.waits_for:
                reply.waits_for.wait(5)
            with service.lock:
                service.under_way -= 1
            if reply.status is None:
                self.close_connection = True
                return
            if reply.drips_until:
                head = f"HTTP/1.1 {reply.status} OK\r\ncontent-length: {len(reply.body)}\r\n\r\n"
                for byte in head.encode() + reply.body:
                    if reply.drips_until.wait(0.02):
                        break
                    self.wfile.write(bytes([byte]))
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in {
                "content-type": reply.kind,
                "content-length": str(len(reply.body)),
                **reply.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that gave up waiting is part of the script."""

    server = Server(("127.0.0.1", 0), Handler)
    service.address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
