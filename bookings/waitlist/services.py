"""The queue for a full slot: joining and leaving it, and offering its seats to who is first.

A seat that becomes free is theirs who wait for it, from the moment it does: whoever takes a seat
leaves one to each who waits ahead of them (`bookings.seats`). A worker holds it for the first in
line and tells them; `booking.held` with `waitlist` in its data is the event. What they make of the
hold is up to them, as with any: booked, it is theirs; expired or cancelled, the next one's.

The status of an entry follows the booking in the transaction that changes it, by a trigger in the
migrations: `waiting` becomes `offered` or `booked` with whatever seat of the slot its user takes,
and `offered` becomes `booked` or `passed` with the hold.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, When
from procrastinate.contrib.django import app
from procrastinate.types import JSONValue
from uuid_utils.compat import uuid7

from accounts.models import User
from bookings import services
from bookings.availability.search import SlotFull
from bookings.availability.terms import Place, Terms, terms_in
from bookings.models import Booking, BookingEvent, Slot
from bookings.seats import close_expired_holds, lock_calendar_of, seats_taken, take_seat
from bookings.waitlist.models import WaitlistEntry
from bookit.database.retries import retried
from bookit.errors import Forbidden, Invalid, ServiceError

Status = WaitlistEntry.Status
Type = BookingEvent.Type

WAITING = Q(status=Status.WAITING)
# From 1; of those who no longer wait None.
POSITION = Case(
    When(
        WAITING,
        then=Subquery(
            WaitlistEntry.objects.filter(
                WAITING,
                Q(created_at__lt=OuterRef("created_at"))
                | Q(created_at=OuterRef("created_at"), pk__lte=OuterRef("pk")),
                slot=OuterRef("slot"),
            )
            .order_by()
            .values("slot")
            .annotate(people=Count("pk"))
            .values("people")
        ),
    ),
    default=None,
)

# What leaves a seat of its slot free.
FREES = {Type.CANCELLED, Type.EXPIRED, Type.RESCHEDULED, Type.DELETED}


@retried
@transaction.atomic
def join(*, slot_id: UUID, actor: User, at: datetime) -> WaitlistEntry:
    """Queue for a seat of a full slot; who queues for one already keeps their place.

    Raises:
        Slot.DoesNotExist: there is no such slot.
        Invalid: it has started, there is a seat for them, or they have one.
        ServiceInactive: the service or the slot cannot be booked.
        TooSoon: less than the service's notice is left.
        TooFarAhead: it is beyond the service's horizon.
        OutsideOpeningHours: the calendar has time off then.
    """
    slot = _locked_slot(slot_id)
    close_expired_holds(
        calendar_id=slot.calendar_id,
        blocked_from=slot.blocked.lower,
        blocked_until=slot.blocked.upper,
        at=at,
    )
    own = slot.waitlist.filter(user=actor, status__in=[Status.WAITING, Status.OFFERED]).first()
    if own is not None:
        return own
    terms, place = _terms(slot_id)
    terms.check_start(place.start_time, at)
    terms.check_slot(place)
    seated = slot.bookings.filter(active=True)
    if seated.filter(user=actor).exists():
        raise Invalid("You already have a seat in this slot.")
    if slot.capacity > seated.count() + slot.waitlist.filter(WAITING).count():
        raise Invalid("This slot has free seats. Book one instead of joining the queue.")
    return WaitlistEntry.objects.create(slot=slot, user=actor, created_at=at, updated_at=at)


@retried
@transaction.atomic
def leave(*, slot_id: UUID, entry_id: UUID, actor: User, at: datetime) -> None:
    """Take somebody out of the queue; a seat that is held for them goes to the next.

    What is over already stays as it is.

    Raises:
        WaitlistEntry.DoesNotExist: there is no such entry.
        Forbidden: neither its user, nor the provider, nor an admin asks.
    """
    entry = WaitlistEntry.objects.select_related("slot__calendar").get(pk=entry_id, slot=slot_id)
    check_place(entry, actor)
    # Nobody holds a seat for them at this moment, then.
    _locked_slot(slot_id)
    left = {"status": Status.LEFT, "updated_at": at}
    found = WaitlistEntry.objects.filter(pk=entry_id)
    if found.filter(WAITING).update(**left):
        return
    # They may have booked it at this moment: then it is no hold any more, and stays.
    hold = (
        Booking.objects.select_for_update(of=("self",), no_key=True)
        .filter(waitlist_entry=entry, status=Booking.Status.HELD)
        .first()
    )
    if hold is not None:
        services.cancel_booking(booking_id=hold.pk, actor=actor, at=at)
        found.update(**left)


def check_place(entry: WaitlistEntry, actor: User) -> None:
    """Let pass the user of a place in a queue, the slot's provider, and admins.

    Raises:
        Forbidden: it is somebody else's.
    """
    if entry.user_id != actor.pk and not actor.keeps(entry.slot.calendar.provider_id):
        raise Forbidden("This place in the queue belongs to another user.")


def pass_over(*, slot_id: UUID, at: datetime) -> None:
    """Let nobody wait any longer for a slot that there are no more seats of."""
    WaitlistEntry.objects.filter(WAITING, slot=slot_id).update(status=Status.PASSED, updated_at=at)


def enqueue(*, events: Iterable[BookingEvent], at: datetime) -> None:
    """Enqueue the offers of what some events leave free, where somebody waits for it."""
    freed = set()
    for event in events:
        before = event.data["was"] if event.type == Type.RESCHEDULED else event.data
        if event.type in FREES and before.get("slot_id"):
            freed.add(UUID(before["slot_id"]))
    offer_later(slot_ids=freed, at=at)


def offer_later(*, slot_ids: Collection[UUID], at: datetime) -> None:
    """Enqueue the offers of slots that are still to come, where somebody waits."""
    if not slot_ids:
        return
    waiting = WaitlistEntry.objects.filter(WAITING, slot__in=slot_ids, slot__start_time__gt=at)
    found = waiting.order_by("slot").values_list("slot", flat=True).distinct()
    named: list[JSONValue] = [str(slot_id) for slot_id in found]
    if named:
        app.configure_task("bookings.offer_seats").defer(slot_ids=named)


def offer_seats(*, at: datetime, slot_ids: Collection[str] | None = None) -> int:
    """Hold the free seats of slots for those who wait for them, in order; return how many.

    Args:
        slot_ids: those to look at; by default all that somebody waits for.
    """
    slots = Slot.objects.alias(taken=seats_taken(at)).filter(
        Exists(WaitlistEntry.objects.filter(WAITING, slot=OuterRef("pk"))),
        # A seat to offer, or nothing any more.
        Q(taken__lt=F("capacity"))
        | Q(start_time__lte=at + F("service__min_notice_minutes") * timedelta(minutes=1))
        | ~Q(status=Slot.Status.SCHEDULED),
    )
    if slot_ids is not None:
        slots = slots.filter(pk__in=slot_ids)
    return sum(_offer(pk, at=at) for pk in [*slots.values_list("pk", flat=True)])


@retried
@transaction.atomic
def _offer(slot_id: UUID, *, at: datetime) -> int:
    """Hold the free seats of one slot, see `offer_seats`."""
    try:
        slot = _locked_slot(slot_id)
    except Slot.DoesNotExist:
        return 0
    terms, place = _terms(slot_id)
    ahead = place.start_time - at
    if place.status != Slot.Status.SCHEDULED or ahead <= timedelta(0) or ahead < terms.notice:
        pass_over(slot_id=slot_id, at=at)
        return 0
    try:
        terms.check_start(place.start_time, at)
        terms.check_slot(place)
    except ServiceError:
        # Not to be had at present; that may change.
        return 0
    waiting = slot.waitlist.filter(WAITING)
    waiting.filter(user__is_active=False).update(status=Status.PASSED, updated_at=at)
    offered = 0
    for entry in waiting.order_by("created_at", "id"):
        try:
            with transaction.atomic():
                _hold(entry.user_id, terms, place, at)
        except SlotFull:
            break
        offered += 1
    return offered


def _hold(user_id: UUID, terms: Terms, place: Place, at: datetime) -> None:
    """Hold the lowest free seat of a slot for somebody who waits, of whom nobody is ahead."""
    booking = Booking(
        id=uuid7(),
        user_id=user_id,
        service_id=terms.service_id,
        calendar_id=terms.calendar_id,
        slot_id=place.id,
        start_time=place.start_time,
        end_time=place.end_time,
        blocked=place.blocked,
        status=Booking.Status.HELD,
        price=terms.price,
        currency=terms.currency,
        hold_expires_at=min(at + settings.WAITLIST_OFFER_TIME, place.start_time),
        created_at=at,
        updated_at=at,
    )
    take_seat(booking, capacity=place.capacity, version=terms.version, actor=None, waitlist=True)


def _locked_slot(slot_id: UUID) -> Slot:
    """Return a slot that neither changes nor is booked meanwhile; locked as everybody does it.

    Its calendar first, as those do who change it, then it.
    """
    lock_calendar_of(slot_id)
    return Slot.objects.select_for_update(of=("self",), no_key=True).get(pk=slot_id)


def _terms(slot_id: UUID) -> tuple[Terms, Place]:
    """Return the terms of a slot that is locked, so that it is there."""
    found: Any = terms_in(slot_id)
    return found
