"""Weekdays, times of day and days of the year, as they are written in the town's files."""

from dataclasses import dataclass
from datetime import date
from typing import Self

from bookit.times import parse_wall_clock

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@dataclass(frozen=True)
class WeeklyHours:
    """Hours on certain weekdays, for example `Mon Wed 09:00-13:00 14:30-19:00`.

    Args:
        weekdays: as numbers; 0 is Monday.
        spans: when each span begins and ends, in minutes after midnight.
    """

    weekdays: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the hours that `text` describes.

        Raises:
            ValueError: the text is not written like the example above, or a span does not end after
                it begins.
        """
        weekdays, spans = _split(text, "Mon Wed 09:00-13:00 14:30-19:00")
        return cls(weekdays, tuple(map(_parse_span, spans)))


@dataclass(frozen=True)
class WeeklySessions:
    """Start times on certain weekdays, for example `Mon Wed 07:30 18:30`.

    Args:
        weekdays: as numbers; 0 is Monday.
        starts: in minutes after midnight.
    """

    weekdays: tuple[int, ...]
    starts: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the sessions that `text` describes.

        Raises:
            ValueError: the text is not written like the example above.
        """
        weekdays, starts = _split(text, "Mon Wed 07:30 18:30")
        return cls(weekdays, tuple(map(parse_wall_clock, starts)))


@dataclass(frozen=True, order=True)
class WeekTime:
    """A time of the week, for example `Wed 13:00`.

    Args:
        weekday: as a number; 0 is Monday.
        minute: the time of day, in minutes after midnight.
    """

    weekday: int
    minute: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the time that `text` describes.

        Raises:
            ValueError: the text is not written like the example above.
        """
        weekdays, times = _split(text, "Wed 13:00")
        if len(weekdays) != 1 or len(times) != 1:
            raise ValueError('Write one weekday and one time, such as "Wed 13:00".')
        return cls(weekdays[0], parse_wall_clock(times[0]))


@dataclass(frozen=True)
class YearDay:
    """A day that recurs every year, for example `12-25`."""

    month: int
    day: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the day that `text` describes.

        Raises:
            ValueError: the text is not written like the example above, or the day does not exist.
        """
        try:
            day = date.fromisoformat(f"2000-{text}")  # 2000 has a February 29.
        except ValueError:
            day = None
        # `fromisoformat` accepts weeks too, for example "2000-W01-1".
        if day is None or f"{day:%m-%d}" != text:
            raise ValueError('Write a month and a day, such as "12-25".')
        return cls(day.month, day.day)


def _split(text: str, example: str) -> tuple[tuple[int, ...], list[str]]:
    """Return the weekdays at the beginning of `text`, and the words that follow them."""
    words = text.split()
    count = 0
    while count < len(words) and words[count] in WEEKDAYS:
        count += 1
    if not 0 < count < len(words):
        raise ValueError(f'Write weekdays ({" ".join(WEEKDAYS)}) and times, such as "{example}".')
    return tuple(WEEKDAYS.index(word) for word in words[:count]), words[count:]


def _parse_span(text: str) -> tuple[int, int]:
    opens, dash, closes = text.partition("-")
    if not dash:
        raise ValueError(f'"{text}" is not a span of time, such as "09:00-13:00".')
    span = parse_wall_clock(opens), parse_wall_clock(closes)
    if span[0] >= span[1]:
        raise ValueError(f'"{text}" must end after it begins.')
    return span
