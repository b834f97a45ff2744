"""Rate limits. The package `limits` counts requests atomically.

DRF's throttles read and write a count in two steps.
"""

from functools import lru_cache
from math import ceil
from threading import Lock
from time import time
from typing import TYPE_CHECKING, NamedTuple

from django.conf import settings
from django.http import HttpRequest
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from bookit.api.addresses import client_address, network
from bookit.api.keys import UsedKey
from bookit.errors import LimitExceeded

if TYPE_CHECKING:
    from rest_framework.views import APIView

storage = MemoryStorage()
limiter = SlidingWindowCounterRateLimiter(storage)
# Without this lock, the in-memory storage loses counts if several threads count at once.
counting = Lock()


@lru_cache(maxsize=16)
def parse_rate(rate: str) -> RateLimitItem | None:
    """Return the limit for a setting such as `10/minute`, or None if the setting is empty."""
    return parse(rate) if rate else None


class Count(NamedTuple):
    """The result of counting one request against a limit."""

    allowed: bool
    headers: dict[str, str]
    seconds: int


def count(policy: str, who: str) -> Count:
    """Count a request of the client `who`, and return whether it is within the limit `policy`.

    `seconds` is the time until another request can be within the limit. The headers are those of
    draft-ietf-httpapi-ratelimit-headers.
    """
    item = parse_rate(settings.RATE_LIMITS[policy])
    if item is None:
        return Count(True, {}, 0)
    with counting:
        allowed = limiter.hit(item, policy, who)
        reset_at, remaining = limiter.get_window_stats(item, policy, who)
        # If no requests remain, `limits` returns the last moment at which a request is refused.
        # Waiting a millisecond longer is enough.
        seconds = max(1, ceil(reset_at - time() + (0 if remaining else 0.001)))
    headers = {
        "RateLimit-Policy": f'"{policy}";q={item.amount};w={item.get_expiry()}',
        "RateLimit": f'"{policy}";r={max(0, remaining)};t={seconds}',
    }
    return Count(allowed, headers, seconds)


def forget(policy: str, who: str) -> None:
    """Forget the requests of the client `who` that were counted against the limit `policy`."""
    item = parse_rate(settings.RATE_LIMITS[policy])
    if item is not None:
        with counting:
            limiter.clear(item, policy, who)


def count_request(request: HttpRequest, policy: str, who: str) -> None:
    """Count a request, and store the headers of its response on the request.

    Raises:
        LimitExceeded: the request is over the limit.
    """
    allowed, headers, seconds = count(policy, who)
    request.rate_limit = headers  # type: ignore[attr-defined]
    if not allowed:
        raise LimitExceeded(seconds)


def origin(request: HttpRequest) -> str:
    """Return the IP address or network that identifies the client of a request without a token."""
    return network(client_address(request))


class ClientThrottle(BaseThrottle):
    """A limit per user, per API key, or per origin for requests without a token."""

    def scope(self, request: Request) -> tuple[str, str]:
        """Return the name of the limit, and the client for which the request is counted."""
        if isinstance(request.auth, UsedKey):
            return "key", str(request.auth.id)
        if request.user.is_authenticated:
            return "user", str(request.user.pk)
        return "anon", origin(request._request)

    def allow_request(self, request: Request, view: "APIView") -> bool:
        """Count this request.

        Raises:
            LimitExceeded: the request is over the limit.
        """
        count_request(request._request, *self.scope(request))
        return True


class SignInThrottle(ClientThrottle):
    """A limit per origin for requests that can reveal accounts or check passwords.

    Requests are counted before any password is hashed.
    """

    def scope(self, request: Request) -> tuple[str, str]:
        """Return the name of the limit, and the client for which the request is counted."""
        return "auth", origin(request._request)


def reset() -> None:
    """Forget all counts."""
    storage.reset()
