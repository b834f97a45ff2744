"""Idle and slow clients delay no other client, and a server that stops loses no request."""

import json
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import psutil
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import ThreadWorker

from bookit import deadlines
from bookit.runtime import worker as module
from bookit.runtime.servers import Server, production, serving
from bookit.runtime.spread import Spread
from bookit.runtime.worker import (
    BODY_TIME,
    HEAD_TIME,
    IDLE_AFTER,
    LINGER,
    LINGERING,
    RECEIVING,
    SENDING,
    SWEEP,
    WORKING,
    Worker,
)

MEBIBYTE = 1024 * 1024
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_HEAD = GET[:-10]
HALF_BODY = (
    b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 100\r\n\r\n{"email": '
)
# The URL of a database that does not exist. These tests need no database.
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/nothing"
PATIENCE = 20
# Seconds after which the worker has checked its deadlines again.
AFTER_SWEEP = SWEEP + 0.3
# More than the buffers of a connection can hold.
FILE = bytes(range(251)) * 60_000


@contextmanager
def web(workers: int = 2, **environment: str) -> Iterator[Server]:
    """Run gunicorn with BookIt's worker, or with the worker that `environment` names."""
    # Four threads, as in production. The test suite sets more threads.
    usual = {**production(UNREACHABLE, workers=workers), "WEB_THREADS": "4"}
    with serving("bookit.wsgi", {**usual, **environment}) as server:
        server.wait("/health")
        yield server


def connect(port: int, *, patience: float = PATIENCE) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=patience)


class NotMade(Exception):
    """A connection was neither made nor refused."""


def connect_soon(port: int) -> socket.socket:
    try:
        connection = connect(port, patience=0.3)
    except TimeoutError:
        raise NotMade from None
    connection.settimeout(PATIENCE)
    return connection


def read(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return the status, headers and body of the next response."""
    held = b""
    while b"\r\n\r\n" not in held:
        data = connection.recv(65536)
        assert data, f"closed after {held!r}"
        held += data
    head, _, body = held.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        data = connection.recv(65536)
        assert data, "closed in the middle of the body"
        body += data
    return int(status.split()[1]), headers, body


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server has closed its side, and nothing is left to read."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def time_request(port: int, request: bytes = GET, *, patience: float = PATIENCE) -> float:
    """Send a request on a new connection, and return the seconds until its response."""
    began = time.monotonic()
    with connect(port, patience=patience) as connection:
        connection.sendall(request)
        status, _, _ = read(connection)
    assert status == 200
    return time.monotonic() - began


def test_idle_and_half_sent_connections_do_not_delay_other_clients() -> None:
    with web() as server, ExitStack() as connections:
        usual = max(time_request(server.port) for _ in range(20))
        for sent, how_many in ((b"", 300), (HALF_HEAD, 25), (HALF_BODY, 25)):
            for _ in range(how_many):
                connection = connections.enter_context(connect(server.port))
                connection.sendall(sent)
        with ThreadPoolExecutor(8) as clients:
            durations = [*clients.map(lambda _: time_request(server.port), range(80))]
        # Eight requests run at a time, and the machine may be busy.
        assert max(durations) < 8 * usual + 1, (usual, sorted(durations))


def test_half_sent_requests_block_gunicorns_own_worker() -> None:
    """Control for the test above: 20 half-sent requests block gunicorn's own worker."""
    with web(1, GUNICORN_CMD_ARGS="--worker-class gthread") as server, ExitStack() as connections:
        for _ in range(20):
            connections.enter_context(connect(server.port)).sendall(HALF_HEAD)
        deadline = time.monotonic() + PATIENCE
        while counts(server) != [20]:
            assert time.monotonic() < deadline
        with pytest.raises(TimeoutError):
            time_request(server.port, patience=2)


def counts(server: Server) -> list[int]:
    """Return the number of connections of each worker."""
    return sorted(
        sum(each.status == "ESTABLISHED" for each in worker.net_connections())
        for worker in server.workers()
    )


def largest_share(server: Server) -> int:
    """Open twelve connections, and return the largest number of connections of one worker."""
    with ExitStack() as connections:
        for _ in range(12):
            connections.enter_context(connect(server.port)).sendall(GET)
        deadline = time.monotonic() + PATIENCE
        while sum(counts(server)) < 12:
            assert time.monotonic() < deadline
        found = max(counts(server))
    while sum(counts(server)):
        assert time.monotonic() < deadline
    return found


def test_connections_are_spread_over_the_workers() -> None:
    with web(workers=3) as server:
        # At first, not all workers may have started.
        deadline = time.monotonic() + PATIENCE
        while largest_share(server) == 12:
            assert time.monotonic() < deadline
        # Ideally, each worker gets four connections. But if the other workers do not wake up in
        # time, a worker accepts a connection that it has left to them. So check the median. If no
        # worker left connections to others, the median would usually be 7 or more.
        found = sorted(largest_share(server) for _ in range(9))
    assert found[4] <= 6, found


def test_every_connection_is_accepted_while_a_worker_is_stuck() -> None:
    with web() as server:
        stuck = server.workers()[0]
        stuck.send_signal(signal.SIGSTOP)
        with ExitStack() as connections:
            connections.callback(stuck.send_signal, signal.SIGCONT)
            # The connections stay open, so the other worker soon has more than the stuck worker.
            for _ in range(30):
                began = time.monotonic()
                connection = connections.enter_context(connect(server.port))
                connection.sendall(GET)
                assert read(connection)[0] == 200
                assert time.monotonic() - began < 3


def test_a_stopping_server_still_responds_to_received_requests() -> None:
    with web(workers=1) as server:
        idle, asking, late = (connect(server.port) for _ in range(3))
        with idle, asking, late:
            for connection in (idle, asking, late):
                connection.sendall(GET)
                read(connection)
            late.sendall(GET[:-2])
            stops = time.monotonic()
            asking.sendall(GET)
            server.process.terminate()
            # Until the worker has received the signal, its responses keep the connection open.
            while read(asking)[1]["connection"] != "close":
                asking.sendall(GET)
            late.sendall(GET[-2:])
            status, headers, _ = read(late)
            assert (status, headers["connection"]) == (200, "close")
            assert is_closed(idle)
            server.process.wait(PATIENCE)
            # The server has not waited until idle connections time out.
            assert time.monotonic() - stops < 10


def test_a_stopping_server_accepts_no_new_connections() -> None:
    with web() as server, connect(server.port) as idle:
        idle.sendall(GET)
        read(idle)
        server.process.terminate()
        # Each connection gets a response, is refused, or is not made; none is made and then reset.
        with suppress(ConnectionRefusedError):
            while True:
                with suppress(NotMade), connect_soon(server.port) as connection:
                    connection.sendall(GET)
                    read(connection)
        # All workers have closed the listening socket. But the idle connection is still open,
        # because a request may be in transit on it.
        idle.sendall(GET)
        assert read(idle)[0] == 200


@pytest.mark.skipif(sys.platform != "linux", reason="Socket filters exist only on Linux.")
def test_a_stopping_server_completes_no_handshakes_even_if_its_workers_are_stuck() -> None:
    with web() as server:
        workers = server.workers()
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        server.process.terminate()
        # The workers are stuck, so they still hold the listening socket. Without the socket filter,
        # all these connections would be made, and none would time out.
        with ExitStack() as early, suppress(TimeoutError):
            for _ in range(PATIENCE * 10):
                early.enter_context(connect(server.port, patience=0.5))
                time.sleep(0.1)
            pytest.fail("the server still completes handshakes")
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)


class SlowStart:
    """Delays a worker between the fork and the moment from which it handles signals."""

    def init_process(self) -> None:
        time.sleep(2)
        super().init_process()  # type: ignore[misc]


class SlowWorker(SlowStart, Worker):
    pass


class SlowGunicornWorker(SlowStart, ThreadWorker):
    pass


# Seconds after which gunicorn kills a worker that does not stop.
GRACE = 10


def time_end_of_starting_server(worker_class: type) -> float:
    """Stop a server whose worker is still starting, and return the seconds until it has ended."""
    name = f"{__name__}.{worker_class.__name__}"
    arguments = f"--worker-class {name} --graceful-timeout {GRACE}"
    environment = {**production(UNREACHABLE, workers=1), "GUNICORN_CMD_ARGS": arguments}
    with serving("bookit.wsgi", environment) as server:
        deadline = time.monotonic() + PATIENCE
        found: set[psutil.Process] = set()
        # A child that ends soon is a program that an import has started, and not a worker.
        while not found & {*server.workers()}:
            assert time.monotonic() < deadline
            found = {*server.workers()}
            time.sleep(0.3)
        began = time.monotonic()
        server.process.terminate()
        server.process.wait(PATIENCE)
        return time.monotonic() - began


def test_a_server_can_be_stopped_while_its_workers_start() -> None:
    assert time_end_of_starting_server(SlowWorker) < GRACE


def test_gunicorns_own_worker_misses_a_signal_while_it_starts_and_is_killed() -> None:
    """Control for the test above."""
    assert time_end_of_starting_server(SlowGunicornWorker) >= GRACE


# --- one worker, in this process ----------------------------------------------------------------


class Clock:
    """The worker's clock, which a test can advance."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Running:
    """A worker that runs in a thread of this process, and serves a small application."""

    def __init__(self, clock: Clock, **settings: Any) -> None:
        self.clock = clock
        cfg = Config()
        for name, value in {
            "threads": 2,
            "keepalive": 75,
            "graceful_timeout": 5,
            **settings,
        }.items():
            cfg.set(name, value)
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.worker = Worker(1, os.getppid(), [listener], None, 30, cfg, Logger(cfg))
        self.worker.tpool = self.worker.get_thread_pool()
        self.worker.poller = module.selectors.DefaultSelector()
        self.worker.method_queue.init()
        self.worker.wsgi = self.application
        self.seen: list[tuple[str, bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def application(self, environ: Any, start_response: Any) -> Any:
        if not deadlines.begin():
            start_response("503 Service Unavailable", [("Content-Length", "0")])
            return []
        path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
        self.seen.append((path, body))
        self.gate.wait(PATIENCE)
        if path == "/file":
            file = tempfile.TemporaryFile()  # noqa: SIM115 - gunicorn closes it
            file.write(FILE)
            file.seek(0)
            start_response("200 OK", [("Content-Length", str(len(FILE)))])
            return environ["wsgi.file_wrapper"](file)
        content = b"x" * int(path[1:]) if path[1:].isdigit() else path.encode() + b" " + body
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    def connect(self) -> socket.socket:
        return connect(self.port)

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def advance(self, seconds: float) -> None:
        """Advance the clock, and wake the worker, which then checks its deadlines."""
        self.clock.ahead += seconds
        self.worker.method_queue.defer(lambda: None)

    def stop(self) -> None:
        self.gate.set()
        self.worker.alive = False
        self.worker.method_queue.defer(lambda: None)
        self.clock.ahead += 60
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Running]]:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    started: list[Running] = []

    def _run(**settings: Any) -> Running:
        started.append(Running(clock, **settings))
        return started[-1]

    yield _run
    for running in started:
        running.stop()


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


@pytest.mark.parametrize(
    ("sent", "limit"),
    [(b"GET /a HTTP/1.1\r\nHost:", HEAD_TIME), (post(b"/a", b"12345")[:-1], BODY_TIME)],
    ids=["half a head", "half a body"],
)
def test_half_a_request_gets_a_408_after_its_time_limit(
    run: Callable[..., Running], sent: bytes, limit: float
) -> None:
    running = run()
    with running.connect() as late, running.connect() as idle:
        late.sendall(sent)
        running.until(
            lambda: any(len(c.arrivals) > 0 or c.phase == "body" for c in [*running.worker.clients])
        )
        running.advance(limit - 2)
        late.settimeout(AFTER_SWEEP)
        with pytest.raises(TimeoutError):
            late.recv(1)
        late.settimeout(PATIENCE)
        running.advance(3)
        status, headers, body = read(late)
        assert (status, headers["content-type"]) == (408, "application/problem+json")
        problem = json.loads(body)
        assert (problem["code"], problem["request_id"]) == (
            "request_timeout",
            headers["x-request-id"],
        )
        assert is_closed(late)
        # A client that has not begun a request may wait longer.
        idle.sendall(b"GET /b HTTP/1.1\r\n\r\n")
        assert read(idle)[0] == 200
        running.until(lambda: {client.state for client in [*running.worker.clients]} == {RECEIVING})
        running.advance(60)
        idle.settimeout(AFTER_SWEEP)
        with pytest.raises(TimeoutError):
            idle.recv(1)
        idle.settimeout(PATIENCE)
        running.advance(20)
        assert is_closed(idle)
    assert [path for path, _ in running.seen] == ["/b"]


def has_received(running: Running, size: int) -> bool:
    """Return whether the worker has received `size` bytes of a request, or all of it."""
    received = sum(client.moved for client in [*running.worker.clients])
    return received >= size or bool(running.seen)


def test_a_client_that_keeps_sending_a_body_gets_more_time(run: Callable[..., Running]) -> None:
    running = run()
    request = post(b"/a", b"x" * 500_000)
    with running.connect() as slow:
        for at in range(0, len(request), 100_000):
            slow.sendall(request[at : at + 100_000])
            # At least the earlier parts have arrived.
            running.until(partial(has_received, running, at))
            running.advance(6)
        assert read(slow)[0] == 200


def test_a_client_that_expects_100_continue_gets_it(run: Callable[..., Running]) -> None:
    running = run()
    request = post(b"/a", b"12345", b"Expect: 100-continue")
    with running.connect() as asking:
        asking.sendall(request[:-5])
        assert asking.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        asking.sendall(request[-5:])
        assert read(asking)[2] == b"/a 12345"
        # The server sends no 100 Continue if the body has already arrived.
        asking.sendall(request)
        assert read(asking)[2] == b"/a 12345"
    # The server does not ask for a body that is too large. Reading it raises an error, which
    # `application` does not handle.
    too_large = request[:-5].replace(b"Content-Length: 5", b"Content-Length: 9000000")
    with running.connect() as asking:
        asking.sendall(too_large)
        status, headers, _ = read(asking)
        assert (status, headers["connection"]) == (500, "close")


def test_pipelined_requests_get_responses_in_order(run: Callable[..., Running]) -> None:
    running = run()
    requests = [post(b"/%d" % number, b"x" * number) for number in range(1, 40)]
    with running.connect() as client:
        client.sendall(b"".join(requests))
        client.shutdown(socket.SHUT_WR)
        responses = b"".join(iter(lambda: client.recv(65536), b""))
    assert responses.count(b"HTTP/1.1 200 OK") == 39
    lengths = [int(length) for length in re.findall(rb"Content-Length: (\d+)", responses)]
    assert lengths == [*range(1, 40)]
    assert running.seen == [(f"/{number}", b"x" * number) for number in range(1, 40)]


def slow_client(port: int, request: bytes) -> socket.socket:
    """Send a request, and return the connection, which accepts few bytes until it is read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", port))
    client.sendall(request)
    return client


@pytest.mark.parametrize("keep", [True, False], ids=["keep-alive", "close"])
def test_an_unread_response_occupies_no_thread(run: Callable[..., Running], keep: bool) -> None:
    running = run(threads=1)
    close = b"" if keep else b"Connection: close\r\n"
    with ExitStack() as stack:
        request = b"GET /%d HTTP/1.1\r\n%s\r\n" % (4 * MEBIBYTE, close)
        slow = [stack.enter_context(slow_client(running.port, request)) for _ in range(5)]
        with running.connect() as other:
            other.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert read(other)[0] == 200
        # A client that reads late still gets the whole response.
        status, headers, body = read(slow[0])
        assert (status, len(body)) == (200, int(headers["content-length"]))
        if keep:
            slow[0].sendall(b"GET /b HTTP/1.1\r\n\r\n")
            assert read(slow[0])[0] == 200
        else:
            assert is_closed(slow[0])
        # The other clients are disconnected after their time limit.
        running.until(lambda: sum(len(c.sock.held) > 0 for c in [*running.worker.clients]) == 4)
        running.advance(1000)
        running.until(lambda: len(running.worker.clients) <= 1)


def test_a_file_that_clients_read_slowly_occupies_no_thread(run: Callable[..., Running]) -> None:
    running = run(threads=1)
    with ExitStack() as stack:
        slow = [
            stack.enter_context(slow_client(running.port, b"GET /file HTTP/1.1\r\n\r\n"))
            for _ in range(5)
        ]
        with running.connect() as other:
            other.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert read(other)[0] == 200
        running.until(lambda: sum(each.sock.has_file for each in [*running.worker.clients]) == 5)
        assert running.worker.held < 5 * MEBIBYTE
        # A client that reads late still gets the whole file, and can send another request.
        assert read(slow[0])[::2] == (200, FILE)
        slow[0].sendall(b"GET /file HTTP/1.1\r\n\r\n")
        assert read(slow[0])[::2] == (200, FILE)
        # The other clients are disconnected after their time limit.
        running.advance(1000)
        running.until(lambda: len(running.worker.clients) <= 1)
    running.until(lambda: running.worker.held == 0)


def test_the_oldest_of_too_many_files_are_cut_off(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 2)
    running = run(threads=1)
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        for _ in range(4):
            slow.append(slow_client(running.port, b"GET /file HTTP/1.1\r\n\r\n"))
            stack.enter_context(slow[-1])
            running.until(lambda: len(running.seen) == len(slow))
            running.until(lambda: {each.state for each in [*running.worker.clients]} == {SENDING})
        running.until(lambda: len(running.worker.clients) == 2)
        for oldest in slow[:2]:
            with pytest.raises((AssertionError, ConnectionResetError)):
                read(oldest)
        assert read(slow[-1])[::2] == (200, FILE)


def test_a_new_connection_replaces_an_idle_one_and_not_a_half_sent_request(
    run: Callable[..., Running],
) -> None:
    running = run(worker_connections=3)
    with ExitStack() as stack:
        request = post(b"/a", b"body", b"Expect: 100-continue")
        half, idle = stack.enter_context(running.connect()), stack.enter_context(running.connect())
        half.sendall(request[:-4])
        assert half.recv(100).startswith(b"HTTP/1.1 100")
        idle.sendall(b"GET /b HTTP/1.1\r\n\r\n")
        assert read(idle)[0] == 200
        # The client can read the response before the worker regards the connection as idle.
        running.until(lambda: {client.state for client in [*running.worker.clients]} == {RECEIVING})
        running.advance(IDLE_AFTER + 1)
        stack.enter_context(running.connect())
        assert is_closed(idle)
        half.sendall(request[-4:])
        assert read(half)[0] == 200


def states(running: Running) -> list[int]:
    return [client.state for client in [*running.worker.clients]]


@pytest.mark.parametrize("state", [LINGERING, SENDING])
def test_a_new_connection_replaces_one_that_does_not_read_or_close(
    run: Callable[..., Running], state: int
) -> None:
    """Otherwise, such clients could keep all others from connecting."""
    request = {LINGERING: b"hello\r\n\r\n", SENDING: b"GET /%d HTTP/1.1\r\n\r\n" % (4 * MEBIBYTE)}
    running = run(worker_connections=3)
    with ExitStack() as stack:
        slow: list[socket.socket] = []
        for _ in range(2):
            slow.append(stack.enter_context(slow_client(running.port, request[state])))
            running.until(lambda: states(running).count(state) == len(slow))
            running.advance(0.1)
        new = stack.enter_context(running.connect())
        new.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(new)[0] == 200
        running.until(lambda: states(running).count(state) == 1)


def test_requests_that_a_client_sends_ahead_occupy_a_limited_amount_of_memory(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_AHEAD", 1000)
    monkeypatch.setattr(module, "READ", 1000)
    running = run()
    count, held = running.worker.count, list[int]()

    def note(client: module.Client) -> None:
        held.append(len(client.arrivals))
        count(client)

    monkeypatch.setattr(running.worker, "count", note)
    many, responses = 1000, bytearray()
    with running.connect() as client:
        sender = threading.Thread(target=client.sendall, args=[b"GET /a HTTP/1.1\r\n\r\n" * many])
        sender.start()
        while responses.count(b"HTTP/1.1 200 ") < many:
            responses += client.recv(65536)
        sender.join()
    assert 1000 < max(held) <= 2000  # Up to MAX_AHEAD bytes, and what one more read adds.


def test_requests_that_a_client_sends_ahead_are_dropped_if_memory_is_full(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 5000)
    running = run()
    running.gate.clear()
    with running.connect() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\n" * 1000)
        running.until(lambda: any(len(each.arrivals) > 5000 for each in [*running.worker.clients]))
        running.gate.set()
        assert read(client)[0] == 200
        assert is_closed(client)
    running.until(lambda: running.worker.held == 0)


def half_heads(running: Running) -> int:
    return sum(client.phase == "head" for client in [*running.worker.clients])


def test_a_new_connection_replaces_the_oldest_of_many_half_sent_requests(
    run: Callable[..., Running],
) -> None:
    """Otherwise, a client that sends only half-requests could keep all others from connecting."""
    running = run(worker_connections=3)
    with ExitStack() as stack:
        half = []
        for _ in range(2):
            half.append(stack.enter_context(running.connect()))
            half[-1].sendall(HALF_HEAD)
            running.until(lambda: half_heads(running) == len(half))
            running.advance(1)
        new = stack.enter_context(running.connect())
        new.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(new)[0] == 200
        assert is_closed(half[0])


@pytest.mark.parametrize("ahead", [1, 1000], ids=["one request", "many requests"])
def test_clients_whose_requests_are_being_handled_keep_no_other_client_out(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, ahead: int
) -> None:
    running = run(worker_connections=3, threads=1)
    running.gate.clear()
    # Let the worker wake up only if something happens, and not every second.
    select = running.worker.poller.select
    monkeypatch.setattr(running.worker.poller, "select", lambda _: select(PATIENCE))
    with ExitStack() as stack:
        busy = [stack.enter_context(running.connect()) for _ in range(2)]
        for client in busy:
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n" * ahead)
        running.until(lambda: states(running) == [WORKING, WORKING])
        new = stack.enter_context(running.connect())
        running.until(lambda: len(running.worker.clients) == 3)
        new.sendall(b"GET /new HTTP/1.1\r\n\r\n")
        # Another connection waits until the worker can accept it.
        late = stack.enter_context(running.connect())
        late.sendall(b"GET /late HTTP/1.1\r\n\r\n")
        running.gate.set()
        assert read(new)[0] == read(late)[0] == 200
    assert len(running.seen) < 2000


def test_a_new_connection_does_not_replace_one_that_has_just_been_made(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its request may be in transit. The oldest half-sent request makes room instead."""
    running = run(worker_connections=3)
    with ExitStack() as stack:
        half = stack.enter_context(running.connect())
        half.sendall(HALF_HEAD)
        running.until(lambda: half_heads(running) == 1)
        monkeypatch.setattr(module, "IDLE_AFTER", 60.0)
        first = stack.enter_context(running.connect())
        running.until(lambda: len(running.worker.clients) == 2)
        stack.enter_context(running.connect())
        assert is_closed(half)
        first.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(first)[0] == 200


@contextmanager
def held_up(running: Running) -> Iterator[None]:
    """Let the worker's main thread do nothing until the end of a `with` block."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(PATIENCE)

    running.worker.method_queue.defer(wait)
    assert begun.wait(PATIENCE)
    try:
        yield
    finally:
        go_on.set()


def test_a_request_that_arrives_with_its_connection_is_read_at_once(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, `make_room` could close the connection before its request is read."""
    running = run()
    accept, found = running.worker.accept_one, list[list[int]]()

    def accept_and_look(listener: Any) -> bool:
        accepted = accept(listener)
        found.append(states(running))
        return accepted

    monkeypatch.setattr(running.worker, "accept_one", accept_and_look)
    running.gate.clear()
    with ExitStack() as stack:
        with held_up(running):
            client = stack.enter_context(running.connect())
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        running.until(lambda: found)
        assert found == [[WORKING]]


def wait_after_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads be busy after a response for so long that the next request arrives."""
    handle = ThreadWorker.handle

    def handle_and_wait(worker: Any, conn: Any) -> Any:
        keep = handle(worker, conn)
        time.sleep(0.02)
        return keep

    monkeypatch.setattr(ThreadWorker, "handle", handle_and_wait)


def test_a_client_that_waits_for_each_response_keeps_its_connection_at_the_limit(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next request may arrive while the thread is still busy with the last one."""
    running = run(worker_connections=4)
    wait_after_responses(monkeypatch)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(running.connect())
        client = stack.enter_context(running.connect())
        running.until(lambda: len(running.worker.clients) == 3)
        for number in range(5):
            client.sendall(post(b"/a", b"%d" % number))
            assert read(client)[::2] == (200, b"/a %d" % number)


def test_clients_that_send_their_next_request_at_once_keep_no_other_client_out(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run(worker_connections=3)
    wait_after_responses(monkeypatch)
    done = threading.Event()

    def insist() -> None:
        while not done.is_set():
            with suppress(OSError, AssertionError), running.connect() as client:
                headers: dict[str, str] = {}
                while not done.is_set() and headers.get("connection") != "close":
                    client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
                    headers = read(client)[1]

    with ThreadPoolExecutor(3) as clients:
        for _ in range(3):
            clients.submit(insist)
        try:
            running.until(lambda: len(running.seen) > 20)
            # On a busy machine, the others may replace the new connection before it sends anything.
            ends = time.monotonic() + 5
            status = None
            while status is None and time.monotonic() < ends:
                with suppress(OSError, AssertionError), connect(running.port, patience=5) as new:
                    new.sendall(b"GET /new HTTP/1.1\r\n\r\n")
                    status = read(new)[0]
            assert status == 200
        finally:
            done.set()


def test_a_full_worker_does_not_spin(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run(worker_connections=2)
    running.gate.clear()
    with ExitStack() as stack:
        for _ in range(2):
            client = stack.enter_context(running.connect())
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        running.until(lambda: states(running) == [WORKING, WORKING])
        select, timeouts = running.worker.poller.select, list[float]()

        def select_and_note(timeout: float) -> Any:
            timeouts.append(timeout)
            return select(timeout)

        monkeypatch.setattr(running.worker.poller, "select", select_and_note)
        running.worker.method_queue.defer(lambda: None)
        running.until(lambda: timeouts)
        assert min(timeouts) > 0.5


def test_costly_requests_that_wait_for_a_turn_cannot_occupy_all_connections(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client that has sent most of them is refused, and no other client."""
    monkeypatch.setattr(module, "may_cost_much", lambda *_: True)
    monkeypatch.setattr(module, "origin", lambda request, _: request.path)
    running = run(worker_connections=8, threads=2)
    running.gate.clear()
    with ExitStack() as stack:
        # One of two threads handles a costly request, and a quarter of eight may wait.
        many = []
        for _ in range(3):
            many.append(stack.enter_context(running.connect()))
            many[-1].sendall(b"GET /many HTTP/1.1\r\n\r\n")
            running.until(lambda: states(running).count(WORKING) == len(many))
        other = stack.enter_context(running.connect())
        other.sendall(b"GET /other HTTP/1.1\r\n\r\n")
        assert read(many[2])[0] == 503
        # The connection can be used again.
        many[2].sendall(b"GET /many HTTP/1.1\r\n\r\n")
        assert read(many[2])[0] == 503
        running.gate.set()
        assert read(many[0])[0] == read(many[1])[0] == read(other)[0] == 200
        many[2].sendall(b"GET /many HTTP/1.1\r\n\r\n")
        assert read(many[2])[0] == 200
    assert [path for path, _ in running.seen] == ["/many", "/many", "/other", "/many"]


def test_large_requests_that_wait_use_a_limited_amount_of_memory(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LARGE", 150_000)
    running = run(threads=1)
    running.gate.clear()
    with ExitStack() as stack:
        first, second, small, reading = (stack.enter_context(running.connect()) for _ in range(4))
        first.sendall(post(b"/a", b"x" * 100_000))
        running.until(lambda: running.worker.large >= 100_000)
        second.sendall(post(b"/a", b"x" * 100_000))
        running.until(lambda: states(running).count(WORKING) == 2)
        assert running.worker.large < 150_000
        small.sendall(post(b"/a", b"x" * 10_000))
        # The body of a GET is not needed.
        reading.sendall(post(b"/b", b"x" * 100_000).replace(b"POST", b"GET"))
        running.until(lambda: states(running).count(WORKING) == 4)
        running.gate.set()
        assert [read(each)[0] for each in (first, second, small)] == [200, 503, 200]
        assert read(reading)[::2] == (200, b"/b ")
        running.until(lambda: running.worker.large == 0)
        second.sendall(post(b"/a", b"x" * 100_000))
        assert read(second)[0] == 200


def test_a_large_sign_in_of_a_flood_uses_no_memory(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "is_flood", lambda *_: True)
    running = run()
    running.gate.clear()
    with running.connect() as client:
        client.sendall(post(b"/a", b"x" * 100_000))
        running.until(lambda: running.seen)
        assert running.worker.large == 0
        running.gate.set()
        assert read(client)[0] == 200
    assert running.seen == [("/a", b"")]


def test_a_bug_in_a_thread_closes_only_the_connection_of_one_client(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    with running.connect() as client, running.connect() as other:
        with monkeypatch.context() as patch:
            patch.setattr(ThreadWorker, "handle", lambda *_: sys.exit(1))
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert is_closed(client)
        other.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(other)[0] == 200
    running.until(lambda: not running.worker.clients)


def test_a_new_connection_replaces_one_after_its_last_response_and_not_a_half_sent_request(
    run: Callable[..., Running],
) -> None:
    running = run(worker_connections=3)
    with ExitStack() as stack:
        half = stack.enter_context(running.connect())
        half.sendall(HALF_HEAD)
        running.until(lambda: half_heads(running) == 1)
        stack.enter_context(slow_client(running.port, b"hello\r\n\r\n"))
        running.until(lambda: LINGERING in states(running))
        stack.enter_context(running.connect())
        running.until(lambda: LINGERING not in states(running))
        half.sendall(GET.removeprefix(HALF_HEAD))
        assert read(half)[0] == 200


def test_a_bug_closes_only_the_connection_of_one_client(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    with running.connect() as other, running.connect() as client:
        with monkeypatch.context() as patch:
            patch.setattr(module, "may_cost_much", lambda *_: None + 1)  # type: ignore[operator]
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert is_closed(client)
        other.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(other)[0] == 200


def test_a_client_that_keeps_sending_can_still_read_an_error(
    run: Callable[..., Running],
) -> None:
    running = run()
    with running.connect() as client:
        client.sendall(b"hello\r\n\r\n" + b"x" * 300_000)
        assert read(client)[0] == 400
        # The connection is closed, and not reset. A reset could arrive before the client has read.
        client.sendall(b"x" * 300_000)
        assert client.recv(1) == b""
        running.advance(LINGER + 1)
        running.until(lambda: not running.worker.clients)


def test_a_body_in_very_small_chunks_gets_a_413_that_says_why(run: Callable[..., Running]) -> None:
    head = b"POST /me HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with run().connect() as client:
        client.sendall(head + b"1\r\nx\r\n" * 20_000)
        status, _, body = read(client)
    assert status == 413
    assert b"The chunks of the body are too small." in body


def test_the_log_does_not_quote_an_invalid_request(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    lines: list[str] = []
    monkeypatch.setattr(
        running.worker.log, "warning", lambda line, *values: lines.append(line % values)
    )
    for sent in (
        b"GET /me/calendar.ics?token=secret\r\n\r\n",
        b"GET / HTTP/1.1\r\nAuthorization Bearer secret\r\n\r\n",
    ):
        with running.connect() as client:
            client.sendall(sent)
            status, _, body = read(client)
            # Control: the client, which knows its request, gets the whole error.
            assert (status, b"secret" in body) == (400, True)
    assert [line.partition(": ")[2] for line in lines] == ["InvalidRequestLine", "InvalidHeader"]


def test_a_new_connection_replaces_the_longest_idle_one(run: Callable[..., Running]) -> None:
    running = run(worker_connections=5)
    with ExitStack() as stack:
        idle = []
        for number in range(12):
            client = stack.enter_context(running.connect())
            idle.append(client)
            client.sendall(b"GET /%d HTTP/1.1\r\n\r\n" % number)
            assert read(client)[0] == 200
            # The client can read the response before the connection counts as idle.
            running.until(lambda: {*states(running)} == {RECEIVING})
        # The worker makes room as soon as it has five connections, so it keeps four.
        for client in idle[:8]:
            assert is_closed(client)
        for client in idle[8:]:
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert read(client)[0] == 200


def test_a_connection_that_no_other_worker_accepts_is_accepted_after_a_pause(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Spread()
    monkeypatch.setattr(module, "spread", table)
    # Another worker never has a connection, and never counts as stuck.
    monkeypatch.setattr("bookit.runtime.spread.SILENCE", 3600.0)
    table.note(table.take(), 0)
    running = run()
    with ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(running.connect())
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
            assert read(client)[0] == 200
    assert running.worker.paused_until > 0


def test_a_stopping_worker_is_ignored_by_the_other_workers(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, they would leave connections to it, which it does not accept."""
    table = Spread()
    monkeypatch.setattr(module, "spread", table)
    other = table.take()
    table.note(other, 5)
    running = run()
    running.gate.clear()
    with running.connect() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        running.until(lambda: table.should_leave(other, 5))
        running.worker.alive = False
        running.worker.method_queue.defer(lambda: None)
        # The worker still handles a request.
        running.until(lambda: not table.should_leave(other, 5))
        running.gate.set()
        assert read(client)[0] == 200
        assert not table.should_leave(other, 5)


def test_a_stopping_worker_that_is_full_still_reads_what_has_arrived(
    run: Callable[..., Running],
) -> None:
    running = run(worker_connections=3)
    running.gate.clear()
    with ExitStack() as stack:
        clients = [stack.enter_context(running.connect()) for _ in range(2)]
        for client in clients:
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        running.until(lambda: states(running) == [WORKING, WORKING])
        with held_up(running):
            for _ in range(3):
                clients.append(stack.enter_context(running.connect()))
                clients[-1].sendall(b"GET /a HTTP/1.1\r\n\r\n")
            running.worker.alive = False
        running.gate.set()
        assert [read(client)[0] for client in clients] == [200] * 5


def test_a_worker_can_stop_during_a_flood_of_connections(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = run()
    with running.connect() as client:
        client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        assert read(client)[0] == 200
        monkeypatch.setattr(running.worker, "accept_one", lambda _: True)  # always another one
        running.worker.alive = False
        running.worker.method_queue.defer(lambda: None)
        assert is_closed(client)
        running.thread.join(PATIENCE)
        assert not running.thread.is_alive()


def test_half_sent_bodies_use_a_limited_amount_of_memory(
    run: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 5 * MEBIBYTE)
    running = run()
    request = post(b"/a", b"x" * MEBIBYTE)
    with ExitStack() as stack:
        clients = []
        for _ in range(12):
            client = stack.enter_context(running.connect())
            client.sendall(request[:-1])
            clients.append(client)
            running.until(lambda: running.worker.held < 6 * MEBIBYTE)
        # The slowest clients have been disconnected. The last client gets a response.
        assert is_closed(clients[0])
        clients[-1].sendall(request[-1:])
        assert read(clients[-1])[0] == 200
        running.until(lambda: running.worker.held <= 5 * MEBIBYTE)
    running.until(lambda: not running.worker.clients)
    assert running.worker.held == 0


def test_a_client_that_disconnects_is_forgotten(run: Callable[..., Running]) -> None:
    running = run()
    for sent in (b"", HALF_HEAD, HALF_BODY, GET, GET + HALF_HEAD):
        with running.connect() as client:
            client.sendall(sent)
    running.until(lambda: not running.worker.clients)
    assert running.worker.nr_conns == running.worker.held == 0


def test_a_stopping_worker_still_responds_to_received_requests(
    run: Callable[..., Running],
) -> None:
    running = run(threads=1)
    running.gate.clear()
    with running.connect() as first, running.connect() as second, running.connect() as idle:
        for client in (first, second):
            client.sendall(b"GET /a HTTP/1.1\r\n\r\n")
        # Wait until the state of `first` and `second` is WORKING (1), and the state of `idle` is
        # RECEIVING (0).
        running.until(lambda: running.seen and sum(c.state for c in [*running.worker.clients]) == 2)
        running.worker.alive = False
        running.worker.method_queue.defer(lambda: None)
        running.gate.set()
        assert read(first)[0] == read(second)[0] == 200
        assert is_closed(idle)
        running.thread.join(PATIENCE)
        assert not running.thread.is_alive()
