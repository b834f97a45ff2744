"""Sends responses without waiting for a client that does not read."""

import errno
import os
import select
import socket
from time import monotonic
from typing import Any

# If the client leaves more bytes than this unread, the thread waits until the client has read some.
MAX_HELD = 4 * 1024 * 1024
# A head of fewer bytes is kept until the body follows, so that one system call sends both.
MAX_COLLECTED = 16 * 1024
# Seconds that a thread waits until no more than MAX_HELD bytes are unread, before it gives up.
PATIENCE = 10.0
BLOCK = 256 * 1024


class Outgoing:
    """Stands in for the socket that gunicorn's responses write to.

    It keeps the bytes that the client has not read yet, and the worker sends them later. It sends
    the head and the first part of the body in one system call.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.held = bytearray()
        self._collecting = True

    def begin(self) -> None:
        """Prepare for the next response."""
        self._collecting = True

    def sendall(self, data: Any) -> None:
        """Send `data`, now or later."""
        self.held += data
        if self._collecting and len(self.held) < MAX_COLLECTED:
            self._collecting = False
            return
        self._collecting = False
        self.flush()
        if len(self.held) > MAX_HELD:
            self._wait()

    def flush(self) -> bool:
        """Send as much as the client accepts, and return whether everything is sent.

        Raises:
            OSError: the client has disconnected.
        """
        while self.held:
            try:
                sent = self.socket.send(self.held)
            except (BlockingIOError, InterruptedError):
                return False
            del self.held[:sent]
        return True

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        deadline = monotonic() + PATIENCE
        while len(self.held) > MAX_HELD:
            poll.poll(1000)
            self.flush()
            if monotonic() > deadline:
                raise BrokenPipeError(errno.EPIPE, "The client does not read the response.")

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> None:
        """Send `count` bytes of a file, starting at `offset`; by default, the rest of the file."""
        left = os.fstat(file.fileno()).st_size - offset if count is None else count
        self.flush()
        while left > 0:
            data = os.pread(file.fileno(), min(left, BLOCK), offset)
            if not data:
                raise BrokenPipeError(errno.EPIPE, "The file has become shorter.")
            offset += len(data)
            left -= len(data)
            self._collecting = False
            self.sendall(data)

    def fileno(self) -> int:
        """Return the file descriptor of the socket."""
        return self.socket.fileno()

    # gunicorn calls the following methods to wait for a socket, or to close it after a broken
    # response. They do nothing, because the worker waits for the socket, and closes it after
    # everything is sent.

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket never blocks."""

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: the socket never blocks."""

    def shutdown(self, how: int) -> None:
        """Do nothing: the worker ends the connection."""

    def recv(self, size: int) -> bytes:
        """Return no bytes: the worker reads from the socket."""
        return b""

    def close(self) -> None:
        """Do nothing: the worker closes the connection."""
