"""`Arrivals` reads the same requests as gunicorn's parser, however the bytes are split."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig
from gunicorn.config import Config
from gunicorn.http.errors import (
    ChunkMissingTerminator,
    InvalidHeader,
    InvalidRequestLine,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
)
from gunicorn.http.parser import RequestParser
from gunicorn.http.wsgi import create
from hypothesis import given
from hypothesis import strategies as st

from bookit.runtime import arrivals as module
from bookit.runtime.arrivals import FIRST_CHECK, MAX_HEAD, READ_AHEAD, Arrivals, Chunks
from bookit.runtime.outgoing import Outgoing

CLIENT = ("127.0.0.1", 12345)
MAX_BODY = 1000
CFG = Config()
CFG.set("limit_request_line", 8190)  # as in `bookit.runtime.gunicorn`


class IgnoringSocket(Outgoing):
    """Stands in for a socket, and ignores the 100 Continue that gunicorn may send to it."""

    def __init__(self) -> None:
        """Do nothing: there is no connection."""

    def send(self, data: bytes) -> None:
        """Do nothing."""


def describe(request: Any, body: bytes) -> Any:
    """Return everything that an application sees of a request, and whether the connection ends."""
    _, environ = create(request, IgnoringSocket(), CLIENT, ("127.0.0.1", 80), CFG)
    changing = ("gunicorn.socket", "wsgi.input", "wsgi.errors", "wsgi.early_hints")
    seen = {name: value for name, value in environ.items() if name not in changing}
    seen["wsgi.file_wrapper"] = seen["wsgi.file_wrapper"].__name__
    return seen, body, request.trailers, request.should_close()


def parse_with_gunicorn(data: bytes) -> list[Any]:
    """Return the requests that gunicorn reads from `data`; an error is the last item."""
    parser = RequestParser(CFG, [data], CLIENT)
    seen = []
    try:
        for request in parser:
            length = int(dict(request.headers).get("CONTENT-LENGTH", 0))
            body = request.body.read()
            # gunicorn returns a short body if bytes are missing. Treat this as an error, like other
            # missing bytes.
            if len(body) < length:
                raise NoMoreData
            seen.append(describe(request, body))
    except Exception as error:
        seen.append(type(error))
    return seen


def parse_with_arrivals(pieces: list[bytes]) -> list[Any]:
    """Return the requests that `Arrivals` reads from `pieces`; an error is the last item."""
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    seen: list[Any] = []
    try:
        for piece in pieces:
            arrivals.feed(piece)
            while (request := arrivals.take()) is not None:
                body = request.body.read()
                seen.append(describe(request, body))
                if request.should_close():
                    return seen
    except Exception as error:
        seen.append(type(error))
    return seen


REQUESTS = {
    "a plain request": b"GET /services?limit=5 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "without headers": b"GET / HTTP/1.1\r\n\r\n",
    "after an empty line": b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two empty lines": b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "with a body": b"POST /bookings HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
    "an empty body": b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "a body of line ends": b"POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n\r\n\r\n\r\n",
    "two requests": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    ),
    "three requests, and the last one closes the connection": (
        b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.0\r\n\r\n"
        b"GET /d HTTP/1.1\r\n\r\n"
    ),
    "HTTP/1.0 with keep-alive": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "chunked": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n"
    ),
    "chunked, with an extension and trailers": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'3;name="value"\r\nabc\r\n3 ;x\r\n\r\n\r\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n'
        b"GET /b HTTP/1.1\r\n\r\n"
    ),
    "chunked, with an empty body": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    ),
    "an invalid chunk size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    "a chunk size with a sign": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"
    ),
    "a chunk that is longer than its size": (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcde\r\n0\r\n\r\n"
    ),
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "a header twice": b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n",
    "not HTTP": b"hello\r\n\r\n",
    "a lone CR": b"GET / HTTP/1.1\r\nX: a\rb\r\n\r\n",
    "a lone CR before a line end": b"GET / HTTP/1.1\r\nX: a\r\r\n\r\n",
    "lines that end with LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "headers that end with LF": b"GET / HTTP/1.1\r\nHost: a\n\n",
    "a long line": b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET / HTTP/1.1\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n",
}


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS.keys())
def test_requests_are_the_same_when_they_arrive_in_two_pieces(data: bytes) -> None:
    expected = parse_with_gunicorn(data)
    assert expected
    for at in range(0, len(data) + 1, max(1, len(data) // 300)):
        assert parse_with_arrivals([data[:at], data[at:]]) == expected, at


@pytest.mark.parametrize("data", REQUESTS.values(), ids=REQUESTS.keys())
def test_requests_are_the_same_when_they_arrive_byte_by_byte(data: bytes) -> None:
    assert parse_with_arrivals(
        [data[at : at + 1] for at in range(len(data))]
    ) == parse_with_gunicorn(data)


FRAGMENTS = [
    *(b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"\r\n", b"\n", b"\r"),
    *(b"Host: a\r\n", b"Content-Length: 4\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"X: y", b"\r\n\r\n"),
    b"Expect: 100-continue\r\n",
    *(b"abcd", b"4\r\nabcd\r\n", b"0\r\n", b"0\r\n\r\n", b"2;x=y\r\n", b"\x00", b"PRI * HTTP/2.0"),
]  # fmt: skip


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=14), st.data())
def test_arbitrary_bytes_are_split_into_the_same_requests(parts: list[bytes], draw: Any) -> None:
    data = b"".join(parts)
    expected = parse_with_gunicorn(data)
    cuts = sorted(draw.draw(st.sets(st.integers(0, len(data)), max_size=8)))
    edges = [0, *cuts, len(data)]
    seen = parse_with_arrivals([data[a:b] for a, b in pairwise(edges)])
    # `parse_with_gunicorn` reports missing bytes as an error. `Arrivals` waits for more bytes.
    if (
        expected
        and expected[-1] in (NoMoreData, ChunkMissingTerminator)
        and len(seen) < len(expected)
    ):
        expected.pop()
    # The kind of the error can depend on how many bytes have arrived.
    refused = [isinstance(each, type) for each in seen]
    assert refused == [isinstance(each, type) for each in expected]
    if refused and refused[-1]:
        seen.pop()
        expected.pop()
    assert seen == expected


def feed_incomplete(arrivals: Arrivals, data: bytes) -> None:
    """Feed `data` in pieces, and check that no request is complete."""
    for at in range(0, len(data), 1000):
        arrivals.feed(data[at : at + 1000])
        assert arrivals.take() is None


def test_a_body_that_is_too_large_is_not_read() -> None:
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    arrivals.feed(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\nabc")
    request = arrivals.take()
    assert request.should_close()
    # The client is not asked to send the body.
    assert not arrivals.expects_continue()
    assert not request._expected_100_continue
    for read in (request.body.read, request.body.readline, lambda: next(request.body)):
        with pytest.raises(RequestDataTooBig):
            read()


def test_a_chunked_body_is_read_until_it_exceeds_the_limit() -> None:
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    arrivals.feed(head + b"1f4\r\n" + b"x" * 500 + b"\r\nffffff\r\n" + b"y" * 500)
    assert arrivals.take() is None
    arrivals.feed(b"y" * READ_AHEAD + b"y")
    request = arrivals.take()
    assert request.should_close()
    assert request.body.read(MAX_BODY + 1) == b"x" * 500 + b"y" * 501


def test_chunk_framing_that_is_too_large_is_refused() -> None:
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    arrivals.feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(RequestDataTooBig):
        feed_incomplete(arrivals, (b"1;" + b"x" * 8000 + b"\r\na\r\n") * 20)


@pytest.mark.parametrize(("length", "is_read"), [(100, True), (1, False)])
def test_a_large_body_is_accepted_in_small_but_not_in_very_small_chunks(
    length: int, is_read: bool
) -> None:
    arrivals = Arrivals(CFG, CLIENT, 2**20)
    chunk = b"%x\r\n" % length + b"x" * length + b"\r\n"
    chunks = 2**20 // length if is_read else 2**18
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    arrivals.feed(head + chunk * chunks + b"0\r\n\r\n")
    if is_read:
        assert arrivals.take().body.read() == b"x" * length * chunks
    else:
        with pytest.raises(RequestDataTooBig, match="chunks of the body are too small"):
            arrivals.take()


def test_the_search_for_the_end_of_a_trailer_continues_where_it_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begins = []

    class Held(bytearray):
        def find(self, *args: Any) -> int:
            begins.append(args[1])
            return super().find(*args)

    def search(held: bytearray, begin: int) -> None:
        begins.append(begin)

    monkeypatch.setattr(module, "BARE_LF", SimpleNamespace(search=search))
    chunks, held = Chunks(MAX_BODY), Held(b"0\r\nX: x")
    assert chunks.end(held) is None
    begins.clear()

    for end in (b"x" * 1000, b"x", b"\r\n", b"\r"):
        seen = len(held)
        held += end
        assert chunks.end(held) is None
        assert begins == [seen - 3, seen - 3]
        begins.clear()

    held += b"\n"
    assert chunks.end(held) == len(held)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"GET / HTTP/1.1\n", InvalidRequestLine),
        (b"GET / HTTP/1.1\r\nHost: a\n", InvalidHeader),
        (b"GET /" + b"x" * FIRST_CHECK, LimitRequestLine),
        (b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * (MAX_HEAD // 6), LimitRequestHeaders),
    ],
    ids=["LF", "LF in the headers", "a line without an end", "a head without an end"],
)
def test_bytes_that_cannot_become_a_request_are_refused_while_the_head_is_incomplete(
    data: bytes, error: type[Exception]
) -> None:
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    with pytest.raises(error):
        feed_incomplete(arrivals, data)


@pytest.mark.parametrize(("more", "is_refused"), [(0, False), (1, True)])
def test_a_complete_head_has_a_maximum_size(more: int, is_refused: bool) -> None:
    start = b"GET / HTTP/1.1\r\n" + (b"X: " + b"x" * 8000 + b"\r\n") * 8 + b"Y: "
    head = start + b"y" * (MAX_HEAD + more - len(start)) + b"\r\n\r\n"
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    arrivals.feed(head + b"GET /next HTTP/1.1\r\n\r\n")
    if is_refused:
        with pytest.raises(LimitRequestHeaders, match="the head has more than 65536 bytes"):
            arrivals.take()
    else:
        assert [arrivals.take().path, arrivals.take().path] == ["/", "/next"]


def test_the_phase_names_the_part_that_is_missing() -> None:
    arrivals = Arrivals(CFG, CLIENT, MAX_BODY)
    phases = []
    data = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab"
    for at in range(len(data)):
        phases.append(arrivals.phase)
        arrivals.feed(data[at : at + 1])
        request = arrivals.take()
        if arrivals.phase == "body":
            # `expects_continue` returns True only once.
            assert arrivals.expects_continue() == ("body" not in phases)
    assert request is not None
    assert [phases[0], phases[1], phases[-1]] == ["anything", "head", "body"]
    assert arrivals.phase == "anything"
