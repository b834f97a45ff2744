"""Counts requests in Redis, which all hosts share. While Redis is down, each host counts alone.

The scripts that count are part of the library `limits`. Redis runs a script without interruption,
so no count is lost.
"""

import logging
from threading import Lock, Thread
from time import sleep

from limits.storage import RedisStorage
from redis import RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from bookit.ratelimits.host import HostCounts
from bookit.ratelimits.windows import Window

logger = logging.getLogger(__name__)

# The maximum number of seconds that a request waits to connect to Redis, and then for a response.
PATIENCE = 0.25
# Seconds between two attempts to reach Redis again.
PAUSE = 1.0
# The minimum number of seconds between two warnings of a host.
WARNING_PAUSE = 60.0

# Combines two scripts of `limits`: the first counts a request, and the second returns the counts.
HIT = b"""
local function acquire(ARGV)
%b
end
local function window(ARGV)
%b
end
return {acquire(ARGV), window({ARGV[2]})}
""" % (RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW, RedisStorage.SCRIPT_SLIDING_WINDOW)


class RedisCounts:
    """Counts the requests of clients in Redis, together with all other hosts.

    After a failure of Redis, this process does not use it until it responds again. A thread tries
    Redis every second. Therefore, if Redis does not respond, only the requests that a process
    begins before it notices the failure wait for Redis.

    Args:
        url: the URL of Redis.
        host: counts requests while Redis is down.
    """

    def __init__(self, url: str, host: HostCounts) -> None:
        self.host = host
        self.is_down = False
        self._lock = Lock()
        self._storage = RedisStorage(
            url,
            key_prefix="bookit",
            socket_connect_timeout=PATIENCE,
            socket_timeout=PATIENCE,
            # A request must not wait for retries, whatever the default of redis-py is.
            retry=Retry(NoBackoff(), 0),  # type: ignore[arg-type]
        )
        self._hit = self._storage.get_connection().register_script(HIT)

    def hit(self, key: str, limit: int, length: int) -> tuple[bool, Window]:
        """Count a request if it is within the limit; see `HostCounts.hit`."""
        if not self.is_down:
            try:
                return self._hit_redis(key, limit, length)
            except RedisError as error:
                self._fall_back(error)
        return self.host.hit(key, limit, length)

    def clear(self, key: str) -> None:
        """Forget the requests of a client."""
        self.host.clear(key)
        if not self.is_down:
            try:
                self._storage.get_connection().delete(*self._keys(key))
            except RedisError as error:
                self._fall_back(error)

    def reset(self) -> None:
        """Forget all requests."""
        self.host.reset()
        self._storage.reset()

    def _keys(self, key: str) -> list[str]:
        storage = self._storage
        return [
            storage.prefixed_key(storage._previous_window_key(key)),
            storage.prefixed_key(storage._current_window_key(key)),
        ]

    def _hit_redis(self, key: str, limit: int, length: int) -> tuple[bool, Window]:
        allowed, (previous, _, current, rest) = self._hit(self._keys(key), [limit, length, 1])
        if current is None:  # The limit is 0.
            return bool(allowed), Window(length, length, 0, 0)
        # After `rest` milliseconds, Redis deletes the current count. This is one `length` after the
        # window ends.
        left = max(0.0, rest / 1000 - length)
        return bool(allowed), Window(length, left, int(previous or 0), int(current))

    def _fall_back(self, error: RedisError) -> None:
        """Let this host count until Redis responds again."""
        with self._lock:
            if not self.is_down:
                self.is_down = True
                Thread(target=self._wait_for_redis, args=(error,), daemon=True).start()

    def _wait_for_redis(self, error: RedisError) -> None:
        while True:
            self._warn(error)
            sleep(PAUSE)
            try:
                # Try a write, because Redis may accept reads but refuse writes.
                self._hit_redis("is Redis there", 1, 1)
            except RedisError as again:
                error = again
            else:
                self.is_down = False
                logger.info("Redis responds again, and all hosts count requests together.")
                return

    def _warn(self, error: RedisError) -> None:
        if self.host.is_time(WARNING_PAUSE):
            logger.warning(
                "Redis cannot be used (%s). Until it can, each host counts requests for itself.",
                type(error).__name__,
            )
