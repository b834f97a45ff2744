"""The rules for slots: how slots are published, changed, cancelled and deleted."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange
from django.db.models import Case, F, IntegerField, OuterRef, QuerySet, RestrictedError, When
from django.db.models.functions import Greatest, Now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from psycopg import errors as postgres

from accounts.models import User
from bookings.availability.terms import ServiceInactive, TermsChanged, on_current_terms
from bookings.events import SLOT_CANCELLED, state_of
from bookings.holds import unexpired, unexpired_sql
from bookings.models import Booking, Slot, blocked_period
from bookings.seats import close_expired_holds, lock_to_book, seats_taken
from bookings.services import InvalidTransition
from bookings.slots.recurrence import Rule
from bookings.waitlist import services as waitlist
from bookings.waitlist.models import WaitlistEntry
from bookit.database.citus.lookups import OuterCalendar
from bookit.database.citus.nodes import is_distributed
from bookit.database.counts import number_of
from bookit.database.references import delete_unreferenced
from bookit.database.retries import retried
from bookit.database.rows import fetch
from bookit.errors import CONSTRAINT_ERRORS, Conflict, Invalid
from bookit.times import zone
from catalog import turns
from catalog.models import MAX_ADVANCE_DAYS, Calendar, Service
from catalog.services import check_owner

# The maximum time from now to the start of a slot, which is also the longest booking horizon.
FURTHEST = timedelta(days=MAX_ADVANCE_DAYS)
# The maximum number of tries to publish. A try fails if a booking is committed between the check
# for clashes and the INSERT. The next check refuses the slots, unless the booking is gone by then.
TRIES = 5

SLOT_IN_USE = gettext_lazy("This slot has bookings. Cancel it instead of deleting it.")

SEATS_TAKEN = seats_taken(Now())
# The number of waiting users, to whom free seats are promised first.
WAITING = number_of(
    WaitlistEntry.objects.filter(waitlist.WAITING, calendar=OuterCalendar(), slot=OuterRef("pk")),
    by="slot",
)
SEATS_LEFT = Case(
    When(status=Slot.Status.CANCELLED, then=0),
    default=Greatest(F("capacity") - SEATS_TAKEN - WAITING, 0),
    output_field=IntegerField(),
)

# The slots of a series as SQL rows. Their columns are sent as arrays, because the ORM would send
# ten values for each slot.
SERIES = """unnest(
    %(ids)s::uuid[], %(starts)s::timestamptz[], %(ends)s::timestamptz[],
    %(blocked_from)s::timestamptz[], %(blocked_until)s::timestamptz[]
) AS slot (id, start_time, end_time, blocked_from, blocked_until)"""

# Finds the slots of a series that overlap an existing slot or booking of the calendar.
#
# Parameters: calendar_id uuid; for each slot ids uuid[], starts timestamptz[], ends timestamptz[],
#     blocked_from timestamptz[], blocked_until timestamptz[]; at timestamptz (now).
# Columns: start_time timestamptz, in order; no row if all slots are free.
# Invariant: triggers keep a row in `bookings_occupancy` for each scheduled slot and for each active
#     booking without a slot.
CLASHES = f"""
SELECT start_time FROM {SERIES} WHERE EXISTS (
    SELECT 1 FROM bookings_occupancy AS taken
    WHERE taken.calendar_id = %(calendar_id)s
      AND taken.blocked && tstzrange(slot.blocked_from, slot.blocked_until)
      AND {unexpired_sql("taken.expires_at")}
)
ORDER BY start_time
"""  # noqa: S608 - only our own SQL constant is interpolated, no values

# Stores the slots of a series.
#
# Parameters: service_id uuid, calendar_id uuid, capacity int, at timestamptz (now); for each slot
#     ids uuid[], starts timestamptz[], ends timestamptz[], blocked_from timestamptz[],
#     blocked_until timestamptz[].
# Columns: none.
# Invariant: the constraint `slots_apart` refuses a slot that overlaps another slot, and the trigger
#     `slot_occupies` refuses a slot that overlaps a booking (`slot_beside_bookings`). The caller's
#     lock on the calendar prevents deadlocks between publishers.
PUBLISH = f"""
INSERT INTO bookings_slot (
    id, service_id, calendar_id, start_time, end_time, blocked, capacity, status, created_at,
    updated_at
)
SELECT id, %(service_id)s, %(calendar_id)s, start_time, end_time,
    tstzrange(blocked_from, blocked_until), %(capacity)s, 'scheduled', %(at)s, %(at)s
FROM {SERIES} ORDER BY start_time
"""  # noqa: S608 - only our own SQL constant is interpolated, no values

# Cancels the held, pending and confirmed bookings in a slot, and records an event for each booking.
#
# Parameters: calendar_id uuid, slot_id uuid, actor_id uuid, api_key_id uuid (null without a key),
#     at timestamptz (now).
# Columns: none.
# Invariant: the slot is locked, so that nobody can book it. Bookings are locked in the order of
#     their ids, as the order of locks requires (docs/architecture.md).
CANCEL_BOOKINGS = f"""
WITH was AS (
    SELECT id, status FROM bookings_booking
    WHERE calendar_id = %(calendar_id)s AND slot_id = %(slot_id)s
      AND status IN ('held', 'pending', 'confirmed')
    ORDER BY id FOR NO KEY UPDATE
), cancelled AS (
    UPDATE bookings_booking AS booking
    SET status = 'cancelled', hold_expires_at = NULL, updated_at = %(at)s,
        cancellation_reason = '{SLOT_CANCELLED}'
    FROM was WHERE booking.calendar_id = %(calendar_id)s AND booking.id = was.id
    RETURNING booking.*, was.status AS was
)
INSERT INTO bookings_bookingevent (calendar_id, booking_id, type, actor_id, api_key_id, at, data)
SELECT calendar_id, id, 'booking.cancelled', %(actor_id)s, %(api_key_id)s, %(at)s,
    jsonb_build_object(
        {state_of("cancelled")},
        'was', jsonb_build_object('status', was), 'reason', '{SLOT_CANCELLED}'
    )
FROM cancelled ORDER BY id
"""  # noqa: S608 - only our own SQL and a constant are interpolated


@CONSTRAINT_ERRORS.add("slots_apart", "slot_beside_bookings")
class SlotConflict(Conflict):
    """This slot overlaps something else on its calendar, or its bookings prevent the change."""

    code = "slot_conflict"


# This constraint refuses a slot if its service is deleted, or gets another calendar, during the
# publication.
CONSTRAINT_ERRORS.add("slot_service_on_calendar")(ServiceInactive)


@dataclass(frozen=True)
class Plan:
    """The slots of a publication, which creates none of them if any clashes.

    Args:
        starts: the start of each slot, in order.
        clashes: the starts of the slots that overlap another slot or booking.
    """

    starts: list[datetime]
    clashes: frozenset[datetime]


@on_current_terms
def publish_slots(
    *,
    actor: User,
    service_id: UUID,
    start_time: datetime,
    at: datetime,
    capacity: int | None = None,
    rrule: Rule | None = None,
) -> list[Slot]:
    """Publish and return a slot of a service, or a series. If any slot clashes, publish none.

    Args:
        capacity: by default the capacity of the service.
        at: now.
        rrule: the recurrence of a series that begins at `start_time`.

    Raises:
        Invalid: the service does not exist, the start is in the past, a slot is too far ahead, or
            `rrule` gives too many slots or a series that does not begin at `start_time`.
        Forbidden: `actor` does not manage the service's calendar.
        ServiceInactive: the service cannot be booked at present.
        SlotConflict: one of the slots overlaps another slot or booking of the calendar.
        TermsChanged: the calendar or the service changed during every try.
    """
    slots, calendar = _planned(
        actor=actor,
        service_id=service_id,
        start_time=start_time,
        at=at,
        capacity=capacity,
        rrule=rrule,
    )
    _publish(slots, calendar)
    return slots


def plan_slots(
    *,
    actor: User,
    service_id: UUID,
    start_time: datetime,
    at: datetime,
    capacity: int | None = None,
    rrule: Rule | None = None,
) -> Plan:
    """Return the starts that `publish_slots` would try to publish, and the clashes. Store nothing.

    Raises:
        Invalid, Forbidden, ServiceInactive: as in `publish_slots`.
    """
    slots, _calendar = _planned(
        actor=actor,
        service_id=service_id,
        start_time=start_time,
        at=at,
        capacity=capacity,
        rrule=rrule,
    )
    clashes = {start for start, _other in _clashes(slots, _columns(slots))}
    return Plan([slot.start_time for slot in slots], frozenset(clashes))


def _planned(
    *,
    actor: User,
    service_id: UUID,
    start_time: datetime,
    at: datetime,
    capacity: int | None,
    rrule: Rule | None,
) -> tuple[list[Slot], Calendar]:
    """Check a publication. Return its slots, which are not stored yet, and their calendar."""
    service = Service.objects.select_related("calendar").filter(pk=service_id).first()
    if service is None:
        raise Invalid.of("service_id", _("There is no service with this id."))
    check_owner(service.calendar, actor, "bookings.add_slot")
    if not service.is_active:
        raise ServiceInactive
    if start_time < at:
        raise Invalid.of("start_time", _("The start is in the past."))
    if start_time > at + FURTHEST:
        raise Invalid.of(
            "start_time",
            _("The start must be at most %(days)s days from now.") % {"days": FURTHEST.days},
        )
    starts = [start_time]
    if rrule is not None:
        try:
            starts = rrule.starts(start_time, zone(service.calendar.timezone), limit=at + FURTHEST)
        except ValueError as error:
            raise Invalid.of("rrule", str(error)) from None
    duration = timedelta(minutes=service.duration_minutes)
    before = timedelta(minutes=service.buffer_before_minutes)
    after = timedelta(minutes=service.buffer_after_minutes)
    slots = [
        Slot(
            service_id=service.pk,
            calendar_id=service.calendar_id,
            start_time=start,
            end_time=start + duration,
            blocked=blocked_period(start, start + duration, before=before, after=after),
            capacity=capacity or service.capacity,
            created_at=at,
            updated_at=at,
        )
        for start in starts
    ]
    return slots, service.calendar


@retried
@transaction.atomic
def change_slot(
    *,
    slot_id: UUID,
    actor: User,
    at: datetime,
    capacity: int | None = None,
    status: str | None = None,
) -> tuple[Slot, bool]:
    """Change the capacity of a slot, or cancel it and its bookings, or both.

    Return the slot, and whether it has changed. It does not change if it has these values already,
    perhaps because somebody else has just changed it.

    Raises:
        Slot.DoesNotExist: the slot does not exist.
        Forbidden: `actor` does not manage the slot's calendar.
        SlotConflict: more seats are taken than the new capacity has.
        InvalidTransition: the slot cannot be cancelled, because it has ended or one of its bookings
            is completed or a no-show; or `status` would schedule a cancelled slot again.
    """
    slot = _locked_slot(slot_id, actor, "bookings.change_slot")
    has_changed = False
    if capacity is not None and capacity != slot.capacity:
        _check_seats(slot, capacity, at)
        if capacity > slot.capacity:
            waitlist.offer_later(calendar_ids=[slot.calendar_id], slot_ids=[slot.pk], at=at)
        slot.capacity = capacity
        slot.save(update_fields=["capacity"])
        has_changed = True
    if status is not None and status != slot.status:
        _cancel(slot, status, actor=actor, at=at)
        has_changed = True
    return slot, has_changed


@retried
@transaction.atomic
def delete_slot(*, slot_id: UUID, actor: User, at: datetime) -> None:
    """Delete a slot without bookings, together with its waitlist, and email the waiting users.

    Raises:
        Slot.DoesNotExist: the slot does not exist.
        Forbidden: `actor` does not manage the slot's calendar.
        SlotConflict: the slot has bookings, whatever their status.
    """
    slot = _locked_slot(slot_id, actor, "bookings.delete_slot")
    waitlist.announce_deletion(slot=slot, at=at)
    try:
        delete_unreferenced(slot)
    except RestrictedError:
        raise SlotConflict(str(SLOT_IN_USE)) from None


@retried
@transaction.atomic
def _publish(slots: list[Slot], calendar: Calendar) -> None:
    """Store the slots of a series, or none if any slot clashes. The slots must be in order."""
    # The lock serialises the publishers of a calendar. Without the lock, two INSERTs that are
    # checked by the same exclusion constraint could wait for each other until the deadlock detector
    # ends one of them.
    locked = Calendar.objects.select_for_update(no_key=True).filter(
        turns.shared(calendar.pk), pk=calendar.pk, version=calendar.version
    )
    if not locked:
        raise TermsChanged
    first, last = slots[0], slots[-1]
    series_blocked = DateTimeTZRange(first.blocked.lower, last.blocked.upper)
    close_expired_holds(calendar_id=calendar.pk, blocked=series_blocked, at=first.created_at)
    series = _columns(slots)
    for _try in range(TRIES):
        _check_clashes(slots, series, calendar)
        try:
            _store(slots, series)
            return
        except IntegrityError as error:
            # A booking was committed between the check and the insert. The next check sees it.
            if not isinstance(error.__cause__, postgres.ExclusionViolation):
                raise
    raise SlotConflict


@transaction.atomic
def _store(slots: list[Slot], series: dict[str, Any]) -> None:
    if is_distributed():
        # Citus would send the rows of `PUBLISH` to their server with COPY. The error would then not
        # say that a constraint refused a row.
        Slot.objects.bulk_create(slots)
        return
    with connection.cursor() as cursor:
        cursor.execute(PUBLISH, series)


def _columns(slots: list[Slot]) -> dict[str, Any]:
    """Return the parameters of `CLASHES` and `PUBLISH`."""
    first = slots[0]
    return {
        "ids": [slot.pk for slot in slots],
        "starts": [slot.start_time for slot in slots],
        "ends": [slot.end_time for slot in slots],
        "blocked_from": [slot.blocked.lower for slot in slots],
        "blocked_until": [slot.blocked.upper for slot in slots],
        "service_id": first.service_id,
        "calendar_id": first.calendar_id,
        "capacity": first.capacity,
        "at": first.created_at,
    }


def _clashes(slots: list[Slot], series: dict[str, Any]) -> list[tuple[datetime, str]]:
    """Return the start of each slot that cannot be published, and an error message with `%(time)s`.

    The slots must be in order, and so is the result.
    """
    among_themselves = [
        (
            later.start_time,
            _(
                "The slot at %(time)s overlaps the previous slot of the series. No slot was "
                "created."
            ),
        )
        for earlier, later in pairwise(slots)
        if earlier.blocked.upper > later.blocked.lower
    ]
    with_others = [
        (
            start,
            _(
                "The slot at %(time)s overlaps another slot or booking of the calendar. No slot "
                "was created."
            ),
        )
        for (start,) in fetch(CLASHES, series)
    ]
    return sorted([*among_themselves, *with_others])


def _check_clashes(slots: list[Slot], series: dict[str, Any], calendar: Calendar) -> None:
    """Refuse a series if two of its slots overlap, or one overlaps an existing slot or booking."""
    for start_time, text in _clashes(slots, series)[:1]:
        local = start_time.astimezone(zone(calendar.timezone))
        raise SlotConflict(text % {"time": local.isoformat()})


def _locked_slot(slot_id: UUID, actor: User, permission: str) -> Slot:
    """Return a slot that `actor` may change, after locking its calendar and then the slot.

    All code that changes slots takes these locks in this order. Code that books a seat also locks
    the slot, so this function waits until earlier bookings are committed, and the caller sees them.
    """
    calendar_id = Slot.calendar_of(slot_id)
    lock_to_book(calendar_id)
    rows = Slot.with_id(slot_id, calendar_id).select_for_update(of=("self",))
    slot: Slot = rows.select_related("calendar").get()
    check_owner(slot.calendar, actor, permission)
    return slot


def _check_seats(slot: Slot, capacity: int, at: datetime) -> None:
    """Refuse a capacity below the number of seats that are taken."""
    taken = _active_bookings(slot).filter(unexpired(at)).count()
    if taken > capacity:
        raise SlotConflict(
            ngettext(
                "%(count)d seat is taken. The capacity cannot be lower than that.",
                "%(count)d seats are taken. The capacity cannot be lower than that.",
                taken,
            )
            % {"count": taken}
        )


def _cancel(slot: Slot, status: str, *, actor: User, at: datetime) -> None:
    """Cancel a locked slot. The status of a slot can change only from scheduled to cancelled."""
    if status != Slot.Status.CANCELLED:
        raise InvalidTransition(
            _("A cancelled slot cannot be scheduled again. Publish a new slot instead.")
        )
    if slot.end_time <= at:
        raise InvalidTransition(_("A slot that has ended cannot be cancelled."))
    close_expired_holds(calendar_id=slot.calendar_id, blocked=slot.blocked, at=at)
    with connection.cursor() as cursor:
        cursor.execute(
            CANCEL_BOOKINGS,
            {
                "calendar_id": slot.calendar_id,
                "slot_id": slot.pk,
                "actor_id": actor.pk,
                "api_key_id": actor.api_key_id,
                "at": at,
            },
        )
    # Bookings that are still active are completed or no-shows. Their status may have changed while
    # the statement waited for its locks.
    if _active_bookings(slot).exists():
        raise InvalidTransition(_("A slot with completed or no-show bookings cannot be cancelled."))
    slot.status = Slot.Status.CANCELLED
    slot.save(update_fields=["status"])
    waitlist.end(slot=slot, at=at)


def _active_bookings(slot: Slot) -> QuerySet[Booking]:
    return Booking.objects.filter(calendar=slot.calendar_id, slot=slot, active=True)
