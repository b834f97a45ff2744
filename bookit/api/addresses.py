"""The IP address from which a request comes."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest

# IP addresses as proxies write them: 192.0.2.7:443, [2001:db8::1] and [2001:db8::1]:443.
WITH_PORT = re.compile(r"(?:\[([^]]+)\]|([\d.]+))(?::\d{1,5})?")
# No IP address is longer than this. Longer texts are cut, so that the caches below stay small.
MAX_LENGTH = 60
# Stands for every client without an IP address, for example one that connects to a Unix socket.
UNKNOWN = "0.0.0.0"  # noqa: S104 - nothing listens on this IP address


def client_address(request: HttpRequest) -> str | None:
    """Return the client's canonical IP address; None if there is none, as on a Unix socket."""
    return address_of(
        request.META.get("REMOTE_ADDR", ""), request.META.get("HTTP_X_FORWARDED_FOR", "")
    )


def address_of(peer: str, forwarded_for: str) -> str | None:
    """Return the canonical IP address of the client behind `peer` and our proxies.

    Our own proxies wrote the last NUM_PROXIES entries of X-Forwarded-For, and the first of these is
    the client's IP address. The client may have forged earlier entries, so they are ignored. If
    there are fewer than NUM_PROXIES entries, the first entry is used. If the chosen entry is not an
    IP address, the IP address of the peer is used.
    """
    hops = settings.NUM_PROXIES
    if hops:
        forwarded = forwarded_for.split(",")
        found = canonical(forwarded[-min(hops, len(forwarded))].strip()[:MAX_LENGTH])
        if found:
            return found
    return canonical(peer[:MAX_LENGTH])


@lru_cache(maxsize=4096)
def canonical(text: str) -> str | None:
    """Return the canonical form of an IP address, without port and zone, or None if it is invalid.

    An IPv4-mapped IPv6 address, for example ::ffff:192.0.2.7, becomes the IPv4 address.
    """
    with_port = WITH_PORT.fullmatch(text)
    bare = with_port[1] or with_port[2] if with_port else text
    try:
        address = ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


@lru_cache(maxsize=4096)
def network(address: str | None) -> str:
    """Return the network that rate limits count as one client: an IPv4 address, or an IPv6 /64.

    Every IPv6 subscriber has at least a /64. If each IPv6 address were a separate client, a
    subscriber would count as 2^64 clients.
    """
    if address is None or ":" not in address:
        return address or UNKNOWN
    return str(ip_network((address, 64), strict=False))


# Most proxies add at least one of these headers. If a proxy on this machine adds none of them, all
# of its requests look as if they came from this machine.
ADDED_BY_PROXIES = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_FORWARDED",
    "HTTP_VIA",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_REAL_IP",
)


def is_from_this_machine(request: HttpRequest) -> bool:
    """Return whether the client that sent the request runs on this machine.

    A proxy on this machine connects from loopback, so the peer's IP address alone proves nothing.
    Every IP address in X-Forwarded-For must also be a loopback address. If NUM_PROXIES is 0, the
    client may have written X-Forwarded-For itself, so the result is False for a request with this
    header. The result is also False for a request that has other headers of proxies, but no
    X-Forwarded-For.
    """
    hops = [request.META.get("REMOTE_ADDR", "")]
    if any(name in request.META for name in ADDED_BY_PROXIES):
        if not settings.NUM_PROXIES:
            return False
        hops += request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    return all(map(is_loopback, hops))


def is_loopback(text: str) -> bool:
    """Return whether a text is an IP address of the loopback interface."""
    address = canonical(text.strip()[:MAX_LENGTH])
    return address is not None and ip_address(address).is_loopback
