"""The parts of gunicorn that the worker replaces or relies on have not changed.

If a test fails after an upgrade of gunicorn, read what has changed, adapt `bookit/runtime`, and
write the new hash here. Until this is done, requirements.txt must keep the old version of gunicorn.
"""

import hashlib
import inspect
import logging
import re
import socket
from types import SimpleNamespace
from typing import Any

import gunicorn
import pytest
from gunicorn import http, util
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http import body, errors, message, unreader, wsgi
from gunicorn.workers import gthread

from bookit.runtime.worker import Client, Worker


def digest(*pieces: Any) -> str:
    """Return a hash of the source code of `pieces`."""
    return hashlib.sha256("".join(map(inspect.getsource, pieces)).encode()).hexdigest()[:16]


W = gthread.ThreadWorker
# The parts of gunicorn that write to the socket of a client, or close it.
SOCKET_USERS = (wsgi.create, wsgi.Response, util.write, util.write_chunk, util.close_graceful)
REPLACED = {
    "the connection": ((gthread.TConn,), "e3a2878ba952710a"),
    "accepting": ((W.accept, W.set_accept_enabled), "5133bdbf36b38af2"),
    "waiting": ((W.wait_for_and_dispatch_events, W.enqueue_req), "2d6c31d03fb504a5"),
    "the end of a request": ((W.finish_request,), "616e7bb15a009ff7"),
    "the response to an error": ((W.handle_error,), "75426448389bbac9"),
    "deadlines": ((W.murder_keepalived, W.murder_pending, W._cap_keepalive), "43c0a719a1824a0e"),
}
RELIED_ON = {
    "the loop": ((W.run, W.__init__, W.init_process), "30025f7539c01dde"),
    "the threads": ((W.get_thread_pool, gthread.PollableMethodQueue), "f6a0c9ff4c47402b"),
    "the handling of a request": (
        (W.handle, W.handle_request, W._keepalive_after),
        "598a042516bc91cc",
    ),
    "the check of the settings": ((W.check_config, Arbiter.start), "c6e2c2aa83cdb43c"),
    "signals": (
        (W.handle_exit, W.handle_quit, W.init_signals, Arbiter.signal, Arbiter.init_signals),
        "5bcbcceb2bcffb79",
    ),
    "the fork": ((Arbiter.spawn_worker,), "6abc0d90b0b9f80b"),
    "the parser": ((message.Message, message.Request, http.RequestParser), "4e8fba2a66369667"),
    "bodies": (
        (body.ChunkedReader, body.LengthReader, body.Body, unreader.Unreader),
        "af5c2e0b315f69b0",
    ),
    "responses": ((wsgi.create, wsgi.Response, util.write, util.write_chunk), "02fbb2865028ba45"),
    "the closing of a broken response": ((util.close_graceful,), "0e5925bfc017bc4e"),
    "the end of the server": (
        (Arbiter.stop, Arbiter.halt, Arbiter.handle_term),
        "5ec36206da23983a",
    ),
    "the hook for workers that have ended": ((Arbiter.reap_workers,), "ebcf4187e9ebf378"),
}


@pytest.mark.parametrize("part", [*REPLACED, *RELIED_ON])
def test_a_part_of_gunicorn_has_not_changed(part: str) -> None:
    pieces, expected = {**REPLACED, **RELIED_ON}[part]
    assert digest(*pieces) == expected, f"gunicorn {gunicorn.__version__} has changed {part}"


def test_every_replaced_method_has_a_checked_hash_and_the_same_parameters() -> None:
    checked = {piece for pieces, _ in {**REPLACED, **RELIED_ON}.values() for piece in pieces}
    for name in vars(Worker):
        method, replaced = getattr(Worker, name), getattr(W, name, None)
        if inspect.isroutine(method) and replaced:
            assert replaced in checked, f"{name} replaces a method whose hash is not checked here"
            theirs = [*inspect.signature(replaced).parameters]
            ours = [*inspect.signature(method).parameters]
            assert theirs == ours or "args" in ours, name


def test_a_client_has_the_attributes_that_gunicorn_uses() -> None:
    source = inspect.getsource(W.handle) + inspect.getsource(W.handle_request)
    used = set(re.findall(r"\bconn\.(\w+)", source + inspect.getsource(W._keepalive_after)))
    near, far = socket.socketpair()
    with near, far:
        client = Client(Config(), near, ("127.0.0.1", 1), ("127.0.0.1", 80))
        # gunicorn does not call `wait_for_data`, because `initialized` is true.
        assert {name for name in used if not hasattr(client, name)} == {"wait_for_data"}
        sock = set(re.findall(r"\bsock\.(\w+)", "".join(map(inspect.getsource, SOCKET_USERS))))
        assert {name for name in sock if not hasattr(client.sock, name)} == {"send"}
    # gunicorn would use `send` only for a 100 Continue, which the worker sends itself.
    assert "if req._expected_100_continue:\n        sock.send(" in inspect.getsource(wsgi.create)


ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, errors.ParseException)
]
# The errors that the application or gunicorn's settings cause.
SERVER_ERRORS = {"ConfigurationProblem", "InvalidResponseHeader", "InvalidResponseHeaderName"}


@pytest.mark.parametrize("error", [*ERRORS, ValueError], ids=lambda error: error.__name__)
def test_an_error_gets_a_400_only_if_the_request_caused_it(error: Any) -> None:
    sent: list[bytes] = []
    own = inspect.isfunction(error.__init__)
    parameters = inspect.signature(error).parameters.values() if own else ()
    arguments = [each.default if each.default is not each.empty else "x" for each in parameters]
    worker: Any = SimpleNamespace(log=logging.getLogger("gunicorn.error"))
    Worker.handle_error(
        worker, None, SimpleNamespace(sendall=sent.append), ("192.0.2.1", 1), error(*arguments)
    )
    is_server_error = error is ValueError or error.__name__ in SERVER_ERRORS
    status = b"HTTP/1.1 500 " if is_server_error else b"HTTP/1.1 400 "
    assert sent[0].startswith(status)
    assert {each.__name__ for each in ERRORS} > SERVER_ERRORS
