"""Time zones, the clocks that people see, and the formats in which clients write times."""

import re
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:[0-5]\d)", re.ASCII
)
DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Return the names of every IANA time zone."""
    # Leave out two names that some systems list: the zone of the host, and a placeholder.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def zone(name: str) -> ZoneInfo:
    """Return the IANA time zone called `name`.

    Raises:
        ValueError: no zone has this name.
    """
    # Check the list first, because ZoneInfo opens a file with the given name.
    if name not in zone_names():
        raise ValueError(
            _("%(name)s is not an IANA time zone; expected e.g. Europe/Paris.")
            % {"name": f"{name[:64]!r}"}
        )
    return ZoneInfo(name)


def validate_zone(name: str) -> None:
    """Accept only IANA time zones, in models and serializers."""
    try:
        zone(name)
    except ValueError as error:
        raise ValidationError(str(error), code="invalid") from None


def parse_instant(text: str) -> datetime:
    """Parse an RFC 3339 date-time with an offset, and return the instant in UTC.

    Raises:
        ValueError: the text is not a date-time with an offset, or its year is not from 1900 to
            2999.
    """
    if not RFC_3339.fullmatch(text):
        # In a query, a + that is not encoded means a space.
        if re.search(r" \d\d:\d\d$", text):
            raise ValueError(
                _(
                    "Must be a date and time with an offset, for example 2026-12-01T10:00:00Z or "
                    "2026-12-01T11:00:00+01:00 (in a query, write + as %2B)."
                )
            )
        raise ValueError(
            _(
                "Must be a date and time with an offset, for example 2026-12-01T10:00:00Z or "
                "2026-12-01T11:00:00+01:00."
            )
        )
    try:
        if text[11:13] == "24":  # Python 3.14 and newer accept this hour, unlike RFC 3339.
            raise ValueError
        instant = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(_("This date or time does not exist.")) from None
    _check_year(instant)
    return instant.astimezone(UTC)


def parse_day(text: str) -> date:
    """Parse a date, for example `2026-12-01`.

    Raises:
        ValueError: the text is not a date, or its year is not from 1900 to 2999.
    """
    if not DAY.fullmatch(text):
        raise ValueError(_("Must be a date, for example 2026-12-01."))
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise ValueError(_("This date does not exist.")) from None
    _check_year(day)
    return day


def parse_day_or_instant(text: str) -> date | datetime:
    """Parse a date (as `parse_day` does) or an instant (as `parse_instant` does).

    Raises:
        ValueError: the text is neither, or its year is not from 1900 to 2999.
    """
    if ":" in text:
        return parse_instant(text)
    if not DAY.fullmatch(text):
        raise ValueError(
            _(
                "Must be a date, for example 2026-12-01, or a date and time with an offset, for "
                "example 2026-12-01T10:00:00Z."
            )
        )
    return parse_day(text)


def _check_year(day: date) -> None:
    # These years are far from the limits of `datetime`, so adding an offset or a duration cannot
    # overflow.
    if not 1900 <= day.year < 3000:
        raise ValueError(_("Must be in the years 1900 to 2999."))


def day_start(day: date, tz: tzinfo) -> datetime:
    """Return the instant at which `day` begins in `tz`."""
    return wall_clock(day, 0, tz)


def day_end(day: date, tz: tzinfo) -> datetime:
    """Return the instant at which `day` ends in `tz`, which is when the next day begins."""
    return day_start(day + timedelta(days=1), tz)


def wall_clock(day: date, minutes: int, tz: tzinfo) -> datetime:
    """Return the instant at which the clocks of `tz` show `minutes` after midnight of `day`.

    If the clocks show that time twice (summer time ends), return the first instant. If the clocks
    never show that time (summer time begins, or a zone skips a day), return the instant at which
    they jump. 1440 minutes mean the midnight at which the day ends.
    """
    naive = datetime.combine(day, time.min) + timedelta(minutes=minutes)
    instant = naive.replace(tzinfo=tz).astimezone(UTC)
    if instant.astimezone(tz).replace(tzinfo=None) == naive:
        return instant
    # The clocks skip this time. They jump somewhere between the instants with fold=1 and fold=0
    # (PEP 495), so search this interval for the second at which the offset changes.
    before, after = naive.replace(tzinfo=tz, fold=1).astimezone(UTC), instant
    offset = before.astimezone(tz).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(tz).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def begin(moment: date | datetime, tz: tzinfo) -> datetime:
    """Return an instant unchanged. For a date, return the instant at which it begins in `tz`."""
    return moment if isinstance(moment, datetime) else day_start(moment, tz)


def end(moment: date | datetime, tz: tzinfo) -> datetime:
    """Return an instant unchanged. For a date, return the instant at which it ends in `tz`."""
    return moment if isinstance(moment, datetime) else day_end(moment, tz)


def is_longer(start: datetime, stop: datetime, most: timedelta, tz: tzinfo) -> bool:
    """Return whether a period is longer than `most` both in elapsed time and on the clocks of `tz`.

    So neither 62 whole days nor 62 times 24 hours are longer than 62 days if the clocks change.
    """
    # Python ignores changes of the clocks if it subtracts times in the same zone.
    shown = stop.astimezone(tz) - start.astimezone(tz)
    return min(shown, stop.astimezone(UTC) - start.astimezone(UTC)) > most


def parse_wall_clock(text: str) -> int:
    """Parse a time of day from `00:00` to `24:00`, and return the minutes after midnight.

    Raises:
        ValueError: the text is not a time of day.
    """
    match = re.fullmatch(r"(\d\d):([0-5]\d)", text, re.ASCII)
    minutes = int(match[1]) * 60 + int(match[2]) if match else -1
    if not 0 <= minutes <= 24 * 60:
        raise ValueError(_("Must be a time of day from 00:00 to 24:00."))
    return minutes


def format_wall_clock(minutes: int) -> str:
    """Return minutes after midnight as a time of day, for example `09:30`."""
    return f"{minutes // 60:02}:{minutes % 60:02}"


def time_of_day(local: datetime, form: str = "%H:%M") -> str:
    """Return the time of day, with the zone's abbreviation if this time occurs twice that day."""
    shown_twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    # This uses `%Z`, because Django's format `T` is empty for a time that occurs twice.
    return local.strftime(f"{form} %Z" if shown_twice else form)


class InstantField(serializers.DateTimeField):
    """A date-time with an offset (RFC 3339); naive and date-only values are refused."""

    def to_internal_value(self, value: object) -> datetime:
        """Return the instant in UTC."""
        if not isinstance(value, str):
            raise serializers.ValidationError(
                _("Must be a string with a date and time, for example 2026-12-01T10:00:00Z."),
                code="invalid",
            )
        try:
            return parse_instant(value)
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None


# The schema of a date or an instant, for the OpenAPI document.
DAY_OR_INSTANT: dict[str, Any] = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}],
    "example": "2026-12-01",
}


@extend_schema_field(DAY_OR_INSTANT)
class DayOrInstantField(serializers.Field[date, str, str, Any]):
    """A date or an instant, as `parse_day_or_instant` reads it."""

    def to_internal_value(self, data: Any) -> date:
        """Return the date or the instant."""
        try:
            return parse_day_or_instant(str(data))
        except ValueError as error:
            raise serializers.ValidationError(str(error), code="invalid") from None
