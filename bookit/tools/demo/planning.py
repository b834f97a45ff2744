"""Decides which times are booked, calendar by calendar and day by day, and stores the bookings."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta

from django.db.backends.postgresql.psycopg_any import DateTimeTZRange

from bookings.availability.terms import terms_of
from bookings.booked import remember_all_calendars
from bookings.models import Booking
from bookit.times import day_end, day_start, wall_clock
from bookit.tools.demo.calendars import StoredCalendar, StoredService
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.drafts import UNANSWERED, Draft, Drafter, Status
from bookit.tools.demo.people import Customer, People
from bookit.tools.demo.town import Town
from bookit.tools.demo.window import DAYS_AHEAD, covered_days, today
from catalog.models import Service


class Planner:
    """Plans the bookings of the whole town.

    Attributes:
        drafts: the bookings so far.
    """

    def __init__(self, town: Town, people: People, chance: Chance, *, at: datetime) -> None:
        self.people = people
        self.tz, self.random = chance.tz, chance.random
        self.at = at
        self.drafter = Drafter(chance, town.settings.cancellation_reasons, at=at)
        self.drafts: list[Draft] = []

    def plan(self, calendar: StoredCalendar) -> None:
        """Plan the bookings of a calendar."""
        drafts: list[Draft] = []
        present = today(self.at, self.tz)
        for day in covered_days(self.at, self.tz):
            # Demand falls from today on, because few people book long in advance.
            days_ahead = max((day - present).days, 0)
            demand = calendar.entry.demand * (1 - days_ahead / (DAYS_AHEAD + 4))
            drafts += self._book_day(calendar, day, demand)
        for draft in drafts:
            if draft.service.service.capacity == 1 and self.random.random() < 0.1:
                self.drafter.move(draft)
        self.drafts += drafts
        for service in calendar.services:
            if service.service.requires_confirmation:
                self._add_request(service)

    def _book_day(self, calendar: StoredCalendar, day: date, demand: float) -> Iterator[Draft]:
        """Yield the bookings of a day, and add unbooked start times to `StoredService.free`.

        The starts of sessions with several seats are never added. Inactive services are left out.
        """
        services = [service for service in calendar.services if service.service.is_active]
        taken: list[DateTimeTZRange] = []
        for service in services:
            for start in self._session_starts(service, day):
                taken.append(service.terms.blocked(start))
                drafts = self._book_session(service, start, demand)
                yield from drafts
                if not drafts and service.service.capacity == 1:
                    service.free.append(start)
        without_sessions = [service for service in services if not service.entry.sessions]
        if without_sessions:
            yield from self._book_appointments(without_sessions, day, demand, taken)

    def _book_appointments(
        self,
        services: Sequence[StoredService],
        day: date,
        demand: float,
        taken: list[DateTimeTZRange],
    ) -> Iterator[Draft]:
        """Yield the bookings that services without sessions have on a day, one after the other.

        Args:
            services: the services, which are on the same calendar.
            taken: the periods of sessions, including their buffers.
        """
        shares = [service.entry.share for service in services]
        opening = services[0].terms.opening
        for opens, closes in opening.periods(day_start(day, self.tz), day_end(day, self.tz)):
            if opens.astimezone(self.tz).date() != day:
                continue  # `periods` also returns periods of the days before and after.
            moment = opens
            while True:
                service = self.random.choices(services, shares)[0]
                terms = service.terms
                # The first start on the grid of times that leaves room for the buffer before it.
                begins = moment + terms.buffer_before
                start = opens + -((opens - begins) // terms.step) * terms.step
                if start + terms.duration > closes:
                    break
                blocked = terms.blocked(start)
                moment = blocked.upper
                if opening.is_off(start, start + terms.duration) or any(
                    blocked.lower < each.upper and each.lower < blocked.upper for each in taken
                ):
                    continue
                if self.random.random() < demand:
                    yield from self._book_seat(service, start)
                else:
                    service.free.append(start)

    def _session_starts(self, service: StoredService, day: date) -> Iterator[datetime]:
        """Yield the start times of a service's sessions on a day."""
        if service.service.mode == Service.Mode.SLOTS:
            for start in service.slots:
                if start.astimezone(self.tz).date() == day:
                    yield start
            return
        terms = service.terms
        for sessions in service.entry.sessions:
            if day.weekday() not in sessions.weekdays:
                continue
            for minute in sessions.starts:
                start = wall_clock(day, minute, self.tz)
                if terms.opening.contains(start, start + terms.duration):
                    yield start

    def _book_session(self, service: StoredService, start: datetime, demand: float) -> list[Draft]:
        """Return the bookings of a session.

        Each booking gets the lowest seat that is free when the booking is made.
        """
        capacity = service.service.capacity
        wanted = round(capacity * min(1.0, demand * self.random.uniform(0.5, 1.8)))
        drafts: list[Draft] = []
        slot = service.slots.get(start)
        seats_left = service.seats_left.get(slot.pk) if slot else None
        if seats_left is None:
            for _ in range(wanted):
                drafts += self._book_seat(service, start)
        else:
            drafts += self._book_all_but(service, start, seats_left)
        drafts.sort(key=lambda draft: draft.booking.created_at)
        for number, draft in enumerate(drafts):
            draft.booking.seat = _lowest_free_seat(draft, drafts[:number])
        return drafts

    def _book_seat(self, service: StoredService, start: datetime) -> Iterator[Draft]:
        """Yield the booking of a seat. If it is cancelled or expires, a new booking may follow."""
        earliest = None
        while True:
            draft = self.drafter.draft(service, start, self.people.customers, earliest=earliest)
            if draft is None:
                return
            yield draft
            if not draft.frees_its_seat or self.random.random() < 0.4:
                return
            earliest = draft.steps[-1].at

    def _book_all_but(
        self, service: StoredService, start: datetime, seats_left: int
    ) -> Iterator[Draft]:
        """Yield bookings of a session that leave `seats_left` seats free.

        More seats stay free if too few customers can come. Unless `seats_left` is 0, the last
        booking is a hold, as if somebody were about to book.
        """
        taken = service.service.capacity - seats_left
        for number in range(1, taken + 1):
            draft = self.drafter.draft(
                service,
                start,
                self.people.customers,
                days_apart=1,
                certain=True,
                held=number == taken and seats_left > 0,
            )
            if draft is not None:
                yield draft

    def _add_request(self, service: StoredService) -> None:
        """Add a pending booking of a service, so that its provider has a booking to confirm.

        The main customer makes it, if they can come and have no pending booking yet. If not, any
        customer makes it.
        """
        main_customer = self.people.main_customer
        everybody = self.people.customers
        has_request = any(
            draft.customer is main_customer and draft.booking.status == Status.PENDING
            for draft in self.drafts
        )
        ahead = [start for start in service.free if start > self.at + timedelta(days=2)]
        for customers in [everybody] if has_request else [[main_customer], everybody]:
            draft = self._first_draft(service, ahead, customers)
            if draft is not None:
                service.free.remove(draft.booking.start_time)
                self.drafts.append(draft)
                return

    def _first_draft(
        self, service: StoredService, starts: list[datetime], customers: list[Customer]
    ) -> Draft | None:
        """Return a booking at the first start time at which any of the customers can come."""
        for start in starts:
            draft = self.drafter.draft(
                service, start, customers, earliest=self.at - UNANSWERED, days_apart=1
            )
            if draft is not None:
                return draft
        return None


def store_bookings(
    town: Town,
    people: People,
    calendars: Sequence[StoredCalendar],
    chance: Chance,
    *,
    at: datetime,
) -> list[Draft]:
    """Store bookings, and return them from the oldest to the newest."""
    services = [service for calendar in calendars for service in calendar.services]
    first_day = next(covered_days(at, chance.tz))
    terms = terms_of([each.service.pk for each in services], day_start(first_day, chance.tz))
    for service in services:
        service.terms = terms[service.service.pk]
    planner = Planner(town, people, chance, at=at)
    for calendar in calendars:
        planner.plan(calendar)
    drafts = planner.drafts
    for draft in drafts:
        draft.booking.updated_at = draft.steps[-1].at
    drafts.sort(key=lambda draft: (draft.booking.created_at, draft.booking.pk))
    Booking.objects.bulk_create(draft.booking for draft in drafts)
    remember_all_calendars()
    return drafts


def _lowest_free_seat(draft: Draft, earlier: Sequence[Draft]) -> int:
    """Return the lowest seat that `earlier` bookings left free when `draft` was booked."""
    taken = {
        other.booking.seat
        for other in earlier
        if not other.frees_its_seat or other.steps[-1].at > draft.booking.created_at
    }
    capacity = draft.service.service.capacity
    return next(seat for seat in range(1, capacity + 1) if seat not in taken)
