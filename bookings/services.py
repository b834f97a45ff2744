"""The rules of bookings: who gets which seat, when, and what may become of it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from psycopg import errors as postgres
from uuid_utils.compat import uuid7

from accounts.models import User
from bookings.models import Booking, BookingEvent
from bookit.errors import CONSTRAINT_ERRORS, Conflict, Forbidden, Invalid
from bookit.prepared import Parameter, Prepared
from bookit.retries import retried
from catalog.models import Calendar, Service

Status = Booking.Status

# From each state to those that may follow it. Providers and admins may do it all, the owner cancel.
TRANSITIONS: dict[str, frozenset[str]] = {
    Status.HELD: frozenset({Status.PENDING, Status.CONFIRMED, Status.CANCELLED, Status.EXPIRED}),
    Status.PENDING: frozenset(
        {Status.CONFIRMED, Status.CANCELLED, Status.EXPIRED, Status.COMPLETED, Status.NO_SHOW}
    ),
    Status.CONFIRMED: frozenset({Status.COMPLETED, Status.CANCELLED, Status.NO_SHOW}),
    Status.COMPLETED: frozenset({Status.NO_SHOW}),
    Status.NO_SHOW: frozenset({Status.COMPLETED}),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}

EVENT_OF = {
    # A hold that becomes a booking.
    Status.PENDING: BookingEvent.Type.CREATED,
    Status.CONFIRMED: BookingEvent.Type.CONFIRMED,
    Status.CANCELLED: BookingEvent.Type.CANCELLED,
    Status.COMPLETED: BookingEvent.Type.COMPLETED,
    Status.EXPIRED: BookingEvent.Type.EXPIRED,
    Status.NO_SHOW: BookingEvent.Type.NO_SHOW,
}


class BookingConflict(Conflict):
    """This time is already booked."""

    code = "booking_conflict"


class ServiceInactive(Conflict):
    """This service cannot be booked at present."""

    code = "service_inactive"


class TooSoon(Conflict):
    """This service is booked further ahead than that."""

    code = "too_soon"


class TooFarAhead(Conflict):
    """This service cannot be booked that far ahead yet."""

    code = "too_far_ahead"


class CancellationTooLate(Conflict):
    """It is too late to move or cancel this booking: ask its provider."""

    code = "cancellation_too_late"


class InvalidTransition(Conflict):
    """A booking in this state cannot change like that."""

    code = "invalid_transition"


class BookingStarted(Forbidden):
    """The booking has started: only an admin can delete it now."""

    code = "booking_started"


# A service that was deleted, or moved to another calendar, while it was being booked.
CONSTRAINT_ERRORS["booking_service_on_calendar"] = ServiceInactive
CONSTRAINT_ERRORS["booking_seat_free"] = BookingConflict
CONSTRAINT_ERRORS["booking_calendar_free"] = BookingConflict

# What has to be known of a service to book it.
SERVICE = Prepared(
    lambda: (
        Service.objects.order_by()
        .filter(pk=Parameter("pk", Service._meta.pk))
        .only(
            "calendar_id",
            "duration_minutes",
            "capacity",
            "requires_confirmation",
            "buffer_before_minutes",
            "buffer_after_minutes",
            "min_notice_minutes",
            "max_advance_days",
            "price",
            "currency",
            "is_active",
        )
    )
)

# The lowest seat of the service that nobody holds in the period, provided that its calendar hosts
# no other service then. `id` is left out, for a booking does not stand in its own way. Where the
# service once seated more, those who still sit beyond its capacity fill seats that look free.
#
# The seats go through an array because PostgreSQL expects 10 rows of one, and 1,000 of a series:
# so dear that it would plan the statement anew each time, which takes longer than to run it.
FREE_SEAT = """
    SELECT seat FROM unnest(ARRAY(SELECT generate_series(1, %(capacity)s::int))) AS seat
    WHERE seat NOT IN (
        SELECT taken.seat FROM bookings_booking AS taken
        WHERE taken.service_id = %(service_id)s AND taken.active AND taken.id <> %(id)s
          AND taken.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
    ) AND NOT EXISTS (
        SELECT FROM bookings_booking AS other
        WHERE other.calendar_id = %(calendar_id)s AND other.service_id <> %(service_id)s
          AND other.active AND other.id <> %(id)s
          AND other.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
    )
    ORDER BY seat LIMIT 1 OFFSET (
        SELECT count(DISTINCT beyond.seat) FROM bookings_booking AS beyond
        WHERE beyond.service_id = %(service_id)s AND beyond.seat > %(capacity)s::int
          AND beyond.active AND beyond.id <> %(id)s
          AND beyond.blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
    )
"""

# One statement, one round trip: pick a seat, take it, and write down that it was taken.
#
# ON CONFLICT DO NOTHING is what makes a race cheap: whoever comes second waits for nothing but the
# commit of the first and inserts no row; two plain INSERTs into an exclusion constraint wait for
# each other until the deadlock detector ends one of them.
CREATE = f"""
WITH free AS ({FREE_SEAT}), booking AS (
    INSERT INTO bookings_booking (
        id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
        attendee_name, attendee_email, notes, price, currency, created_at, updated_at
    )
    SELECT %(id)s, %(user_id)s, %(service_id)s, %(calendar_id)s, seat, %(start_time)s, %(end_time)s,
        tstzrange(%(blocked_from)s, %(blocked_until)s), %(status)s, %(attendee_name)s,
        %(attendee_email)s, %(notes)s, %(price)s, %(currency)s, %(at)s, %(at)s
    FROM free
    ON CONFLICT DO NOTHING
    RETURNING seat, status, start_time, end_time
), event AS (
    INSERT INTO bookings_bookingevent (booking_id, type, actor_id, at, data)
    SELECT %(id)s, 'booking.created', %(actor_id)s, %(at)s, jsonb_build_object(
        'status', status, 'start_time', start_time, 'end_time', end_time, 'seat', seat
    ) FROM booking
)
SELECT free.seat, booking.seat IS NOT NULL FROM free LEFT JOIN booking ON true
"""  # noqa: S608 - one constant in another, no values


# Holds whose time is over stand in nobody's way: whoever needs their seat closes them first.
CLOSE_HOLDS = """
WITH expired AS (
    UPDATE bookings_booking SET status = 'expired', hold_expires_at = NULL, updated_at = %(at)s
    WHERE id IN (
        SELECT id FROM bookings_booking
        WHERE calendar_id = %(calendar_id)s AND hold_expires_at <= %(at)s
          AND blocked && tstzrange(%(blocked_from)s, %(blocked_until)s)
        ORDER BY id FOR NO KEY UPDATE
    )
    RETURNING id, start_time, end_time, seat
)
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.expired', %(at)s, jsonb_build_object(
    'status', 'expired', 'start_time', start_time, 'end_time', end_time, 'seat', seat,
    'was', jsonb_build_object('status', 'held')
) FROM expired
"""


def create_booking(
    *,
    actor: User,
    service_id: UUID,
    start_time: datetime,
    at: datetime,
    end_time: datetime | None = None,
    user_id: UUID | None = None,
    attendee_name: str = "",
    attendee_email: str = "",
    notes: str = "",
) -> Booking:
    """Book the lowest free seat of a service for `actor` or, by an admin, for somebody else.

    Args:
        end_time: follows from the service's duration; one that is given must agree.
        at: now.

    Raises:
        Invalid: there is no such service or user, the start is past, or the end does not agree.
        Forbidden: a booking for somebody else, by somebody who is no admin.
        ServiceInactive: the service cannot be booked at present.
        TooSoon: less than the service's notice is left.
        TooFarAhead: it is beyond the service's horizon.
        BookingConflict: every seat is taken, or the calendar hosts another service then.
    """
    service = SERVICE.get(pk=service_id)
    if service is None:
        raise _invalid("service_id", "There is no service with this id.")
    if user_id is not None and user_id != actor.pk:
        if not actor.is_admin:
            raise Forbidden("Only admins book for somebody else.")
        if not User.objects.filter(pk=user_id, is_active=True).exists():
            raise _invalid("user_id", "There is no active user with this id.")
    if not service.is_active:
        raise ServiceInactive
    _check_start(service, start_time, at)
    ends = start_time + timedelta(minutes=service.duration_minutes)
    if end_time is not None and end_time != ends:
        raise _invalid(
            "end_time", f"The service takes {service.duration_minutes} minutes; leave the end out."
        )
    before = timedelta(minutes=service.buffer_before_minutes)
    after = timedelta(minutes=service.buffer_after_minutes)
    booking = Booking(
        id=uuid7(),
        user_id=user_id or actor.pk,
        service_id=service.pk,
        calendar_id=service.calendar_id,
        start_time=start_time,
        end_time=ends,
        blocked=DateTimeTZRange(start_time - before, ends + after),
        status=Status.PENDING if service.requires_confirmation else Status.CONFIRMED,
        attendee_name=attendee_name,
        attendee_email=attendee_email,
        notes=notes,
        price=service.price,
        currency=service.currency,
        created_at=at,
        updated_at=at,
    )
    booking.seat = _take_seat(booking, capacity=service.capacity, actor=actor)
    return booking


@retried
@transaction.atomic
def reschedule_booking(
    *, booking_id: UUID, actor: User, start_time: datetime, at: datetime
) -> Booking:
    """Move a booking to another start, in the lowest seat that is free then.

    It keeps its length, its buffers and its price.

    Raises:
        Booking.DoesNotExist: there is no such booking.
        Forbidden: neither the owner, nor its provider, nor an admin asks.
        InvalidTransition: it is neither pending nor confirmed.
        CancellationTooLate: its owner asks, and less than the service's notice is left.
        Invalid: the start is past.
        ServiceInactive: the service cannot be booked at present.
        TooSoon: the new start is nearer than the service's notice.
        TooFarAhead: it is beyond the service's horizon.
        BookingConflict: every seat is taken then.
    """
    # Movers of one calendar come one after the other: two UPDATEs into one exclusion constraint
    # would wait for each other until the deadlock detector ends one of them.
    Calendar.objects.select_for_update(of=("self",), no_key=True).get(bookings=booking_id)
    booking = _locked(booking_id)
    _check_may_touch(booking, actor)
    if booking.status not in (Status.PENDING, Status.CONFIRMED):
        raise InvalidTransition(f"A booking that is {booking.status} cannot be moved.")
    if start_time == booking.start_time:
        return booking
    _check_notice(booking, actor, at)
    if not booking.service.is_active:
        raise ServiceInactive
    _check_start(booking.service, start_time, at)
    was = {"start_time": booking.start_time.isoformat(), "end_time": booking.end_time.isoformat()}
    shift = start_time - booking.start_time
    booking.blocked = DateTimeTZRange(booking.blocked.lower + shift, booking.blocked.upper + shift)
    booking.start_time, booking.end_time = start_time, booking.end_time + shift
    booking.updated_at = at
    _move_to_free_seat(booking, capacity=booking.service.capacity)
    _record(booking, BookingEvent.Type.RESCHEDULED, actor=actor, at=at, was=was)
    return booking


@retried
@transaction.atomic
def cancel_booking(*, booking_id: UUID, actor: User, at: datetime) -> Booking:
    """Cancel a booking and free its seat, as its owner, its provider or an admin.

    Raises:
        Booking.DoesNotExist: there is no such booking.
        Forbidden: it is somebody else's.
        InvalidTransition: it is over, or cancelled already.
        CancellationTooLate: its owner asks, and less than the service's notice is left.
    """
    booking = _locked(booking_id)
    _check_may_touch(booking, actor)
    _check_notice(booking, actor, at)
    return _enter(Status.CANCELLED, booking, actor=actor, at=at)


@retried
@transaction.atomic
def change_status(
    *, booking_id: UUID, status: str, actor: User, at: datetime, reason: str = ""
) -> Booking:
    """Change the state of a booking, as its provider or an admin.

    Raises:
        Booking.DoesNotExist: there is no such booking.
        Forbidden: somebody else asks; its owner may cancel it, see `cancel_booking`.
        InvalidTransition: that does not follow from the state it is in.
    """
    booking = _locked(booking_id)
    if not manages(actor, booking):
        raise Forbidden("That is up to the provider; you can move or cancel your own bookings.")
    return _enter(status, booking, actor=actor, at=at, reason=reason)


@retried
@transaction.atomic
def delete_booking(*, booking_id: UUID, actor: User, at: datetime) -> None:
    """Delete a booking; its history stays.

    Raises:
        Booking.DoesNotExist: there is no such booking.
        Forbidden: neither its owner nor an admin asks.
        BookingStarted: its owner asks too late.
        CancellationTooLate: its owner would get round the notice that cancelling it needs.
    """
    booking = _locked(booking_id)
    if not actor.is_admin:
        if booking.user_id != actor.pk:
            raise Forbidden("This is somebody else's booking.")
        if booking.start_time <= at:
            raise BookingStarted
        _check_notice(booking, actor, at)
    _record(booking, BookingEvent.Type.DELETED, actor=actor, at=at)
    booking.delete()


def close_expired_holds(
    *, calendar_id: UUID, blocked_from: datetime, blocked_until: datetime, at: datetime
) -> int:
    """Let the holds on a calendar that end by `at` go, where they meet a period.

    The caller holds the lock on the calendar, in a transaction that needs that time.

    Returns:
        How many there were.
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
        return cursor.rowcount


def manages(user: User, booking: Booking) -> bool:
    """Return whether `user` decides about `booking`: an admin, or it is on their calendar."""
    own = user.role == User.Role.PROVIDER and booking.calendar.provider_id == user.pk
    return user.is_admin or own


def may_read(user: User, booking: Booking) -> bool:
    """Return whether `booking` is the business of `user`: their own, or one that they manage."""
    return booking.user_id == user.pk or manages(user, booking)


def _check_may_touch(booking: Booking, actor: User) -> None:
    if not may_read(actor, booking):
        raise Forbidden("This is somebody else's booking.")


def _check_start(service: Service, start_time: datetime, at: datetime) -> None:
    """Refuse a start that is past, or outside of what the service wants to know ahead."""
    ahead = start_time - at
    if ahead < timedelta(0):
        raise _invalid("start_time", "The start is in the past.")
    if ahead < timedelta(minutes=service.min_notice_minutes):
        raise TooSoon(f"Book this service at least {service.min_notice_minutes} minutes ahead.")
    if service.max_advance_days is not None and ahead > timedelta(days=service.max_advance_days):
        raise TooFarAhead(f"Book this service at most {service.max_advance_days} days ahead.")


def _check_notice(booking: Booking, actor: User, at: datetime) -> None:
    """Refuse an owner who lets go of the time of a booking when nobody else can be found for it."""
    if booking.status not in (Status.PENDING, Status.CONFIRMED) or manages(actor, booking):
        return
    if booking.start_time - at < timedelta(minutes=booking.service.cancellation_notice_minutes):
        raise CancellationTooLate


def _enter(
    status: str, booking: Booking, *, actor: User, at: datetime, reason: str = ""
) -> Booking:
    """Bring a locked booking into another state and write down that it is."""
    if status not in TRANSITIONS[booking.status]:
        raise InvalidTransition(f"A booking that is {booking.status} cannot become {status}.")
    was = {"status": booking.status}
    booking.status, booking.updated_at, booking.hold_expires_at = status, at, None
    booking.save(update_fields=["status", "updated_at", "hold_expires_at"])
    _record(booking, EVENT_OF[Status(status)], actor=actor, at=at, was=was, reason=reason)
    return booking


def _invalid(field: str, message: str) -> Invalid:
    return Invalid(errors={field: [message]})


def _locked(booking_id: UUID) -> Booking:
    return (
        Booking.objects.select_for_update(of=("self",), no_key=True)
        .select_related("service", "calendar")
        .get(pk=booking_id)
    )


def _placement(booking: Booking, capacity: int) -> dict[str, Any]:
    """Return the parameters of `FREE_SEAT`."""
    return {
        "id": booking.pk,
        "service_id": booking.service_id,
        "calendar_id": booking.calendar_id,
        "blocked_from": booking.blocked.lower,
        "blocked_until": booking.blocked.upper,
        "capacity": capacity,
    }


def _take_seat(booking: Booking, *, capacity: int, actor: User) -> int:
    """Insert `booking` with its first event into the lowest free seat, and return that seat."""
    parameters = {
        **_placement(booking, capacity),
        "user_id": booking.user_id,
        "start_time": booking.start_time,
        "end_time": booking.end_time,
        "status": booking.status,
        "attendee_name": booking.attendee_name,
        "attendee_email": booking.attendee_email,
        "notes": booking.notes,
        "price": booking.price,
        "currency": booking.currency,
        "actor_id": actor.pk,
        "at": booking.created_at,
    }
    # A seat that was free and could not be taken went to somebody who has committed since, so the
    # next look no longer offers it: this ends after `capacity` rounds at the latest.
    while True:
        rows = connection.fetch(CREATE, parameters)  # type: ignore[attr-defined]
        if not rows:
            raise BookingConflict
        [(seat, taken)] = rows
        if taken:
            return seat


def _move_to_free_seat(booking: Booking, *, capacity: int) -> None:
    """Store the new period of `booking` in the lowest seat that is free then."""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(FREE_SEAT, _placement(booking, capacity))
            row = cursor.fetchone()
        if row is None:
            raise BookingConflict
        booking.seat = row[0]
        try:
            with transaction.atomic():
                booking.save(
                    update_fields=["seat", "start_time", "end_time", "blocked", "updated_at"]
                )
            return
        except IntegrityError as error:
            # A new booking came between the look and the step; it has committed, so look again.
            if not isinstance(error.__cause__, postgres.ExclusionViolation):
                raise


def _record(
    booking: Booking, kind: BookingEvent.Type, *, actor: User | None, at: datetime, **more: Any
) -> None:
    """Write down what happened, with the state that came of it."""
    BookingEvent.objects.create(
        booking_id=booking.pk,
        type=kind,
        actor=actor,
        at=at,
        data={
            "status": booking.status,
            "start_time": booking.start_time.isoformat(),
            "end_time": booking.end_time.isoformat(),
            "seat": booking.seat,
            **{name: value for name, value in more.items() if value},
        },
    )
