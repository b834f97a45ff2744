"""On what terms a service is booked: what has to be known of it, and which starts they allow.

Terms are read first and booked on later, so somebody may change them in between: take time off, or
deactivate the service. Each calendar has a version for this. Triggers (in catalog's migrations)
raise it with every change of the calendar's opening hours, time off or time zone, and with every
change of a service that a booking depends on, whoever makes it. Terms carry the version with which
they were read, and the statement that inserts a booking (`bookings.seats`) compares it:

    SELECT ... FROM catalog_calendar WHERE id = ... AND version = ... FOR KEY SHARE

The lock makes a booking and a change take turns, in READ COMMITTED and also where the booking is a
single statement behind PgBouncer. A change of the version conflicts with the lock, because the
version is part of a key (`calendar_version`).

- The booking comes first: the change waits until the booking is committed. What the change asks
  afterwards, such as which bookings are affected, is a new statement and sees the booking.
- The change comes first: the booking waits until the change is committed. PostgreSQL then compares
  the version again, with the row as it is now, finds no row, and nothing is inserted.
- The change was committed between reading and inserting: the same, without the wait.

The booker of the last two cases reads the terms again (`on_current_terms`). Bookings do not wait
for each other: FOR KEY SHARE does not conflict with itself, nor with the FOR NO KEY UPDATE by which
those who move bookings and publish slots take turns. These read the terms once they have that lock,
which conflicts with a change of the version as well.

A change locks the row FOR UPDATE at once, so it waits for bookings while it holds no row. So that
it does not wait for ever while bookings keep coming, both take part in turns, see `catalog.turns`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from bookings.models import Booking, Slot
from bookit.errors import Conflict, Invalid, Unavailable
from catalog.models import Service
from catalog.opening import Opening, Span

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# Each attempt but the first follows a change of the calendar that was committed meanwhile.
TRIES = 10


class TermsChanged(Unavailable):
    """The calendar of this service is being changed. Try again shortly."""


def on_current_terms(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Run a function that reads terms and books on them again if they changed in between."""

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for _ in range(TRIES - 1):
            try:
                return function(*args, **kwargs)
            except TermsChanged:
                continue
        return function(*args, **kwargs)

    return run


class ServiceInactive(Conflict):
    """This service cannot be booked at present."""

    code = "service_inactive"


class TooSoon(Conflict):
    """This service is booked further ahead than that."""

    code = "too_soon"


class TooFarAhead(Conflict):
    """This service cannot be booked that far ahead yet."""

    code = "too_far_ahead"


class OutsideOpeningHours(Conflict):
    """This time is outside of the opening hours."""

    code = "outside_opening_hours"


@dataclass(frozen=True)
class Place:
    """A published slot, as far as a booking in it has to know it."""

    id: UUID
    start_time: datetime
    end_time: datetime
    blocked: DateTimeTZRange
    capacity: int
    status: str


@dataclass(frozen=True)
class Terms:
    """What has to be known of a service to offer and to book it."""

    service_id: UUID
    calendar_id: UUID
    # The calendar's, when the terms were read.
    version: int
    provider_id: UUID | None
    mode: str
    is_active: bool
    capacity: int
    duration: timedelta
    step: timedelta
    buffer_before: timedelta
    buffer_after: timedelta
    notice: timedelta
    horizon: timedelta | None
    requires_confirmation: bool
    price: Decimal
    currency: str
    opening: Opening

    def for_booking(self, booking: Booking) -> "Terms":
        """Return the terms on which a booking is moved: it keeps its length and its buffers."""
        return replace(
            self,
            duration=booking.end_time - booking.start_time,
            buffer_before=booking.start_time - booking.blocked.lower,
            buffer_after=booking.blocked.upper - booking.end_time,
        )

    def check_start(self, start_time: datetime, at: datetime) -> None:
        """Refuse a start that the service does not allow at all.

        Raises:
            ServiceInactive: it cannot be booked at present.
            Invalid: the start is past.
            TooSoon: less than its notice is left.
            TooFarAhead: it is beyond its horizon.
        """
        if not self.is_active:
            raise ServiceInactive
        ahead = start_time - at
        if ahead < timedelta(0):
            raise Invalid(errors={"start_time": ["The start is in the past."]})
        if ahead < self.notice:
            minutes = self.notice // timedelta(minutes=1)
            raise TooSoon(f"Book this service at least {minutes} minutes ahead.")
        if self.horizon is not None and ahead > self.horizon:
            raise TooFarAhead(f"Book this service at most {self.horizon.days} days ahead.")

    def check_open(self, start_time: datetime, end_time: datetime) -> None:
        """Refuse a period without a slot for which the calendar is not open.

        Raises:
            OutsideOpeningHours: it is closed then, or sells published slots only.
        """
        if self.mode == Service.Mode.SLOTS:
            raise OutsideOpeningHours("No slot of this service starts then.")
        self.check_time_off(start_time, end_time)
        if not self.opening.contains(start_time, end_time):
            raise OutsideOpeningHours

    def check_slot(self, place: Place) -> None:
        """Refuse a slot that does not take place.

        Raises:
            ServiceInactive: it was cancelled.
            OutsideOpeningHours: the calendar has time off.
        """
        if place.status != Slot.Status.SCHEDULED:
            raise ServiceInactive("This slot is cancelled.")
        self.check_time_off(place.start_time, place.end_time)

    def check_time_off(self, start_time: datetime, end_time: datetime) -> None:
        """Refuse a period that meets time off.

        Raises:
            OutsideOpeningHours: it does.
        """
        if self.opening.is_off(start_time, end_time):
            raise OutsideOpeningHours("The calendar has time off then.")


COLUMNS = """
    service.id, service.calendar_id, calendar.version, calendar.provider_id, service.mode,
    service.is_active, service.capacity, service.duration_minutes, service.step_minutes,
    service.buffer_before_minutes, service.buffer_after_minutes, service.min_notice_minutes,
    service.max_advance_days, service.requires_confirmation, service.price, service.currency,
    calendar.timezone,
    ARRAY(
        SELECT ARRAY[weekday, opens, closes] FROM catalog_openinghours
        WHERE calendar_id = calendar.id
    )
"""
TIME_OFF = """
    ARRAY(
        SELECT ARRAY[start_time, end_time] FROM catalog_timeoff
        WHERE calendar_id = calendar.id AND end_time > {}
    )
"""
SLOT = "slot.id, slot.start_time, slot.end_time, slot.blocked, slot.capacity, slot.status"
SERVICES = "FROM catalog_service AS service JOIN catalog_calendar AS calendar ON calendar.id ="
OF_SERVICES = f"""
SELECT {COLUMNS}, {TIME_OFF.format("%(from)s")} {SERVICES} service.calendar_id
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""
AT_START = f"""
SELECT {COLUMNS}, {TIME_OFF.format("%(start_time)s")}, {SLOT}
{SERVICES} service.calendar_id
LEFT JOIN bookings_slot AS slot ON slot.service_id = service.id
    AND slot.start_time = %(start_time)s AND slot.status = 'scheduled'
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""
OF_SLOT = f"""
SELECT {COLUMNS}, {TIME_OFF.format("slot.start_time")}, {SLOT}
{SERVICES} service.calendar_id
JOIN bookings_slot AS slot ON slot.service_id = service.id
WHERE slot.id = %(slot_id)s
"""


def terms_of(service_ids: Sequence[UUID], from_: datetime) -> dict[UUID, Terms]:
    """Return the terms of services for starts from an instant on, by id; one query."""
    rows = _fetch(OF_SERVICES, {"service_ids": list(service_ids), "from": from_})
    return {row[0]: _terms(row) for row in rows}


def terms_at(
    service_ids: Sequence[UUID], start_time: datetime
) -> dict[UUID, tuple[Terms, Place | None]]:
    """Return the terms of services for one start, each with its slot then; one query."""
    rows = _fetch(AT_START, {"service_ids": list(service_ids), "start_time": start_time})
    return {row[0]: (_terms(row), _place(row)) for row in rows}


def terms_in(slot_id: UUID) -> tuple[Terms, Place] | None:
    """Return the terms of the service of a slot, and the slot, or None; one query."""
    for row in _fetch(OF_SLOT, {"slot_id": slot_id}):
        place = _place(row)
        if place is not None:
            return _terms(row), place
    return None


def _fetch(text: str, values: dict[str, Any]) -> list[Any]:
    return connection.fetch(text, values)  # type: ignore[attr-defined]


def _terms(row: Any) -> Terms:
    service_id, calendar_id, version, provider_id, mode, is_active, capacity = row[:7]
    duration, step, before, after, notice, horizon, confirmation, price, currency = row[7:16]
    timezone, hours, time_off = row[16:19]
    return Terms(
        service_id,
        calendar_id,
        version,
        provider_id,
        mode,
        is_active,
        capacity,
        duration=timedelta(minutes=duration),
        step=timedelta(minutes=step or duration),
        buffer_before=timedelta(minutes=before),
        buffer_after=timedelta(minutes=after),
        notice=timedelta(minutes=notice),
        horizon=None if horizon is None else timedelta(days=horizon),
        requires_confirmation=confirmation,
        price=price,
        currency=currency,
        opening=Opening(
            ZoneInfo(timezone),
            tuple(Span(*span) for span in hours),
            tuple((start, end) for start, end in time_off),
        ),
    )


def _place(row: Any) -> Place | None:
    return None if row[19] is None else Place(*row[19:])
