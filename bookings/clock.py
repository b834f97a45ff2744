"""Complete bookings, expire them and send reminders as time passes."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from bookings.events import state_of

# The maximum number of bookings that one transaction changes. Small batches hold no lock for long,
# and a worker that has to stop needs to finish only one batch.
BATCH = 500

# The second part of the statements below that end bookings. The first part of such a statement,
# `due`, selects the bookings. This part ends them and writes their events.
END = f"""ended AS (
    UPDATE bookings_booking AS booking
    SET status = due.becomes, hold_expires_at = NULL, updated_at = %(at)s
    FROM due WHERE booking.id = due.id
    RETURNING booking.*, due.was
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.' || status, %(at)s, jsonb_build_object(
    {state_of("ended")}, 'was', jsonb_build_object('status', was)
) FROM ended ORDER BY id"""  # noqa: S608 - only names of columns are interpolated, no values

# Completes a batch of the confirmed bookings that have ended. The index covers `unfinished` and the
# start time, but not the end time. The index is fast enough, because at any time only few
# bookings have started but not ended.
#
# Parameters: at timestamptz (now), batch bigint.
# Columns: none; the row count is the number of bookings.
# Invariant: a run skips rows that another transaction has locked, and the next run finds them
#   again. Therefore, two concurrent runs share the work, and each booking ends once.
COMPLETE = f"""
WITH due AS (
    SELECT id, status AS was, 'completed' AS becomes FROM bookings_booking
    WHERE unfinished AND start_time <= %(at)s AND end_time <= %(at)s AND status = 'confirmed'
    ORDER BY start_time LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), {END}
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Expires a batch of the bookings that were not confirmed before their start.
#
# Parameters: at timestamptz (now), batch bigint.
# Columns: none; the row count is the number of bookings.
# Invariant: as in COMPLETE.
EXPIRE = f"""
WITH due AS (
    SELECT id, status AS was, 'expired' AS becomes FROM bookings_booking
    WHERE unfinished AND start_time <= %(at)s AND status = 'pending'
    ORDER BY start_time LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), {END}
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Expires a batch of the holds whose time has run out.
#
# Parameters: at timestamptz (now), batch bigint.
# Columns: none; the row count is the number of holds.
# Invariant: as in COMPLETE.
EXPIRE_HOLDS = f"""
WITH due AS (
    SELECT id, status AS was, 'expired' AS becomes FROM bookings_booking
    WHERE hold_expires_at <= %(at)s
    ORDER BY hold_expires_at LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), {END}
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Writes the events that cause reminders, for a batch of the confirmed bookings that start soon.
# There is one reminder for each start time and each configured time before it, so a booking that is
# moved gets its reminders again. A reminder replaces all earlier reminders that were not sent. A
# booking that was made or changed after the time of its reminder gets no reminder, because its
# attendee has just received an email. A change of details causes no email, but also sets
# `updated_at`. Therefore, if `updated_at` is later than the time of the reminder, the statement
# looks for the last event that is not a change of details.
#
# Parameters: at timestamptz (now), ahead interval (how long before the start), hours integer (the
#   same), batch bigint.
# Columns: none; the row count is the number of reminders.
# Invariant: the constraint event_reminded_once. A reminder does not change its booking, so a
#   concurrent run can select the same bookings before it sees the new events. The constraint keeps
#   that run from writing the events again.
REMIND = f"""
WITH due AS (
    SELECT booking.* FROM bookings_booking AS booking
    WHERE unfinished AND status = 'confirmed'
      AND start_time > %(at)s AND start_time <= %(at)s + %(ahead)s::interval
      AND (updated_at <= start_time - %(ahead)s::interval OR (
        SELECT max(news.at) FROM bookings_bookingevent AS news
        WHERE news.booking_id = booking.id AND news.type <> 'booking.changed'
      ) <= start_time - %(ahead)s::interval)
      AND NOT EXISTS (
        SELECT FROM bookings_bookingevent AS event
        WHERE event.booking_id = booking.id AND event.type = 'booking.reminded'
          AND event.data->>'start_time' = to_jsonb(booking.start_time)->>0
          AND event.at >= booking.start_time - %(ahead)s::interval
      )
    ORDER BY start_time, id LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.reminded', %(at)s, jsonb_build_object(
    {state_of("due")}, 'hours', %(hours)s::integer
)
FROM due ORDER BY start_time, id
ON CONFLICT DO NOTHING
"""  # noqa: S608 - only names of columns are interpolated, no values


def complete_bookings(*, at: datetime) -> int:
    """Complete the confirmed bookings that have ended by `at`, and return their number."""
    return _in_batches(COMPLETE, at=at)


def expire_bookings(*, at: datetime) -> int:
    """Expire bookings that were not confirmed before their start, and holds that have run out.

    Returns:
        the number of bookings and holds.
    """
    return _in_batches(EXPIRE, at=at) + _in_batches(EXPIRE_HOLDS, at=at)


def send_reminders(*, at: datetime) -> int:
    """Send the reminders of confirmed bookings that are due at `settings.REMINDER_TIMES`.

    If several reminders of a booking are due, because no worker ran for a while, only the last one
    is sent.

    Returns:
        the number of reminders.
    """
    return sum(
        _in_batches(REMIND, at=at, ahead=ahead, hours=ahead // timedelta(hours=1))
        for ahead in sorted(settings.REMINDER_TIMES)
    )


def _in_batches(text: str, **values: Any) -> int:
    """Run a statement in batches until a batch is not full, and return the number of rows."""
    return sum(_batches(text, {**values, "batch": BATCH}))


def _batches(text: str, values: dict[str, Any]) -> Iterator[int]:
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(text, values)
            count = cursor.rowcount
        yield count
        if count < BATCH:
            return
