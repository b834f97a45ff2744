"""Reads opening hours as people write them: `Mon-Fri 09:00-12:30 14:00-18:00; Sat 10:00-14:00`."""

import re

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from bookit.times import parse_wall_clock

DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
PART = re.compile(r"(?P<first>[A-Za-z]{3})(?:-(?P<last>[A-Za-z]{3}))?(?P<spans>(?: +\S+)+)")


def parse(text: str) -> list[dict[str, int]]:
    """Return opening hours as `catalog.services.set_opening_hours` takes them.

    Raises:
        ValidationError: a part cannot be read; the message quotes it.
    """
    hours = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        found = PART.fullmatch(part)
        if not found:
            raise _unreadable(part)
        for weekday in _weekdays(found["first"], found["last"] or found["first"], part):
            for span in found["spans"].split():
                opens, closes = _minutes(span, part)
                hours.append({"weekday": weekday, "opens": opens, "closes": closes})
    return hours


def _weekdays(first: str, last: str, part: str) -> range:
    names = [first.lower(), last.lower()]
    if not {*names} <= {*DAYS} or DAYS.index(names[0]) > DAYS.index(names[1]):
        raise _unreadable(part)
    return range(DAYS.index(names[0]), DAYS.index(names[1]) + 1)


def _minutes(span: str, part: str) -> tuple[int, int]:
    try:
        opens, closes = (parse_wall_clock(each) for each in span.split("-"))
    except ValueError:
        raise _unreadable(part) from None
    if opens >= closes:
        raise _unreadable(part)
    return opens, closes


def _unreadable(part: str) -> ValidationError:
    return ValidationError(
        _("“%(part)s” cannot be read. Write, for example: Mon-Fri 09:00-18:00; Sat 10:00-14:00."),
        "opening_hours",
        {"part": part},
    )
