"""Counts how often bookings reach each status, without reading the whole history each time.

Counters in the web processes would miss the changes that workers, commands and raw SQL make, and
would restart at zero. The history of bookings misses nothing, but it grows. So a job adds new
events to a total every minute, and a reader counts only the events that are newer than the total.
"""

from django.db import transaction
from psycopg.rows import dict_row

from bookings.models import Booking, BookingEvent
from bookings.tally.models import BookingTally
from bookit.database.rows import fetch
from bookit.restores.positions import LOWEST

# One transaction counts about this many events.
BATCH = 50_000
# A reader counts at most this many events that are newer than the total. There are more if no
# worker has run for a long time, or right after a large import. In this case, the results stay the
# same until a worker has counted the events.
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

# Counts the events of the transactions from `low` up to, but not including, the oldest open one.
# Stops after about `batch` events.
#
# Parameters: low bigint (a transaction id), batch bigint, types text[].
# Columns: high bigint (all events before this transaction are now counted), more boolean (whether
# there may be more events to count), counts json (the number of events by status).
# Invariant: all transactions before the oldest open transaction have ended, so all their events are
# visible, and no more of their events will appear. A restore into another server moves `low` with
# the events (`bookings/tally/positions.py`). If an operator has set the transaction ids of all
# events to 0 instead, `low` is in the future. The statement then starts at transaction 1, because
# the events with the transaction id 0 were counted before.
_STEP = """
WITH horizon AS (
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS open
), low AS (
    SELECT CASE WHEN %(low)s > open THEN 1 ELSE %(low)s END AS transaction FROM horizon
), high AS (
    SELECT least(open, greatest(low.transaction + 1, coalesce((
        SELECT transaction FROM bookings_bookingevent
        WHERE transaction >= (SELECT transaction FROM low)
        ORDER BY transaction, id OFFSET %(batch)s LIMIT 1
    ), open))) AS transaction FROM horizon, low
)
SELECT high.transaction AS high, high.transaction < open AS more, (
    SELECT coalesce(json_object_agg(status, events), '{}') FROM (
        SELECT data->>'status' AS status, count(*) AS events FROM bookings_bookingevent
        WHERE transaction >= (SELECT transaction FROM low)
          AND transaction < (SELECT transaction FROM high) AND type = ANY(%(types)s::text[])
        GROUP BY 1
    ) AS counted
) AS counts
FROM high, horizon
"""

# Returns the total plus the events that it does not contain yet.
#
# Parameters: most bigint (the maximum number of new events), types text[], lowest bigint (lower
# than every transaction id).
# Columns: status text, bookings bigint.
# Invariant: as in _STEP. The total and the events come from one snapshot, so no event is counted
# twice.
_TOTALS = """
WITH tally AS (
    SELECT coalesce(counts, '{}') AS counts,
        CASE WHEN transaction > pg_snapshot_xmin(pg_current_snapshot())::text::bigint THEN 1
            ELSE coalesce(transaction, %(lowest)s) END AS low
    FROM (SELECT 1 AS id) AS the LEFT JOIN bookings_bookingtally USING (id)
), recent AS (
    SELECT type, data->>'status' AS status FROM bookings_bookingevent
    WHERE transaction >= (SELECT low FROM tally) ORDER BY transaction, id LIMIT %(most)s
)
SELECT status, sum(bookings)::bigint AS bookings FROM (
    SELECT key AS status, value::bigint AS bookings FROM tally, jsonb_each_text(counts)
    UNION ALL
    SELECT status, count(*) FROM recent WHERE type = ANY(%(types)s::text[]) GROUP BY status
) AS parts GROUP BY status
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
    BookingTally.objects.get_or_create(pk=1, defaults={"transaction": LOWEST})
    # Lock the total before reading the events, so that two workers never count the same events.
    tally = BookingTally.objects.select_for_update().get(pk=1)
    values = {"low": tally.transaction, "batch": BATCH, "types": TYPES}
    [step] = fetch(_STEP, values, dict_row)
    for status, events in step["counts"].items():
        tally.counts[status] = tally.counts.get(status, 0) + events
    tally.transaction = step["high"]
    tally.save(update_fields=["transaction", "counts"])
    return sum(step["counts"].values()), step["more"]


def totals() -> dict[str, int]:
    """Return how many times a booking has reached each status."""
    rows = fetch(_TOTALS, {"most": MAX_NEW_EVENTS, "types": TYPES, "lowest": LOWEST}, dict_row)
    found = {row["status"]: row["bookings"] for row in rows}
    return {**dict.fromkeys(map(str, Booking.Status), 0), **found}
