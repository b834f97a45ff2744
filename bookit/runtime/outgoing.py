"""What is sent to a client, without ever waiting for one that does not read."""

import errno
import os
import select
import socket
from time import monotonic
from typing import Any

# An answer that is larger than this, in bytes, waits in its thread for the client to read.
MOST_HELD = 4 * 1024 * 1024
# What is collected at most before the first byte is sent: the head, for its body to follow.
MOST_COLLECTED = 16 * 1024
# Seconds that a thread waits for the client of such an answer.
PATIENCE = 10.0
BLOCK = 256 * 1024


class Outgoing:
    """The socket as gunicorn's responses see it.

    They write to it; what the client does not read is kept for the worker to send later. The head
    is sent together with the first part of the body, in one call of the system.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.held = bytearray()
        self._collecting = True

    def begin(self) -> None:
        """Begin a response."""
        self._collecting = True

    def sendall(self, data: Any) -> None:
        """Send `data`, now or later."""
        self.held += data
        if self._collecting and len(self.held) < MOST_COLLECTED:
            self._collecting = False
            return
        self._collecting = False
        self.flush()
        if len(self.held) > MOST_HELD:
            self._wait()

    def flush(self) -> bool:
        """Send what the client takes; return whether that is all.

        Raises:
            OSError: the client has gone.
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
        while len(self.held) > MOST_HELD:
            poll.poll(1000)
            self.flush()
            if monotonic() > deadline:
                raise BrokenPipeError(errno.EPIPE, "The client does not read the response.")

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> None:
        """Send `count` bytes of a file, or all from `offset` on."""
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
        """Return the number of the socket."""
        return self.socket.fileno()

    # What gunicorn does to a socket that it waits for, or closes after a broken answer. The worker
    # does either, when all is sent.

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket never blocks."""

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing, likewise."""

    def shutdown(self, how: int) -> None:
        """Do nothing."""

    def recv(self, size: int) -> bytes:
        """Return nothing: the worker reads."""
        return b""

    def close(self) -> None:
        """Do nothing."""
