"""Seats: which one is free, and taking it, as PostgreSQL does it."""

from contextlib import nullcontext
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from psycopg import errors as postgres
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from accounts.models import User
from bookings.availability.search import BookingConflict, SlotFull
from bookings.availability.terms import TermsChanged
from bookings.events import STATE_COLUMNS, state_of
from bookings.holds import unexpired, unexpired_sql
from bookings.models import Booking, BookingEvent, Slot
from bookit.database.rows import fetch
from bookit.errors import Conflict
from catalog import turns
from catalog.models import Calendar

# The lowest seat of the `place` that nobody holds in the period, provided that its calendar hosts
# nothing else then: no other service, and no slot but that of the booking. `id` is left out, for a
# booking does not stand in its own way; holds that have expired stand in nobody's. Where the
# service once seated more, those who still sit beyond its capacity fill seats that look free; and
# each who waits `ahead` of the booker has one of them to come.
#
# The seats go through an array because PostgreSQL expects 10 rows of one, and 1,000 of a series:
# so dear that it would plan the statement anew each time, which takes longer than to run it.
FREE_SEAT = f"""
    SELECT seat FROM unnest(
        ARRAY(SELECT generate_series(1, (SELECT capacity FROM place)))
    ) AS seat
    WHERE seat NOT IN (
        SELECT taken.seat FROM bookings_booking AS taken
        WHERE taken.service_id = %(service_id)s AND taken.active AND taken.id <> %(id)s
          AND taken.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("taken.hold_expires_at")}
    ) AND NOT EXISTS (
        SELECT FROM bookings_occupancy AS other
        WHERE other.calendar_id = %(calendar_id)s AND other.occupant <> %(occupant)s
          AND other.id <> %(id)s
          AND other.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("other.expires_at")}
    )
    ORDER BY seat LIMIT 1 OFFSET (SELECT ahead FROM place) + (
        SELECT count(DISTINCT beyond.seat) FROM bookings_booking AS beyond
        WHERE beyond.service_id = %(service_id)s AND beyond.seat > (SELECT capacity FROM place)
          AND beyond.active AND beyond.id <> %(id)s
          AND beyond.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
          AND {unexpired_sql("beyond.hold_expires_at")}
    )
"""  # noqa: S608 - a condition of ours, no values

# Where the seats are, and how many wait for one ahead of the booker: a service without slots has
# its own and no queue; those of a slot are the slot's, which neither changes nor is cancelled
# before the booking in it is there to be seen.
IN_SERVICE = "place AS (SELECT %(capacity)s::int AS capacity, 0 AS ahead)"
IN_SLOT = """place AS MATERIALIZED (
    SELECT capacity, (
        SELECT count(*) FROM bookings_waitlistentry AS entry
        WHERE entry.slot_id = %(slot_id)s AND entry.status = 'waiting' AND NOT EXISTS (
            SELECT FROM bookings_waitlistentry AS own
            WHERE own.slot_id = %(slot_id)s AND own.status = 'waiting'
              AND own.user_id = %(user_id)s
              AND (own.created_at, own.id) <= (entry.created_at, entry.id)
        )
    ) AS ahead
    FROM bookings_slot
    WHERE id = %(slot_id)s AND status = 'scheduled' AND calendar_share_turn(%(calendar_id)s)
    FOR SHARE
)"""

# One statement, one round trip: pick a seat, take it, and write down that it was taken.
#
# ON CONFLICT DO NOTHING is what makes a race cheap: whoever comes second waits for nothing but the
# commit of the first and inserts no row; two plain INSERTs into an exclusion constraint wait for
# each other until the deadlock detector ends one of them.
#
# Only those who find a free seat look whether the terms are still those that they have read, share
# a turn of the calendar (`catalog.turns`) and lock its version (`bookings.terms`): the others leave
# the calendar alone. In a slot, the turn comes before the lock on the slot.
#
# It returns an `Attempt`, or nothing where no seat is free.
CREATE = """
WITH {place}, free AS ({free_seat}), seated AS MATERIALIZED (
    SELECT free.seat, calendar.seat IS NOT NULL AS on_terms
    FROM free LEFT JOIN LATERAL (
        SELECT free.seat FROM catalog_calendar
        WHERE id = %(calendar_id)s AND version = %(version)s
          AND calendar_share_turn(%(calendar_id)s)
        FOR KEY SHARE
    ) AS calendar ON true
), booking AS (
    INSERT INTO bookings_booking (
        id, user_id, service_id, calendar_id, slot_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, notes, price, currency, hold_expires_at, created_at,
        updated_at
    )
    SELECT %(id)s, %(user_id)s, %(service_id)s, %(calendar_id)s, %(slot_id)s, seat, %(start_time)s,
        %(end_time)s, tstzrange(%(blocked_from)s, %(blocked_until)s), %(status)s,
        %(attendee_name)s, %(attendee_email)s, %(notes)s, %(price)s, %(currency)s,
        %(hold_expires_at)s, %(at)s, %(at)s
    FROM seated WHERE on_terms
    ON CONFLICT DO NOTHING
    RETURNING {state_columns}
), event AS (
    INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
    SELECT %(id)s, %(event)s, %(actor_id)s, %(at)s, {data} FROM booking
)
SELECT seated.seat, seated.on_terms, booking.seat IS NOT NULL AS taken,
    booking.seat IS NULL AND EXISTS (
        SELECT FROM bookings_booking AS hold
        WHERE hold.calendar_id = %(calendar_id)s
          AND hold.hold_expires_at <= (SELECT %(at)s::timestamptz)
          AND hold.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
    ) AS behind_hold
FROM seated LEFT JOIN booking ON true
"""


class Attempt(NamedTuple):
    """What came of an attempt to take a seat that was free.

    Args:
        on_terms: whether the terms are still those that were read.
        behind_hold: whether a hold that has expired may be in the way; no INSERT gets round it.
    """

    seat: int
    on_terms: bool
    taken: bool
    behind_hold: bool


_STATE = f"jsonb_build_object({state_of('booking')})"
_COLUMNS = ", ".join(STATE_COLUMNS)
CREATE_IN_SERVICE = CREATE.format(
    place=IN_SERVICE, free_seat=FREE_SEAT, data=_STATE, state_columns=_COLUMNS
)
CREATE_IN_SLOT = CREATE.format(
    place=IN_SLOT, free_seat=FREE_SEAT, data=f"{_STATE} || %(more)s", state_columns=_COLUMNS
)
FREE_SEAT_IN_SERVICE = f"WITH {IN_SERVICE} {FREE_SEAT}"
FREE_SEAT_IN_SLOT = f"WITH {IN_SLOT} {FREE_SEAT}"

# Holds whose time is over stand in nobody's way: whoever needs their seat closes them first.
CLOSE_HOLDS = f"""
WITH expired AS (
    UPDATE bookings_booking SET status = 'expired', hold_expires_at = NULL, updated_at = %(at)s
    WHERE id IN (
        SELECT id FROM bookings_booking
        WHERE calendar_id = %(calendar_id)s AND hold_expires_at <= %(at)s
          AND blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
        ORDER BY id FOR NO KEY UPDATE
    )
    RETURNING id, {", ".join(STATE_COLUMNS)}
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.expired', %(at)s, jsonb_build_object(
    {state_of("expired")}, 'was', jsonb_build_object('status', 'held')
) FROM expired
"""  # noqa: S608 - names of columns, no values


def seats_taken(at: Any) -> Coalesce:
    """Return how many seats of a slot are not to be had any more, in a query of slots.

    A hold whose time is over `at` then counts for nothing.
    """
    taken = Booking.objects.filter(unexpired(at), slot=OuterRef("pk"), active=True).order_by()
    return Coalesce(Subquery(taken.values("slot").annotate(seats=Count("pk")).values("seats")), 0)


def _placement(booking: Booking, at: datetime) -> dict[str, Any]:
    """Return the parameters of `FREE_SEAT`."""
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


def _full(booking: Booking) -> Conflict:
    return SlotFull() if booking.slot_id else BookingConflict()


def take_seat(
    booking: Booking, *, capacity: int, version: int, actor: User | None, **more: Any
) -> int:
    """Insert `booking` with its first event into the lowest free seat, and return that seat.

    Args:
        version: the calendar's, with which the terms were read that allow the booking.
        actor: None when it is the clock.
        more: what else the event of a booking in a slot is to say.

    Raises:
        TermsChanged: the terms are others now; no seat is taken.
        SlotFull: every seat of its slot is taken, or somebody else waits for it.
        BookingConflict: every seat of its service is taken, or its calendar hosts something else.
    """
    held = booking.status == Booking.Status.HELD
    parameters = {
        **_placement(booking, booking.created_at),
        "capacity": capacity,
        "version": version,
        "start_time": booking.start_time,
        "end_time": booking.end_time,
        "status": booking.status,
        "attendee_name": booking.attendee_name,
        "attendee_email": booking.attendee_email,
        "notes": booking.notes,
        "price": booking.price,
        "currency": booking.currency,
        "hold_expires_at": booking.hold_expires_at,
        "event": BookingEvent.Type.HELD if held else BookingEvent.Type.CREATED,
        "actor_id": actor and actor.pk,
        "more": Jsonb(more),
    }
    # A seat that was free and could not be taken went to somebody who has committed since, so the
    # next look no longer offers it.
    for _ in range(capacity + 1):
        attempt = _create(booking, parameters)
        if attempt and attempt.behind_hold:
            with transaction.atomic():
                lock_to_book(booking.calendar_id)
                _close_holds_behind(booking, booking.created_at)
                attempt = _create(booking, parameters)
        if attempt is None:
            break
        if not attempt.on_terms:
            raise TermsChanged
        if attempt.taken:
            return attempt.seat
    raise _full(booking)


def lock_to_book(calendar_id: UUID) -> None:
    """Let nobody else move bookings, publish slots or close holds on a calendar meanwhile."""
    rows = Calendar.objects.select_for_update(no_key=True).filter(turns.shared(calendar_id))
    rows.get(pk=calendar_id)


def lock_calendar_of(slot_id: UUID) -> None:
    """Do the same as `lock_to_book` for the calendar of a slot, if there is such a slot."""
    calendar = Slot.objects.filter(pk=slot_id).values("calendar")
    rows = Calendar.objects.select_for_update(of=("self",), no_key=True)
    rows.filter(turns.shared(calendar), slots=slot_id).first()


def _create(booking: Booking, parameters: dict[str, Any]) -> Attempt | None:
    try:
        text = CREATE_IN_SLOT if booking.slot_id else CREATE_IN_SERVICE
        # Inside a transaction, its caller can go on after a refusal.
        with transaction.atomic() if connection.in_atomic_block else nullcontext():
            attempts = fetch(text, parameters, class_row(Attempt))
        return attempts[0] if attempts else None
    except IntegrityError as error:
        # A slot that was published since the look for a free seat.
        if not isinstance(error.__cause__, postgres.ExclusionViolation):
            raise
        raise _full(booking) from None


def _close_holds_behind(booking: Booking, at: datetime) -> None:
    """Close the expired holds on the time of a booking."""
    close_expired_holds(
        calendar_id=booking.calendar_id,
        blocked_from=booking.blocked.lower,
        blocked_until=booking.blocked.upper,
        at=at,
    )


def move_to_free_seat(booking: Booking, *, capacity: int) -> None:
    """Store the new period of `booking` in the lowest seat that is free then."""
    at = booking.updated_at
    parameters = {**_placement(booking, at), "capacity": capacity}
    for _ in range(capacity + 1):
        with connection.cursor() as cursor:
            cursor.execute(
                FREE_SEAT_IN_SLOT if booking.slot_id else FREE_SEAT_IN_SERVICE, parameters
            )
            row = cursor.fetchone()
        if row is None:
            break
        booking.seat = row[0]
        try:
            with transaction.atomic():
                booking.save(
                    update_fields=[
                        *("slot", "seat", "start_time", "end_time", "blocked", "updated_at")
                    ]
                )
            return
        except IntegrityError as error:
            # A new booking came between the look and the step and has committed, or a hold that
            # has expired is still there.
            if not isinstance(error.__cause__, postgres.ExclusionViolation):
                raise
            _close_holds_behind(booking, at)
    raise _full(booking)


def close_expired_holds(
    *, calendar_id: UUID, blocked_from: datetime, blocked_until: datetime, at: datetime
) -> None:
    """Let the holds on a calendar that end by `at` go, where they meet a period.

    The caller holds the lock on the calendar, in a transaction that needs that time.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            CLOSE_HOLDS,
            {
                "calendar_id": calendar_id,
                "blocked_from": blocked_from,
                "blocked_until": blocked_until,
                "at": at,
            },
        )
