"""gunicorn's worker with threads, changed so that only complete requests get a thread.

gunicorn 27 gives a thread to each new connection for up to five seconds, and to each half-sent
request until its client sends the rest. A few idle connections, which browsers and health checks
often open, can block a server. In this worker, the main thread waits for all clients at once. A
request gets a thread only when it has arrived completely, or its body is known to be malformed or
too large. If a slow client has not read the whole response, the thread leaves the rest (up to
4 MiB, or a file) to the main thread.

A proxy in front of gunicorn would also wait for slow clients. But the proxy would be another
process to install, configure and monitor, even for `manage.py serve`. It also would not balance
its connections between gunicorn's workers; `bookit.runtime.spread` does that.

gunicorn is meant to be extended by worker classes. This class replaces how `ThreadWorker` waits. It
keeps the loop, the threads and the parser of `ThreadWorker`, and the way in which it runs the
application. `tests/test_gunicorn.py` fails if gunicorn changes a part that this class replaces or
relies on.
"""

import errno
import selectors
import signal
import socket
import threading
from contextlib import suppress
from functools import partial
from io import BytesIO
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from gunicorn.http.errors import (
    ConfigurationProblem,
    InvalidResponseHeader,
    InvalidResponseHeaderName,
    NoMoreData,
    ParseException,
)
from gunicorn.workers.gthread import ThreadWorker
from uuid_utils import uuid7

from bookit import deadlines
from bookit.errors import problems
from bookit.request_id import request_id
from bookit.runtime.arrivals import Arrivals, Received
from bookit.runtime.costly import Turns, may_cost_much
from bookit.runtime.floods import is_flood, origin
from bookit.runtime.outgoing import Outgoing
from bookit.runtime.spread import Spread

# Seconds that a client has to send the head of a request.
HEAD_TIME = 10.0
# Seconds that a client has to send a body or to read a response. For each MIN_RATE bytes that it
# sends or reads, the client gets another second.
BODY_TIME = 10.0
MIN_RATE = 10_000
# Seconds for which the worker reads from a connection after the last response. If the worker closed
# a connection that contains unread data, the system would reset the connection, and the client
# could lose the end of the response.
LINGER = 2.0
# While a request is being handled, reading from its connection stops after this many bytes of the
# requests that follow.
MAX_AHEAD = 64 * 1024
# Bytes that the half-sent requests (without heads that have arrived), the requests sent ahead, and
# the unread responses of all clients of a worker may occupy. If they occupy more, the clients that
# have kept the worker waiting the longest are disconnected. What a client sends during its request
# counts only after the response.
MAX_HELD = 64 * 1024 * 1024
# Bytes that large requests may occupy from their arrival to their responses. A request that exceeds
# this limit gets a 503. A request is large if its body has more than LARGE bytes, with a head that
# arrives at the same time; smaller ones need no limit, because only one of each connection is
# handled at a time.
MAX_LARGE = 64 * 1024 * 1024
LARGE = 64 * 1024
# The maximum number of files that a worker sends at a time, because a file occupies the disk until
# it is sent. If there are more, the worker cuts off the file that it has been sending the longest.
MAX_FILES = 16
# Bytes that are read from a connection at a time.
READ = 64 * 1024
# Seconds for which a worker accepts no connections if another worker has fewer.
PAUSE = 0.02
# Seconds for which a worker that shuts down waits for connections whose handshakes have begun. A
# handshake takes one round trip to the client, usually a proxy in the same network.
HANDSHAKE = 0.02
# Seconds after which a worker that shuts down accepts no more connections, even if it has not yet
# accepted all that wait. Otherwise, a flood of connections would keep it from handling its clients.
LAST_ACCEPT = 1.0
# A connection counts as idle after this many seconds. Before, its request may be in transit.
IDLE_AFTER = 1.0
# Seconds between two checks of the deadlines; also the length of a pause after an error in FULL.
SWEEP = 0.5

# gunicorn derives these errors from ParseException, although the server causes them, not a request.
SERVER_ERRORS = (ConfigurationProblem, InvalidResponseHeader, InvalidResponseHeaderName)

# These errors mean that there is no file descriptor or no memory for another connection.
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

# Created in gunicorn's main process, before workers are forked.
spread = Spread()

RECEIVING, WORKING, SENDING, LINGERING, CLOSED = range(5)


class Client:
    """A connection, with the attributes of gunicorn's `TConn` that `ThreadWorker.handle` uses.

    While the state is WORKING, a thread of the pool handles the request (`Worker.respond`), and the
    main thread reads what arrives in the meantime. In every other state, only the main thread uses
    the client.
    """

    initialized = data_ready = True
    is_http2 = False

    def __init__(self, cfg: Any, connection: socket.socket, address: Any, server: Any) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.client = address
        self.server = server
        self.sock = Outgoing(connection)
        self.arrivals = Arrivals(cfg, address, settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
        self.state = RECEIVING
        self.watched = 0  # the events that the poller watches
        self.ended = False  # whether the client has closed its side of the connection
        self.keep = False  # whether the connection is kept open after the response
        self.over = False  # whether the client has announced that this request is the last
        self.since = monotonic()  # when the current wait began
        self.phase = "anything"  # the `Arrivals.phase` that the worker waits for
        self.moved = 0  # bytes received or sent during the current wait
        self.counted = 0  # the client's share of the worker's `held`
        self.large = 0  # the client's share of the worker's `large`
        self.request: Any = None
        self.turns: Turns[Client] | None = None  # None if this request needs no turn
        self.is_refused = False  # whether the request gets a 503, because too many or too large
        # requests wait
        self.arrived = 0.0  # when the request had arrived

    @property
    def is_idle(self) -> bool:
        """Whether it waits for the first byte of a request, or has had its last response."""
        if self.state == RECEIVING and self.phase == "anything":
            return monotonic() - self.since > IDLE_AFTER
        return self.state == LINGERING

    @property
    def parser(self) -> "Client":
        """The iterator from which gunicorn takes the next request."""
        return self

    def __next__(self) -> Any:
        return self.request

    def finish_body(self, deadline: float | None = None) -> bool:
        """Read the rest of the body, and return whether another request can use the connection.

        The next request begins directly after a body that has arrived completely. If the body is
        malformed or too large, its end is unknown or has not arrived. The connection cannot be used
        again: reading fails or leaves bytes over, or `must_close` is set.
        """
        request = self.request
        try:
            while request.body.read(READ):
                pass
        except (ParseException, OSError, RequestDataTooBig):
            return False
        received = request.unreader
        return not (request.must_close or received.take_buffered() or received.pieces)

    def init(self) -> None:
        """Do nothing: a connection without TLS needs no handshake."""


class Worker(ThreadWorker):
    """Waits for clients in the main thread, and handles complete requests in a pool of threads."""

    sockets: list[Any]  # the sockets on which gunicorn's worker listens

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.place = spread.take()
        # After the fork, `bookit.runtime.gunicorn` puts a queue here, which the signal handlers of
        # gunicorn's main process fill.
        self.early_signals: SimpleQueue[Any] = SimpleQueue()
        self.clients: set[Client] = set()
        self.lock = threading.Lock()
        self.held = 0  # bytes of half-sent requests, requests sent ahead, and unread responses
        self.large = 0  # bytes of the large requests that wait for a thread or are being handled
        # Whether this worker is full, and `make_room` can close no connection.
        self.all_busy = False
        self.paused_until = 0.0
        self.patient = True  # whether `accept` may pause for other workers
        self.swept = 0.0  # when the deadlines were last checked
        self.stop_at: float | None = None  # when idle connections are closed; set at shutdown
        self.costly_turns = Turns[Client](max(1, self.cfg.threads // 2))
        # Requests that are refused, such as a flood of sign-ins, get one thread of each worker,
        # however many connections they use.
        self.refusal_turns = Turns[Client](1)

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse settings that this worker does not support.

        Raises:
            ValueError: a setting enables TLS, a protocol other than HTTP, or the PROXY protocol.
        """
        super().check_config(cfg, log)
        if cfg.is_ssl or cfg.protocol != "http" or cfg.proxy_protocol != "off":
            raise ValueError(
                "BookIt's worker speaks only plain HTTP. Terminate TLS at a proxy in front of it."
            )

    def init_signals(self) -> None:
        """Handle signals, including those that arrived just after the fork.

        Until now, this process had the signal handlers of gunicorn's main process, which put
        signals in a queue. gunicorn's own workers do not read this queue: if a server is stopped
        while it starts, they miss SIGTERM, and serve clients until they are killed.
        """
        super().init_signals()
        handlers = {
            signal.SIGTERM: self.handle_exit,
            signal.SIGQUIT: self.handle_quit,
            signal.SIGINT: self.handle_quit,
        }
        with suppress(Empty):
            while True:
                number = self.early_signals.get_nowait()
                if number in handlers:
                    handlers[number](number, None)

    # --- Accepting --------------------------------------------------------------------------------

    def set_accept_enabled(self, enabled: bool) -> None:
        """Start or stop accepting connections.

        A worker that shuts down accepts the connections that already wait, and then stops
        listening. If it listened until its last response is sent, the system would still complete
        the handshakes of new connections, which nobody would accept. Instead, new connections are
        refused, so a load balancer passes their requests to another server.
        On Linux, `bookit.runtime.listeners` ensures that no connection arrives just before the
        worker stops listening.
        """
        super().set_accept_enabled(enabled and monotonic() >= self.paused_until)
        if not enabled and not self.alive:
            listeners, self.sockets = self.sockets, []
            for listener in listeners:
                stops = monotonic()
                while monotonic() < stops + LAST_ACCEPT:
                    if self.accept_one(listener):
                        if self.is_full:
                            self.make_room()
                    elif monotonic() > stops + HANDSHAKE:
                        break
                    else:
                        sleep(0.001)
                listener.close()
            # The other workers must not leave connections to this one any more.
            spread.free(self.place)
            self.place = None

    def accept(self, listener: Any) -> None:
        """Accept a connection, unless another worker has fewer connections."""
        if self.patient and spread.should_leave(self.place, self.nr_conns):
            self.pause(PAUSE)
            self.patient = False
        else:
            # After a pause, accept at least one connection: the other worker may be stuck.
            self.patient = True
            self.accept_one(listener)

    def pause(self, seconds: float) -> None:
        """Accept no connections for `seconds` seconds."""
        self.paused_until = monotonic() + seconds
        self.set_accept_enabled(False)

    def accept_one(self, listener: Any) -> bool:
        """Accept a connection if one waits, watch it, and return whether one was accepted."""
        try:
            connection, address = listener.accept()
        except OSError as error:
            if error.errno in FULL:
                self.make_room()
                self.pause(SWEEP)
            elif error.errno not in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED):
                raise
            return False
        client = Client(self.cfg, connection, address, listener.getsockname())
        self.clients.add(client)
        self.nr_conns += 1
        spread.note(self.place, self.nr_conns)
        self.watch(client, selectors.EVENT_READ)
        # Often, the request has arrived together with the connection. Read it now: `make_room` may
        # close a connection whose request has not been read.
        self.attempt(client, self.read)
        return True

    @property
    def is_full(self) -> bool:
        """Whether this worker has reached its limit of connections."""
        return bool(self.nr_conns >= self.worker_connections)

    def make_room(self) -> bool:
        """Close the connection that has been idle, or has had its last response, the longest.

        If there is none, close the one that has waited the longest for the rest of a request or of
        a response: otherwise, slow clients could keep all others from connecting. If only one
        connection waits, it may be the newest, so it is closed only if it is idle.

        Returns:
            whether a connection was closed.
        """
        waiting = [client for client in self.clients if client.state != WORKING]
        if waiting:
            longest = min(waiting, key=lambda client: (not client.is_idle, client.since))
            if longest.is_idle or len(waiting) > 1:
                self.drop(longest)
                return True
        return False

    # --- Waiting ----------------------------------------------------------------------------------

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Wait for events, but not beyond the end of a pause.

        During a shutdown, wait only briefly, because gunicorn's loop checks the deadlines of
        connections only between two waits.
        """
        if not self.alive:
            timeout = min(timeout, 0.1)
        elif not self._accepting and not self.is_full:
            timeout = min(timeout, max(0.0, self.paused_until - monotonic()))
        super().wait_for_and_dispatch_events(timeout)
        # Only now, because what has arrived is read: a connection whose request has arrived stays.
        self.all_busy = self.is_full and self.alive and not self.make_room()
        spread.note(self.place, self.nr_conns)

    def watch(self, client: Client, events: int) -> None:
        """Watch a connection for `events`; 0 means that it is not watched."""
        if events == client.watched:
            return
        if not events:
            self.poller.unregister(client.connection)
        elif not client.watched:
            self.poller.register(client.connection, events, partial(self.on_event, client))
        else:
            self.poller.modify(client.connection, events, partial(self.on_event, client))
        client.watched = events

    def on_event(self, client: Client, connection: Any) -> None:
        """Write to a connection while its response is being sent; otherwise read from it."""
        if client.state == SENDING:
            self.attempt(client, self.resume)
        elif client.state != CLOSED:  # An earlier event of this loop may have closed it.
            self.attempt(client, self.read)

    def attempt(self, client: Client, step: Any) -> None:
        """Call `step` for a client. If the call fails, close only the connection of this client."""
        try:
            step(client)
        except OSError:
            self.drop(client)
        except (AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError):
            self.log.exception("A connection was closed because of a bug.")
            self.drop(client)

    def read(self, client: Client) -> None:
        """Read the data that has arrived."""
        try:
            data = client.connection.recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if client.state == LINGERING:
            client.moved += len(data)
            if not data:
                self.drop(client)
            return
        with self.lock:  # In `respond`, a thread may be changing the state of this client.
            if data:
                client.arrivals.feed(data)
            else:
                client.ended = True
            working = client.state == WORKING
            if client.ended or (working and len(client.arrivals) > MAX_AHEAD):
                self.watch(client, 0)
        if not working:
            client.moved += len(data)
            self.advance(client)

    def advance(self, client: Client) -> None:
        """Give the next request of a client to a thread, if it has arrived completely."""
        arrived = len(client.arrivals)
        try:
            request = client.arrivals.take()
        except RequestDataTooBig as error:
            self.refuse(client, "payload_too_large", str(error))
            return
        except (NoMoreData, StopIteration):
            self.drop(client)
            return
        except ParseException as error:  # gunicorn's parser refuses the request.
            self.handle_error(None, client.sock, client.client, error)
            client.keep = client.over = False
            self.resume(client)
            return
        if request is not None:
            self.count(client)
            client.is_refused = False
            size = arrived - len(client.arrivals)
            if size > LARGE:
                client.large = size
                self.large += size
                if request.method in ("GET", "HEAD"):
                    self.drop_body(client, request)
                elif self.large > MAX_LARGE:
                    client.is_refused = True
                    self.drop_body(client, request)
            client.request = request
            client.state = WORKING
            client.arrived = monotonic()
            self.enqueue_req(client)
        elif client.ended:
            self.drop(client)
        else:
            self.wait_on(client)

    def wait_on(self, client: Client) -> None:
        """Begin or continue the wait for a request, or for the rest of one."""
        self.watch(client, selectors.EVENT_READ)
        phase = client.arrivals.phase
        if phase != client.phase:
            client.phase, client.since, client.moved = phase, monotonic(), len(client.arrivals)
        if client.arrivals.expects_continue():
            client.connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.count(client)
        if self.held > MAX_HELD:
            self.free_memory()

    def count(self, client: Client) -> None:
        """Update the number of bytes that the worker holds for this client."""
        now = 0 if client.state == CLOSED else len(client.arrivals) + len(client.sock.held)
        self.held += now - client.counted
        client.counted = now

    def forget(self, client: Client) -> None:
        """Stop counting a large request whose response is ready."""
        self.large -= client.large
        client.large = 0

    def drop_body(self, client: Client, request: Any) -> None:
        """Forget the body of a large request that needs none to get its response."""
        if client.large:
            request.body, request.unreader = BytesIO(), Received()
            self.forget(client)

    def free_memory(self) -> None:
        """Free memory: close connections that hold some, those with the longest wait first."""
        holding = [each for each in self.clients if each.counted and each.state != WORKING]
        for client in sorted(holding, key=lambda client: client.since):
            if self.held <= MAX_HELD:
                break
            self.drop(client)

    # --- Responding -------------------------------------------------------------------------------

    def enqueue_req(self, conn: Client) -> None:
        """Queue a request for the threads; some requests may have to wait for their turn.

        If very many requests wait for a turn, refuse one of the network that has sent most of them:
        otherwise, they could occupy all connections.
        """
        request = conn.request
        if conn.is_refused:
            conn.turns = self.refusal_turns
        elif may_cost_much(request.method, request.path, request.query):
            conn.turns = self.costly_turns
        elif is_flood(request, conn.client):
            conn.turns = self.refusal_turns
            self.drop_body(conn, request)
        else:
            conn.turns = None
        if conn.turns is None or self.take_turn(conn):
            self.tpool.submit(self.handle, conn)
        elif conn.turns is self.costly_turns:
            refused = conn.turns.excess(self.worker_connections // 4)
            if refused is not None:
                refused.is_refused, refused.turns = True, self.refusal_turns
                if self.take_turn(refused):
                    self.tpool.submit(self.handle, refused)

    def take_turn(self, conn: Client) -> bool:
        """Return whether a request gets its turn now. If it does not, it waits."""
        return bool(conn.turns and conn.turns.take(conn, origin(conn.request, conn.client)))

    def handle(self, conn: Client) -> None:
        """Handle a request in a thread of the pool."""
        turns = conn.turns
        try:
            self.respond(conn)
        except BaseException:
            self.log.exception("A connection was closed because of a bug.")
            raise
        finally:
            following = turns.give_back() if turns else None
            if following is not None:
                self.tpool.submit(self.handle, following)

    def respond(self, conn: Client) -> None:
        """Respond to a request."""
        deadlines.arrived(conn.arrived)
        if conn.is_refused:
            deadlines.refuse()
        conn.sock.begin()
        request = conn.request
        conn.keep = sent = False
        conn.over = request.should_close() and not request.must_close
        if self.all_busy or (len(conn.arrivals) and self.nr_conns >= self.worker_connections - 1):
            # If every client sends its next request at once or ahead, none ever waits, and
            # `make_room` can close no connection.
            request.force_close()
        try:
            with suppress(OSError):  # The client may have disconnected.
                keep = super().handle(conn)
                sent = conn.sock.flush()
                conn.keep = keep
        finally:
            deadlines.end()
            conn.request = None
            # Also after a bug: otherwise, the connection would stay open for ever.
            self.settle(conn, sent)

    def settle(self, conn: Client, sent: bool) -> None:
        """Wait for another request, or let the main thread decide what happens to a connection.

        Args:
            sent: whether the whole response is sent.
        """
        with self.lock:  # In `read`, the main thread may be reading the next request.
            idle = (
                sent
                and conn.keep
                and conn.watched
                and conn.state == WORKING
                and not len(conn.arrivals)
                and not conn.large
                and not self.is_full  # If it is, `make_room` must be called soon.
            )
            if idle:
                conn.since, conn.phase = monotonic(), "anything"
                conn.state = RECEIVING
        if not idle:
            self.method_queue.defer(self.attempt, conn, self.resume)

    def resume(self, client: Client) -> None:
        """Send the rest of the response; afterwards, wait for another request or hang up."""
        if client.state == CLOSED:
            return
        sent = client.sock.bytes_sent
        if client.state != SENDING:
            client.state, client.since, client.moved = SENDING, monotonic(), 0
            self.forget(client)
            self.limit_files(client)
        if not client.sock.flush():
            client.moved += client.sock.bytes_sent - sent
            self.watch(client, selectors.EVENT_WRITE)
            self.count(client)
            if self.held > MAX_HELD:
                self.free_memory()
            return
        self.count(client)
        # If memory is full, the requests that a client has sent ahead are dropped.
        if not client.keep or (client.counted and self.held > MAX_HELD):
            self.hang_up(client)
            return
        client.keep = False
        client.state = RECEIVING
        client.since, client.phase, client.moved = monotonic(), "anything", 0
        enough = client.ended or len(client.arrivals) > MAX_AHEAD
        self.watch(client, 0 if enough else selectors.EVENT_READ)
        self.advance(client)

    def limit_files(self, client: Client) -> None:
        """If too many connections send files, close the one that has been sending the longest."""
        if client.sock.has_file:
            busy = [each for each in self.clients if each.state == SENDING and each.sock.has_file]
            if len(busy) > MAX_FILES:
                self.drop(min(busy, key=lambda each: each.since))

    def refuse(self, client: Client, code: str, detail: str = "") -> None:
        """Respond with a problem document, and hang up."""
        token = request_id.set(str(uuid7()))
        try:
            client.sock.sendall(message(problems.response(code, detail)))
        finally:
            request_id.reset(token)
        client.keep = client.over = False
        self.resume(client)

    def hang_up(self, client: Client) -> None:
        """Close the server's side of a connection, and give the client time to close its side."""
        if client.ended or (client.over and not len(client.arrivals)):
            self.drop(client)
            return
        client.connection.shutdown(socket.SHUT_WR)
        client.state, client.since, client.moved = LINGERING, monotonic(), 0
        client.arrivals.held.clear()
        self.count(client)
        self.watch(client, selectors.EVENT_READ)

    def drop(self, client: Client) -> None:
        """Close a connection."""
        if client.state == CLOSED:
            return
        client.state = CLOSED
        self.watch(client, 0)
        client.connection.close()
        client.sock.abandon_file()
        self.clients.discard(client)
        self.count(client)
        self.forget(client)
        self.nr_conns -= 1
        spread.note(self.place, self.nr_conns)

    # --- Deadlines --------------------------------------------------------------------------------

    def murder_keepalived(self, force: bool = False) -> None:
        """End connections whose deadline has passed; with `force`, close all connections."""
        now = monotonic()
        if force:
            for client in [*self.clients]:
                self.drop(client)
        elif now - self.swept > (SWEEP if self.alive else 0):
            self.swept = now
            for client in [*self.clients]:
                if client.state != WORKING and now > self.deadline(client):
                    self.attempt(client, self.end)

    def murder_pending(self) -> None:
        """Do nothing: `murder_keepalived` also ends pending connections."""

    def _cap_keepalive(self, deadline: float) -> None:
        """Close idle connections by `deadline`, but not at once: a request may be in transit."""
        self.stop_at = deadline

    def deadline(self, client: Client) -> float:
        """Return the time at which the current wait for a client times out."""
        since: float = client.since
        if client.state == LINGERING:
            return since + LINGER
        if client.state == SENDING or client.phase == "body":
            return since + BODY_TIME + client.moved / MIN_RATE
        if client.phase == "head":
            return since + HEAD_TIME
        idle = since + self.cfg.keepalive
        return idle if self.stop_at is None else min(idle, self.stop_at)

    def end(self, client: Client) -> None:
        """End a connection after its deadline. A half-sent request gets a 408."""
        if client.state == RECEIVING and client.phase != "anything":
            self.log.info("A client at %s did not send its request in time.", client.client)
            self.refuse(client, "request_timeout")
        else:
            self.drop(client)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Respond with a problem document to a request that is invalid or that failed in gunicorn.

        gunicorn would respond with an HTML page. `client` is the `Outgoing` of the connection.
        """
        token = request_id.set(str(uuid7()))
        try:
            if isinstance(exc, ParseException) and not isinstance(exc, SERVER_ERRORS):
                # Log only the kind: the error itself can quote a token in the query or in a header.
                kind = type(exc).__name__
                self.log.warning("A client at %s sent an invalid request: %s", addr, kind)
                response = problems.response(
                    "validation_error", f"This is not a valid HTTP request: {exc}"
                )
            else:
                self.log.error("A request failed in gunicorn.", exc_info=exc)
                response = problems.response("internal_error")
            with suppress(OSError):  # The client may have disconnected.
                client.sendall(message(response))
        finally:
            request_id.reset(token)


def message(response: Any) -> bytes:
    """Return the bytes of a response, whose headers say that the connection will be closed."""
    headers = {
        **response.headers,
        "Content-Length": len(response.content),
        "X-Request-ID": request_id.get(),
        "Connection": "close",
    }
    lines = [f"{name}: {value}" for name, value in headers.items()]
    status = f"HTTP/1.1 {response.status_code} {response.reason_phrase}"
    return "\r\n".join([status, *lines, "", ""]).encode() + bytes(response.content)
