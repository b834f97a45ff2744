"""Series of starts: iCalendar recurrence rules (RFC 5545, section 3.3.10) by the wall clock."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from dateutil.rrule import rrulestr

# A year has at most 366 days.
MOST_STARTS = 366
LONGEST_RULE = 500
# dateutil takes long for each position.
MOST_POSITIONS = 12
WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
_weekday = "|".join(WEEKDAYS)
# The format of the values of each part. The parts that begin with BY have lists of values. Hourly
# and shorter frequencies are left out, because they have no wall-clock time to keep.
PARTS = {
    "FREQ": "DAILY|WEEKLY|MONTHLY|YEARLY",
    "INTERVAL": r"0*[1-9]\d*",
    "COUNT": r"0*[1-9]\d*",
    "UNTIL": r"\d{8}(T\d{6}Z?)?",
    "WKST": _weekday,
    "BYMONTH": r"[1-9]|1[0-2]",
    "BYWEEKNO": r"[+-]?([1-9]|[1-4]\d|5[0-3])",
    "BYYEARDAY": r"[+-]?([1-9]|[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])",
    "BYMONTHDAY": r"[+-]?([1-9]|[12]\d|3[01])",
    "BYDAY": rf"([+-]?([1-9]|[1-4]\d|5[0-3]))?({_weekday})",
    "BYHOUR": r"1?\d|2[0-3]",
    "BYMINUTE": r"[1-5]?\d",
    "BYSECOND": r"[1-5]?\d",
    "BYSETPOS": r"[+-]?([1-9]|[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6])",
}
# dateutil looks for the next occurrence until the year 9999. If there is none, this takes seconds.
# The calendar repeats every 400 years, weekdays included. A search from a year near the end
# therefore finds the same occurrences, and ends sooner if there are none. `LATEST` leaves a decade
# for the occurrences.
CYCLE = 400
LATEST = 9988


@dataclass(frozen=True)
class Rule:
    """A recurrence rule that ends; `parse_rule` makes one.

    Args:
        parts: the rule without its end.
        count: the number of starts; None if the rule ends by `until`.
        until: the latest start: a day or a time by the wall clock, or an instant.
    """

    parts: str
    count: int | None = None
    until: date | None = None

    def starts(self, first: datetime, tz: tzinfo, *, limit: datetime) -> list[datetime]:
        """Return all starts of the series that begins at `first`, in UTC and in order.

        The starts keep their wall-clock time in `tz`. A time that the clocks skip is left out and
        not counted. A time that the clocks show twice means the first.

        Args:
            limit: the latest start that is allowed.

        Raises:
            ValueError: `first` does not match the rule, there are too many starts, or one of them
                is after `limit`.
        """
        starts: list[datetime] = []
        too_far = f"The series continues after {limit:%Y-%m-%d}, which is too far ahead."
        for local in self._by_wall_clock(first.astimezone(tz).replace(tzinfo=None)):
            start = local.replace(tzinfo=tz).astimezone(UTC)
            if start.astimezone(tz).replace(tzinfo=None) != local:
                continue
            if self._is_over(local, start):
                break
            if start > limit:
                raise ValueError(too_far)
            if len(starts) == MOST_STARTS:
                raise ValueError(f"The series has more than {MOST_STARTS} slots.")
            starts.append(start)
            if len(starts) == self.count:
                break
        if starts[:1] != [first]:
            raise ValueError(
                "start_time does not match this rule. It must be the first start of the series."
            )
        if self.count and len(starts) < self.count:
            raise ValueError(too_far)
        return starts

    def _by_wall_clock(self, first: datetime) -> Iterator[datetime]:
        later = (LATEST - first.year) // CYCLE * CYCLE
        try:
            for found in rrulestr(self.parts, dtstart=first.replace(year=first.year + later)):
                yield found.replace(year=found.year - later, microsecond=first.microsecond)
        except IndexError:
            raise ValueError(
                "BYDAY asks for a weekday more often than it occurs in a month."
            ) from None

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
        ValueError: the text is not a valid rule, or the rule has no end.
    """
    parts: dict[str, str] = {}
    for part in re.sub(r"\ARRULE:", "", text.upper()).split(";"):
        name, _, value = part.partition("=")
        if name not in PARTS:
            raise ValueError(
                f"{name[:20]!r} is not a part of a recurrence rule. Send only the value of one"
                " RRULE, for example FREQ=WEEKLY;COUNT=10, without DTSTART, EXDATE or more lines."
            )
        if name in parts:
            raise ValueError(f"{name} appears twice.")
        values = value.split(",") if name.startswith("BY") else [value]
        if not all(re.fullmatch(PARTS[name], each, re.ASCII) for each in values):
            raise ValueError(f"{name} has an invalid value; see RFC 5545, section 3.3.10.")
        if name == "BYSETPOS" and len(values) > MOST_POSITIONS:
            raise ValueError(f"BYSETPOS can have at most {MOST_POSITIONS} numbers.")
        parts[name] = value
    if "FREQ" not in parts:
        raise ValueError("FREQ is missing.")
    if parts["FREQ"] in ("DAILY", "WEEKLY") and re.search(r"\d", parts.get("BYDAY", "")):
        raise ValueError("BYDAY can contain numbers only if FREQ is MONTHLY or YEARLY.")
    count, until = parts.pop("COUNT", None), parts.pop("UNTIL", None)
    if (count is None) == (until is None):
        raise ValueError("The rule must contain either COUNT or UNTIL, but not both.")
    if count is not None and int(count) > MOST_STARTS:
        raise ValueError(f"The series has more than {MOST_STARTS} slots.")
    rule = ";".join("=".join(part) for part in parts.items())
    return Rule(rule, int(count) if count else None, _parse_until(until) if until else None)


def _parse_until(value: str) -> date:
    try:
        if len(value) == len("20261231"):
            return datetime.strptime(value, "%Y%m%d").date()  # noqa: DTZ007 - by the wall clock
        until = datetime.strptime(value[:15], "%Y%m%dT%H%M%S")  # noqa: DTZ007 - as above
    except ValueError:
        raise ValueError("The date in UNTIL does not exist.") from None
    return until.replace(tzinfo=UTC) if value.endswith("Z") else until
