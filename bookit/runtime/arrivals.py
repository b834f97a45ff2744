"""What has arrived on a connection, until it is a whole request.

gunicorn's parser reads from a socket and waits there for what is missing. Here it is given heads
that have arrived as a whole, so that it decides what a request is, and nothing ever waits for it.
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
# Sizes of an unfinished head at which gunicorn's parser looks whether it is too large already:
# just above its longest line, then twice as much each time.
FIRST_LOOK = 8200
# The longest line of a chunk; the longest trailer, and what all lines may add to a body.
LONGEST_LINE = 8190
MOST_FRAMING = 64 * 1024
# gunicorn reads this much at least: to see that a body is too large, it needs as much beyond.
READ_AHEAD = 1024
# What the parser reads at a time: it copies what is left of a piece for each chunk in it.
PIECE = 8192


class Received(Unreader):
    """Pieces of a request, where gunicorn's parser expects a socket; after them comes nothing."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.pieces = deque(pieces)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece."""
        return self.pieces.popleft() if self.pieces else b""


class TooLarge(BytesIO):
    """A body that is not read; reading it is refused as Django refuses one that is too large."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Refuse."""
        raise RequestDataTooBig("The body is too large.")

    readline = read

    def __next__(self) -> bytes:
        return self.read()


class Arrivals:
    """The bytes of one connection, cut into requests.

    Args:
        cfg: gunicorn's settings.
        client: the address of the client.
        most: the largest body, in bytes, that is collected. A request with a larger one is
            returned without it.
    """

    def __init__(self, cfg: Any, client: Any, most: int) -> None:
        self.cfg = cfg
        self.client = client
        self.most = most
        self.held = bytearray()
        self.requests = 0
        self._begin()

    def _begin(self) -> None:
        self.request: Any = None  # whose body is incomplete
        self._searched = 0  # where the search for the end of the head goes on
        self._look_at = FIRST_LOOK
        self._line = False  # whether the first line was looked at
        self._chunks: Chunks | None = None

    def __len__(self) -> int:
        return len(self.held)

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self.held += data

    @property
    def phase(self) -> str:
        """What is being waited for: the rest of a `body`, of a `head`, or `anything`."""
        if self.request is not None:
            return "body"
        return "head" if self.held else "anything"

    def expects_continue(self) -> bool:
        """Return, once, whether the client waits to be told to send the body."""
        if self.request is None or not self.request._expected_100_continue:
            return False
        self.request._expected_100_continue = False
        return True

    def take(self) -> Any:
        """Return the next request with its body, or None if it has not arrived yet.

        Raises:
            ParseException: what has arrived is no request; gunicorn's parser says why.
            RequestDataTooBig: the framing of a chunked body is too large.
        """
        if self.request is None and not self._take_head():
            return None
        request = self.request
        body = self._take_body(request)
        if body is None:
            return None
        request.body = body
        # The body is here, or is not wanted: nobody is to be told to send it.
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
        """Let gunicorn's parser refuse a head that cannot become one, though it has no end yet."""
        while self._look_at <= len(self.held):
            self._look_at *= 2
        try:
            request = self._parse(bytes(self.held))
        except (NoMoreData, StopIteration):
            return
        # It is complete without an end, which cannot be.
        raise LimitRequestHeaders(f"{request.method} has an unexpected end")

    def _parse(self, head: bytes) -> Any:
        # In two pieces: it compares sizes with its limits after each one but the first.
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
        """Return a chunked body, which gunicorn's reader decodes when it is read."""
        if self._chunks is None:
            self._chunks = Chunks(self.most + READ_AHEAD)
        end = self._chunks.end(self.held)
        if end is None:
            if len(self.held) > 2 * self.most + MOST_FRAMING:
                raise RequestDataTooBig("The body is too large.")
            return None
        if end < 0:  # It is too large, or malformed: what follows is not looked at.
            end = len(self.held)
            request.force_close()
        raw = bytes(self.held[:end])
        del self.held[:end]
        pieces = (raw[at : at + PIECE] for at in range(0, len(raw), PIECE))
        request.unreader = Received(*pieces)
        request.body.reader = ChunkedReader(request, request.unreader)
        return request.body


class Chunks:
    """Finds where a chunked body ends, chunk by chunk as they arrive."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.at = 0  # where the next chunk, or the trailer, begins
        self.decoded = 0
        self.in_trailer = False

    def end(self, held: bytearray) -> int | None:
        """Return where the body ends; -1 if it is malformed or too large; None if not yet here."""
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
        # Between the last chunk and a trailer there is no empty line; the end of its lines is.
        end = held.find(b"\r\n\r\n", self.at)
        if end < 0:
            too_long = len(held) - self.at > MOST_FRAMING
            return -1 if too_long or BARE_LF.search(held, self.at) else None
        return end + 4
