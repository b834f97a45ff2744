"""Random moments and ids, which are always the same for the same seed."""

from datetime import datetime, timedelta
from random import Random
from uuid import UUID
from zoneinfo import ZoneInfo

from bookit.times import wall_clock


class Chance:
    """A source of random choices (`random`), ids, and moments that are seldom at night.

    Args:
        seed: a different seed gives a different town.
        tz: the time zone that decides when it is night.
    """

    def __init__(self, seed: int, tz: ZoneInfo) -> None:
        self.random = Random(seed)  # noqa: S311 - nothing here is secret
        self.tz = tz

    def uuid(self, at: datetime) -> UUID:
        """Return a UUID of version 7 (RFC 9562, section 5.7) for something created at `at`."""
        milliseconds = int(at.timestamp() * 1000)
        fixed = milliseconds << 80 | 0x7 << 76 | 0b10 << 62
        return UUID(int=fixed | self.random.getrandbits(12) << 64 | self.random.getrandbits(62))

    def same_day(self, at: datetime) -> datetime:
        """Return a moment between 8:00 and 22:00 on the day of `at`."""
        minute = self.random.randint(8 * 60, 22 * 60)
        start = wall_clock(at.astimezone(self.tz).date(), minute, self.tz)
        return start + timedelta(seconds=self.random.randint(0, 59))

    def before(self, latest: datetime, *, days: float) -> datetime:
        """Return a moment before `latest`: `days` earlier on average, at most five times `days`.

        A moment before 7:00 is replaced by the moment eight hours earlier.
        """
        ahead = min(self.random.expovariate(1 / days), 5 * days)
        at = latest - timedelta(days=ahead, seconds=20)
        if at.astimezone(self.tz).hour < 7:
            at -= timedelta(hours=8)
        return at.replace(microsecond=0)

    def after(self, earliest: datetime, *, hours: float) -> datetime:
        """Return a moment that is `hours` after `earliest` on average, but not before 8:00."""
        at = earliest + timedelta(hours=self.random.expovariate(1 / hours), seconds=40)
        hour = at.astimezone(self.tz).hour
        if hour < 8:
            at += timedelta(hours=8 - hour)
        return at.replace(microsecond=0)

    def between(self, earliest: datetime, latest: datetime) -> datetime:
        """Return a moment between two moments. Up to ten attempts avoid the hours before 7:00."""
        for _ in range(10):
            at = earliest + self.random.uniform(0.05, 0.95) * (latest - earliest)
            if at.astimezone(self.tz).hour >= 7:
                break
        return at.replace(microsecond=0)
