"""Collects the bytes of a connection until they form a whole request.

gunicorn's parser reads from a socket and waits there for missing bytes. This module gives it only
heads that have arrived completely. The parser still decides what a valid request is, but no thread
waits in it.
"""

import re
from collections import deque
from io import BytesIO
from typing import Any

from django.core.exceptions import RequestDataTooBig
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders, NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.unreader import Unreader

BARE_LF = re.compile(rb"(?<!\r)\n")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
# When an unfinished head reaches this size, gunicorn's parser checks whether it is already too
# large. The size is just above the parser's longest line, and doubles after each check.
FIRST_LOOK = 8200
# The longest line that announces a chunk.
LONGEST_LINE = 8190
# The longest trailer, and the most that the framing may add to a body.
MOST_FRAMING = 64 * 1024
# gunicorn reads at least this much at a time, so it needs that many bytes beyond the limit to see
# that a body is too large.
READ_AHEAD = 1024
# The parser reads this much at a time. It copies the rest of the piece for each chunk in it.
PIECE = 8192


class Received(Unreader):
    """Gives gunicorn's parser pieces of a request instead of a socket, then the end of the data."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.pieces = deque(pieces)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece."""
        return self.pieces.popleft() if self.pieces else b""


class TooLarge(BytesIO):
    """Replaces a body that was not read. Reading it raises Django's error for too large a body."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Refuse."""
        raise RequestDataTooBig("The body is too large.")

    readline = read

    def __next__(self) -> bytes:
        return self.read()


class Arrivals:
    """Splits the bytes of one connection into requests.

    Args:
        cfg: gunicorn's settings.
        client: the address of the client.
        most: the size in bytes of the largest body to collect. A request with a larger body is
            returned without its body.
    """

    def __init__(self, cfg: Any, client: Any, most: int) -> None:
        self.cfg = cfg
        self.client = client
        self.most = most
        self.held = bytearray()
        self.requests = 0
        self._begin()

    def _begin(self) -> None:
        self.request: Any = None  # the request whose body is still incomplete
        self._searched = 0  # where the search for the end of the head continues
        self._look_at = FIRST_LOOK
        self._line = False  # whether the parser has checked the first line
        self._chunks: Chunks | None = None

    def __len__(self) -> int:
        return len(self.held)

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self.held += data

    @property
    def phase(self) -> str:
        """The part of a request that is awaited: the rest of a `body` or `head`, or `anything`."""
        if self.request is not None:
            return "body"
        return "head" if self.held else "anything"

    def expects_continue(self) -> bool:
        """Return whether the client waits for permission to send the body; true only once."""
        if self.request is None or not self.request._expected_100_continue:
            return False
        self.request._expected_100_continue = False
        return True

    def take(self) -> Any:
        """Return the next request with its body, or None if it has not arrived completely.

        Raises:
            ParseException: the bytes are not a valid request; gunicorn's parser says why.
            RequestDataTooBig: the framing of a chunked body is too large.
        """
        if self.request is None and not self._take_head():
            return None
        request = self.request
        body = self._take_body(request)
        if body is None:
            return None
        request.body = body
        # The body has arrived or is unwanted, so gunicorn must not ask the client to send it.
        request._expected_100_continue = False
        self._begin()
        return request

    def _take_head(self) -> bool:
        end = self.held.find(b"\r\n\r\n", self._searched)
        if end >= 0:
            self.request = self._parse(bytes(self.held[: end + 4]))
            del self.held[: end + 4]
            return True
        first_line = not self._line and self.held.find(b"\r\n", 1) > 0
        if (
            first_line
            or len(self.held) >= self._look_at
            or BARE_LF.search(self.held, max(0, self._searched))
        ):
            self._line = self._line or first_line
            self._look()
        self._searched = max(0, len(self.held) - 3)
        return False

    def _look(self) -> None:
        """Let gunicorn's parser refuse an unfinished head that can no longer become valid."""
        while self._look_at <= len(self.held):
            self._look_at *= 2
        try:
            request = self._parse(bytes(self.held))
        except (NoMoreData, StopIteration):
            return
        # The parser accepted a head that has no end, so the head must be invalid.
        raise LimitRequestHeaders(f"{request.method} has an unexpected end")

    def _parse(self, head: bytes) -> Any:
        # Two pieces, because the parser checks its size limits only from the second piece on.
        pieces = filter(None, (head[:-1], head[-1:]))
        request = Request(self.cfg, Received(*pieces), self.client, self.requests + 1)
        self.requests += 1
        return request

    def _take_body(self, request: Any) -> Any:
        if isinstance(request.body.reader, ChunkedReader):
            return self._take_chunks(request)
        length = request.body.reader.length
        if length > self.most:
            request.force_close()
            return TooLarge()
        if len(self.held) < length:
            return None
        body = BytesIO(bytes(self.held[:length]))
        del self.held[:length]
        return body

    def _take_chunks(self, request: Any) -> Any:
        """Return a chunked body; gunicorn's reader decodes it when the application reads it."""
        if self._chunks is None:
            self._chunks = Chunks(self.most + READ_AHEAD)
        end = self._chunks.end(self.held)
        if end is None:
            if len(self.held) > 2 * self.most + MOST_FRAMING:
                raise RequestDataTooBig("The body is too large.")
            return None
        if end < 0:  # The body is too large or malformed. Ignore whatever follows it.
            end = len(self.held)
            request.force_close()
        raw = bytes(self.held[:end])
        del self.held[:end]
        pieces = (raw[at : at + PIECE] for at in range(0, len(raw), PIECE))
        request.unreader = Received(*pieces)
        request.body.reader = ChunkedReader(request, request.unreader)
        return request.body


class Chunks:
    """Finds the end of a chunked body, chunk by chunk as they arrive."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.at = 0  # where the next chunk, or the trailer, begins
        self.decoded = 0
        self.in_trailer = False

    def end(self, held: bytearray) -> int | None:
        """Return where the body ends, None if it is incomplete, or -1 if it cannot be accepted.

        A body cannot be accepted if it is malformed or too large.
        """
        while not self.in_trailer:
            line = held.find(b"\r\n", self.at)
            if line < 0:
                return -1 if len(held) - self.at > LONGEST_LINE + 1 else None
            digits = bytes(held[self.at : line]).split(b";")[0].rstrip(b" \t")
            if not CHUNK_SIZE.fullmatch(digits):
                return -1
            size = int(digits, 16)
            begins = line + 2
            if not size:
                self.at, self.in_trailer = begins, True
                break
            ends = begins + size
            if self.decoded + min(size, len(held) - begins) > self.most:
                return -1
            if len(held) < ends + 2:
                return None
            if held[ends : ends + 2] != b"\r\n":
                return -1
            self.at = ends + 2
            self.decoded += size
        if held[self.at : self.at + 2] == b"\r\n":
            return self.at + 2
        # A trailer follows the last chunk without an empty line, and ends with an empty line.
        end = held.find(b"\r\n\r\n", self.at)
        if end < 0:
            too_long = len(held) - self.at > MOST_FRAMING
            return -1 if too_long or BARE_LF.search(held, self.at) else None
        return end + 4
