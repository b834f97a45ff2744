"""Counts how often bookings reach each status, without reading the whole history each time.

Counters in the web processes would miss the changes that workers and commands make, and would
restart at zero. The history of bookings contains these changes, but it grows. So a job adds new
events to a total every minute, and a reader counts only the events that are newer than the total.

In a distributed database, each server numbers its own transactions, so the total has a position on
each server.
"""

from collections import Counter

from django.db import DEFAULT_DB_ALIAS, transaction
from psycopg.rows import scalar_row

from bookings.models import Booking, BookingEvent
from bookings.tally.models import BookingTally
from bookit.database.citus.nodes import open_positions
from bookit.database.rows import fetch
from bookit.restores.positions import LOWEST

# One transaction counts about this many events of a server.
BATCH = 50_000
# A reader counts at most this many events of a server that are newer than the total. There are more
# if no worker has run for a long time, while a transaction stays open for a long time, or right
# after a large import. In this case, the results are too low, and stay the same until a worker has
# counted the events.
MAX_NEW_EVENTS = 50_000

# The types of the events with which a booking reaches a status. Their `data` contains the status.
TYPES = [
    str(kind)
    for kind in (
        BookingEvent.Type.HELD,
        BookingEvent.Type.CREATED,
        BookingEvent.Type.CONFIRMED,
        BookingEvent.Type.CANCELLED,
        BookingEvent.Type.COMPLETED,
        BookingEvent.Type.EXPIRED,
        BookingEvent.Type.NO_SHOW,
    )
]

# Finds the first transaction whose events are not counted in the same step as those from `low`.
#
# Parameters: server int, low bigint (a transaction id), batch bigint.
# Columns: transaction bigint. There is no row if the step reaches the newest event.
_END_OF_STEP = """
SELECT transaction FROM bookings_bookingevent
WHERE server = %(server)s AND transaction >= %(low)s
ORDER BY transaction, id OFFSET %(batch)s LIMIT 1
"""

# Counts, by status, the events of some types in the transactions of a server from `low` up to, but
# not including, `high`. Reads at most `most` events, whatever their types.
#
# Parameters: server int, low, high bigint (transaction ids; if high is null, there is no end), most
#   bigint (null means all), types text[].
# Columns: status text, events bigint.
_COUNT = """
SELECT status, count(*) AS events FROM (
    SELECT type, data->>'status' AS status FROM bookings_bookingevent
    WHERE server = %(server)s AND transaction >= %(low)s
      AND (%(high)s::bigint IS NULL OR transaction < %(high)s::bigint)
    ORDER BY transaction, id LIMIT %(most)s
) AS counted
WHERE type = ANY(%(types)s::text[]) GROUP BY status
"""


def count_events() -> int:
    """Add the new events of ended transactions to the total, and return how many were added."""
    counted = 0
    while True:
        step, more = _count_step()
        counted += step
        if not more:
            return counted


@transaction.atomic
def _count_step() -> tuple[int, bool]:
    """Count about `BATCH` events of each server; return how many were added and whether more wait.

    All transactions before the oldest open transaction of a server have ended. So all of their
    events are visible, and no more of them will appear.
    """
    BookingTally.objects.get_or_create(pk=1, defaults={"transaction": LOWEST})
    # Lock the total before reading the events, so that two workers never count the same events.
    stored = BookingTally.objects.select_for_update().get(pk=1)
    horizons = open_positions(using=DEFAULT_DB_ALIAS)
    tally = _usable(stored, horizons)
    new: Counter[str] = Counter()
    more = False
    for server, horizon in horizons.items():
        low = _low(tally, server, horizon)
        end = fetch(_END_OF_STEP, {"server": server, "low": low, "batch": BATCH}, scalar_row)
        # A step counts whole transactions. It advances by at least one transaction id, however many
        # events this transaction has.
        high = min(horizon, max(low + 1, *end)) if end else horizon
        new.update(_count(server, low, high, None))
        if server:
            tally.positions[str(server)] = high
        else:
            tally.transaction = high
        more = more or high < horizon
    for status, events in new.items():
        tally.counts[status] = tally.counts.get(status, 0) + events
    tally.save(update_fields=["transaction", "positions", "counts"])
    return new.total(), more


def totals() -> dict[str, int]:
    """Return how many times a booking has reached each status."""
    # The total is read before the events. If a worker adds events to it in the meantime, they are
    # among the events that are read here, and not in the total that was read.
    stored = BookingTally.objects.filter(pk=1).first() or BookingTally(transaction=LOWEST)
    horizons = open_positions(using=DEFAULT_DB_ALIAS)
    tally = _usable(stored, horizons)
    found = Counter(dict.fromkeys(map(str, Booking.Status), 0))
    found.update(tally.counts)
    for server, horizon in horizons.items():
        found.update(_count(server, _low(tally, server, horizon), None, MAX_NEW_EVENTS))
    return dict(found)


def _usable(stored: BookingTally, horizons: dict[int, int]) -> BookingTally:
    """Return the stored total, emptied if it has no positions on the other servers.

    It has none if it was stored before the database was distributed, or by version 0.1.0. That
    version took the transaction ids of all servers for those of the coordinator, so it could miss
    events.
    """
    if len(horizons) > 1 and not stored.positions:
        stored.transaction, stored.counts = LOWEST, {}
    return stored


def _low(tally: BookingTally, server: int, horizon: int) -> int:
    """Return the first transaction of a server whose events are not in the total.

    A restore into another server moves the position on server 0 with the events
    (`bookings.tally.positions`). If an operator has set the transaction ids of all events to 0
    instead, the position is in the future. The events with the transaction id 0 were counted
    before, so the next one is 1.
    """
    low = tally.positions.get(str(server), LOWEST) if server else tally.transaction
    return low if low <= horizon else 1


def _count(server: int, low: int, high: int | None, most: int | None) -> dict[str, int]:
    values = {"server": server, "low": low, "high": high, "most": most, "types": TYPES}
    return dict(fetch(_COUNT, values))
