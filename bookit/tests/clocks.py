"""A plain minute-by-minute model of wall clocks, and days on which clocks change."""

from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)

# Time zones, each with a day on which its clock changes. Kathmandu and UTC have no changes.
ODD_DAYS = {
    "Lisbon springs forward": ("Europe/Lisbon", date(2026, 3, 29)),
    "Lisbon falls back": ("Europe/Lisbon", date(2026, 10, 25)),
    "New York springs forward": ("America/New_York", date(2026, 3, 8)),
    "New York falls back": ("America/New_York", date(2026, 11, 1)),
    "New York in a far year": ("America/New_York", date(2999, 11, 3)),
    "Lord Howe springs forward by half an hour": ("Australia/Lord_Howe", date(2026, 10, 4)),
    "Lord Howe falls back by half an hour": ("Australia/Lord_Howe", date(2026, 4, 5)),
    "Kathmandu at UTC+05:45": ("Asia/Kathmandu", date(2026, 5, 1)),
    "Apia leaves a day out": ("Pacific/Apia", date(2011, 12, 30)),
    "Kwajalein leaves a day out": ("Pacific/Kwajalein", date(1993, 8, 21)),
    "Havana skips midnight": ("America/Havana", date(2026, 3, 8)),
    "Havana has midnight twice": ("America/Havana", date(2026, 11, 1)),
    "Sao Paulo skips midnight": ("America/Sao_Paulo", date(2017, 10, 15)),
    "Sao Paulo has the hour before midnight twice": ("America/Sao_Paulo", date(2018, 2, 17)),
    "Toronto skips the time around midnight": ("America/Toronto", date(1919, 3, 31)),
    "Casablanca begins its Ramadan": ("Africa/Casablanca", date(2026, 2, 15)),
    "Casablanca ends its Ramadan": ("Africa/Casablanca", date(2026, 3, 22)),
    "UTC": ("UTC", date(2026, 12, 31)),
}


@cache
def faces(name: str, day: date, days: int) -> tuple[datetime, list[datetime]]:
    """Return 00:00 UTC of the date `days` days before `day`, and the clock's times from then on.

    There is one time for each minute, until `days` days after `day`.

    The clock of the model never goes back: it stands still while an hour repeats. To find the
    instant of a time, take the first minute at which the clock shows this time or a later one. For
    a repeated time, this is the first occurrence. For a skipped time, it is the instant of the
    jump.
    """
    tz = ZoneInfo(name)
    start = datetime.combine(day, time.min, tzinfo=UTC) - days * DAY
    shown = []
    latest = datetime.combine(date.min, time.min)
    for number in range(2 * days * 24 * 60):
        latest = max(latest, (start + number * MINUTE).astimezone(tz).replace(tzinfo=None))
        shown.append(latest)
    return start, shown
