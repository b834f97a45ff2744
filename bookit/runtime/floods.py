"""Recognises sign-ins that are certain to be refused, before a thread handles them."""

from typing import Any


def is_flood(request: Any, peer: Any) -> bool:
    """Return whether a request is a sign-in that the rate limit is certain to refuse.

    Args:
        request: gunicorn's request, which has arrived completely.
        peer: the address of the other end of the connection, as the socket reports it.
    """
    if request.method != "POST":
        return False
    # gunicorn imports this module before Django is ready, so these imports cannot be at the top.
    from bookit.api.addresses import address_of, network
    from bookit.ratelimits.counting import refused
    from bookit.web.middleware import sign_in_paths

    if request.path not in sign_in_paths():
        return False
    # Join repeated headers as gunicorn does.
    forwarded = ",".join(value for name, value in request.headers if name == "X-FORWARDED-FOR")
    address = address_of(peer[0] if isinstance(peer, tuple) else "", forwarded)
    return refused("auth", network(address)) is not None
