"""POST to an address that somebody else has chosen, without being led into our own network.

A name is resolved once; every address that it has must be public; and the connection goes to the
very address that was checked, for a second look at the name could find another one. Redirects are
not followed, and nothing that the other side does takes longer than `TIMEOUT` or more memory than
`LONGEST_ANSWER`.
"""

import asyncio
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

# Seconds that a call may take in all, from the look for the name to the end of the answer; and that
# one of several addresses may take to be connected to, before the next is tried.
TIMEOUT = 10.0
# Seconds after which an answer is late: then the caller says whether to wait for it any longer.
LATE = 1.0
CONNECT_TIMEOUT = 3.0
# Bytes of an answer that are read.
LONGEST_ANSWER = 2048

# Of names: as in the DNS, and with the underscore that some have. What else Python, the system or a
# proxy could take for a name (other digits, escapes, numbers of fewer than four parts) either does
# not match or is judged by where it leads.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")

# Global by the registries' word, and yet ways into networks that are not: IPv4 in IPv6 (6to4,
# Teredo and whatever else is in its block), the relays of 6to4, examples, protocol assignments.
_NOT_PUBLIC: list[IPv4Network | IPv6Network] = [
    *map(IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")),
    *map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")),
]
# All of IPv6 that is handed out to anybody: not NAT64 (64:ff9b::/96, 64:ff9b:1::/48), nor mapped or
# compatible IPv4, nor what is private, local, multicast or reserved.
_GLOBAL_UNICAST = IPv6Network("2000::/3")

# Threads of our own: `asyncio.run` waits for those of the loop, and a look for a name cannot be
# stopped. One that hangs keeps its thread until the system gives up, and nobody else.
_resolvers = ThreadPoolExecutor(max_workers=16, thread_name_prefix="resolver")


class Refused(Exception):
    """An address that is not called; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What came of a call: a status, or else an error.

    Args:
        text: the beginning of the answer's body.
        retry_after: the header of that name.
    """

    duration_ms: int
    status: int | None = None
    error: str = ""
    text: str = ""
    retry_after: str = ""


def check(url: str) -> None:
    """Refuse an address that is malformed, or that leads to one that is not public.

    A name that cannot be resolved at present passes: whoever calls it finds out then.

    Raises:
        Refused: says why.
    """
    try:
        asyncio.run(_check(_parse(url)))
    except (OSError, TimeoutError):
        return


class Connection:
    """Sends messages to one address, one after the other; used in a `with` block.

    The name is resolved, and what it leads to checked, before the first message. All messages go to
    the very address that was checked, over a connection that is kept if the other side lets us.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._addresses: list[str] = []
        self._client: httpx.AsyncClient | None = None
        # Whether the connection that is kept has carried an answer.
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
        """Send `content`, and return what came of it; never raises because of the other side.

        Args:
            may_wait: asked once the answer is late. If it says no, nobody waits any longer.
        """
        started = monotonic()
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(TIMEOUT)
        is_cut_off = False

        def look() -> None:
            nonlocal is_cut_off
            if not may_wait():
                is_cut_off = True
                limit.reschedule(loop.time())

        def answer(**facts: object) -> Answer:
            return Answer(duration_ms=round((monotonic() - started) * 1000), **facts)  # type: ignore[arg-type]

        late = loop.call_later(LATE, look)
        try:
            async with limit:
                status, text, retry_after = await self._exchange(content, headers)
        except Refused as refused:
            failed = answer(error=str(refused))
        except socket.gaierror:
            failed = answer(error="The name of the host cannot be resolved.")
        except TimeoutError:
            text = f"No answer within {TIMEOUT:g} seconds."
            if is_cut_off:
                text = f"No answer within {LATE:g} second, while many other servers are late, too."
            failed = answer(error=text)
        except httpx.TransportError as error:
            failed = answer(error=f"{type(error).__name__}: {error}")
        except OSError as error:
            failed = answer(error=f"The name of the host cannot be resolved: {error}")
        else:
            self._is_proven = True
            return answer(status=status, text=text, retry_after=retry_after)
        finally:
            late.cancel()
        await self._close()
        return failed

    async def _exchange(self, content: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        """Send a message, and return status, beginning and `Retry-After` of its answer."""
        url = _parse(self.url)
        if not self._addresses:
            self._addresses = await _check(url)
        try:
            response = await self._send(url, content, headers)
        except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
            # A server may end a connection that is kept at any time, also when a message is on its
            # way. One that was not answered at all may be sent again: its id is the same.
            if not self._is_proven:
                raise
            await self._close()
            response = await self._send(url, content, headers)
        try:
            text = await _beginning(response)
        finally:
            await response.aclose()
        return response.status_code, text, response.headers.get("Retry-After", "")

    async def _send(
        self, url: httpx.URL, content: bytes, headers: Mapping[str, str]
    ) -> httpx.Response:
        """Send a message, and return its answer, of which the body is still to be read."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=_certificates(),
                trust_env=False,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
            )
        host = url.raw_host.decode("ascii")
        for address in [*self._addresses]:
            request = self._client.build_request(
                "POST",
                url.copy_with(host=address),
                content=content,
                headers={
                    "User-Agent": "BookIt",
                    "Accept-Encoding": "identity",
                    **headers,
                    "Host": url.netloc.decode("ascii"),
                },
                extensions={"sni_hostname": host.rstrip(".")},
            )
            try:
                response = await self._client.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if address == self._addresses[-1]:
                    raise
                continue
            # The one that answers, from now on.
            self._addresses = [address]
            return response
        raise socket.gaierror

    async def _close(self) -> None:
        """End the connection; the next message makes another one."""
        client, self._client, self._is_proven = self._client, None, False
        if client is not None:
            await client.aclose()


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is one of the internet's, for one host, and no way into another."""
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _parse(text: str) -> httpx.URL:
    """Return the address in parts.

    Raises:
        Refused: it is none, or says more than where to send something.
    """
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii")
    except (httpx.InvalidURL, ValueError):
        raise Refused("This is no address, such as https://example.com/hook.") from None
    if url.scheme not in ("http", "https"):
        raise Refused("An address begins with https:// or http://.")
    if url.userinfo:
        raise Refused("An address holds no user and no password.")
    if not host:
        raise Refused("An address names a host.")
    if not (_NAME.fullmatch(host) or _IPV6.fullmatch(host)):
        raise Refused("This is no name of a host.")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise Refused("Ports are from 1 to 65535.")
    return url


async def _check(url: httpx.URL) -> list[str]:
    """Return the addresses that the host has, if all of them may be called.

    Raises:
        Refused: one of them may not, or it is no name.
        OSError: it cannot be resolved.
        TimeoutError: in time.
    """
    async with asyncio.timeout(TIMEOUT):
        addresses = await resolve(
            url.raw_host.decode("ascii"), url.port or {"http": 80, "https": 443}[url.scheme]
        )
    if not settings.WEBHOOK_ALLOW_PRIVATE:
        for address in addresses:
            if not is_public(ip_address(address)):
                raise Refused(f"{url.host} leads to {address}, which is no public address.")
    return addresses


async def resolve(host: str, port: int) -> list[str]:
    """Return every address of a host, in the order in which the system would try them.

    Raises:
        Refused: it can be no name.
        OSError: it cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().run_in_executor(
            _resolvers, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
    except UnicodeError:
        raise Refused("This is no name of a host.") from None
    return [*dict.fromkeys(str(address[0]) for *_, address in found)]


async def _beginning(response: httpx.Response) -> str:
    """Return what an answer begins with, as it came: nothing is unpacked."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= LONGEST_ANSWER:
            break
    # PostgreSQL's texts have no null characters.
    return body[:LONGEST_ANSWER].decode("utf-8", "replace").replace("\0", "")


@cache
def _certificates() -> ssl.SSLContext:
    """Return what servers are to prove themselves with; reading it takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)
