"""Reads opening hours as people write them: `Mon-Fri 09:00-12:30 14:00-18:00; Sat 10:00-14:00`."""

import re
from itertools import pairwise

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from bookit.times import format_wall_clock, parse_wall_clock

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PART = re.compile(r"(?P<first>[A-Za-z]{3})(?:-(?P<last>[A-Za-z]{3}))?(?P<spans>(?: +\S+)+)")
SPAN = re.compile(r"(\d\d?:\d\d)-(\d\d?:\d\d)", re.ASCII)


def parse(text: str) -> list[dict[str, int]]:
    """Return opening hours as `catalog.services.set_opening_hours` takes them.

    Raises:
        ValidationError: a part cannot be read, its days or times are in the wrong order, or two
            opening hours of a day overlap.
    """
    hours: list[tuple[int, int, int]] = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        found = PART.fullmatch(part)
        if not found:
            raise _unreadable(part)
        for weekday in _weekdays(found["first"], found["last"] or found["first"], part):
            hours += [(weekday, *_minutes(span, part)) for span in found["spans"].split()]
    hours.sort()
    for (day, _opens, closes), (next_day, opens, _closes) in pairwise(hours):
        if day == next_day and opens < closes:
            message = _("Two opening hours on %(day)s overlap at %(time)s.")
            shown = {"day": DAYS[day].capitalize(), "time": format_wall_clock(opens)}
            raise ValidationError(message, "opening_hours", shown)
    return [{"weekday": day, "opens": opens, "closes": closes} for day, opens, closes in hours]


def _weekdays(first: str, last: str, part: str) -> range:
    names = [first.lower(), last.lower()]
    if not {*names} <= {*DAYS}:
        raise _unreadable(part)
    begin, end = map(DAYS.index, names)
    if begin > end:
        message = _(
            "“%(part)s” goes past the end of the week, which is Sunday. Write, for example: "
            "Fri-Sun 09:00-18:00; Mon 09:00-18:00."
        )
        raise ValidationError(message, "opening_hours", {"part": part})
    return range(begin, end + 1)


def _minutes(span: str, part: str) -> tuple[int, int]:
    found = SPAN.fullmatch(span)
    if not found:
        raise _unreadable(part)
    try:
        # Spreadsheets write 9:00 without a zero.
        opens, closes = (parse_wall_clock(each.zfill(5)) for each in found.groups())
    except ValueError:
        raise _unreadable(part) from None
    if opens >= closes:
        message = _(
            "In “%(part)s”, the closing time must be after the opening time. For hours that "
            "continue after midnight, write, for example: Sat 18:00-24:00; Sun 00:00-02:00."
        )
        raise ValidationError(message, "opening_hours", {"part": part})
    return opens, closes


def _unreadable(part: str) -> ValidationError:
    return ValidationError(
        _("“%(part)s” cannot be read. Write, for example: Mon-Fri 09:00-18:00; Sat 10:00-14:00."),
        "opening_hours",
        {"part": part},
    )
