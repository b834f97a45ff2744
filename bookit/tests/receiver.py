"""A server that receives webhooks, records the messages and responds as a test wants."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Message(NamedTuple):
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


Behaviour = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int = 204, body: bytes = b"", **headers: str) -> Behaviour:
    """Return a behaviour that responds at once."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return behave


def hang_up(request: BaseHTTPRequestHandler) -> None:
    """Close the connection without a response."""
    request.close_connection = True


def drip(before: bytes, drop: bytes, pause: float = 0.05) -> Behaviour:
    """Return a behaviour that writes `before`, and then `drop` until the client disconnects."""

    def behave(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(before)
        while True:
            request.wfile.write(drop)
            request.wfile.flush()
            time.sleep(pause)

    return behave


class Receiver:
    """A server that uses the next of `behaviours` for each message, and repeats the last."""

    def __init__(self, url: str, behaviours: list[Behaviour]) -> None:
        self.url = url
        self.behaviours = behaviours
        self.messages: list[Message] = []
        self.connections = 0


@contextmanager
def receiver(*behaviours: Behaviour) -> Iterator[Receiver]:
    """Listen on 127.0.0.1; without behaviours, respond to every message with 204."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        # HTTP/1.1 keeps connections open.
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with lock:
                here.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                here.messages.append(Message(self.path, dict(self.headers.items()), body))
                left = here.behaviours
                behave = left.pop(0) if len(left) > 1 else left[0]
            try:
                behave(self)
            except OSError:
                self.close_connection = True  # The client has closed the connection.

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        # With the default of 5, simultaneous connections can wait for a whole second.
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    here = Receiver(f"http://127.0.0.1:{server.server_port}/hook", [*behaviours] or [answer()])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
