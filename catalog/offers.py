"""The preview of what customers are offered, on the page of a service in the admin site."""

from datetime import date, datetime, timedelta
from typing import NamedTuple

from bookit.times import day_end, zone
from catalog.extensions import OFFERED
from catalog.models import Service

DAYS = 7
# For each day, at most this many times are shown. The others are only counted.
MAX_TIMES = 16


class Time(NamedTuple):
    """A time that is offered to customers."""

    start: datetime
    seats_left: int


class Day(NamedTuple):
    """The times offered to customers on a day. `more` counts those that are not in `times`."""

    day: date
    times: list[Time]
    more: int


def offered_days(service: Service, *, at: datetime) -> list[Day]:
    """Return the times that customers would be offered today and on the following six days.

    Args:
        service: a stored service, which may have unsaved changes.
    """
    tz = zone(service.calendar.timezone)
    today = at.astimezone(tz).date()
    times: dict[date, list[Time]] = {today + timedelta(days=n): [] for n in range(DAYS)}
    counts = dict.fromkeys(times, 0)
    until = day_end(max(times), tz)
    for find in OFFERED.values():
        for offer in find(service=service, from_=at, until=until, at=at):
            day = offer.start_time.astimezone(tz).date()
            counts[day] += 1
            if counts[day] <= MAX_TIMES:
                times[day].append(Time(offer.start_time, offer.seats_left))
    return [Day(day, shown, counts[day] - len(shown)) for day, shown in times.items()]
