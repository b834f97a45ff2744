"""Sends responses. A thread waits for a client only if more than MAX_UNREAD bytes are unread."""

import errno
import os
import select
import socket
from time import monotonic
from typing import Any

# If the client has more unread bytes than this, the thread waits until the client has read enough.
MAX_UNREAD = 4 * 1024 * 1024
# The head of a response is kept until the body follows, if the head has fewer bytes than this. Then
# one system call sends the head and the first part of the body.
MAX_COLLECTED = 16 * 1024
# A thread gives up if, after this many seconds, more than MAX_UNREAD bytes are still unread.
PATIENCE = 10.0
# Bytes of a file that are read at a time.
BLOCK = 256 * 1024


class Outgoing:
    """Stands in for the socket that gunicorn's responses write to.

    It keeps the bytes that the client has not read yet, and the worker sends them later. A file is
    kept open, and read while it is sent. The head and the first part of the body are sent in one
    system call.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.held = bytearray()
        self.bytes_sent = 0  # over this connection
        self._collecting = True
        self._file: int | None = None  # the descriptor of a file that is not read completely
        self._offset = 0
        self._left = 0

    def begin(self) -> None:
        """Prepare for the next response."""
        self._collecting = True

    @property
    def has_file(self) -> bool:
        """Whether a part of a file has not been read yet."""
        return self._file is not None

    def sendall(self, data: Any) -> None:
        """Send `data`, now or later.

        Raises:
            ValueError: the response contains a file, which must be its last part.
            OSError: the client has disconnected, or does not read the response.
        """
        if self.has_file:
            raise ValueError(
                "A response with a file needs a Content-Length, and ends with the file."
            )
        self.held += data
        if self._collecting and len(self.held) < MAX_COLLECTED:
            self._collecting = False
            return
        self._collecting = False
        self.flush()
        if len(self.held) > MAX_UNREAD:
            self._wait()

    def flush(self) -> bool:
        """Send as much as the client accepts, and return whether everything is sent.

        A call reads at most BLOCK bytes of a file, because other clients may be waiting.

        Raises:
            OSError: the client has disconnected, or the file cannot be read.
        """
        if self._file is not None and len(self.held) < BLOCK:
            self._read(self._file)
        while self.held:
            try:
                sent = self.socket.send(self.held)
            except (BlockingIOError, InterruptedError):
                return False
            del self.held[:sent]
            self.bytes_sent += sent
        return not self.has_file

    def _read(self, file: int) -> None:
        """Read the next bytes of the file, and close it after the last ones."""
        data = os.pread(file, min(self._left, BLOCK), self._offset)
        if not data:
            raise BrokenPipeError(errno.EPIPE, "The file has become shorter.")
        self.held += data
        self._offset += len(data)
        self._left -= len(data)
        if not self._left:
            self.abandon_file()

    def abandon_file(self) -> None:
        """Close the file; nothing more of it is read."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        deadline = monotonic() + PATIENCE
        while len(self.held) > MAX_UNREAD:
            if monotonic() > deadline:
                raise BrokenPipeError(errno.EPIPE, "The client does not read the response.")
            poll.poll(1000)
            self.flush()

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> None:
        """Send `count` bytes of a file, starting at `offset`; by default, the rest of the file.

        The caller may close the file at once.
        """
        self._left = os.fstat(file.fileno()).st_size - offset if count is None else count
        self._offset = offset
        if self._left > 0:
            self._collecting = False
            self._file = os.dup(file.fileno())

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
