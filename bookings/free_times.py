"""Free times as JSON.

Most are on the grid of a day, where services with the same hours are free at the same times. So a
row of a grid is written once, and what differs from service to service is put in between.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any

from bookings.availability import Search
from bookings.terms import Terms
from bookit.renderers import dumps

# Starts in a row.
ROW = 25
# Others are written in batches, because as Python objects they take ten times as much memory.
BATCH = 1000


def write_free_times(found: Search, terms: Terms, tz: tzinfo) -> Iterator[tuple[int, bytes]]:
    """Yield the free times of one of the services as JSON, with commas between them.

    They come some at a time, each time after their number.
    """
    if found.has_slots(terms):
        yield from write(found.free_times(terms), tz)
        return
    for opens, number, stop, seats_left in found.stretches(terms):
        end = b'%d,"slot_id":null}' % seats_left
        between = end + b","
        while number < stop:
            row, first = divmod(number, ROW)
            starts = _row(terms.step, terms.duration, opens, row, tz)[first : first + stop - number]
            yield len(starts), between.join(starts) + end
            number += ROW - first


def write(rows: Iterable[Any], tz: tzinfo) -> Iterator[tuple[int, bytes]]:
    """Yield any rows in that way."""
    rows = iter(rows)
    while batch := [*islice(rows, BATCH)]:
        yield len(batch), dumps(batch, tz)[1:-1]


@lru_cache(maxsize=256)
def _row(
    step: timedelta, duration: timedelta, opens: datetime, row: int, tz: tzinfo
) -> list[bytes]:
    """Return the free times of a row of a grid, each up to the number of its seats."""
    starts = [opens + number * step for number in range(row * ROW, (row + 1) * ROW)]
    return [
        b'{"start_time":%b,"end_time":%b,"seats_left":'
        % (dumps(start, tz), dumps(start + duration, tz))
        for start in starts
    ]
