"""Calls to URLs that users choose reach no private network, end in time and stay small."""

import asyncio
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from bookit import outbound
from bookit.tests.receiver import answer, drip, hang_up, receiver

# IP addresses that are not public: IPv4, IPv6, IPv4 inside IPv6, and formats that only resolvers
# accept.
PRIVATE = [
    *(
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0",
        "0.0.0.0",
        "127.255.255.254",
    ),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("100.127.255.255", "192.0.0.1", "192.0.0.9", "192.0.2.1", "198.18.0.1", "198.51.100.1"),
    *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "192.88.99.1"),
    *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd12:3456::1]", "[ff02::1]", "[fec0::1]"),
    *("[::ffff:127.0.0.1]", "[::ffff:8.8.8.8]", "[::ffff:0:127.0.0.1]", "[::127.0.0.1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b::808:808]", "[64:ff9b:1::1]", "[2002:7f00:1::]"),
    *("[2002:808:808::1]", "[2001::1]", "[2001:0:4136:e378:8000:63bf:3fff:fdd2]", "[2001:db8::1]"),
    *("[3fff::1]", "[100::1]", "[5f00::1]", "[4000::1]"),
]
MALFORMED = [
    *("", " ", "x", "/hook", "//8.8.8.8", "http:8.8.8.8", "http://", "http:///hook", "http://#"),
    *("ftp://8.8.8.8", "file:///etc/passwd", "gopher://8.8.8.8", "javascript:alert(1)", "mailto:a"),
    *("http://user@8.8.8.8", "http://user:password@8.8.8.8", "http://8.8.8.8\\@127.0.0.1"),
    *("http://8.8.8.8:0", "http://8.8.8.8:65536", "http://8.8.8.8:-1", "http://8.8.8.8:80:80"),
    *(
        "http://\uff11\uff12\uff17.0.0.1",
        "http://\u2460\u2461\u2466.0.0.1",
        "http://127\u30020.0.1",
    ),
    *(
        "http://a b",
        "http://a\tb",
        "http://a\nb",
        "http://a\0b",
        "http://127%2e0.0.1",
        "http://a..b",
    ),
    *("http://[::1", "http://[fe80::1%25eth0]", "http://[fe80::1%eth0]", "http://[v1.x]"),
    *("http://" + "a" * 64 + ".com", "http://" + "a." * 200, "http://\ud800", "http://*.com"),
    # An octal number. The system would accept it as 127.0.0.1.
    "http://0177.0.0.1",
]
# More than the number of webhooks that may be slow at the same time (50).
HANGING = 100


@pytest.fixture
def resolves(monkeypatch):
    """Return a function that sets the results of lookups of host names.

    Each argument is the list of IP addresses that a lookup returns. The last list is repeated.
    """

    def resolve_to(*lists):
        left = [list(addresses) for addresses in lists]

        async def resolve(host, port):
            return left.pop(0) if len(left) > 1 else left[0]

        monkeypatch.setattr(outbound, "resolve", resolve)

    return resolve_to


@pytest.fixture
def allow_private(settings):
    """Allow calls to loopback addresses, where the receivers listen."""
    settings.WEBHOOK_ALLOW_PRIVATE = True


def post(url, *, times=1):
    """Send `times` messages to `url` over one connection; return the outcome of the last."""

    async def send():
        async with outbound.Connection(url) as connection:
            return [
                await connection.post(content=b'{"a": 1}', headers={"X-Test": "yes"})
                for _ in range(times)
            ]

    return asyncio.run(send())[-1]


# --- the target ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", PRIVATE)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_private_address_is_refused(scheme, host):
    for url in (f"{scheme}://{host}", f"{scheme}://{host}:8000/hook?a=b#c"):
        with pytest.raises(outbound.Refused, match="not a public address"):
            outbound.check(url)
        assert "not a public address" in post(url).error


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_refused(url):
    with pytest.raises(outbound.Refused):
        outbound.check(url)
    outcome = post(url)
    assert outcome.status is None
    assert outcome.error


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "1.1.1.1", "[2606:4700::1111]", "[2a00:1450:4001::1]", "[2620:fe::fe]"]
)
def test_a_public_address_is_accepted(host):
    for url in (f"http://{host}", f"https://{host}:8443/hook", f"HTTPS://{host}/ä?ö=ü"):
        outbound.check(url)


def test_a_name_is_refused_if_any_of_its_addresses_is_private(resolves):
    resolves(["8.8.8.8", "2606:4700::1111"])
    outbound.check("https://example.com")
    for inside in ("127.0.0.1", "::1", "10.0.0.1", "64:ff9b::7f00:1", "fe80::1"):
        for addresses in (["8.8.8.8", inside], [inside, "8.8.8.8"]):
            resolves(addresses)
            with pytest.raises(outbound.Refused, match=f"resolves to {inside}"):
                outbound.check("https://example.com")


def test_localhost_is_refused():
    for name in ("localhost", "LOCALHOST"):
        with pytest.raises(outbound.Refused):
            outbound.check(f"http://{name}/")


def test_an_unresolvable_name_is_accepted_and_fails_when_called():
    outbound.check("https://nowhere.invalid/hook")
    assert post("https://nowhere.invalid/hook").error == "The host name cannot be resolved."


def test_a_name_that_resolves_to_a_private_address_later_is_refused(resolves):
    with receiver() as other:
        resolves(["8.8.8.8"], ["127.0.0.1"])
        url = other.url.replace("127.0.0.1", "example.com")
        outbound.check(url)
        outcome = post(url)
    assert outcome.error == "example.com resolves to 127.0.0.1, which is not a public address."
    assert other.messages == []


def test_the_call_uses_the_address_that_was_checked(resolves, allow_private):
    """The name is resolved once. A second lookup would return an IP address without a server."""
    with receiver() as other:
        resolves(["127.0.0.1"], ["::1"])
        assert post(other.url.replace("127.0.0.1", "example.com")).status == 204
    [message] = other.messages
    assert message.headers["Host"].startswith("example.com:")


def test_the_next_address_is_tried_if_the_first_does_not_respond(resolves, allow_private):
    with receiver() as other:
        resolves(["::1", "127.0.0.1"])  # Nothing listens on the first IP address.
        assert post(other.url.replace("127.0.0.1", "example.com")).status == 204
    assert len(other.messages) == 1


def test_proxies_of_the_environment_are_not_used(monkeypatch, allow_private):
    with receiver() as proxy, receiver() as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert post(other.url).status == 204
    assert proxy.messages == []


def test_addresses_that_python_wrongly_calls_global_are_refused():
    """Control: `is_global` alone accepts at least three of these IP addresses."""
    passing = [
        host
        for host in ("64:ff9b::7f00:1", "2002:7f00:1::", "ff0e::1", "224.0.0.1", "192.88.99.1")
        if ip_address(host).is_global
    ]
    assert len(passing) >= 3
    assert not any(outbound.is_public(ip_address(host)) for host in passing)


# --- the outcome --------------------------------------------------------------------------------


def test_a_message_arrives_with_its_headers(allow_private):
    with receiver(answer(200, b"thank you")) as other:
        outcome = post(other.url + "?token=1")
    [message] = other.messages
    assert (message.path, message.body) == ("/hook?token=1", b'{"a": 1}')
    assert message.headers["X-Test"] == "yes"
    assert message.headers["User-Agent"] == "BookIt"
    assert (outcome.status, outcome.text, outcome.error) == (200, "thank you", "")
    assert 0 <= outcome.duration_ms < 5000


def test_redirects_are_not_followed(allow_private):
    with receiver() as inside:
        for status in (301, 302, 303, 307, 308):
            with receiver(answer(status, Location=inside.url)) as other:
                assert post(other.url).status == status
                assert len(other.messages) == 1
    assert inside.messages == []


@pytest.mark.parametrize(
    "location", ["mailto:owner@example.com", "https:hook", "tel:1", "http://[", "x" * 70_000]
)
def test_a_redirect_to_an_invalid_url_is_a_response_like_any_other(allow_private, location):
    with receiver(answer(302, Location=location)) as other:
        outcome = post(other.url, times=2)
    assert (outcome.status, outcome.error) == (302, "")
    assert len(other.messages) == 2


@pytest.mark.parametrize(
    "behave",
    [
        lambda request: time.sleep(2),
        drip(b"HTTP/1.1 200 OK\r\n", b"X-Drip: drop\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip(b"", b"HTTP"),
    ],
    ids=["nothing", "headers", "body", "nonsense"],
)
def test_a_slow_server_cannot_exceed_the_timeout(monkeypatch, allow_private, behave):
    monkeypatch.setattr(outbound, "TIMEOUT", 0.5)
    with receiver(behave) as other:
        began = time.monotonic()
        outcome = post(other.url)
        assert time.monotonic() - began < 1.5
    assert outcome.status is None
    assert outcome.error


def test_a_hanging_name_lookup_cannot_exceed_the_timeout(monkeypatch):
    monkeypatch.setattr(outbound, "TIMEOUT", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(2))
    began = time.monotonic()
    assert post("https://example.com").error == "No response within 0.3 seconds."
    assert time.monotonic() - began < 1


def test_hanging_name_lookups_of_slow_webhooks_do_not_delay_others(monkeypatch):
    """Control: with only as many threads as hanging lookups, the other lookup times out."""

    def look_up(host, *args, **options):
        if host == "slow":
            released.wait(5)
        return [(None, None, None, None, ("8.8.8.8", 443))]

    async def begin_and_look_up():
        slow = [asyncio.create_task(outbound.resolve("slow", 443)) for _ in range(HANGING)]
        await asyncio.sleep(0)  # Now all slow lookups have begun.
        try:
            return await asyncio.wait_for(outbound.resolve("good", 443), 2)
        finally:
            released.set()
            await asyncio.gather(*slow)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    released = threading.Event()
    assert asyncio.run(begin_and_look_up()) == ["8.8.8.8"]
    released.clear()
    monkeypatch.setattr(outbound, "_resolvers", ThreadPoolExecutor(HANGING))
    with pytest.raises(TimeoutError):
        asyncio.run(begin_and_look_up())


def test_the_error_says_that_a_server_accepts_no_connection(monkeypatch, allow_private):
    monkeypatch.setattr(outbound, "CONNECT_TIMEOUT", 0.2)
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # A full queue drops packets, as a firewall does.
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        outcome = post(f"http://127.0.0.1:{full.getsockname()[1]}/")
    assert outcome.error == "No connection within 0.2 seconds."


def test_only_the_beginning_of_a_long_response_is_kept(allow_private):
    with receiver(answer(200, b"0123456789" * 1_000_000)) as other:
        outcome = post(other.url)
    assert outcome.status == 200
    assert outcome.text == ("0123456789" * 205)[:2048]


def test_a_response_is_not_decompressed(allow_private):
    bomb = gzip.compress(b"\0" * 50_000_000)
    with receiver(answer(200, bomb, Content_Encoding="gzip")) as other:
        outcome = post(other.url)
    assert outcome.status == 200
    assert outcome.text == bomb[:2048].decode(errors="replace").replace("\0", "")


def test_a_response_of_any_bytes_becomes_text_that_can_be_stored(allow_private):
    with receiver(answer(200, b"a\0b\xff\xfe")) as other:
        assert post(other.url).text == "ab\ufffd\ufffd"


def test_a_missing_server_or_an_invalid_response_is_an_error(allow_private):
    with receiver(lambda request: request.wfile.write(b"nonsense\r\n\r\n")) as other:
        assert "ProtocolError" in post(other.url).error
    assert post(other.url).error == "ConnectError: Connection refused"
    with receiver() as plain:
        assert "ConnectError" in post(plain.url.replace("http:", "https:")).error


# --- the kept connection ------------------------------------------------------------------------


def break_off(request):
    """Close the connection in the middle of a response."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhal")
    request.close_connection = True


def test_one_connection_carries_all_messages(allow_private):
    with receiver() as other:
        post(other.url, times=5)
        assert (len(other.messages), other.connections) == (5, 1)
        post(other.url)
        assert other.connections == 2


def test_cookies_are_not_sent_back(allow_private):
    with receiver(answer(Set_Cookie="a=b")) as other:
        post(other.url, times=2)
        assert not any("Cookie" in message.headers for message in other.messages)


def test_a_message_lost_on_a_kept_connection_is_repeated_once(allow_private):
    with receiver(answer(), hang_up, answer()) as other:
        assert post(other.url, times=2).status == 204
    _, lost, repeated = other.messages
    assert lost == repeated
    assert other.connections == 2


@pytest.mark.parametrize(
    ("behaviours", "messages"),
    [([hang_up], 1), ([answer(), hang_up], 3), ([answer(), break_off], 2)],
    ids=["on a new connection", "a second time", "in the middle of a response"],
)
def test_a_message_lost_in_another_way_is_an_error(allow_private, behaviours, messages):
    """The connection was new, the message was already a repetition, or the response broke off.

    In these cases, the message is not sent again.
    """
    with receiver(*behaviours) as other:
        outcome = post(other.url, times=len(behaviours))
    assert outcome.status is None
    assert "ProtocolError" in outcome.error
    assert len(other.messages) == messages


# --- late responses ---------------------------------------------------------------------------


def late(request):
    time.sleep(0.5)
    answer()(request)


@pytest.fixture
def send(settings, monkeypatch):
    """Return a function that sends a message; a response is late after 0.1 s."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    monkeypatch.setattr(outbound, "LATE", 0.1)

    async def exchange(url, may_wait):
        async with outbound.Connection(url) as connection:
            return await connection.post(content=b"{}", headers={}, may_wait=may_wait)

    return lambda other, may_wait: asyncio.run(exchange(other.url, may_wait))


def test_a_late_response_is_not_awaited_if_the_caller_may_not_wait(send):
    with receiver(late) as other:
        outcome = send(other, lambda: False)
    assert outcome.status is None
    assert outcome.error == "No response within 0.1 second while many other servers were also slow."


def test_a_late_response_is_awaited_if_the_caller_may_wait(send):
    with receiver(late) as other:
        assert send(other, lambda: True).status == 204


def test_may_wait_is_not_called_if_the_response_is_in_time(monkeypatch, allow_private):
    monkeypatch.setattr(outbound, "LATE", 5.0)
    calls = []

    async def send_and_go_on(url):
        async with outbound.Connection(url) as connection:
            outcome = await connection.post(
                content=b"{}", headers={}, may_wait=lambda: calls.append(1)
            )
        loop = asyncio.get_running_loop()
        later = loop.time() + 2 * outbound.LATE
        monkeypatch.setattr(loop, "time", lambda: later)
        await asyncio.sleep(0)  # The loop now runs all callbacks that are due.
        return outcome

    with receiver(answer()) as other:
        assert asyncio.run(send_and_go_on(other.url)).status == 204
    assert calls == []
