"""The network address that a request comes from."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from django.conf import settings
from django.http import HttpRequest

# As proxies write it: 192.0.2.7:443, [2001:db8::1] and [2001:db8::1]:443.
WITH_PORT = re.compile(r"(?:\[([^]]+)\]|([\d.]+))(?::\d{1,5})?")
# Longer ones are no address, and are not worth remembering.
LONGEST = 60
# Stands for all clients without an address, such as those of a socket file.
UNKNOWN = "0.0.0.0"  # noqa: S104


def client_address(request: HttpRequest) -> str | None:
    """Return the address of the client as `canonical` writes it; None for a socket file.

    The last NUM_PROXIES entries of X-Forwarded-For were written by our own proxies, and the first
    of these is the client's. Everything before it is the client's word, and is ignored. If the
    entry is not an address, the peer's counts.
    """
    hops = settings.NUM_PROXIES
    if hops:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        found = canonical(forwarded[-min(hops, len(forwarded))].strip()[:LONGEST])
        if found:
            return found
    return canonical(request.META.get("REMOTE_ADDR", "")[:LONGEST])


@lru_cache(maxsize=4096)
def canonical(text: str) -> str | None:
    """Return the one spelling of an IP address, without port and zone; None if it is not one.

    IPv4 that is mapped into IPv6 is IPv4.
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
    """Return what a limit counts as one client: an IPv4 address, or the /64 of an IPv6 address.

    A /64 is what one subscriber has at least. Counted one by one, its addresses would be 2^64
    clients.
    """
    if address is None or ":" not in address:
        return address or UNKNOWN
    return str(ip_network((address, 64), strict=False))
