"""A server that stops listening loses no connection."""

import errno
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bookit.runtime import listeners
from bookit.runtime.listeners import drop_new_connections, drop_new_connections_at_the_end

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="Socket filters exist only on Linux."
)

PATIENCE = 20


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: Any) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        listener = socket.create_server((request.param, 0), family=family)
    except OSError as error:
        pytest.skip(f"This machine has no address {request.param}: {error}")
    with listener:
        listener.setblocking(False)
        yield listener


@contextmanager
def begin_to_connect(listener: socket.socket) -> Iterator[socket.socket]:
    """Begin to connect; `is_connected` waits for the result."""
    with socket.socket(listener.family) as client:
        client.setblocking(False)
        assert client.connect_ex(listener.getsockname()) in (0, errno.EINPROGRESS)
        yield client


def is_connected(client: socket.socket, *, within: float = PATIENCE) -> bool:
    """Return whether a client is connected within `within` seconds.

    Raises:
        OSError: the connection was refused.
    """
    _, writable, _ = select.select([], [client], [], within)
    code = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, "")
    return bool(writable)


def test_a_connection_that_arrives_during_the_stop_is_refused(listener: socket.socket) -> None:
    with begin_to_connect(listener) as early:
        assert is_connected(early)
        early.send(b"early")
        drop_new_connections(listener)
        with begin_to_connect(listener) as late:
            assert not is_connected(late, within=0.2)
            # The earlier connection is still in the queue, and works.
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(100) == b"early"
            with pytest.raises(BlockingIOError):
                listener.accept()
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                is_connected(late)


def test_a_later_server_can_use_the_socket_again(listener: socket.socket) -> None:
    drop_new_connections(listener)
    server, _ = arbiter()
    server.LISTENERS = [SimpleNamespace(sock=listener)]
    for _ in range(2):  # The second call finds no filter.
        drop_new_connections_at_the_end(server)
    with begin_to_connect(listener) as client:
        assert is_connected(client)


def test_without_the_filter_a_late_connection_is_made_and_then_reset(
    listener: socket.socket,
) -> None:
    """Control for `test_a_connection_that_arrives_during_the_stop_is_refused`."""
    with begin_to_connect(listener) as late:
        assert is_connected(late)
        late.send(b"late")
        listener.close()
        late.setblocking(True)
        with pytest.raises(ConnectionResetError):
            late.recv(100)


def arbiter(**attributes: Any) -> tuple[Any, list[Any]]:
    """Return a stand-in for gunicorn's main process, and the list to which its `stop` appends."""
    done: list[Any] = []
    found = {"reexec_pid": 0, "master_pid": 0, "systemd": False, **attributes}
    sockets = [SimpleNamespace(sock="socket")]
    return SimpleNamespace(stop=done.append, LISTENERS=sockets, **found), done


@pytest.mark.parametrize("graceful", [True, False])
def test_the_main_process_begins_to_drop_new_connections_before_it_stops(
    graceful: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, done = arbiter()
    monkeypatch.setattr(listeners, "accept_new_connections", lambda listener: None)
    monkeypatch.setattr(listeners, "drop_new_connections", done.append)
    drop_new_connections_at_the_end(server)
    assert done == []
    server.stop(graceful)
    assert done == ["socket", graceful]


@pytest.mark.parametrize(
    "attributes", [{"reexec_pid": 7}, {"master_pid": 7}, {"systemd": True}], ids=str
)
def test_a_socket_that_outlives_the_process_keeps_accepting(
    attributes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, done = arbiter(**attributes)
    monkeypatch.setattr(listeners, "accept_new_connections", lambda listener: None)
    monkeypatch.setattr(listeners, "drop_new_connections", done.append)
    drop_new_connections_at_the_end(server)
    server.stop()
    assert done == [True]
