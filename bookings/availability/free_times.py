"""Free times as JSON.

Most free times lie on the grid of a day, and services with the same hours have the same grid. So a
row of a grid is written once and cached, and what differs between services is inserted afterwards.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any

from bookings.availability.search import Search
from bookings.availability.terms import Terms
from bookit.json import dumps

# The number of starts in a row.
ROW = 25
# Other times are written in batches: Python objects take ten times as much memory as their JSON.
BATCH = 1000


def write_free_times(found: Search, terms: Terms, tz: tzinfo) -> Iterator[tuple[int, bytes]]:
    """Yield the free times of one of the services as JSON, with commas between them.

    Each item is a part of the JSON, preceded by the number of times in it.
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
    """Yield any rows in the same way as `write_free_times`."""
    rows = iter(rows)
    while batch := [*islice(rows, BATCH)]:
        yield len(batch), dumps(batch, tz)[1:-1]


@lru_cache(maxsize=256)
def _row(
    step: timedelta, duration: timedelta, opens: datetime, row: int, tz: tzinfo
) -> list[bytes]:
    """Return the free times of a row of a grid; each ends where its number of seats follows."""
    starts = [opens + number * step for number in range(row * ROW, (row + 1) * ROW)]
    return [
        b'{"start_time":%b,"end_time":%b,"seats_left":'
        % (dumps(start, tz), dumps(start + duration, tz))
        for start in starts
    ]
