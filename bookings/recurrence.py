"""Series of starts: recurrence rules of iCalendar (RFC 5545, section 3.3.10), by the wall clock."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from dateutil.rrule import rrulestr

# As many as a year has days.
MOST_STARTS = 366
LONGEST_RULE = 500
# What a series of sessions can be made of; others are no parts of a rule, or have no wall clock.
FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
PARTS = {
    *("FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYMONTH", "BYWEEKNO", "BYYEARDAY"),
    *("BYMONTHDAY", "BYDAY", "BYHOUR", "BYMINUTE", "BYSECOND", "BYSETPOS"),
}
NO_RULE = "This is no rule: see RFC 5545, section 3.3.10."
# dateutil looks for the next occurrence until the year 9999, for seconds where there is none. The
# calendar repeats itself every 400 years, weekdays included: from a year near the end it finds the
# same, and sees soon that there is nothing to be found.
CYCLE = 400
LAST_CYCLE = 9600


@dataclass(frozen=True)
class Rule:
    """A recurrence rule that ends; `parse_rule` makes one.

    Args:
        parts: the rule without its end.
        count: so many starts there are, or
        until: nothing starts after it: a day or a time by the wall clock, or an instant.
    """

    parts: str
    count: int | None = None
    until: date | None = None

    def starts(self, first: datetime, tz: tzinfo, *, limit: datetime) -> list[datetime]:
        """Return all starts of the series that begins at `first`, in UTC and in order.

        They keep their time by the wall clock of `tz`. A time that the clocks skip does not exist,
        nor does it count; of one that they show twice it is the first.

        Args:
            limit: refuse a series that goes beyond it.

        Raises:
            ValueError: `first` is none of its starts, there are too many, or they go too far.
        """
        starts: list[datetime] = []
        for local in self._by_wall_clock(first.astimezone(tz).replace(tzinfo=None)):
            start = local.replace(tzinfo=tz).astimezone(UTC)
            if start.astimezone(tz).replace(tzinfo=None) != local:
                continue
            if self._is_over(local, start):
                break
            if start > limit:
                raise ValueError(f"These go on after {limit:%Y-%m-%d}, which is too far ahead.")
            if len(starts) == MOST_STARTS:
                raise ValueError(f"These are more than {MOST_STARTS} slots.")
            starts.append(start)
            if len(starts) == self.count:
                break
        if starts[:1] != [first]:
            raise ValueError("start_time is not a time of this rule; it must be the first one.")
        if self.count and len(starts) < self.count:
            raise ValueError(f"There are only {len(starts)} of these before {limit:%Y-%m-%d}.")
        return starts

    def _by_wall_clock(self, first: datetime) -> Iterator[datetime]:
        later = (LAST_CYCLE - first.year) // CYCLE * CYCLE + CYCLE
        try:
            for found in rrulestr(self.parts, dtstart=first.replace(year=first.year + later)):
                yield found.replace(year=found.year - later)
        except IndexError:  # The ninety-ninth Monday of a month.
            raise ValueError(NO_RULE) from None

    def _is_over(self, local: datetime, start: datetime) -> bool:
        """Return whether a time, by the wall clock and as an instant, is after `until`."""
        if self.until is None:
            return False
        if not isinstance(self.until, datetime):
            return local.date() > self.until
        return (start if self.until.tzinfo else local) > self.until


def parse_rule(text: str) -> Rule:
    """Return the rule that the value of an RRULE describes, with or without `RRULE:` before it.

    Raises:
        ValueError: it is something else, or has no end.
    """
    value = re.sub(r"\ARRULE:", "", text.upper())
    if not re.fullmatch(r"[A-Z]+=[A-Z0-9,+-]+(;[A-Z]+=[A-Z0-9,+-]+)*", value, re.ASCII):
        raise ValueError("Write the value of an RRULE alone, such as FREQ=WEEKLY;COUNT=10.")
    pairs = [part.split("=") for part in value.split(";")]
    parts = dict(pairs)
    for name in parts:
        if name not in PARTS:
            raise ValueError(f"A rule has no {name[:20]}.")
    if len(parts) != len(pairs):
        raise ValueError("A part of the rule is there twice.")
    if parts.get("FREQ") not in FREQUENCIES:
        raise ValueError(f"FREQ is one of {', '.join(FREQUENCIES)}.")
    count, until = parts.pop("COUNT", None), parts.pop("UNTIL", None)
    if (count is None) == (until is None):
        raise ValueError("Say when the series ends: write either COUNT or UNTIL.")
    for name, number in (("COUNT", count), ("INTERVAL", parts.get("INTERVAL"))):
        if number is not None and not re.fullmatch(r"0*[1-9]\d{0,8}", number):
            raise ValueError(f"{name} is a whole number from 1.")
    if count is not None and int(count) > MOST_STARTS:
        raise ValueError(f"These are more than {MOST_STARTS} slots.")
    rule = ";".join("=".join(pair) for pair in parts.items())
    try:
        rrulestr(rule, dtstart=datetime(2000, 1, 1))  # noqa: DTZ001 - by the wall clock
    except (ValueError, TypeError, IndexError):
        raise ValueError(NO_RULE) from None
    return Rule(rule, int(count) if count else None, _parse_until(until) if until else None)


def _parse_until(value: str) -> date:
    try:
        if re.fullmatch(r"\d{8}", value):
            return datetime.strptime(value, "%Y%m%d").date()  # noqa: DTZ007 - by the wall clock
        if re.fullmatch(r"\d{8}T\d{6}Z?", value):
            until = datetime.strptime(value[:15], "%Y%m%dT%H%M%S")  # noqa: DTZ007 - as above
            return until.replace(tzinfo=UTC) if value.endswith("Z") else until
    except ValueError:
        pass
    raise ValueError("UNTIL is a date such as 20261231, or a time such as 20261231T235959Z.")
