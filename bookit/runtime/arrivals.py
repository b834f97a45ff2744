"""Collects the bytes of a connection until they form a whole request.

gunicorn's parser reads from a socket and waits there for missing bytes. This module calls the
parser with bytes that have already arrived. The parser still decides whether a request is valid,
but no thread waits in the parser.
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
# When an unfinished head reaches this size in bytes, gunicorn's parser checks whether the head is
# already too large. The size is just above the parser's limit for a line, and doubles after each
# check.
FIRST_CHECK = 8200
# The maximum size of a head in bytes. gunicorn allows 100 headers of 8 KB. A head stays in memory
# until its request is handled, and a worker has many clients, so the maximum is lower here.
MAX_HEAD = 64 * 1024
# The maximum length of an unfinished line that announces a chunk. gunicorn checks finished lines.
MAX_CHUNK_LINE = 8190
# The maximum size in bytes of the framing of a chunked body: everything except the data of the
# chunks and the trailer, which has the same limit. Each chunk costs time, so a body of a megabyte
# in chunks of one byte would occupy a worker for seconds, before any rate limit counts the request.
MAX_FRAMING = 64 * 1024
# A chunked body counts as too large only if it has more than `max_body` plus this many bytes.
# `bookit.wsgi` reads one byte beyond `max_body` to notice that a body is too large. For that byte,
# gunicorn reads up to this many bytes, which must have arrived.
READ_AHEAD = 1024
# gunicorn gets a chunked body in pieces of this many bytes. For each chunk, it copies the rest of
# the piece, so large pieces would be slow.
PIECE = 8192


class Received(Unreader):
    """Stands in for the socket: gives gunicorn's parser the pieces of a request, and no more."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.pieces = deque(pieces)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return the next piece."""
        return self.pieces.popleft() if self.pieces else b""


class TooLarge(BytesIO):
    """Stands in for a body that is too large. Reading it raises Django's error for such a body."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Raise the error."""
        raise RequestDataTooBig("The body is too large.")

    readline = read

    def __next__(self) -> bytes:
        return self.read()


class Arrivals:
    """Splits the bytes of one connection into requests.

    Args:
        cfg: gunicorn's settings.
        client: the IP address and the port of the client.
        max_body: the size in bytes of the largest body to collect. A request with a larger body is
            returned at once. Its body is a `TooLarge` or, if it is chunked, the bytes that have
            arrived.
    """

    def __init__(self, cfg: Any, client: Any, max_body: int) -> None:
        self.cfg = cfg
        self.client = client
        self.max_body = max_body
        self.held = bytearray()
        self.parsed = 0  # the number of requests so far
        self._begin()

    def _begin(self) -> None:
        self.request: Any = None  # the request whose body is still incomplete
        self._searched = 0  # where the search for the end of the head continues
        self._check_at = FIRST_CHECK
        self._is_first_line_checked = False
        self._chunks: Chunks | None = None

    def __len__(self) -> int:
        return len(self.held)

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self.held += data

    @property
    def phase(self) -> str:
        """The part that is still missing: "head", "body", or "anything" if no request has begun."""
        if self.request is not None:
            return "body"
        return "head" if self.held else "anything"

    def expects_continue(self) -> bool:
        """Return whether the client waits for a 100 Continue; return True only once per request."""
        if self.request is None or not self.request._expected_100_continue:
            return False
        self.request._expected_100_continue = False
        return True

    def take(self) -> Any:
        """Return the next request with its body, or None if it has not arrived completely.

        Raises:
            ParseException: gunicorn's parser refuses the bytes; the error says why.
            RequestDataTooBig: the framing of a chunked body is too large.
        """
        if self.request is None and not self._take_head():
            return None
        request = self.request
        body = self._take_body(request)
        if body is None:
            return None
        request.body = body
        # The body has arrived or is too large, so gunicorn must not ask the client to send it.
        request._expected_100_continue = False
        self._begin()
        return request

    def _take_head(self) -> bool:
        """Parse the head of the next request, and return whether it has arrived."""
        end = self.held.find(b"\r\n\r\n", self._searched)
        if (end if end >= 0 else len(self.held)) > MAX_HEAD:
            raise LimitRequestHeaders(f"the head has more than {MAX_HEAD} bytes")
        if end >= 0:
            self.request = self._parse(bytes(self.held[: end + 4]))
            del self.held[: end + 4]
            return True
        # The search begins at 1, because an empty line may come before the first line.
        is_first_line_new = not self._is_first_line_checked and self.held.find(b"\r\n", 1) > 0
        if (
            is_first_line_new
            or len(self.held) >= self._check_at
            or BARE_LF.search(self.held, self._searched)
        ):
            self._is_first_line_checked = self._is_first_line_checked or is_first_line_new
            self._check_unfinished_head()
        self._searched = max(0, len(self.held) - 3)
        return False

    def _check_unfinished_head(self) -> None:
        """Let gunicorn's parser refuse an unfinished head that can no longer become valid."""
        while self._check_at <= len(self.held):
            self._check_at *= 2
        try:
            request = self._parse(bytes(self.held))
        except (NoMoreData, StopIteration):
            return
        # The parser found the end of a head in bytes that contain no empty line. It is uncertain
        # where such a head ends, so refuse it.
        raise LimitRequestHeaders(f"the head of the {request.method} request has no empty line")

    def _parse(self, head: bytes) -> Any:
        # Split the head in two, because the parser checks the size of the whole head only when it
        # has read a second piece.
        pieces = filter(None, (head[:-1], head[-1:]))
        request = Request(self.cfg, Received(*pieces), self.client, self.parsed + 1)
        self.parsed += 1
        return request

    def _take_body(self, request: Any) -> Any:
        if isinstance(request.body.reader, ChunkedReader):
            return self._take_chunks(request)
        length = request.body.reader.length
        if length > self.max_body:
            request.force_close()
            return TooLarge()
        if len(self.held) < length:
            return None
        body = BytesIO(bytes(self.held[:length]))
        del self.held[:length]
        return body

    def _take_chunks(self, request: Any) -> Any:
        """Return a chunked body, which gunicorn's reader decodes when the application reads it."""
        if self._chunks is None:
            self._chunks = Chunks(self.max_body + READ_AHEAD)
        end = self._chunks.end(self.held)
        if end is None:
            return None
        if end < 0:  # The body is too large or malformed. Take all bytes; no request can follow.
            end = len(self.held)
            request.force_close()
        raw = bytes(self.held[:end])
        del self.held[:end]
        pieces = (raw[at : at + PIECE] for at in range(0, len(raw), PIECE))
        request.unreader = Received(*pieces)
        request.body.reader = ChunkedReader(request, request.unreader)
        return request.body


class Chunks:
    """Finds the end of a chunked body, and continues where it stopped when more bytes arrive."""

    def __init__(self, max_decoded: int) -> None:
        self.max_decoded = max_decoded
        self.at = 0  # where the next chunk, or the trailer, begins
        self.decoded = 0
        self.in_trailer = False
        self._searched = 0  # where the search for the end of the trailer continues

    def end(self, held: bytearray) -> int | None:
        """Return where the body ends in `held`.

        Return None if the body is incomplete, and -1 if it is malformed or too large.

        Raises:
            RequestDataTooBig: the framing is too large.
        """
        while not self.in_trailer:
            line = held.find(b"\r\n", self.at)
            if line < 0:
                return -1 if len(held) - self.at > MAX_CHUNK_LINE + 1 else None
            digits = bytes(held[self.at : line]).split(b";")[0].rstrip(b" \t")
            if not CHUNK_SIZE.fullmatch(digits):
                return -1
            size = int(digits, 16)
            begins = line + 2
            if not size:
                self.at, self._searched, self.in_trailer = begins, begins, True
                break
            ends = begins + size
            if self.decoded + min(size, len(held) - begins) > self.max_decoded:
                return -1
            if len(held) < ends + 2:
                return None
            if held[ends : ends + 2] != b"\r\n":
                return -1
            self.at = ends + 2
            self.decoded += size
            if self.at - self.decoded > MAX_FRAMING:
                raise RequestDataTooBig(
                    "The chunks of the body are too small. Send larger chunks, or a Content-Length."
                )
        if held[self.at : self.at + 2] == b"\r\n":
            return self.at + 2
        # A trailer follows the last chunk directly, and ends with an empty line.
        end = held.find(b"\r\n\r\n", self._searched)
        if end >= 0:
            return end + 4
        is_bad = len(held) - self.at > MAX_FRAMING or BARE_LF.search(held, self._searched)
        self._searched = max(self._searched, len(held) - 3)
        return -1 if is_bad else None
