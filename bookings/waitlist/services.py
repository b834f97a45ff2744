"""The waitlist of a full slot: users join it, leave it, and are offered free seats in order.

A free seat belongs to the waitlist from the moment it becomes free: users can book a seat only if
there are more free seats than users ahead of them on the waitlist (`bookings.seats`). A worker
holds the free seat for the first user on the waitlist and records a `booking.held` event with
`waitlist` in its data, which notifies the user. The user can book this hold like any other hold. If
the hold expires or is cancelled, the seat goes to the next user.

A database trigger (`bookings.triggers.WAITLIST_FOLLOWS`) changes the status of an entry in the
transaction that changes the booking. If the user gets a seat of the slot, `waiting` becomes
`offered` for a hold and `booked` for a booking. If the user books the hold, `offered` becomes
`booked`. If the user is staff, made the hold, and books it for another user, `offered` becomes
`waiting` again. If the hold ends in any other way, `offered` becomes `passed`. If `leave` ends the
hold, it then changes `passed` to `left`.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import OperationalError, transaction
from django.db.models import Case, Count, Exists, F, Max, OuterRef, Q, QuerySet, When
from django.utils.translation import gettext as _
from procrastinate.contrib.django import app
from procrastinate.types import JSONValue
from uuid_utils.compat import uuid7

from accounts.models import User
from bookings import services
from bookings.availability.taken import SlotFull
from bookings.availability.terms import OutsideOpeningHours, SlotTerms, Terms, terms_in
from bookings.models import Booking, BookingEvent, Slot
from bookings.seats import close_expired_holds, lock_to_book, seats_taken, take_seat
from bookings.waitlist import emails
from bookings.waitlist.models import WaitlistEntry
from bookit.database.citus.lookups import OuterCalendar, by_id, fetch_from_shards
from bookit.database.citus.nodes import is_server_down
from bookit.database.counts import number_of
from bookit.database.retries import retried
from bookit.errors import Conflict, Forbidden, Invalid, ServiceError


class SlotNotFull(Conflict):
    """This slot has free seats. Book one instead of joining the waitlist."""

    code = "slot_not_full"


Status = WaitlistEntry.Status
Type = BookingEvent.Type

WAITING = Q(status=Status.WAITING)
# The position on the waitlist, starting at 1; None if the user is not waiting.
POSITION = Case(
    When(
        WAITING,
        then=number_of(
            WaitlistEntry.objects.filter(
                WAITING,
                Q(created_at__lt=OuterRef("created_at"))
                | Q(created_at=OuterRef("created_at"), pk__lte=OuterRef("pk")),
                calendar=OuterCalendar(),
                slot=OuterRef("slot"),
            ),
            by="slot",
        ),
    ),
    default=None,
)

# Finds the calendars on which users are waiting.
#
# Parameters: none.
# Columns: calendar_id uuid.
WAITING_CALENDARS = (
    "SELECT DISTINCT calendar_id FROM bookings_waitlistentry WHERE status = 'waiting'"
)

# The types of events that free a seat of a slot.
TYPES_THAT_FREE_A_SEAT = {Type.CANCELLED, Type.EXPIRED, Type.RESCHEDULED, Type.DELETED}


def join(*, slot_id: UUID, actor: User, at: datetime) -> WaitlistEntry:
    """Join the waitlist of a full slot. Users who wait already or have an offer keep their entry.

    Raises:
        Slot.DoesNotExist: the slot does not exist.
        Invalid: the slot has started, or the user already has a seat.
        SlotNotFull: the slot has a free seat that is not promised to the waitlist.
        ServiceInactive: the service or the slot cannot be booked.
        TooSoon: less than the service's minimum notice is left before the start of the slot.
        TooFarAhead: the start of the slot is beyond the service's booking horizon.
        OutsideOpeningHours: the calendar has time off during the slot.
        EmailNotVerified: users must verify their email address first, and `actor` has not.
    """
    services.check_verified(actor)
    try:
        return _join(slot_id, actor=actor, at=at)
    except OutsideOpeningHours as refusal:
        slot = Slot.with_id(slot_id).get()
        services.add_alternatives(
            refusal=refusal, service_ids=[slot.service_id], start_time=slot.start_time, at=at
        )
        raise


@retried
@transaction.atomic
def leave(*, slot_id: UUID, entry_id: UUID, actor: User, at: datetime) -> None:
    """Take a user off the waitlist. A seat that is held for them goes to the next user.

    An entry that is not waiting and has no hold does not change.

    Raises:
        WaitlistEntry.DoesNotExist: the slot has no entry with this id.
        Forbidden: `actor` is neither the user of the entry, nor the slot's provider, nor an admin,
            nor permitted staff.
    """
    entries = by_id(WaitlistEntry.objects.select_related("slot__calendar"), entry_id)
    entry = entries.get(slot=slot_id)
    check_access(entry, actor, "bookings.delete_waitlistentry")
    # While the slot is locked, no worker can hold a seat for the user.
    _locked_slot(slot_id)
    left = {"status": Status.LEFT, "updated_at": at}
    calendar_id = entry.calendar_id
    found = WaitlistEntry.with_id(entry_id, calendar_id)
    if found.filter(WAITING).update(**left):
        return
    # If the user has just booked the hold, it has become a booking, which is not cancelled.
    hold = (
        Booking.objects.select_for_update(of=("self",), no_key=True)
        .filter(calendar=calendar_id, status=Booking.Status.HELD)
        .filter(waitlist_entry__calendar=calendar_id, waitlist_entry=entry)
        .first()
    )
    if hold is not None:
        services.release_hold(booking=hold, actor=actor, at=at)
        found.update(**left)


def check_access(entry: WaitlistEntry, actor: User, permission: str) -> None:
    """Check that `actor` is the user of an entry, the slot's provider, an admin or permitted staff.

    Raises:
        Forbidden: `actor` is somebody else.
    """
    if entry.user_id != actor.pk and not actor.may(permission, entry.slot.calendar.provider_id):
        raise Forbidden(_("This place on the waitlist belongs to another user."))


def end(*, slot: Slot, at: datetime) -> None:
    """End the waitlist of a locked slot that offers no more seats, and email the waiting users."""
    waiting = _waiting(slot)
    ended = [*waiting.order_by("pk").values_list("pk", flat=True)]
    if ended:
        waiting.update(status=Status.PASSED, updated_at=at)
        emails.enqueue(entry_ids=ended)


def announce_deletion(*, slot: Slot, at: datetime) -> None:
    """Enqueue emails about the waitlist of a locked slot that will be deleted.

    See `emails.enqueue_composed` for who gets an email.
    """
    # For the users, the deletion of an upcoming slot is a cancellation. After the start, the email
    # says that no seat became free.
    is_cancelled = slot.status == Slot.Status.CANCELLED or slot.start_time > at
    emails.enqueue_composed(slot=slot, is_cancelled=is_cancelled)


def enqueue(*, events: Iterable[BookingEvent], at: datetime) -> None:
    """Enqueue a job that offers the seats that these events have freed, if anybody is waiting."""
    calendar_ids, slot_ids = set(), set()
    for event in events:
        before = event.data["was"] if event.type == Type.RESCHEDULED else event.data
        if event.type in TYPES_THAT_FREE_A_SEAT and before.get("slot_id"):
            calendar_ids.add(event.calendar_id)
            slot_ids.add(UUID(before["slot_id"]))
    offer_later(calendar_ids=calendar_ids, slot_ids=slot_ids, at=at)


def offer_later(
    *, calendar_ids: Collection[UUID], slot_ids: Collection[UUID], at: datetime
) -> None:
    """Enqueue a job that offers the seats of these slots, except slots that have started.

    No job is enqueued if nobody is waiting.

    Args:
        calendar_ids: the calendars of the slots.
    """
    if not slot_ids:
        return
    waiting = WaitlistEntry.objects.filter(
        WAITING, calendar__in=calendar_ids, slot__in=slot_ids, slot__start_time__gt=at
    )
    found = waiting.order_by("slot").values_list("slot", flat=True).distinct()
    named: list[JSONValue] = [str(slot_id) for slot_id in found]
    if named:
        app.configure_task("bookings.offer_seats").defer(slot_ids=named)


def offer_seats(*, at: datetime, slot_ids: Collection[str] | None = None) -> int:
    """Hold free seats for the users who are waiting, in order; return the number of new holds.

    Also end the waitlists of slots that were cancelled or start too soon to be booked. While a
    server of a distributed database is down, the seats on all other servers are still offered.

    Args:
        slot_ids: the slots whose seats are offered; by default, all slots with waiting users.
    """
    try:
        found = _to_offer(slot_ids, at=at)
    except OperationalError as error:
        if not is_server_down(error):
            raise
        found = [
            slot_id
            for calendar_id in _reachable_calendars(slot_ids)
            for slot_id in _to_offer(slot_ids, at=at, calendar=calendar_id)
        ]
    return sum(_offer(slot_id, at=at) for slot_id in found)


def _to_offer(slot_ids: Collection[str] | None, *, at: datetime, **filters: UUID) -> list[UUID]:
    """Return the ids of the slots with a seat to offer, or with a waitlist that has to end."""
    slots = Slot.objects.filter(**filters)
    if slot_ids is not None:
        slots = slots.filter(pk__in=slot_ids)
    found = slots.alias(taken=seats_taken(at)).filter(
        Exists(
            WaitlistEntry.objects.filter(WAITING, calendar=OuterCalendar(), slot=OuterRef("pk"))
        ),
        Q(taken__lt=F("capacity"))
        | Q(start_time__lte=at + F("service__min_notice_minutes") * timedelta(minutes=1))
        | ~Q(status=Slot.Status.SCHEDULED),
    )
    return [*found.values_list("pk", flat=True)]


def _reachable_calendars(slot_ids: Collection[str] | None) -> set[UUID]:
    """Return the calendars of the slots; by default, all calendars with waiting users.

    Calendars on a server that does not answer are left out.
    """
    if slot_ids is None:
        rows = fetch_from_shards(WAITING_CALENDARS, {}, tables=["bookings_waitlistentry"])
        return {UUID(row["calendar_id"]) for row in rows}
    found = set()
    for slot_id in slot_ids:
        try:
            found.add(Slot.calendar_of(slot_id))
        except Slot.DoesNotExist:
            continue
        except OperationalError as error:
            if not is_server_down(error):
                raise
    return found


@retried
@transaction.atomic
def _join(slot_id: UUID, *, actor: User, at: datetime) -> WaitlistEntry:
    """Join a waitlist; see `join`."""
    slot = _locked_slot(slot_id)
    close_expired_holds(calendar_id=slot.calendar_id, blocked=slot.blocked, at=at)
    entries = WaitlistEntry.objects.filter(calendar=slot.calendar_id, slot=slot, user=actor)
    own = entries.filter(status__in=[Status.WAITING, Status.OFFERED]).first()
    if own is not None:
        return own
    terms, slot_terms = _terms(slot_id)
    terms.check_start(slot_terms.start_time, at)
    terms.check_slot(slot_terms)
    seated = Booking.objects.filter(calendar=slot.calendar_id, slot=slot, active=True)
    if seated.filter(user=actor).exists():
        raise Invalid(_("You already have a seat in this slot."))
    waiting = _waiting(slot).aggregate(people=Count("pk"), last=Max("created_at"))
    if slot.capacity > seated.count() + waiting["people"]:
        raise SlotNotFull
    # A request that began earlier can get the lock later, and the clocks of web hosts differ. Users
    # who are already waiting stay ahead.
    joined = max(at, waiting["last"] + timedelta(microseconds=1)) if waiting["last"] else at
    return WaitlistEntry.objects.create(
        calendar_id=slot.calendar_id, slot=slot, user=actor, created_at=joined, updated_at=joined
    )


@retried
@transaction.atomic
def _offer(slot_id: UUID, *, at: datetime) -> int:
    """Hold the free seats of one slot; see `offer_seats`."""
    try:
        slot = _locked_slot(slot_id)
    except Slot.DoesNotExist:
        return 0
    terms, slot_terms = _terms(slot_id)
    ahead = slot_terms.start_time - at
    if slot_terms.status != Slot.Status.SCHEDULED or ahead <= timedelta(0) or ahead < terms.notice:
        end(slot=slot, at=at)
        return 0
    try:
        terms.check_start(slot_terms.start_time, at)
        terms.check_slot(slot_terms)
    except ServiceError:
        # The slot cannot be booked now, but this may change.
        return 0
    waiting = _waiting(slot)
    inactive = User.objects.filter(is_active=False)
    waiting.filter(user__in=inactive).update(status=Status.PASSED, updated_at=at)
    offered = 0
    for entry in waiting.order_by("created_at", "id"):
        try:
            with transaction.atomic():
                _hold(entry.user_id, terms, slot_terms, at)
        except SlotFull:
            break
        offered += 1
    return offered


def _hold(user_id: UUID, terms: Terms, slot: SlotTerms, at: datetime) -> None:
    """Hold the lowest free seat of a slot for `user_id`, the first user on its waitlist."""
    booking = Booking(
        id=uuid7(),
        user_id=user_id,
        service_id=terms.service_id,
        calendar_id=terms.calendar_id,
        slot_id=slot.id,
        start_time=slot.start_time,
        end_time=slot.end_time,
        blocked=slot.blocked,
        status=Booking.Status.HELD,
        price=terms.price,
        currency=terms.currency,
        hold_expires_at=min(at + settings.WAITLIST_OFFER_TIME, slot.start_time),
        created_at=at,
        updated_at=at,
    )
    take_seat(booking, capacity=slot.capacity, version=terms.version, actor=None, waitlist=True)


def _waiting(slot: Slot) -> QuerySet[WaitlistEntry]:
    """Return the entries of the users who are waiting for a seat of a slot."""
    return WaitlistEntry.objects.filter(WAITING, calendar=slot.calendar_id, slot=slot)


def _locked_slot(slot_id: UUID) -> Slot:
    """Lock a slot, so that it is neither changed nor booked until the transaction ends.

    All code that changes slots locks the calendar before the slot.
    """
    calendar_id = Slot.calendar_of(slot_id)
    lock_to_book(calendar_id)
    slot: Slot = Slot.with_id(slot_id, calendar_id).select_for_update(no_key=True).get()
    return slot


def _terms(slot_id: UUID) -> tuple[Terms, SlotTerms]:
    """Return the terms of a slot, which exists because the caller has locked it."""
    found: Any = terms_in(slot_id)
    return found
