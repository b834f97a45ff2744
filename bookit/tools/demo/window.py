"""The days that the demo covers, counted from today."""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

# Bookings start from this many days before today to this many days after today.
DAYS_BEHIND, DAYS_AHEAD = 12, 10

# For how many days ahead slots are published, and how many days ago providers published them. The
# slots exist before the first booking is made: bookings start at most `DAYS_BEHIND` days ago, and
# `Drafter` lets customers book at most about three weeks before the last possible moment.
DAYS_PUBLISHED, DAYS_SINCE_PUBLISHED = 42, 40


def today(at: datetime, tz: ZoneInfo) -> date:
    """Return the date that the town's clocks show."""
    return at.astimezone(tz).date()


def covered_days(at: datetime, tz: ZoneInfo, *, ahead: int = DAYS_AHEAD) -> Iterator[date]:
    """Yield the days from `DAYS_BEHIND` days before today to `ahead` days after today."""
    first = today(at, tz) - timedelta(days=DAYS_BEHIND)
    for number in range(DAYS_BEHIND + ahead + 1):
        yield first + timedelta(days=number)
