"""Seats: the SQL that finds a free seat and takes it."""

from contextlib import nullcontext
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import OuterRef
from django.db.models.functions import Coalesce
from psycopg import errors as postgres
from psycopg.rows import class_row, scalar_row
from psycopg.types.json import Jsonb

from accounts.models import User
from bookings.availability.taken import BookingConflict, SlotFull
from bookings.availability.terms import TermsChanged
from bookings.booked import remember_calendar
from bookings.events import STATE_COLUMNS, state_of
from bookings.holds import unexpired, unexpired_sql
from bookings.models import Booking, BookingEvent
from bookit.database.citus.lookups import OuterCalendar
from bookit.database.citus.nodes import is_distributed
from bookit.database.counts import number_of
from bookit.database.rows import fetch
from bookit.errors import Conflict
from bookit.json import dumps
from catalog import turns
from catalog.models import Calendar

# Fragments of the statements below. PLACE_IN_SERVICE, PLACE_IN_SLOT, FREE_SEAT and TAKE_SEAT are
# parts of a WITH clause. A condition that is needed for several tables comes from a function.

# The number of seats, and the number of users who are ahead of the booker on the waitlist. For a
# booking without a slot, the number of seats is the capacity of the service, and nobody is ahead.
PLACE_IN_SERVICE = "place AS (SELECT %(capacity)s::int AS capacity, 0 AS ahead)"

# The same numbers for a slot. The lock keeps the slot from being changed or cancelled before the
# booking in it is visible.
PLACE_IN_SLOT = """place AS MATERIALIZED (
    SELECT capacity, (
        SELECT count(*) FROM bookings_waitlistentry AS entry
        WHERE entry.calendar_id = %(calendar_id)s AND entry.slot_id = %(slot_id)s
          AND entry.status = 'waiting' AND NOT EXISTS (
            SELECT 1 FROM bookings_waitlistentry AS own
            WHERE own.calendar_id = %(calendar_id)s AND own.slot_id = %(slot_id)s
              AND own.status = 'waiting' AND own.user_id = %(user_id)s
              AND (own.created_at, own.id) <= (entry.created_at, entry.id)
        )
    ) AS ahead
    FROM bookings_slot
    WHERE calendar_id = %(calendar_id)s AND id = %(slot_id)s AND status = 'scheduled'
      AND calendar_share_turn(%(calendar_id)s)
    FOR SHARE
)"""

# The lowest free seat of the `place` in the period. No seat is free if the calendar hosts another
# service or another slot in the period. The booking itself (`id`) and expired holds do not count.
# If the capacity was reduced, each seat beyond the capacity that is taken in the period uses up one
# of the free seats, the lowest first. Each user who is ahead on the waitlist uses up one more.
#
# The series of seats is put into an array, because PostgreSQL estimates 10 rows for an array and
# 1,000 for a series. With an estimate of 1,000, it would plan the statement again for each run,
# which takes longer than the run itself.
FREE_SEAT = f"""free AS (
    SELECT seat FROM unnest(
        ARRAY(SELECT generate_series(1, (SELECT capacity FROM place)))
    ) AS seat
    WHERE seat NOT IN (
        SELECT taken.seat FROM bookings_booking AS taken
        WHERE taken.calendar_id = %(calendar_id)s AND taken.service_id = %(service_id)s
          AND taken.active AND taken.id <> %(id)s
          AND taken.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("taken.hold_expires_at")}
    ) AND NOT EXISTS (
        SELECT 1 FROM bookings_occupancy AS other
        WHERE other.calendar_id = %(calendar_id)s AND other.occupant <> %(occupant)s
          AND other.id <> %(id)s
          AND other.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("other.expires_at")}
    )
    ORDER BY seat LIMIT 1 OFFSET (SELECT ahead FROM place) + (
        SELECT count(DISTINCT beyond.seat) FROM bookings_booking AS beyond
        WHERE beyond.calendar_id = %(calendar_id)s AND beyond.service_id = %(service_id)s
          AND beyond.seat > (SELECT capacity FROM place) AND beyond.active AND beyond.id <> %(id)s
          AND beyond.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("beyond.hold_expires_at")}
    )
)"""  # noqa: S608 - only our own SQL condition is interpolated, no values

# The columns of a new booking, and their values.
BOOKING_COLUMNS = """
        id, user_id, service_id, calendar_id, slot_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, attendee_phone, language, notes, price, currency,
        hold_expires_at, metadata, created_at, updated_at
    """
BOOKING_VALUES = """
        %(id)s, %(user_id)s, %(service_id)s, %(calendar_id)s, %(slot_id)s, seat, %(start_time)s,
        %(end_time)s, tstzrange(%(blocked_from)s, %(blocked_until)s), %(status)s,
        %(attendee_name)s, %(attendee_email)s, %(attendee_phone)s, %(language)s, %(notes)s,
        %(price)s, %(currency)s, %(hold_expires_at)s, %(metadata)s, %(at)s, %(at)s"""

# Inserts the booking into the free seat, if the terms have not changed since they were read.
#
# If a seat is free, the statement compares the calendar's version with the version at which the
# terms were read, shares a turn of the calendar (see `catalog.turns`) and locks the version (see
# `bookings.availability.terms`). If no seat is free, the statement does not touch the calendar's
# row: the subquery selects `free.seat`, so that no plan of PostgreSQL runs it without a free seat.
# In a slot, the turn is always shared, before the slot is locked.
#
# ON CONFLICT DO NOTHING makes a race cheap: the second booker waits only until the first booker
# commits, and inserts no row. Two plain INSERTs into an exclusion constraint can wait for each
# other until the deadlock detector ends one of them.
TAKE_SEAT = f"""seated AS MATERIALIZED (
    SELECT free.seat, calendar.seat IS NOT NULL AS on_terms
    FROM free LEFT JOIN LATERAL (
        SELECT free.seat FROM catalog_calendar
        WHERE id = %(calendar_id)s AND version = %(version)s
          AND calendar_share_turn(%(calendar_id)s)
        FOR KEY SHARE
    ) AS calendar ON true
), booking AS (
    INSERT INTO bookings_booking ({BOOKING_COLUMNS})
    SELECT {BOOKING_VALUES}
    FROM seated WHERE on_terms
    ON CONFLICT DO NOTHING
    RETURNING calendar_id, {", ".join(STATE_COLUMNS)}
)"""  # noqa: S608 - only our own SQL is interpolated, no values

# Finds the expired holds on the calendar that overlap the period. The subquery hides the value of
# `at`: if PostgreSQL knew the value, it would plan the statement again for each run.
EXPIRED_HOLDS = """bookings_booking AS hold
        WHERE hold.calendar_id = %(calendar_id)s
          AND hold.hold_expires_at <= (SELECT %(at)s::timestamptz)
          AND hold.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)"""

# The columns of an `Attempt`.
ATTEMPT = f"""
    seated.seat, seated.on_terms, booking.seat IS NOT NULL AS taken,
    booking.seat IS NULL AND EXISTS (
        SELECT 1 FROM {EXPIRED_HOLDS}
    ) AS behind_hold
"""  # noqa: S608 - only our own SQL is interpolated, no values


class Attempt(NamedTuple):
    """The result of an attempt to take a seat that was free.

    Args:
        on_terms: whether the terms are still the same as when they were read.
        taken: whether this attempt took the seat.
        behind_hold: whether an expired hold may have prevented the INSERT. `FREE_SEAT` ignores
            expired holds, but the constraints do not.
    """

    seat: int
    on_terms: bool
    taken: bool
    behind_hold: bool


# Books the lowest free seat of a service at a time without a slot, and writes the event, in one
# round trip.
#
# Parameters: id uuid, user_id uuid, service_id uuid, calendar_id uuid, slot_id uuid (always null),
#   occupant uuid (the service), capacity int, version bigint (of the calendar, when the terms were
#   read), start_time, end_time, blocked_from, blocked_until timestamptz, status text,
#   attendee_name, attendee_email, attendee_phone, language, notes text, price numeric, currency
#   text, hold_expires_at timestamptz (null unless the status is held), metadata jsonb, event text
#   (its type), actor_id uuid, api_key_id uuid (null without a key), at timestamptz (now).
# Columns: the fields of `Attempt`; no row if no seat is free.
# Invariant: booking_seat_free, booking_calendar_free and the trigger booking_occupies refuse a
#   booking whose seat or calendar is not free, so this statement only has to find a seat.
CREATE_IN_SERVICE = f"""
WITH {PLACE_IN_SERVICE}, {FREE_SEAT}, {TAKE_SEAT}, event AS (
    INSERT INTO bookings_bookingevent
        (calendar_id, booking_id, type, actor_id, api_key_id, at, data)
    SELECT booking.calendar_id, %(id)s, %(event)s, %(actor_id)s, %(api_key_id)s, %(at)s,
        jsonb_build_object({state_of("booking")})
    FROM booking
)
SELECT {ATTEMPT} FROM seated LEFT JOIN booking ON true
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Books the lowest free seat of a slot, and writes the event, in one round trip.
#
# Parameters: as in CREATE_IN_SERVICE, but with slot_id uuid, occupant uuid (the slot), actor_id
#   uuid (null if the worker holds the seat), more jsonb (additional data of the event), and no
#   capacity.
# Columns: the fields of `Attempt`; no row if no seat is free, or if the slot was cancelled or
#   deleted.
# Invariant: as in CREATE_IN_SERVICE. In addition, booking_in_slot refuses a booking whose time is
#   not the time of the slot.
CREATE_IN_SLOT = f"""
WITH {PLACE_IN_SLOT}, {FREE_SEAT}, {TAKE_SEAT}, event AS (
    INSERT INTO bookings_bookingevent
        (calendar_id, booking_id, type, actor_id, api_key_id, at, data)
    SELECT booking.calendar_id, %(id)s, %(event)s, %(actor_id)s, %(api_key_id)s, %(at)s,
        jsonb_build_object({state_of("booking")}) || %(more)s
    FROM booking
)
SELECT {ATTEMPT} FROM seated LEFT JOIN booking ON true
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Finds the lowest free seat of a service for a booking without a slot.
#
# Parameters: id uuid (of the booking that is moved), service_id uuid, calendar_id uuid,
#   occupant uuid (the service), capacity int, blocked_from, blocked_until timestamptz,
#   at timestamptz (now).
# Columns: seat int; no row if no seat is free.
# Invariant: booking_seat_free and booking_calendar_free refuse the move if another booking takes
#   the seat first.
FREE_SEAT_IN_SERVICE = f"""
WITH {PLACE_IN_SERVICE}, {FREE_SEAT}
SELECT seat FROM free
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Finds the lowest free seat of a slot.
#
# Parameters: as in FREE_SEAT_IN_SERVICE, but with slot_id uuid, occupant uuid (the slot), user_id
#   uuid (the user of the booking), and no capacity.
# Columns: seat int; no row if no seat is free, or if the slot was cancelled or deleted.
# Invariant: as in FREE_SEAT_IN_SERVICE.
FREE_SEAT_IN_SLOT = f"""
WITH {PLACE_IN_SLOT}, {FREE_SEAT}
SELECT seat FROM free
"""  # noqa: S608 - only our own SQL is interpolated, no values

# Ends the expired holds on a calendar that overlap a period, and writes their events. An expired
# hold takes no seat, but the constraints still see it until it is ended.
#
# Parameters: calendar_id uuid, blocked tstzrange (the period), at timestamptz (now).
# Columns: none.
# Invariant: the rows are locked in the order of their ids, so that two runs cannot deadlock.
CLOSE_HOLDS = f"""
WITH expired AS (
    UPDATE bookings_booking SET status = 'expired', hold_expires_at = NULL, updated_at = %(at)s
    WHERE calendar_id = %(calendar_id)s AND id IN (
        SELECT id FROM bookings_booking
        WHERE calendar_id = %(calendar_id)s AND hold_expires_at <= %(at)s
          AND blocked && %(blocked)s
        ORDER BY id FOR NO KEY UPDATE
    )
    RETURNING calendar_id, id, {", ".join(STATE_COLUMNS)}
)
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, at, data)
SELECT calendar_id, id, 'booking.expired', %(at)s, jsonb_build_object(
    {state_of("expired")}, 'was', jsonb_build_object('status', 'held')
) FROM expired
"""  # noqa: S608 - only our own SQL is interpolated, no values


# Does the same as CREATE_IN_SERVICE if the database is distributed. The function is defined in
# `bookings/shards.py`.
#
# Parameters: calendar_id uuid, parameters jsonb (the parameters of CREATE_IN_SERVICE). The
#   statement needs Citus.
# Columns: the fields of `Attempt`; no row if no seat is free.
BOOK_IN_SERVICE = "SELECT * FROM book_in_service(%(calendar_id)s, %(parameters)s)"

# Does the same as CREATE_IN_SLOT if the database is distributed.
#
# Parameters: calendar_id uuid, parameters jsonb (the parameters of CREATE_IN_SLOT). The statement
#   needs Citus.
# Columns: the fields of `Attempt`; no row if no seat is free.
BOOK_IN_SLOT = "SELECT * FROM book_in_slot(%(calendar_id)s, %(parameters)s)"

# Locks a calendar on the server that has its bookings. If the statement locked the calendar's row
# directly, Citus would ask the first server of the cluster, which may be down.
#
# Parameters: calendar_id uuid. The statement needs Citus.
# Columns: is_locked boolean.
LOCK_TO_BOOK = "SELECT is_locked FROM lock_to_book(%(calendar_id)s, '{}')"


def seats_taken(at: Any) -> Coalesce:
    """Return an expression for the number of taken seats of each slot in a queryset.

    Holds that have expired by `at` do not count.
    """
    taken = Booking.objects.filter(
        unexpired(at), calendar=OuterCalendar(), slot=OuterRef("pk"), active=True
    )
    return number_of(taken, by="slot")


def _placement(booking: Booking, at: datetime) -> dict[str, Any]:
    """Return the parameters of `FREE_SEAT` and `PLACE_IN_SLOT`."""
    return {
        "id": booking.pk,
        "user_id": booking.user_id,
        "service_id": booking.service_id,
        "calendar_id": booking.calendar_id,
        "slot_id": booking.slot_id,
        "occupant": booking.slot_id or booking.service_id,
        "blocked_from": booking.blocked.lower,
        "blocked_until": booking.blocked.upper,
        "at": at,
    }


def _full_error(booking: Booking) -> Conflict:
    return SlotFull() if booking.slot_id else BookingConflict()


def take_seat(
    booking: Booking, *, capacity: int, version: int, actor: User | None, **more: Any
) -> int:
    """Insert `booking` with its first event into the lowest free seat, and return that seat.

    Args:
        version: the calendar's version when the terms of the booking were read.
        actor: the user who makes the booking; None if the worker makes it.
        more: additional data for the event of a booking in a slot.

    Raises:
        TermsChanged: the terms have changed; no seat is taken.
        SlotFull: every seat of the slot is taken or promised to the waitlist, or the slot has just
            been cancelled or deleted.
        BookingConflict: every seat of the service is taken, or its calendar hosts another service
            or a slot at that time.
    """
    held = booking.status == Booking.Status.HELD
    remember_calendar(user_id=booking.user_id, calendar_id=booking.calendar_id)
    parameters = {
        **_placement(booking, booking.created_at),
        "capacity": capacity,
        "version": version,
        "start_time": booking.start_time,
        "end_time": booking.end_time,
        "status": booking.status,
        "attendee_name": booking.attendee_name,
        "attendee_email": booking.attendee_email,
        "attendee_phone": booking.attendee_phone,
        "language": booking.language,
        "notes": booking.notes,
        "price": booking.price,
        "currency": booking.currency,
        "hold_expires_at": booking.hold_expires_at,
        "metadata": Jsonb(booking.metadata),
        "event": BookingEvent.Type.HELD if held else BookingEvent.Type.CREATED,
        "actor_id": actor and actor.pk,
        "api_key_id": actor and actor.api_key_id,
        "more": Jsonb(more),
    }
    # If a seat was free but could not be taken, another transaction has taken the seat and has
    # committed. The next attempt no longer finds that seat free. So one attempt for each seat, and
    # a last one that finds no seat, are enough.
    for _ in range(capacity + 1):
        attempt = _create(booking, parameters)
        if attempt and attempt.behind_hold:
            with transaction.atomic():
                lock_to_book(booking.calendar_id)
                close_expired_holds(
                    calendar_id=booking.calendar_id,
                    blocked=booking.blocked,
                    at=booking.created_at,
                )
                attempt = _create(booking, parameters)
        if attempt is None:
            break
        if not attempt.on_terms:
            raise TermsChanged
        if attempt.taken:
            return attempt.seat
    raise _full_error(booking)


def lock_to_book(calendar_id: UUID) -> None:
    """Lock a calendar.

    Until the end of the transaction, no other transaction can move bookings or publish slots on
    this calendar. Others can still make new bookings, and the worker can still expire holds
    (`bookings.clock`).

    Raises:
        Calendar.DoesNotExist: there is no calendar with this id.
    """
    if is_distributed():
        if not fetch(LOCK_TO_BOOK, {"calendar_id": calendar_id}, scalar_row)[0]:
            raise Calendar.DoesNotExist
        return
    rows = Calendar.objects.select_for_update(no_key=True).filter(turns.shared(calendar_id))
    rows.get(pk=calendar_id)


def _create(booking: Booking, parameters: dict[str, Any]) -> Attempt | None:
    try:
        if is_distributed():
            text = BOOK_IN_SLOT if booking.slot_id else BOOK_IN_SERVICE
            parameters = {
                "calendar_id": booking.calendar_id,
                "parameters": Jsonb(parameters, dumps=_as_json),
            }
        else:
            text = CREATE_IN_SLOT if booking.slot_id else CREATE_IN_SERVICE
        # Inside a transaction, a savepoint lets the caller go on after a refusal.
        in_transaction = connection.in_atomic_block
        with transaction.atomic() if in_transaction else nullcontext():
            attempts = fetch(text, parameters, class_row(Attempt))
            if in_transaction and not (attempts and attempts[0].taken):
                # The caller tries again, or locks the calendar to end an expired hold. That lock
                # must come before a lock on the slot (see "Locks, in their order" in
                # `docs/architecture.md`), so the rollback unlocks the slot. It undoes nothing else,
                # because no seat was taken.
                transaction.set_rollback(True)
        return attempts[0] if attempts else None
    except IntegrityError as error:
        # An exclusion violation means that a slot was published after the free seat was found.
        if not isinstance(error.__cause__, postgres.ExclusionViolation):
            raise
        raise _full_error(booking) from None


def _as_json(parameters: Any) -> bytes:
    """Return the parameters of a statement as JSON, with decimals as strings."""
    return dumps(
        {
            name: value.obj if isinstance(value, Jsonb) else value
            for name, value in parameters.items()
        }
    )


def move_to_free_seat(booking: Booking, *, capacity: int) -> None:
    """Store the new period of `booking`, in the lowest seat that is free in that period.

    The caller has locked the calendar.

    Raises:
        SlotFull: every seat of the slot is taken, or promised to the waitlist.
        BookingConflict: every seat of the service is taken, or its calendar hosts another service
            or a slot at that time.
    """
    at = booking.updated_at
    parameters = {**_placement(booking, at), "capacity": capacity}
    text = FREE_SEAT_IN_SLOT if booking.slot_id else FREE_SEAT_IN_SERVICE
    for _ in range(capacity + 1):
        found = fetch(text, parameters)
        if not found:
            break
        [(booking.seat,)] = found
        try:
            with transaction.atomic():
                booking.save(
                    update_fields=[
                        *("slot", "seat", "start_time", "end_time", "blocked", "updated_at")
                    ]
                )
            return
        except IntegrityError as error:
            # Another transaction has taken the seat in the meantime, or an expired hold is still in
            # the way.
            if not isinstance(error.__cause__, postgres.ExclusionViolation):
                raise
            close_expired_holds(calendar_id=booking.calendar_id, blocked=booking.blocked, at=at)
    raise _full_error(booking)


def close_expired_holds(*, calendar_id: UUID, blocked: DateTimeTZRange, at: datetime) -> None:
    """End the holds that expired by `at` and overlap the period `blocked` of a calendar.

    The caller holds the lock on the calendar, in the transaction that needs the period.
    """
    with connection.cursor() as cursor:
        cursor.execute(CLOSE_HOLDS, {"calendar_id": calendar_id, "blocked": blocked, "at": at})
