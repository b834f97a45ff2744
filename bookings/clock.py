"""Completes bookings, expires them and sends reminders as time passes."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from bookings.events import state_of
from bookit.database.citus.lookups import fetch_reachable

# The maximum number of bookings that one transaction changes. Small batches hold no lock for long,
# and a worker that is killed loses the work of at most one batch.
BATCH = 500
# The maximum number of due bookings that are read at a time. Reading many at once finds more
# bookings of the same calendar, so fewer statements are needed.
MOST_FOUND = 100 * BATCH
# The distributed tables of the statements that find bookings.
TABLES = ["bookings_booking", "bookings_bookingevent"]

# Each change below is a pair of statements. The first statement finds the due bookings of all
# calendars. The second one changes the found bookings of one calendar (a reminder only locks them,
# and writes events), because a statement that locks or changes bookings must name their calendar
# (see `catalog.models.OnCalendar`). Both statements contain the same condition, `due`. The
# functions below build the SQL around it.


def _find(due: str, *, order: str) -> str:
    """Return the statement that finds the due bookings, grouped by calendar."""
    return f"""
SELECT calendar_id, array_agg(id) AS ids FROM (
    SELECT calendar_id, id FROM bookings_booking AS booking
    WHERE {due}
    ORDER BY {order} LIMIT %(most)s
) AS found GROUP BY calendar_id ORDER BY calendar_id
"""  # noqa: S608 - only our own SQL


def _locked(due: str) -> str:
    """Return the part of a WITH clause that locks the found bookings that are still due."""
    return f"""due AS (
    SELECT * FROM bookings_booking AS booking
    WHERE calendar_id = %(calendar_id)s AND id = ANY(%(ids)s::uuid[]) AND {due}
    FOR NO KEY UPDATE SKIP LOCKED
)"""  # noqa: S608 - only our own SQL


def _end(becomes: str) -> str:
    """Return the parts that change the status of the locked bookings, and write their events."""
    return f"""ended AS (
    UPDATE bookings_booking AS booking
    SET status = '{becomes}', hold_expires_at = NULL, updated_at = %(at)s
    FROM due WHERE booking.calendar_id = %(calendar_id)s AND booking.id = due.id
    RETURNING booking.*, due.status AS was
)
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)
SELECT calendar_id, id, 'booking.' || status, %(at)s, jsonb_build_object(
    {state_of("ended")}, 'was', jsonb_build_object('status', was)
) FROM ended ORDER BY id"""  # noqa: S608 - only our own SQL


# The partial index `booking_unfinished` contains the start times of unfinished bookings, but not
# their end times. So that PostgreSQL can search this index, `_ENDED` also limits the start. The
# search then also finds the bookings in progress, but there are few of them.
_ENDED = "unfinished AND start_time <= %(at)s AND end_time <= %(at)s AND status = 'confirmed'"
_UNCONFIRMED = "unfinished AND start_time <= %(at)s AND status = 'pending'"
_RUN_OUT = "hold_expires_at <= %(at)s"

# There is one reminder for each start time and each configured time before it, so a booking that is
# moved gets its reminders again. A reminder replaces all earlier reminders that were not sent. A
# booking that was made, moved or confirmed after the time of its reminder gets no reminder, because
# its attendee has been sent an email since then. A change of details also sets `updated_at`, but
# does not replace a reminder. Therefore, if `updated_at` is later than the time of the reminder,
# the condition looks for the last event that is not a change of details.
_STARTS_SOON = """unfinished AND status = 'confirmed'
      AND start_time > %(at)s AND start_time <= %(at)s + %(ahead)s::interval
      AND (updated_at <= start_time - %(ahead)s::interval OR (
        SELECT max(news.at) FROM bookings_bookingevent AS news
        WHERE news.calendar_id = booking.calendar_id AND news.booking_id = booking.id
          AND news.type <> 'booking.changed'
      ) <= start_time - %(ahead)s::interval)
      AND NOT EXISTS (
        SELECT 1 FROM bookings_bookingevent AS event
        WHERE event.calendar_id = booking.calendar_id AND event.booking_id = booking.id
          AND event.type = 'booking.reminded'
          AND event.data->>'start_time' = to_jsonb(booking.start_time)->>0
          AND event.at >= booking.start_time - %(ahead)s::interval
      )"""

# The same condition for one calendar. Each subquery names the calendar, so Citus finds all rows on
# one server.
_STARTS_SOON_ON_CALENDAR = _STARTS_SOON.replace("booking.calendar_id", "%(calendar_id)s")

# Finds confirmed bookings that have ended.
#
# Parameters: at timestamptz (now), most bigint.
# Columns: calendar_id uuid, ids uuid[] (the bookings of the calendar).
FIND_ENDED = _find(_ENDED, order="start_time")

# Completes the found bookings of a calendar that are still due.
#
# Parameters: at timestamptz (now), calendar_id uuid, ids uuid[].
# Columns: none; the row count is the number of bookings.
# Invariant: a run skips rows that another transaction has locked, and the next run finds them
#   again. Therefore, two concurrent runs share the work, and each booking ends once.
COMPLETE = f"""
WITH {_locked(_ENDED)}, {_end("completed")}
"""

# Finds bookings that were not confirmed before their start.
#
# Parameters: at timestamptz (now), most bigint.
# Columns: as in FIND_ENDED.
FIND_UNCONFIRMED = _find(_UNCONFIRMED, order="start_time")

# Expires the found bookings of a calendar that are still due.
#
# Parameters: at timestamptz (now), calendar_id uuid, ids uuid[].
# Columns: none; the row count is the number of bookings.
# Invariant: as in COMPLETE.
EXPIRE = f"""
WITH {_locked(_UNCONFIRMED)}, {_end("expired")}
"""

# Finds holds whose time has run out.
#
# Parameters: at timestamptz (now), most bigint.
# Columns: as in FIND_ENDED.
FIND_RUN_OUT = _find(_RUN_OUT, order="hold_expires_at")

# Expires the found holds of a calendar that are still due.
#
# Parameters: at timestamptz (now), calendar_id uuid, ids uuid[].
# Columns: none; the row count is the number of holds.
# Invariant: as in COMPLETE.
EXPIRE_HOLDS = f"""
WITH {_locked(_RUN_OUT)}, {_end("expired")}
"""

# Finds confirmed bookings whose reminder is due.
#
# Parameters: at timestamptz (now), ahead interval (how long before the start), most bigint.
# Columns: as in FIND_ENDED.
FIND_STARTING = _find(_STARTS_SOON, order="start_time, id")

# Writes the events that cause reminders, for the found bookings of a calendar that are still due.
#
# Parameters: at timestamptz (now), ahead interval (how long before the start), hours integer (the
#   same, in hours), calendar_id uuid, ids uuid[].
# Columns: none; the row count is the number of reminders.
# Invariant: the constraint event_reminded_once. A reminder does not change its booking, so a
#   concurrent run can select the same bookings before it sees the new events. The constraint keeps
#   that run from writing the events again.
REMIND = f"""
WITH {_locked(_STARTS_SOON_ON_CALENDAR)}
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)
SELECT calendar_id, id, 'booking.reminded', %(at)s, jsonb_build_object(
    {state_of("due")}, 'hours', %(hours)s::integer
)
FROM due ORDER BY start_time, id
ON CONFLICT DO NOTHING
"""  # noqa: S608 - only our own SQL is interpolated, no values


def complete_bookings(*, at: datetime) -> int:
    """Complete the confirmed bookings that have ended by `at`, and return their number."""
    return _in_batches(FIND_ENDED, COMPLETE, at=at)


def expire_bookings(*, at: datetime) -> int:
    """Expire bookings that were not confirmed before their start, and holds that have run out.

    Returns:
        the number of bookings and holds.
    """
    unconfirmed = _in_batches(FIND_UNCONFIRMED, EXPIRE, at=at)
    return unconfirmed + _in_batches(FIND_RUN_OUT, EXPIRE_HOLDS, at=at)


def send_reminders(*, at: datetime) -> int:
    """Write the events that cause the due reminders of confirmed bookings.

    `settings.REMINDER_TIMES` says how long before the start of a booking its reminders are due. If
    several reminders of a booking are due, because no worker ran for a while, only the last one is
    sent.

    Returns:
        the number of reminders.
    """
    return sum(
        _in_batches(FIND_STARTING, REMIND, at=at, ahead=ahead, hours=ahead // timedelta(hours=1))
        for ahead in sorted(settings.REMINDER_TIMES)
    )


def _in_batches(find: str, change: str, **values: Any) -> int:
    """Change the due bookings in batches, until none are left except locked ones.

    While a server of a distributed database is down, the bookings on all other servers are changed.

    Returns:
        the number of bookings that were changed.
    """
    changed = 0
    while True:
        found = fetch_reachable(find, {**values, "most": MOST_FOUND}, tables=TABLES)
        count = sum(_change(change, values, batch) for batch in _batches(found))
        changed += count
        if not count or sum(len(row["ids"]) for row in found) < MOST_FOUND:
            return changed


def _batches(found: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Divide the found bookings into batches, each with the bookings of one or more calendars."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in found:
        for first in range(0, len(row["ids"]), BATCH):
            ids = row["ids"][first : first + BATCH]
            if size + len(ids) > BATCH:
                yield batch
                batch, size = [], 0
            batch.append({**row, "ids": ids})
            size += len(ids)
    if batch:
        yield batch


def _change(change: str, values: dict[str, Any], batch: Sequence[dict[str, Any]]) -> int:
    """Change a batch of bookings in one transaction, with one statement for each calendar."""
    with transaction.atomic(), connection.cursor() as cursor:
        # psycopg sends the statements in a pipeline, so no statement waits for the result of
        # another one. `rowcount` counts the rows of all statements.
        cursor.executemany(change, [{**values, **row} for row in batch])
        changed: int = cursor.rowcount
    return changed
