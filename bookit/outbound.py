"""Sends POST requests to URLs chosen by users, but never into our own network.

A host name is resolved once, and all of its IP addresses must be public, unless
WEBHOOK_ALLOW_PRIVATE is set. The connection goes to an IP address that was checked, because
resolving the name again could return a different address. No call takes longer than `TIMEOUT`,
whatever the other server does. At most `MAX_RESPONSE_BYTES` bytes of a response are kept.

Calls use a transport of httpx instead of a client. A transport follows no redirects and keeps no
cookies. A client would also read the `Location` of a redirect that it does not follow, and raise an
error if it is not a URL for HTTP.
"""

import asyncio
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from time import monotonic
from typing import Self

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

# Seconds that a call may take in total, from resolving the name to the end of the response.
TIMEOUT = 10.0
# Seconds after which a response is late. The caller decides whether to wait longer.
LATE = 1.0
# Seconds to connect to one IP address, before the next IP address of the host is tried.
CONNECT_TIMEOUT = 3.0
# Bytes of a response that are kept.
MAX_RESPONSE_BYTES = 2048

# Host names as in the DNS, plus the underscore that some names have. Python, the system or a proxy
# may also accept other spellings of an IP address: non-ASCII digits, escapes, numbers with fewer
# than four parts. Such a spelling either does not match here, or it is resolved and its IP address
# is checked.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")

# Some versions of Python call some of these addresses global, but they can lead into networks that
# are not public: IPv4 in IPv6 (6to4, Teredo and the rest of its block), 6to4 relays, examples,
# protocol assignments.
_NOT_PUBLIC: list[IPv4Network | IPv6Network] = [
    *map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")),
    *map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
]
# The block of global unicast IPv6 addresses. NAT64 (64:ff9b::/96, 64:ff9b:1::/48), IPv4-mapped,
# IPv4-compatible, private, local and multicast addresses are outside it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")

# Names are resolved in threads that do not belong to the event loop. `asyncio.run` would wait for
# the threads of the loop, and a lookup cannot be cancelled. A lookup that hangs blocks only its own
# thread, until the lookup times out. There are more threads than webhooks that may be slow at the
# same time, because a lookup goes on after its attempt has been given up. A thread is created when
# it is needed.
_resolvers = ThreadPoolExecutor(max_workers=200, thread_name_prefix="resolver")


class Refused(Exception):
    """This URL must not be called; the message says why."""


@dataclass(frozen=True)
class Answer:
    """The result of a call: either a status or an error.

    Args:
        text: the beginning of the response's body.
        retry_after: the `Retry-After` header.
    """

    duration_ms: int
    status: int | None = None
    error: str = ""
    text: str = ""
    retry_after: str = ""


def check(url: str) -> None:
    """Refuse a URL that is malformed, or that leads to an IP address that is not public.

    A URL whose host name cannot be resolved at present is accepted. If a later message cannot be
    sent for this reason, the `Answer` says so.

    Raises:
        Refused: the URL is refused; the message says why.
    """
    try:
        asyncio.run(_check(_parse(url)))
    except OSError:
        return


class Connection:
    """Sends messages to one URL, one after the other; used in an `async with` block.

    Before the first message, the host name is resolved and its IP addresses are checked. All
    messages go to the checked IP addresses. The connection is kept open if the server allows it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._addresses: list[str] = []
        self._transport: httpx.AsyncHTTPTransport | None = None
        # Whether a response has arrived since the transport was created.
        self._is_proven = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._close()

    async def post(
        self,
        *,
        content: bytes,
        headers: Mapping[str, str],
        may_wait: Callable[[], bool] = lambda: True,
    ) -> Answer:
        """Send `content`, and return the result. No behaviour of the server raises an error.

        Args:
            may_wait: called when the response is late. If it returns False, the attempt ends.
        """
        started = monotonic()
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(TIMEOUT)
        is_cut_off = False

        def stop_unless_waiting_is_allowed() -> None:
            nonlocal is_cut_off
            if not may_wait():
                is_cut_off = True
                limit.reschedule(loop.time())

        def answer(**facts: object) -> Answer:
            return Answer(duration_ms=round((monotonic() - started) * 1000), **facts)  # type: ignore[arg-type]

        late = loop.call_later(LATE, stop_unless_waiting_is_allowed)
        try:
            async with limit:
                status, text, retry_after = await self._exchange(content, headers)
        except Refused as refused:
            failed = answer(error=str(refused))
        except socket.gaierror:
            failed = answer(error=_("The host name cannot be resolved."))
        except TimeoutError:
            text = _("No response within %(timeout)s seconds.") % {"timeout": f"{TIMEOUT:g}"}
            if is_cut_off:
                text = _(
                    "No response within %(late)s second while many other servers were also slow."
                ) % {"late": f"{LATE:g}"}
            failed = answer(error=text)
        except httpx.ConnectTimeout:
            text = _("No connection within %(timeout)s seconds.")
            failed = answer(error=text % {"timeout": f"{CONNECT_TIMEOUT:g}"})
        except httpx.TransportError as error:
            failed = answer(error=f"{type(error).__name__}: {_cause(error)}")
        except OSError as error:
            failed = answer(
                error=_("The host name cannot be resolved: %(error)s") % {"error": error}
            )
        else:
            self._is_proven = True
            return answer(status=status, text=text, retry_after=retry_after)
        finally:
            late.cancel()
        await self._close()
        return failed

    async def _exchange(self, content: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        """Send a message, and return the response's status, beginning and `Retry-After`."""
        url = _parse(self.url)
        if not self._addresses:
            self._addresses = await _check(url)
        try:
            response = await self._send(url, content, headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A server may close a kept connection at any time, even while a message is on its way.
            # A message without a response may be sent again: its webhook-id header identifies it.
            if not self._is_proven:
                raise
            await self._close()
            response = await self._send(url, content, headers)
        try:
            text = await _read_beginning(response)
        finally:
            await response.aclose()
        return response.status_code, text, response.headers.get("Retry-After", "")

    async def _send(
        self, url: httpx.URL, content: bytes, headers: Mapping[str, str]
    ) -> httpx.Response:
        """Send a message, and return the response before its body is read."""
        if self._transport is None:
            self._transport = httpx.AsyncHTTPTransport(verify=_certificates(), trust_env=False)
        host = url.raw_host.decode("ascii")
        for address in [*self._addresses]:
            request = httpx.Request(
                "POST",
                url.copy_with(host=address),
                content=content,
                headers={
                    "User-Agent": "BookIt",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                    **headers,
                    "Host": url.netloc.decode("ascii"),
                },
                extensions={
                    "sni_hostname": host.rstrip("."),
                    "timeout": {"connect": CONNECT_TIMEOUT},
                },
            )
            try:
                response = await self._transport.handle_async_request(request)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == self._addresses[-1]:
                    raise
                continue
            # From now on, use only the IP address that responded.
            self._addresses = [address]
            return response
        raise socket.gaierror

    async def _close(self) -> None:
        """Close the connection; the next message opens a new one."""
        transport, self._transport, self._is_proven = self._transport, None, False
        if transport is not None:
            await transport.aclose()


def _cause(error: BaseException) -> str:
    """Return the system's message about a failed connection or, if there is none, httpx's message.

    httpx's message is the same whether the server refused the connection or was unreachable.
    """
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, OSError) and inner.errno and not isinstance(inner, ssl.SSLError):
            return os.strerror(inner.errno)
        inner = inner.__cause__ or inner.__context__
    return str(error)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether this is a public unicast address that cannot lead into a private network."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _parse(text: str) -> httpx.URL:
    """Return the parsed URL.

    Raises:
        Refused: the text is not a valid HTTP or HTTPS URL, or it contains a user name or a
            password.
    """
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        raise Refused(_("Not a valid URL; expected e.g. https://example.com/hook.")) from None
    if url.scheme not in ("http", "https"):
        raise Refused(_("The URL must start with https:// or http://."))
    if url.userinfo:
        raise Refused(_("The URL must not contain a user name or a password."))
    if not host:
        raise Refused(_("The URL must contain a host name."))
    if not (_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
        raise Refused(_("The host name in the URL is not valid."))
    if url.port is not None and not 1 <= url.port <= 65535:
        raise Refused(_("The port in the URL must be from 1 to 65535."))
    return url


async def _check(url: httpx.URL) -> list[str]:
    """Return the IP addresses of the host, if all of them may be called.

    Raises:
        Refused: an IP address may not be called, or the host name is not valid.
        OSError: the host cannot be resolved, or not in time (TimeoutError).
    """
    async with asyncio.timeout(TIMEOUT):
        addresses = await resolve(
            url.raw_host.decode("ascii"), url.port or {"http": 80, "https": 443}[url.scheme]
        )
    if not settings.WEBHOOK_ALLOW_PRIVATE:
        for address in addresses:
            if not is_public(ip_address(address)):
                raise Refused(
                    _("%(host)s resolves to %(address)s, which is not a public address.")
                    % {"host": url.host, "address": address}
                )
    return addresses


async def resolve(host: str, port: int) -> list[str]:
    """Return every IP address of a host, in the order in which the system would try them.

    Raises:
        Refused: the host name is not valid.
        OSError: the host cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            _resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    except UnicodeError:
        raise Refused(_("The host name in the URL is not valid.")) from None
    return [*dict.fromkeys(str(address[0]) for *_, address in found)]


async def _read_beginning(response: httpx.Response) -> str:
    """Return the beginning of a response's body, without decompressing it."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= MAX_RESPONSE_BYTES:
            break
    # PostgreSQL cannot store null characters in a text.
    return body[:MAX_RESPONSE_BYTES].decode("utf-8", "replace").replace("\0", "")


@cache
def _certificates() -> ssl.SSLContext:
    """Return the SSL context that verifies servers; cached, because creating it takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
