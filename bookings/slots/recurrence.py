"""Recurrence rules (RFC 5545, section 3.3.10), which give the starts of a series of slots."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from dateutil.rrule import rrulestr
from django.utils.translation import gettext as _

# Enough for a daily series that lasts a year, which has at most 366 days.
MAX_STARTS = 366
# The maximum number of characters in a rule.
LONGEST_RULE = 500
# The maximum number of positions in BYSETPOS. dateutil needs much time for each position.
MAX_POSITIONS = 12
# No month has the same weekday more than five times.
MAX_WEEKS_OF_MONTH = 5
WEEKDAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]
_weekday = "|".join(WEEKDAYS)
_day_of_year = r"0{0,2}[1-9]|0?[1-9]\d|[12]\d\d|3[0-5]\d|36[0-6]"
# The parts that a rule may have, and the format of their values. Parts whose names begin with BY
# take lists of values. HOURLY, MINUTELY and SECONDLY are left out. A series keeps its wall-clock
# times when the clocks change, which has no clear meaning for periods shorter than a day.
PARTS = {
    "FREQ": "DAILY|WEEKLY|MONTHLY|YEARLY",
    "INTERVAL": r"0*[1-9]\d*",
    "COUNT": r"0*[1-9]\d*",
    "UNTIL": r"\d{8}(T\d{6}Z?)?",
    "WKST": _weekday,
    "BYMONTH": r"0?[1-9]|1[0-2]",
    "BYWEEKNO": r"[+-]?(0?[1-9]|[1-4]\d|5[0-3])",
    "BYYEARDAY": rf"[+-]?({_day_of_year})",
    "BYMONTHDAY": r"[+-]?(0?[1-9]|[12]\d|3[01])",
    "BYDAY": rf"([+-]?(0?[1-9]|[1-4]\d|5[0-3]))?({_weekday})",
    "BYHOUR": r"[01]?\d|2[0-3]",
    "BYMINUTE": r"[0-5]?\d",
    "BYSECOND": r"[0-5]?\d",
    "BYSETPOS": rf"[+-]?({_day_of_year})",
}
# dateutil searches for the next occurrence up to the year 9999. If there is none, the search takes
# seconds. The Gregorian calendar, including its weekdays, repeats every 400 years. So the search is
# moved ahead by as many whole cycles as fit before `LATEST`. There, it finds the same occurrences,
# but searches at most about 400 years instead of 8,000. Even from `LATEST`, it covers 11 years.
# Slots can be published only about ten years ahead.
CYCLE = 400
LATEST = 9988


@dataclass(frozen=True)
class Rule:
    """A recurrence rule that has an end; see `parse_rule`.

    Args:
        parts: the rule without COUNT and UNTIL.
        count: the number of starts, or None if the rule has `until` instead.
        until: the last possible start, or None if the rule has `count` instead. It is a date or a
            naive datetime, both in wall-clock time, or it is an aware datetime.
    """

    parts: str
    count: int | None = None
    until: date | None = None

    def starts(self, first: datetime, tz: tzinfo, *, limit: datetime) -> list[datetime]:
        """Return all starts of the series that begins at `first`, in UTC and in order.

        The starts keep their wall-clock time in `tz`. A time that the clocks skip is left out and
        is not counted. If the clocks show a time twice, the start is the first occurrence.

        Args:
            limit: the latest start that is allowed.

        Raises:
            ValueError: `first` does not match the rule, there are more than `MAX_STARTS` starts, or
                a start is after `limit`.
        """
        starts: list[datetime] = []
        too_far = _("The series continues after %(limit)s, which is too far ahead.") % {
            "limit": f"{limit:%Y-%m-%d}"
        }
        for local in self._by_wall_clock(first.astimezone(tz).replace(tzinfo=None)):
            start = local.replace(tzinfo=tz).astimezone(UTC)
            is_skipped = start.astimezone(tz).replace(tzinfo=None) != local
            if is_skipped:
                # With `fold=1`, the instant is before the clocks change, and so before all later
                # starts. Otherwise, the checks below could end the series too early.
                start = local.replace(tzinfo=tz, fold=1).astimezone(UTC)
            # These checks also end a series whose times are all skipped.
            if self._is_over(local, start):
                break
            if start > limit:
                raise ValueError(too_far)
            if is_skipped:
                continue
            if len(starts) == MAX_STARTS:
                raise ValueError(
                    _("The series has more than %(max_starts)s slots.") % {"max_starts": MAX_STARTS}
                )
            starts.append(start)
            if len(starts) == self.count:
                break
        if starts[:1] != [first]:
            raise ValueError(
                _("start_time does not match this rule. It must be the first start of the series.")
            )
        if self.count and len(starts) < self.count:
            raise ValueError(too_far)
        return starts

    def _by_wall_clock(self, first: datetime) -> Iterator[datetime]:
        """Yield the starts in wall-clock time, including times that the clocks skip."""
        later = (LATEST - first.year) // CYCLE * CYCLE
        start = begin = first.replace(year=first.year + later, microsecond=0)
        parts = dict(part.split("=") for part in self.parts.split(";"))
        if parts["FREQ"] == "WEEKLY" and "BYDAY" in parts:
            # BYSETPOS counts from the beginning of the week, but dateutil counts from `dtstart`.
            # Without BYDAY, `dtstart` must not move, because dateutil takes the weekday from it.
            week_start = WEEKDAYS.index(parts.get("WKST", "MO"))
            begin -= timedelta(days=(begin.weekday() - week_start) % 7)
        for found in rrulestr(self.parts, dtstart=begin):
            if found >= start:
                yield found.replace(year=found.year - later, microsecond=first.microsecond)

    def _is_over(self, local: datetime, start: datetime) -> bool:
        """Return whether a start, given in wall-clock time and in UTC, is after `until`."""
        if self.until is None:
            return False
        if not isinstance(self.until, datetime):
            return local.date() > self.until
        return (start if self.until.tzinfo else local) > self.until


def parse_rule(text: str) -> Rule:
    """Parse the value of an RRULE, which may be preceded by `RRULE:`.

    Raises:
        ValueError: the rule is invalid or not supported, or has no end.
    """
    parts: dict[str, str] = {}
    for part in re.sub(r"\ARRULE:", "", text.upper()).split(";"):
        name, _equals, value = part.partition("=")
        if name not in PARTS:
            raise ValueError(
                _(
                    "%(name)s is not a part of a recurrence rule. Send only the value of one "
                    "RRULE, for example FREQ=WEEKLY;COUNT=10, without DTSTART, EXDATE or more "
                    "lines."
                )
                % {"name": f"{name[:20]!r}"}
            )
        if name in parts:
            raise ValueError(_("%(name)s appears twice.") % {"name": name})
        values = value.split(",") if name.startswith("BY") else [value]
        if not all(re.fullmatch(PARTS[name], each, re.ASCII) for each in values):
            raise ValueError(
                _(
                    "The value of %(name)s is invalid or not supported; see RFC 5545, section"
                    " 3.3.10."
                )
                % {"name": name}
            )
        if name == "BYSETPOS" and len(values) > MAX_POSITIONS:
            raise ValueError(
                _("BYSETPOS can have at most %(max_positions)s numbers.")
                % {"max_positions": MAX_POSITIONS}
            )
        parts[name] = value
    if "FREQ" not in parts:
        raise ValueError(_("FREQ is missing."))
    if parts["FREQ"] in ("DAILY", "WEEKLY") and re.search(r"\d", parts.get("BYDAY", "")):
        raise ValueError(_("BYDAY can contain numbers only if FREQ is MONTHLY or YEARLY."))
    numbers = [int(number) for number in re.findall(r"\d+", parts.get("BYDAY", ""))]
    is_by_month = parts["FREQ"] == "MONTHLY" or "BYMONTH" in parts
    if is_by_month and max(numbers, default=0) > MAX_WEEKS_OF_MONTH:
        raise ValueError(
            _("A number in BYDAY is too high: no month has that many of this weekday.")
        )
    if parts["FREQ"] == "DAILY" and "BYSETPOS" in parts:
        # RFC 5545 shows BYSETPOS only with periods longer than a day. If the positions never match,
        # the search in dateutil takes seconds.
        raise ValueError(_("BYSETPOS can be used only if FREQ is WEEKLY, MONTHLY or YEARLY."))
    count, until = parts.pop("COUNT", None), parts.pop("UNTIL", None)
    if (count is None) == (until is None):
        raise ValueError(_("The rule must contain either COUNT or UNTIL, but not both."))
    if count is not None and int(count) > MAX_STARTS:
        raise ValueError(
            _("The series has more than %(max_starts)s slots.") % {"max_starts": MAX_STARTS}
        )
    rule = ";".join("=".join(part) for part in parts.items())
    return Rule(rule, int(count) if count else None, _parse_until(until) if until else None)


def _parse_until(value: str) -> date:
    try:
        if len(value) == len("20261231"):
            return datetime.strptime(value, "%Y%m%d").date()  # noqa: DTZ007 - only the date is used
        until = datetime.strptime(value[:15], "%Y%m%dT%H%M%S")  # noqa: DTZ007 - naive without `Z`
    except ValueError:
        raise ValueError(_("The date or time in UNTIL does not exist.")) from None
    return until.replace(tzinfo=UTC) if value.endswith("Z") else until
