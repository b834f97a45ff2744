"""Counts requests, and describes the limits in response headers."""

from functools import lru_cache
from math import ceil
from time import time
from typing import NamedTuple, Protocol

from django.conf import settings
from limits import RateLimitItem, parse

from bookit.ratelimits.host import HostCounts
from bookit.ratelimits.windows import Window


class Counts(Protocol):
    """The interface of `HostCounts` and `RedisCounts`."""

    def hit(self, key: str, limit: int, length: int) -> tuple[bool, Window]:
        """Count a request if it is within the limit; return whether it is, and the counts."""

    def clear(self, key: str) -> None:
        """Forget the requests of a client."""

    def reset(self) -> None:
        """Forget all requests."""


def shared_counts(redis_url: str) -> Counts:
    """Return counts that all hosts share in Redis or, without Redis, the counts of this host alone.

    All web processes of a host are forked from the process that calls this function, so they share
    these counts.
    """
    host = HostCounts()
    if not redis_url:
        return host
    # Import the Redis client only if it is needed. The import takes a tenth of a second.
    from bookit.ratelimits.redis import RedisCounts

    return RedisCounts(redis_url, host)


counts = shared_counts(settings.REDIS_URL)

# The time at which each refused client can make its next request. Until this time, a refusal needs
# neither a lock nor Redis. Each process remembers only its own refusals.
refusals: dict[str, float] = {}
# A process that would remember more refusals than this forgets them all. A flood from many clients
# therefore costs locks or requests to Redis, but not more memory.
MAX_REFUSALS = 10_000
# At the exact end of a wait, a request may still be refused. A millisecond later, it is not.
MARGIN = 0.001


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

    `seconds` is the time after which the client has one more request left than now. The headers
    follow draft-ietf-httpapi-ratelimit-headers-10.
    """
    item = parse_rate(settings.RATE_LIMITS[policy])
    if item is None:
        return Count(True, {}, 0)
    key = _key(policy, who, item)
    seconds = _seconds_refused(key, item)
    if seconds:
        return Count(False, _headers(policy, item, 0, seconds), seconds)
    limit, length = item.amount, item.get_expiry()
    allowed, window = counts.hit(key, limit, length)
    wait = window.wait(limit)
    if not allowed:
        wait += MARGIN
        if len(refusals) >= MAX_REFUSALS:
            refusals.clear()
        refusals[key] = time() + wait
    seconds = max(1, ceil(wait))
    remaining = window.remaining(limit) if allowed else 0
    return Count(allowed, _headers(policy, item, remaining, seconds), seconds)


def refused(policy: str, who: str) -> Count | None:
    """Return the refusal of the client `who` if this process already knows that `count` refuses it.

    This takes almost no time. If the result is None, `count` may still refuse the client.
    """
    item = parse_rate(settings.RATE_LIMITS[policy])
    if item is None:
        return None
    seconds = _seconds_refused(_key(policy, who, item), item)
    return Count(False, _headers(policy, item, 0, seconds), seconds) if seconds else None


def forget(policy: str, who: str) -> None:
    """Forget the requests of the client `who` that were counted against the limit `policy`.

    Other processes still remember their own refusals of the client.
    """
    item = parse_rate(settings.RATE_LIMITS[policy])
    if item is not None:
        key = _key(policy, who, item)
        counts.clear(key)
        refusals.pop(key, None)


def reset() -> None:
    """Forget all counts."""
    counts.reset()
    refusals.clear()


def _key(policy: str, who: str, item: RateLimitItem) -> str:
    # The key contains the limit, so the counts of an old and a new setting do not mix.
    return f"{policy}/{item.amount}/{item.get_expiry()}/{who}"


def _seconds_refused(key: str, item: RateLimitItem) -> int:
    """Return the seconds for which the client is still refused, or 0 if no refusal is known."""
    until = refusals.get(key)
    if until is None:
        return 0
    wait = until - time()
    # If the wait is longer than any refusal can be, the clock was set back.
    if 0 < wait <= 2 * item.get_expiry() + 1:
        return ceil(wait)
    refusals.pop(key, None)
    return 0


def _headers(policy: str, item: RateLimitItem, remaining: int, seconds: int) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"{policy}";q={item.amount};w={item.get_expiry()}',
        "RateLimit": f'"{policy}";r={remaining};t={seconds}',
    }
