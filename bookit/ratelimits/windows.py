"""The arithmetic of a sliding window: the requests that remain, and the wait for one more.

The algorithm is the "sliding window counter" of `limits`. Two counts approximate a window that ends
now: the count of the current window, and the part of the count of the previous window that the
sliding window still covers.
"""

from math import floor
from typing import NamedTuple


class Window(NamedTuple):
    """The counts of one client.

    `left` is the time until the current window ends. `length` and `left` are in seconds.
    """

    length: int
    left: float
    previous: int
    current: int

    @property
    def used(self) -> int:
        """The number of requests that count now."""
        return floor(self.previous * self.left / self.length) + self.current

    def remaining(self, limit: int) -> int:
        """Return how many requests can be made now."""
        return max(0, limit - self.used)

    def wait(self, limit: int) -> float:
        """Return the seconds after which a client that waits has one more request left than now.

        The result is 0 if no requests count now, because the whole limit is available. It is also 0
        if the limit is 0.
        """
        used = self.used
        # `used` must fall below this number.
        bound = min(used, limit)
        if bound <= 0:
            return 0.0
        if bound > self.current:  # Then `previous` is not 0.
            seconds = self.left - (bound - self.current) * self.length / self.previous
        else:
            # The current window becomes the previous window before its count can fall.
            seconds = self.left + self.length - bound * self.length / self.current
        return max(0.0, seconds)
