"""The waitlist of a full slot: joining it, leaving it, and offering its seats to the first user.

A seat that becomes free belongs to the waitlist at once, because a booking leaves one free seat for
each user who waits ahead of it (`bookings.seats`). A worker then holds the seat for the first user
and notifies them. The event is `booking.held` with `waitlist` in its data. The user can book the
hold, as any other hold. If it expires or is cancelled, the seat goes to the next user.

A trigger in the migrations changes the status of an entry in the transaction that changes the
booking: `waiting` becomes `offered` or `booked` when its user takes a seat of the slot, and
`offered` becomes `booked` or `passed` with the hold.
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
from bookings.availability.terms import SlotTerms, Terms, terms_in
from bookings.models import Booking, BookingEvent, Slot
from bookings.seats import close_expired_holds, lock_calendar_of, seats_taken, take_seat
from bookings.waitlist.models import WaitlistEntry
from bookit.database.retries import retried
from bookit.errors import Forbidden, Invalid, ServiceError

Status = WaitlistEntry.Status
Type = BookingEvent.Type

WAITING = Q(status=Status.WAITING)
# The position from 1; None once the user no longer waits.
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

# Events that free a seat of the slot.
FREES = {Type.CANCELLED, Type.EXPIRED, Type.RESCHEDULED, Type.DELETED}


@retried
@transaction.atomic
def join(*, slot_id: UUID, actor: User, at: datetime) -> WaitlistEntry:
    """Join the waitlist of a full slot. Users who already wait keep their position.

    Raises:
        Slot.DoesNotExist: there is no such slot.
        Invalid: the slot has started, it has a free seat, or the user already has a seat.
        ServiceInactive: the service or the slot cannot be booked.
        TooSoon: less than the service's notice is left.
        TooFarAhead: the slot is beyond the service's horizon.
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
    terms, slot_terms = _terms(slot_id)
    terms.check_start(slot_terms.start_time, at)
    terms.check_slot(slot_terms)
    seated = slot.bookings.filter(active=True)
    if seated.filter(user=actor).exists():
        raise Invalid("You already have a seat in this slot.")
    if slot.capacity > seated.count() + slot.waitlist.filter(WAITING).count():
        raise Invalid("This slot has free seats. Book one instead of joining the queue.")
    return WaitlistEntry.objects.create(slot=slot, user=actor, created_at=at, updated_at=at)


@retried
@transaction.atomic
def leave(*, slot_id: UUID, entry_id: UUID, actor: User, at: datetime) -> None:
    """Take a user off the waitlist. A seat that is held for them goes to the next user.

    An entry that no longer waits and has no hold does not change.

    Raises:
        WaitlistEntry.DoesNotExist: there is no such entry.
        Forbidden: `actor` is not its user, the slot's provider or an admin.
    """
    entry = WaitlistEntry.objects.select_related("slot__calendar").get(pk=entry_id, slot=slot_id)
    check_may_read(entry, actor)
    # While the slot is locked, no worker holds a seat for them.
    _locked_slot(slot_id)
    left = {"status": Status.LEFT, "updated_at": at}
    found = WaitlistEntry.objects.filter(pk=entry_id)
    if found.filter(WAITING).update(**left):
        return
    # The user may book the hold at this moment. Then it is no longer a hold, and stays.
    hold = (
        Booking.objects.select_for_update(of=("self",), no_key=True)
        .filter(waitlist_entry=entry, status=Booking.Status.HELD)
        .first()
    )
    if hold is not None:
        services.cancel_booking(booking_id=hold.pk, actor=actor, at=at)
        found.update(**left)


def check_may_read(entry: WaitlistEntry, actor: User) -> None:
    """Allow access to an entry only to its user, the slot's provider and admins.

    Raises:
        Forbidden: the entry belongs to another user.
    """
    if entry.user_id != actor.pk and not actor.keeps(entry.slot.calendar.provider_id):
        raise Forbidden("This place in the queue belongs to another user.")


def pass_over(*, slot_id: UUID, at: datetime) -> None:
    """End the waitlist of a slot that has no more seats to offer."""
    WaitlistEntry.objects.filter(WAITING, slot=slot_id).update(status=Status.PASSED, updated_at=at)


def enqueue(*, events: Iterable[BookingEvent], at: datetime) -> None:
    """Enqueue offers for the seats that events free, if somebody waits for them."""
    freed = set()
    for event in events:
        before = event.data["was"] if event.type == Type.RESCHEDULED else event.data
        if event.type in FREES and before.get("slot_id"):
            freed.add(UUID(before["slot_id"]))
    offer_later(slot_ids=freed, at=at)


def offer_later(*, slot_ids: Collection[UUID], at: datetime) -> None:
    """Enqueue offers for the slots that have not started, if somebody waits for them."""
    if not slot_ids:
        return
    waiting = WaitlistEntry.objects.filter(WAITING, slot__in=slot_ids, slot__start_time__gt=at)
    found = waiting.order_by("slot").values_list("slot", flat=True).distinct()
    named: list[JSONValue] = [str(slot_id) for slot_id in found]
    if named:
        app.configure_task("bookings.offer_seats").defer(slot_ids=named)


def offer_seats(*, at: datetime, slot_ids: Collection[str] | None = None) -> int:
    """Hold the free seats of slots for the users who wait, in order; return the number of holds.

    Args:
        slot_ids: the slots to look at; by default all slots that somebody waits for.
    """
    slots = Slot.objects.alias(taken=seats_taken(at)).filter(
        Exists(WaitlistEntry.objects.filter(WAITING, slot=OuterRef("pk"))),
        # The slot has a seat to offer, or its waitlist has to end.
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
    """Hold the free seats of one slot; see `offer_seats`."""
    try:
        slot = _locked_slot(slot_id)
    except Slot.DoesNotExist:
        return 0
    terms, slot_terms = _terms(slot_id)
    ahead = slot_terms.start_time - at
    if slot_terms.status != Slot.Status.SCHEDULED or ahead <= timedelta(0) or ahead < terms.notice:
        pass_over(slot_id=slot_id, at=at)
        return 0
    try:
        terms.check_start(slot_terms.start_time, at)
        terms.check_slot(slot_terms)
    except ServiceError:
        # The slot cannot be booked at present, but this may change.
        return 0
    waiting = slot.waitlist.filter(WAITING)
    waiting.filter(user__is_active=False).update(status=Status.PASSED, updated_at=at)
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
    """Hold the lowest free seat of a slot for the first user on its waitlist."""
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


def _locked_slot(slot_id: UUID) -> Slot:
    """Return a slot that neither changes nor is booked until the transaction ends.

    The calendar is locked first and then the slot, as in all code that changes slots.
    """
    lock_calendar_of(slot_id)
    return Slot.objects.select_for_update(of=("self",), no_key=True).get(pk=slot_id)


def _terms(slot_id: UUID) -> tuple[Terms, SlotTerms]:
    """Return the terms of a slot that is locked and therefore exists."""
    found: Any = terms_in(slot_id)
    return found
