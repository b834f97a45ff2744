"""Invents a single booking: its customer, the time it is made, and what happens to it until now."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.conf import settings

from bookings.events import state
from bookings.models import Booking, BookingEvent
from bookings.services import EVENT_OF
from bookit.tools.demo.calendars import StoredService
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.people import Customer

Status = Booking.Status

# A booking that requires confirmation and was made less than this time ago is still pending, unless
# it has started.
UNANSWERED = timedelta(hours=8)

# In the demo, nobody books, moves or cancels less than this number of minutes before the start,
# even if the service allows it.
MIN_NOTICE_MINUTES = 30


@dataclass(frozen=True)
class Step:
    """An event in the history of a booking, and the status that the booking has afterwards."""

    type: BookingEvent.Type
    status: Status
    at: datetime
    actor_id: UUID | None
    reason: str = ""


@dataclass
class Draft:
    """A booking that is being invented.

    Args:
        steps: what happens to the booking, in order.
        moved_from: the original start of the booking, if it was moved.
    """

    booking: Booking
    customer: Customer
    service: StoredService
    steps: list[Step]
    moved_from: datetime | None = None

    @property
    def frees_its_seat(self) -> bool:
        """Whether the seat is free again after the last step."""
        return self.booking.status not in Booking.ACTIVE

    def events(self) -> Iterator[BookingEvent]:
        """Yield the booking's history, as `bookings.services` would have recorded it.

        If the booking was moved, its earlier events name the slot of the new time.
        """
        booking = copy(self.booking)
        length = booking.end_time - booking.start_time
        if self.moved_from is not None:
            booking.start_time, booking.end_time = self.moved_from, self.moved_from + length
        for step in self.steps:
            more: dict[str, Any] = {"reason": step.reason} if step.reason else {}
            if step.type == BookingEvent.Type.RESCHEDULED:
                was = state(booking)
                more["was"] = {
                    "start_time": was["start_time"],
                    "end_time": was["end_time"],
                    "slot_id": None,  # The demo does not record the previous slot.
                }
                booking.start_time = self.booking.start_time
                booking.end_time = self.booking.end_time
            elif step is not self.steps[0]:
                more["was"] = {"status": str(booking.status)}
            booking.status = step.status
            yield BookingEvent(
                calendar_id=booking.calendar_id,
                booking_id=booking.pk,
                type=step.type,
                actor_id=step.actor_id,
                at=step.at,
                data={**state(booking), **more},
            )


class Drafter:
    """Invents bookings.

    Args:
        reasons: the reasons that providers give when they cancel.
        at: the present. No step of a booking is later.
    """

    def __init__(self, chance: Chance, reasons: Sequence[str], *, at: datetime) -> None:
        self.chance, self.random = chance, chance.random
        self.reasons = reasons
        self.at = at

    def draft(
        self,
        service: StoredService,
        start: datetime,
        customers: list[Customer],
        *,
        earliest: datetime | None = None,
        days_apart: int | None = None,
        certain: bool = False,
        held: bool = False,
    ) -> Draft | None:
        """Invent a booking of seat 1 by one of `customers`.

        Return None if no customer can come, or if `_creation_time` finds no time.

        Args:
            earliest: the booking is made after this moment.
            days_apart: the minimum number of days between this visit and the customer's other
                visits to the calendar; by default the calendar's `days_between_visits`.
            certain: the booking does not expire or get cancelled, and the customer comes.
            held: the booking is a hold that was just made.
        """
        row = service.service
        if held:
            earliest = self.at - settings.HOLD_TIME / 4
        made = self._creation_time(service, start, earliest)
        if made is None:
            return None
        end = start + timedelta(minutes=row.duration_minutes)
        customer = self._customer(service, start, end, made, customers, days_apart)
        if customer is None:
            return None
        booking = self._booking(service, start, customer, made)
        if held:
            booking.hold_expires_at = made + settings.HOLD_TIME
            steps = [Step(BookingEvent.Type.HELD, Status.HELD, made, customer.user.pk)]
        else:
            steps = self._steps(booking, certain=certain)
        booking.status = steps[-1].status
        if booking.status == Status.CANCELLED:
            booking.cancellation_reason = steps[-1].reason
        draft = Draft(booking, customer, service, steps)
        customer.visits[service.calendar_entry].append(customer.day_of(start))
        if not draft.frees_its_seat:
            customer.busy.append((start, end))
        return draft

    def _creation_time(
        self, service: StoredService, start: datetime, earliest: datetime | None
    ) -> datetime | None:
        """Return when a booking is made, or None if the chosen moment is too early."""
        row = service.service
        notice = timedelta(minutes=max(row.min_notice_minutes, MIN_NOTICE_MINUTES))
        latest = min(self.at, start - notice)
        made = self.chance.before(latest, days=4)
        horizon = row.max_advance_days
        if horizon is not None and made < start - timedelta(days=horizon):
            return None
        if earliest is not None and made <= earliest:
            made = self.chance.between(earliest, latest)
            if made <= earliest:
                return None
        return made

    def _customer(
        self,
        service: StoredService,
        start: datetime,
        end: datetime,
        made: datetime,
        customers: list[Customer],
        days_apart: int | None,
    ) -> Customer | None:
        """Choose one of the customers who can come, according to their weights."""
        calendar = service.calendar_entry
        apart = days_apart or calendar.days_between_visits
        candidates = [
            customer
            for customer in customers
            if customer.user.created_at < made
            and customer.can_come(calendar, start, end, days_apart=apart)
        ]
        if not candidates:
            return None
        return self.random.choices(candidates, [customer.weight for customer in candidates])[0]

    def _booking(
        self, service: StoredService, start: datetime, customer: Customer, made: datetime
    ) -> Booking:
        """Return a booking without a status."""
        row, notes = service.service, service.calendar_entry.notes
        has_note = notes and self.random.random() < (0.12 if row.capacity == 1 else 0.03)
        return Booking(
            id=self.chance.uuid(made),
            user=customer.user,
            service=row,
            calendar_id=row.calendar_id,
            slot=service.slots.get(start),
            seat=1,
            start_time=start,
            end_time=start + timedelta(minutes=row.duration_minutes),
            blocked=service.terms.blocked(start),
            attendee_name=customer.child if service.entry.for_children else "",
            notes=self.random.choice(notes) if has_note else "",
            price=row.price,
            currency=row.currency,
            created_at=made,
        )

    def _steps(self, booking: Booking, *, certain: bool) -> list[Step]:
        """Invent what happens to a booking from the moment it is made until now."""
        service, start, end = booking.service, booking.start_time, booking.end_time
        owner, provider = booking.user_id, service.calendar.provider_id
        pending = service.requires_confirmation
        steps: list[Step] = []

        def add(status: Status, at: datetime, actor_id: UUID | None, reason: str = "") -> None:
            kind = EVENT_OF[status] if steps else BookingEvent.Type.CREATED
            steps.append(Step(kind, status, at, actor_id, reason))

        add(Status.PENDING if pending else Status.CONFIRMED, booking.created_at, owner)
        # `bookings.clock` ends bookings once a minute, so it can be up to a minute late.
        delay = timedelta(seconds=self.random.randint(1, 59))
        over = end + delay <= self.at
        # Below 0.07, a pending booking that is over has expired. From 0.07 to 0.15, the booking is
        # cancelled if there is time for it. From 0.15 to 0.18, the customer does not come.
        fate = 1.0 if certain else self.random.random()
        if pending:
            if fate < 0.07 and over:
                add(Status.EXPIRED, start + delay, None)
                return steps
            if booking.created_at > self.at - UNANSWERED and start > self.at:
                return steps
            confirmed = self.chance.after(booking.created_at, hours=10)
            if confirmed >= start:
                confirmed = self.chance.between(booking.created_at, start)
            if confirmed >= self.at:
                return steps
            add(Status.CONFIRMED, confirmed, provider)
        if 0.07 <= fate < 0.15:
            latest = min(self.at, start - self._cancellation_notice(booking))
            if latest > steps[-1].at:
                by_provider = service.capacity == 1 and self.random.random() < 0.2
                add(
                    Status.CANCELLED,
                    self.chance.between(steps[-1].at, latest),
                    provider if by_provider else owner,
                    self.random.choice(self.reasons) if by_provider else "",
                )
                return steps
        if over and 0.15 <= fate < 0.18:
            add(Status.NO_SHOW, min(start + timedelta(minutes=10), end) + delay, provider)
        elif over:
            add(Status.COMPLETED, end + delay, None)
        return steps

    def move(self, draft: Draft) -> None:
        """Pretend that a booking was moved from another start time, less than six days away.

        Nobody has booked the other start time. If no free start time is suitable, change nothing.
        """
        booking, steps = draft.booking, draft.steps
        ended = steps[-1].status not in (Status.PENDING, Status.CONFIRMED)
        number = len(steps) - 1 if ended else len(steps)
        before = steps[number - 1]
        until = steps[-1].at if ended else self.at
        notice = self._cancellation_notice(booking)
        for start in draft.service.free:
            latest = min(until, booking.start_time - notice, start - notice)
            near = abs(start - booking.start_time) < timedelta(days=6)
            if near and before.at + timedelta(hours=1) < latest:
                draft.service.free.remove(start)
                draft.moved_from = start
                moved = self.chance.between(before.at, latest)
                kind = BookingEvent.Type.RESCHEDULED
                steps.insert(number, Step(kind, before.status, moved, booking.user_id))
                return

    def _cancellation_notice(self, booking: Booking) -> timedelta:
        minutes = booking.service.cancellation_notice_minutes
        return timedelta(minutes=max(minutes, MIN_NOTICE_MINUTES))
