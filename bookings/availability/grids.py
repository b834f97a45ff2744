"""Grids of starts that are one step apart.

Each opening period has its own grid. If a calendar never closes, each day has its own grid.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from bookings.availability.terms import Terms
from bookit.times import wall_clock
from catalog.opening import ALWAYS, DAY, Opening, Period

INSTANT = timedelta(microseconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The end of the opening of a calendar that never closes, in microseconds since 1970.
ENDLESS = (ALWAYS[1] - EPOCH) // INSTANT


def grids(
    terms: Terms, from_: datetime, until: datetime, *, fitting: bool
) -> Iterator[tuple[int, int]]:
    """Yield `(opens, before)` for each grid: its first start, and a time after all of its starts.

    The steps are elapsed time, so they stay equally long when the clocks change. `opens` and
    `before` are microseconds since 1970, because Python adds, compares and divides integers much
    faster than instants.

    Args:
        from_, until: the period. Grids may have starts before `from_`, but none from `until` on.
        fitting: leave out starts whose bookings would end after closing.
    """
    stop, duration = since_epoch(until), terms.duration // INSTANT
    for opens, closes, ends in _runs(terms.opening, from_, until):
        before = min(stop, closes)
        yield opens, min(before, ends - duration + 1) if fitting else before


def numbers(origin: int, step: int, begins: int, before: int) -> tuple[int, int]:
    """Return `(first, stop)`: `range(first, stop)` has the numbers of the starts in the period.

    The period is `[begins, before)`. Start number `n` is `origin + n * step`. All times are
    microseconds.
    """
    # `-(a // b)` is the quotient of `-a` and `b`, rounded up.
    first = -((origin - begins) // step) if begins > origin else 0
    return first, -((origin - before) // step)


def periods(terms: Terms, opens: int, first: int, stop: int) -> Iterator[tuple[datetime, datetime]]:
    """Yield `(start, end)` for each number in `range(first, stop)`, in order."""
    for number in range(first, stop):
        start = instant_at(opens) + number * terms.step
        yield start, start + terms.duration


def _runs(opening: Opening, from_: datetime, until: datetime) -> Iterator[tuple[int, int, int]]:
    """Yield `(opens, closes, ends)` for each grid, in microseconds since 1970.

    The grid begins at `opens`, its starts are before `closes`, and bookings must end by `ends`.
    `closes` and `ends` differ only for a calendar that never closes.
    """
    if not opening.is_endless:
        for opens, closes in _in_microseconds(opening.periods(from_, until)):
            yield opens, closes, closes
        return
    # For a calendar that never closes, a new grid begins at each midnight.
    day = from_.astimezone(opening.tz).date()
    midnight = wall_clock(day, 0, opening.tz)
    while midnight < until:
        day += DAY
        next_midnight = wall_clock(day, 0, opening.tz)
        yield since_epoch(midnight), since_epoch(next_midnight), ENDLESS
        midnight = next_midnight


# The cache serves clients that request the same weeks of a calendar again and again.
@lru_cache(maxsize=64)
def _in_microseconds(opened: tuple[Period, ...]) -> tuple[tuple[int, int], ...]:
    """Return the start and the end of each period, in microseconds since 1970."""
    return tuple((since_epoch(opens), since_epoch(closes)) for opens, closes in opened)


def since_epoch(time: datetime) -> int:
    """Return the microseconds since 1970."""
    return (time - EPOCH) // INSTANT


def instant_at(microseconds: int) -> datetime:
    """Return the instant that is a number of microseconds after the beginning of 1970."""
    return EPOCH + timedelta(microseconds=microseconds)
