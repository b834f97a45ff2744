"""What becomes of bookings because time passes."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import connection, transaction

from bookings.events import STATE_COLUMNS, state_of

# So many bookings are changed in one transaction: no lock is held for long, and whoever stops a
# worker waits no longer than for one batch.
BATCH = 500

# Ends some bookings that are due and writes down that it did. Those that somebody else is changing
# at this moment are left for the next time; so two that run at once share the work.
_END = """
WITH due AS (
    SELECT id, status FROM bookings_booking
    WHERE {due}
    ORDER BY {order} LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
), ended AS (
    UPDATE bookings_booking AS booking
    SET status = '{status}', hold_expires_at = NULL, updated_at = %(at)s
    FROM due WHERE booking.id = due.id
    RETURNING booking.id, {columns}, due.status AS was
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.{status}', %(at)s, jsonb_build_object(
    {state}, 'was', jsonb_build_object('status', was)
) FROM ended ORDER BY id
"""


def _end(status: str, due: str, order: str = "start_time") -> str:
    return _END.format(
        status=status,
        due=due,
        order=order,
        columns=", ".join(f"booking.{column}" for column in STATE_COLUMNS),
        state=state_of("ended"),
    )


# `unfinished` and the start are what the index knows; few bookings are between start and end.
COMPLETE = _end(
    "completed",
    "unfinished AND start_time <= %(at)s AND end_time <= %(at)s AND status = 'confirmed'",
)
EXPIRE = _end("expired", "unfinished AND start_time <= %(at)s AND status = 'pending'")
EXPIRE_HOLDS = _end("expired", "hold_expires_at <= %(at)s", order="hold_expires_at")

# Once for each start of a booking: one that is moved is reminded of anew. Whoever booked or moved
# it when the time for a reminder had passed already has just been told.
REMIND = f"""
WITH due AS (
    SELECT booking.* FROM bookings_booking AS booking
    WHERE unfinished AND status = 'confirmed'
      AND start_time > %(at)s AND start_time <= %(at)s + %(ahead)s
      AND updated_at <= start_time - %(ahead)s
      AND NOT EXISTS (
        SELECT FROM bookings_bookingevent AS event
        WHERE event.booking_id = booking.id AND event.type = 'booking.reminded'
          AND event.data->>'start_time' = to_jsonb(booking.start_time)->>0
      )
    ORDER BY start_time, id LIMIT %(batch)s
    FOR NO KEY UPDATE SKIP LOCKED
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.reminded', %(at)s, jsonb_build_object({state_of("due")})
FROM due ORDER BY start_time, id
-- Nothing of a booking changes, so one who comes second does not see what the first has written.
ON CONFLICT DO NOTHING
"""  # noqa: S608 - names of columns, no values


def complete_bookings(*, at: datetime) -> int:
    """Complete the confirmed bookings that have ended by `at`; return how many there were."""
    return _in_batches(COMPLETE, at=at)


def expire_bookings(*, at: datetime) -> int:
    """Let bookings go that nobody confirmed before they began, and holds whose time is over.

    Returns:
        how many there were.
    """
    return _in_batches(EXPIRE, at=at) + _in_batches(EXPIRE_HOLDS, at=at)


def send_reminders(*, at: datetime) -> int:
    """Remind of confirmed bookings that begin within `settings.REMINDER_TIME`; return how many."""
    return _in_batches(REMIND, at=at, ahead=settings.REMINDER_TIME)


def _in_batches(text: str, **values: Any) -> int:
    """Run a statement for a batch at a time, until one finds less than it could take."""
    return sum(_batches(text, {**values, "batch": BATCH}))


def _batches(text: str, values: dict[str, Any]) -> Iterator[int]:
    while True:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(text, values)
            count = cursor.rowcount
        yield count
        if count < BATCH:
            return
