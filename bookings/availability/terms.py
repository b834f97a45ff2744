"""The terms on which a service is booked: the facts that a booking needs, and the rules for starts.

Terms are read before a booking is inserted, so somebody may change them in between, for example by
taking time off or by deactivating the service. That is why each calendar has a version. Triggers
(see `catalog.triggers`) increment the version when the calendar's opening hours, time off or time
zone change, and when a service changes in a column that bookings depend on. Changes in raw SQL fire
the triggers as well. Terms contain the version that the calendar had when they were read. The
statement that inserts a booking (`bookings.seats`) compares this version with the current one:

    SELECT ... FROM catalog_calendar WHERE id = ... AND version = ... FOR KEY SHARE

Because of this lock, a booking waits for a change in progress, and a change waits for bookings in
progress. This works in READ COMMITTED, and also if the booking is a single statement behind
PgBouncer. A change of the version conflicts with FOR KEY SHARE because the version is part of a key
(`calendar_version`). There are three cases:

- The booking comes first. The change waits until the booking is committed. Later queries of the
  change, such as the query for affected bookings, are new statements, so they see the booking.
- The change comes first. The booking waits until the change is committed. PostgreSQL then compares
  the version again with the current row, finds no match, and inserts nothing.
- The change is committed after the terms are read and before the booking is inserted. The booking
  does not wait. PostgreSQL finds no match for the version, and inserts nothing.

In the last two cases, `on_current_terms` reads the terms again.

Bookings do not wait for each other, because FOR KEY SHARE does not conflict with itself. FOR KEY
SHARE does not conflict with FOR NO KEY UPDATE either. FOR NO KEY UPDATE is the lock that serialises
moving bookings and publishing slots, and it conflicts with a change of the version. A move reads
the terms after it has the lock. A publication compares the version when it takes the lock.

In `catalog.services`, a change of a calendar, its opening hours or its time off begins by locking
the row of the calendar FOR UPDATE. So the change holds no other row while it waits for bookings. A
change of a service's terms already holds the row of the service while it waits. Bookings do not
wait for that row: their foreign key locks it FOR KEY SHARE, which does not conflict with FOR NO KEY
UPDATE, the lock of the change.

Bookings and changes also take turns (see `catalog.turns`). Without turns, a change could wait for
ever while new bookings keep coming.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from psycopg.rows import namedtuple_row

from bookings.models import Booking, Slot, blocked_period
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import Conflict, Invalid, Unavailable
from catalog.models import Service
from catalog.opening import Opening, Span

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The maximum number of tries. A function is tried again if a change of the calendar is committed
# after the terms are read and before the function inserts a booking or slots.
TRIES = 10


class TermsChanged(Unavailable):
    """The calendar of this service is being changed. Try again shortly."""


def on_current_terms(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function that reads terms and acts on them.

    If the terms change in between, the function runs again, up to `TRIES` times in all.
    """

    @wraps(function)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for _try in range(TRIES - 1):
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
    """This service must be booked further in advance."""

    code = "too_soon"


class TooFarAhead(Conflict):
    """This service cannot be booked this far in advance."""

    code = "too_far_ahead"


class OutsideOpeningHours(Conflict):
    """This time is outside the opening hours."""

    code = "outside_opening_hours"


@dataclass(frozen=True)
class SlotTerms:
    """The facts about a published slot that are needed to book it."""

    id: UUID
    start_time: datetime
    end_time: datetime
    blocked: DateTimeTZRange
    capacity: int
    status: str


@dataclass(frozen=True)
class Terms:
    """The facts about a service that are needed to offer it and to book it."""

    service_id: UUID
    calendar_id: UUID
    # The version of the calendar when the terms were read.
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
        """Return the terms for moving a booking, which keeps its length and its buffers."""
        return replace(
            self,
            duration=booking.end_time - booking.start_time,
            buffer_before=booking.start_time - booking.blocked.lower,
            buffer_after=booking.blocked.upper - booking.end_time,
        )

    def without_limits(self) -> "Terms":
        """Return the terms for staff who override the minimum notice and the booking horizon."""
        return replace(self, notice=timedelta(0), horizon=None)

    def blocked(self, start_time: datetime) -> DateTimeTZRange:
        """Return the period that a booking with this start blocks, buffers included."""
        return blocked_period(
            start_time,
            start_time + self.duration,
            before=self.buffer_before,
            after=self.buffer_after,
        )

    def check_start(self, start_time: datetime, at: datetime) -> None:
        """Refuse a start that the service does not allow, whether or not the time is free.

        Raises:
            ServiceInactive: the service cannot be booked at present.
            Invalid: the start is in the past.
            TooSoon: less than the service's minimum notice is left before the start.
            TooFarAhead: the start is beyond the service's booking horizon.
        """
        if not self.is_active:
            raise ServiceInactive
        ahead = start_time - at
        if ahead < timedelta(0):
            raise Invalid.of("start_time", _("The start is in the past."))
        if ahead < self.notice:
            minutes = self.notice // timedelta(minutes=1)
            raise TooSoon(
                ngettext(
                    "This service must be booked at least %(minutes)d minute in advance.",
                    "This service must be booked at least %(minutes)d minutes in advance.",
                    minutes,
                )
                % {"minutes": minutes}
            )
        if self.horizon is not None and ahead > self.horizon:
            raise TooFarAhead(
                ngettext(
                    "This service can be booked at most %(days)d day in advance.",
                    "This service can be booked at most %(days)d days in advance.",
                    self.horizon.days,
                )
                % {"days": self.horizon.days}
            )

    def check_open(self, start_time: datetime, end_time: datetime) -> None:
        """Refuse a booking without a slot if the calendar is not open for the whole period.

        Raises:
            OutsideOpeningHours: the calendar is closed at some time in the period, or the service
                can be booked in published slots only.
        """
        if self.mode == Service.Mode.SLOTS:
            raise OutsideOpeningHours(_("No slot of this service starts at this time."))
        self.check_time_off(start_time, end_time)
        if not self.opening.contains(start_time, end_time):
            raise OutsideOpeningHours

    def check_slot(self, slot: SlotTerms) -> None:
        """Refuse a slot that cannot be booked.

        Raises:
            ServiceInactive: the slot was cancelled.
            OutsideOpeningHours: the slot overlaps time off.
        """
        if slot.status != Slot.Status.SCHEDULED:
            raise ServiceInactive(_("This slot has been cancelled."))
        self.check_time_off(slot.start_time, slot.end_time)

    def check_time_off(self, start_time: datetime, end_time: datetime) -> None:
        """Refuse a period that overlaps time off.

        Raises:
            OutsideOpeningHours: the period overlaps time off.
        """
        if self.opening.is_off(start_time, end_time):
            raise OutsideOpeningHours(_("The calendar is closed for time off at this time."))


# The SQL columns with the terms of a service, except the time off of its calendar. `service` and
# `calendar` are aliases of tables.
SERVICE_COLUMNS = """
    service.id AS service_id, service.calendar_id, calendar.version, calendar.provider_id,
    service.mode, service.is_active, service.capacity, service.duration_minutes,
    service.step_minutes, service.buffer_before_minutes, service.buffer_after_minutes,
    service.min_notice_minutes, service.max_advance_days, service.requires_confirmation,
    service.price, service.currency, calendar.timezone,
    ARRAY(
        SELECT ARRAY[weekday, opens, closes] FROM catalog_openinghours
        WHERE calendar_id = calendar.id
    ) AS hours
"""
# The SQL columns with the facts about a slot. All are null if no slot was joined.
SLOT_COLUMNS = """
    slot.id AS slot_id, slot.start_time, slot.end_time, slot.blocked,
    slot.capacity AS slot_capacity, slot.status AS slot_status
"""


def time_off_after(instant: str) -> str:
    """Return the SQL column for the calendar's time off that ends after an instant.

    Args:
        instant: an SQL expression.
    """
    return f"""
    ARRAY(
        SELECT ARRAY[start_time, end_time] FROM catalog_timeoff
        WHERE calendar_id = calendar.id AND end_time > {instant}
    ) AS time_off
"""  # noqa: S608 - only our own SQL expression is interpolated, no values


# The SQL columns with the terms of a service for starts at or after the parameter `from`.
TERMS_COLUMNS = f"{SERVICE_COLUMNS}, {time_off_after('%(from)s')}"

# Reads the terms of services.
#
# The ids are wrapped in a subquery to hide the array from the planner; see `SEARCH` in
# `bookings.availability.taken`.
#
# Parameters: service_ids uuid[], from timestamptz (time off that ends by this time is left out).
# Columns: `TERMS_COLUMNS`; one row for each service that exists.
TERMS_OF_SERVICES = f"""
SELECT {TERMS_COLUMNS}
FROM catalog_service AS service
JOIN catalog_calendar AS calendar ON calendar.id = service.calendar_id
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""  # noqa: S608 - only our own SQL columns are interpolated, no values

# Reads the terms of services for one start time, each with the service's scheduled slot that starts
# at that time, if any.
#
# Parameters: service_ids uuid[], start_time timestamptz.
# Columns: `SERVICE_COLUMNS`, time_off timestamptz[][], `SLOT_COLUMNS`; one row for each service
#     that exists.
# Invariant: the constraint `slots_apart` prevents a service from having two scheduled slots with
#     the same start.
TERMS_AT_START = f"""
SELECT {SERVICE_COLUMNS}, {time_off_after("%(start_time)s")}, {SLOT_COLUMNS}
FROM catalog_service AS service
JOIN catalog_calendar AS calendar ON calendar.id = service.calendar_id
LEFT JOIN bookings_slot AS slot ON slot.service_id = service.id
    AND slot.start_time = %(start_time)s AND slot.status = 'scheduled'
WHERE service.id = ANY(ARRAY(SELECT unnest(%(service_ids)s::uuid[])))
"""  # noqa: S608 - only our own SQL columns are interpolated, no values

# Reads the scheduled slots of one calendar's services that start at the given time. Used if the
# database is distributed, because only a statement that names the calendar runs where its rows are.
#
# Parameters: calendar_id uuid, service_ids uuid[], start_time timestamptz.
# Columns: service_id uuid, `SLOT_COLUMNS`.
SLOTS_AT_START = f"""
SELECT slot.service_id, {SLOT_COLUMNS} FROM bookings_slot AS slot
WHERE slot.calendar_id = %(calendar_id)s AND slot.service_id = ANY(%(service_ids)s::uuid[])
  AND slot.start_time = %(start_time)s AND slot.status = 'scheduled'
"""  # noqa: S608 - only our own SQL columns are interpolated, no values

# Reads a slot, whatever its status, and the terms of its service.
#
# Parameters: slot_id uuid.
# Columns: `SERVICE_COLUMNS`, time_off timestamptz[][], `SLOT_COLUMNS`; no row if the slot does not
#     exist.
TERMS_IN_SLOT = f"""
SELECT {SERVICE_COLUMNS}, {time_off_after("slot.start_time")}, {SLOT_COLUMNS}
FROM bookings_slot AS slot
JOIN catalog_service AS service ON service.id = slot.service_id
JOIN catalog_calendar AS calendar ON calendar.id = service.calendar_id
WHERE slot.id = %(slot_id)s
"""  # noqa: S608 - only our own SQL columns are interpolated, no values


# Reads the same as TERMS_IN_SLOT. Used if the database is distributed, because only a statement
# that names the calendar runs where its rows are.
#
# Parameters: slot_id uuid, calendar_id uuid.
# Columns: as in TERMS_IN_SLOT.
TERMS_IN_SLOT_OF_CALENDAR = f"{TERMS_IN_SLOT} AND slot.calendar_id = %(calendar_id)s"


def terms_of(service_ids: Sequence[UUID], from_: datetime) -> dict[UUID, Terms]:
    """Return the terms of services by id, for starts at or after `from_`, in one query."""
    values = {"service_ids": list(service_ids), "from": from_}
    rows: list[Any] = fetch(TERMS_OF_SERVICES, values, namedtuple_row)
    return {row.service_id: terms_from(row) for row in rows}


def terms_at(
    service_ids: Sequence[UUID], start_time: datetime
) -> dict[UUID, tuple[Terms, SlotTerms | None]]:
    """Return the terms of services by id, each with its slot that starts at `start_time`, if any.

    This takes one query, unless the database is distributed.
    """
    if is_distributed():
        return _terms_by_calendar(service_ids, start_time)
    values = {"service_ids": list(service_ids), "start_time": start_time}
    rows: list[Any] = fetch(TERMS_AT_START, values, namedtuple_row)
    return {
        row.service_id: (terms_from(row), None if row.slot_id is None else _slot_terms(row))
        for row in rows
    }


def _terms_by_calendar(
    service_ids: Sequence[UUID], start_time: datetime
) -> dict[UUID, tuple[Terms, SlotTerms | None]]:
    """Return the same as `terms_at`, with a query for all terms, and one for each calendar's slots.

    The terms may change between these queries. The statement that inserts a booking notices this by
    the calendar's version.
    """
    found = terms_of(service_ids, start_time)
    slots: dict[UUID, SlotTerms] = {}
    for calendar_id in {terms.calendar_id for terms in found.values()}:
        values = {
            "calendar_id": calendar_id,
            "service_ids": [*found],
            "start_time": start_time,
        }
        rows: list[Any] = fetch(SLOTS_AT_START, values, namedtuple_row)
        slots |= {row.service_id: _slot_terms(row) for row in rows}
    return {key: (terms, slots.get(key)) for key, terms in found.items()}


def terms_in(slot_id: UUID) -> tuple[Terms, SlotTerms] | None:
    """Return the terms of a slot's service, and the slot, or None if the slot does not exist.

    This takes one query, or more in a distributed database.
    """
    text, values = TERMS_IN_SLOT, {"slot_id": slot_id}
    if is_distributed():
        try:
            values["calendar_id"] = Slot.calendar_of(slot_id)
        except Slot.DoesNotExist:
            return None
        text = TERMS_IN_SLOT_OF_CALENDAR
    rows: list[Any] = fetch(text, values, namedtuple_row)
    return (terms_from(rows[0]), _slot_terms(rows[0])) if rows else None


def terms_from(row: Any) -> Terms:
    """Return the terms in a row with the columns `TERMS_COLUMNS`."""
    return Terms(
        row.service_id,
        row.calendar_id,
        row.version,
        row.provider_id,
        row.mode,
        row.is_active,
        row.capacity,
        duration=timedelta(minutes=row.duration_minutes),
        step=timedelta(minutes=row.step_minutes or row.duration_minutes),
        buffer_before=timedelta(minutes=row.buffer_before_minutes),
        buffer_after=timedelta(minutes=row.buffer_after_minutes),
        notice=timedelta(minutes=row.min_notice_minutes),
        horizon=None if row.max_advance_days is None else timedelta(days=row.max_advance_days),
        requires_confirmation=row.requires_confirmation,
        price=row.price,
        currency=row.currency,
        opening=Opening(
            ZoneInfo(row.timezone),
            tuple(map(Span._make, row.hours)),
            tuple((start, end) for start, end in row.time_off),
        ),
    )


def _slot_terms(row: Any) -> SlotTerms:
    return SlotTerms(
        row.slot_id, row.start_time, row.end_time, row.blocked, row.slot_capacity, row.slot_status
    )
