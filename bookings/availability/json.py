"""Free times as JSON.

Most free times lie on grids; see `bookings.availability.grids`. A grid is divided into rows, and
the JSON of each row is written once and cached, for each time zone of a response. Two services
share a cached row if they have the same step and duration, and if both have a grid that begins at
the same instant. The cached JSON does not contain the number of seats left, which is inserted for
each response.
"""

from collections.abc import Iterable, Iterator
from datetime import tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any

from bookings.availability.grids import INSTANT, instant_at
from bookings.availability.search import Search
from bookings.availability.terms import Terms
from bookit.json import dumps

# The number of starts in a row of a grid.
ROW = 25
# A part of the list ends once it has this many times. Times that do not come from cached rows are
# Python objects until then, which take ten times as much memory as their JSON.
BATCH = 1000


def write_free_times(found: Search, terms: Terms, tz: tzinfo) -> Iterator[tuple[int, bytes]]:
    """Yield the free times of a service as parts of a JSON list.

    Each item is a pair: the number of free times in the part, and the part itself. Within a part,
    the times are separated by commas; there are no brackets.
    """
    if found.has_slots(terms):
        yield from write(found.free_times(terms), tz)
        return
    # Consecutive stretches (see `Stretch` in `search.py`) mostly lie in the same row, so the row is
    # kept for the next stretch. Stretches with the same number of seats left are joined together,
    # which is faster than one by one.
    step, duration = terms.step // INSTANT, terms.duration // INSTANT
    grid = row = None
    starts: list[bytes] = []
    left, some = 0, list[bytes]()
    for opens, number, stop, seats_left in found.stretches(terms):
        if left != seats_left or len(some) >= BATCH:
            if some:
                yield len(some), _joined(some, left)
            some, left = [], seats_left
        while number < stop:
            needed, first = divmod(number, ROW)
            if row != needed or grid != opens:
                grid, row = opens, needed
                starts = _row(step, duration, opens, row, tz)
            some += starts[first : first + stop - number]
            number += ROW - first
    if some:
        yield len(some), _joined(some, left)


def _joined(starts: list[bytes], seats_left: int) -> bytes:
    """Return free times that have the same number of seats left."""
    end = b'%d,"slot_id":null}' % seats_left
    return (end + b",").join(starts) + end


def write(times: Iterable[Any], tz: tzinfo) -> Iterator[tuple[int, bytes]]:
    """Yield free or refused times as JSON, in the same form as `write_free_times`."""
    times = iter(times)
    while batch := [*islice(times, BATCH)]:
        yield len(batch), dumps(batch, tz)[1:-1]


@lru_cache(maxsize=256)
def _row(step: int, duration: int, opens: int, row: int, tz: tzinfo) -> list[bytes]:
    """Return the JSON of each time in a row of a grid, up to the value of `seats_left`.

    The step, the duration and the beginning of the grid are microseconds, because the cache finds
    integers faster than instants.
    """
    starts = [opens + number * step for number in range(row * ROW, (row + 1) * ROW)]
    return [
        b'{"start_time":%b,"end_time":%b,"seats_left":'
        % (dumps(instant_at(start), tz), dumps(instant_at(start + duration), tz))
        for start in starts
    ]
