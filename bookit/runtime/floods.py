"""Recognises sign-ins that are certain to be refused, before a thread handles them.

gunicorn imports this module before Django is ready, so its functions import what they need.
"""

from typing import Any


def is_flood(request: Any, peer: Any) -> bool:
    """Return whether a request is a sign-in that the rate limit is certain to refuse.

    Args:
        request: gunicorn's request, which has arrived completely.
        peer: the address of the other end of the connection, as the socket reports it.
    """
    if request.method != "POST":
        return False
    from bookit.ratelimits.counting import refused
    from bookit.web.middleware import sign_in_paths

    return request.path in sign_in_paths() and refused("auth", origin(request, peer)) is not None


def origin(request: Any, peer: Any) -> str:
    """Return the client's network, by which rate limits count the requests of anonymous clients.

    Args:
        request: gunicorn's request.
        peer: the address of the other end of the connection, as the socket reports it.
    """
    from bookit.api.addresses import address_of, network

    # Join repeated headers as gunicorn does.
    forwarded = ",".join(value for name, value in request.headers if name == "X-FORWARDED-FOR")
    return network(address_of(peer[0] if isinstance(peer, tuple) else "", forwarded))
