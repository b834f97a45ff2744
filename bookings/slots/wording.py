"""A series of slots in words, for people who do not read recurrence rules."""

from collections.abc import Sequence
from datetime import datetime

from django.utils.dates import WEEKDAYS
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

# The numbers from two to twelve, which are easier to read as words.
NUMBERS: dict[int, str | Promise] = {
    2: gettext_lazy("two"),
    3: gettext_lazy("three"),
    4: gettext_lazy("four"),
    5: gettext_lazy("five"),
    6: gettext_lazy("six"),
    7: gettext_lazy("seven"),
    8: gettext_lazy("eight"),
    9: gettext_lazy("nine"),
    10: gettext_lazy("ten"),
    11: gettext_lazy("eleven"),
    12: gettext_lazy("twelve"),
}
POSITIONS = {
    1: gettext_lazy("first"),
    2: gettext_lazy("second"),
    3: gettext_lazy("third"),
    4: gettext_lazy("fourth"),
    -1: gettext_lazy("last"),
}


def series_in_words(pattern: str, starts: Sequence[datetime]) -> str:
    """Return a series in words.

    For example: Every Tuesday at 18:00, ten times, from 20 October until 22 December 2026.

    Args:
        pattern: the days in words, for example "Every Tuesday".
        starts: the starts of the slots in wall-clock time, in order.
    """
    first, last = starts[0], starts[-1]
    if len(starts) == 1:
        return _("Once, on %(day)s at %(time)s.") % {
            "day": date_format(first, "PROSE_DAY_FORMAT"),
            "time": date_format(first, "H:i"),
        }
    return _("%(pattern)s at %(time)s, %(times)s, from %(first)s until %(last)s.") % {
        "pattern": pattern,
        "time": date_format(first, "H:i"),
        "times": times_in_words(len(starts)),
        "first": date_format(
            first, "DATE_FORMAT" if first.year != last.year else "MONTH_DAY_FORMAT"
        ),
        "last": date_format(last, "DATE_FORMAT"),
    }


def times_in_words(count: int) -> str:
    """Return for example "ten times"."""
    return ngettext("once", "%(number)s times", count) % {"number": _number(count)}


def days_in_words(interval: int) -> str:
    """Return for example "Every day" or "Every three days"."""
    if interval == 1:
        return _("Every day")
    return _("Every %(number)s days") % {"number": _number(interval)}


def weeks_in_words(interval: int, weekdays: Sequence[int]) -> str:
    """Return for example "Every Tuesday and Friday" or "Every two weeks on Tuesday"."""
    days = join_words([str(WEEKDAYS[day]) for day in weekdays])
    if interval == 1:
        return _("Every %(days)s") % {"days": days}
    return _("Every %(number)s weeks on %(days)s") % {"number": _number(interval), "days": days}


def months_in_words(interval: int, *, day: int, weekday: int, position: int | None) -> str:
    """Return for example "Every month on day 15" or "Every month on the second Tuesday".

    Args:
        position: the position of the weekday in the month, where -1 means the last. If it is None,
            the series repeats on a day of the month instead.
    """
    if position is None:
        # A month that is too short for the day is skipped.
        words = _("on day %(day)d") if day <= 28 else _("on day %(day)d (if there is one)")
        on = words % {"day": day}
    else:
        on = _("on the %(position)s %(weekday)s") % {
            "position": POSITIONS[position],
            "weekday": WEEKDAYS[weekday],
        }
    if interval == 1:
        return _("Every month %(on)s") % {"on": on}
    return _("Every %(number)s months %(on)s") % {"number": _number(interval), "on": on}


def join_words(words: Sequence[str]) -> str:
    """Return for example "Monday, Tuesday and Friday"."""
    if len(words) < 2:
        return "".join(words)
    return _("%(first)s and %(last)s") % {"first": ", ".join(words[:-1]), "last": words[-1]}


def _number(number: int) -> str:
    return str(NUMBERS.get(number, number))
