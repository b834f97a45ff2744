"""BookIt and a plain model agree on every random sequence of steps.

The model implements the rules for bookings a second time, in plain Python without a database.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY
from bookings.tests.test_races import DOUBLE_BOOKINGS
from bookings.tests.test_transitions import STATES, TABLE
from bookit.errors import ServiceError
from bookit.tests.crowd import ask
from catalog.models import Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

MINUTE = timedelta(minutes=1)
ACTIVE = {"held", "pending", "confirmed", "completed", "no_show"}
# The minutes between possible start times, few enough that bookings often overlap.
STEP = 15
PEOPLE = ["one", "two", "provider", "admin"]


class Refused(Exception):
    """The model refuses a step, with the error code that a client would get."""


@dataclass
class Offer:
    """The terms of a service. Times are in minutes."""

    calendar: str
    duration: int
    before: int
    after: int
    capacity: int
    confirmation: bool
    notice: int
    horizon: int | None
    cancellation: int
    active: bool = True


@dataclass
class Entry:
    """A booking of the model. Times are minutes after `TUESDAY`."""

    service: str
    owner: str
    seat: int
    start: int
    length: int
    before: int
    after: int
    status: str
    events: int = 1

    def blocks(self, start, end):
        return self.status in ACTIVE and (
            self.start - self.before < end and start < self.start + self.length + self.after
        )


class Model:
    """The rules for bookings in plain Python."""

    def __init__(self, offers):
        self.offers = offers
        self.entries = {}
        self.deleted = {}
        self.now = -60  # In minutes after `TUESDAY`, as the times of the entries.

    def seat(self, service, start, end, *, ignored=None):
        """Return a seat that is free from `start` to `end`; this period includes the buffers.

        Raises:
            Refused: no seat is free, or another service of the calendar is booked then.
        """
        offer, taken = self.offers[service], set()
        for entry in self.entries.values():
            if entry is ignored or not entry.blocks(start, end):
                continue
            if entry.service == service:
                taken.add(entry.seat)
            elif self.offers[entry.service].calendar == offer.calendar:
                raise Refused("booking_conflict")
        free = [seat for seat in range(1, offer.capacity + 1) if seat not in taken]
        # If the capacity was reduced, each taken seat beyond it uses up a free seat.
        beyond = [seat for seat in taken if seat > offer.capacity]
        if len(free) <= len(beyond):
            raise Refused("booking_conflict")
        return free[len(beyond)]

    def create(self, key, service, start, owner):
        offer = self.offers[service]
        if not offer.active:
            raise Refused("service_inactive")
        self.check_start(offer, start)
        seat = self.seat(service, start - offer.before, start + offer.duration + offer.after)
        status = "pending" if offer.confirmation else "confirmed"
        self.entries[key] = Entry(
            service, owner, seat, start, offer.duration, offer.before, offer.after, status
        )

    def check_start(self, offer, start):
        if start < self.now:
            raise Refused("validation_error")
        if start < self.now + offer.notice:
            raise Refused("too_soon")
        if offer.horizon is not None and start > self.now + offer.horizon:
            raise Refused("too_far_ahead")

    def check_notice(self, entry, actor):
        notice = self.offers[entry.service].cancellation
        if not self.may_decide(entry, actor) and self.now > entry.start - notice:
            raise Refused("cancellation_too_late")

    def may_decide(self, entry, actor):
        return actor == "admin" or (
            actor == "provider" and self.offers[entry.service].calendar == "theirs"
        )

    def find(self, key, actor, *, owner_may=True):
        if key not in self.entries:
            raise Refused("not_found")
        entry = self.entries[key]
        if not self.may_decide(entry, actor) and not (owner_may and entry.owner == actor):
            raise Refused("permission_denied")
        return entry

    def move(self, key, start, actor):
        entry = self.find(key, actor)
        if entry.status not in ("pending", "confirmed"):
            raise Refused("invalid_transition")
        if start == entry.start:
            return
        self.check_notice(entry, actor)
        if not self.offers[entry.service].active:
            raise Refused("service_inactive")
        self.check_start(self.offers[entry.service], start)
        entry.seat = self.seat(
            entry.service,
            start - entry.before,
            start + entry.length + entry.after,
            ignored=entry,
        )
        entry.start = start
        entry.events += 1

    def enter(self, key, status, actor, *, owner_may=False):
        entry = self.find(key, actor, owner_may=owner_may)
        if status not in TABLE[entry.status].split():
            raise Refused("invalid_transition")
        if owner_may:
            self.check_notice(entry, actor)
        entry.status = status
        entry.events += 1

    def delete(self, key, actor):
        if key not in self.entries:
            raise Refused("not_found")
        entry = self.entries[key]
        if actor != "admin":
            if entry.owner != actor:
                raise Refused("permission_denied")
            if entry.start <= self.now:
                raise Refused("booking_started")
            if entry.status in ("pending", "confirmed"):
                self.check_notice(entry, actor)
        to_come = entry.status in ("pending", "confirmed") and entry.start > self.now
        # A booking that would still take place is cancelled first, which is a separate event.
        self.deleted[key] = self.entries.pop(key).events + (2 if to_come else 1)


class World:
    """The people and services in BookIt that the model mirrors."""

    def __init__(self):
        self.people = {
            "one": UserFactory(),
            "two": UserFactory(),
            "provider": ProviderFactory(),
            "admin": AdminFactory(),
        }
        theirs = CalendarFactory(provider=self.people["provider"])
        self.services = {
            "class": ServiceFactory(
                calendar=theirs,
                capacity=3,
                duration_minutes=45,
                buffer_after_minutes=15,
                requires_confirmation=False,
                cancellation_notice_minutes=45,
            ),
            "lesson": ServiceFactory(
                calendar=theirs,
                duration_minutes=30,
                buffer_before_minutes=10,
                buffer_after_minutes=5,
                min_notice_minutes=30,
            ),
            "elsewhere": ServiceFactory(capacity=2, duration_minutes=60, max_advance_days=1),
        }

    def offers(self):
        """Return the terms of the services for the model."""
        return {
            name: Offer(
                calendar="elsewhere" if name == "elsewhere" else "theirs",
                duration=service.duration_minutes,
                before=service.buffer_before_minutes,
                after=service.buffer_after_minutes,
                capacity=service.capacity,
                confirmation=service.requires_confirmation,
                notice=service.min_notice_minutes,
                horizon=service.max_advance_days and service.max_advance_days * 24 * 60,
                cancellation=service.cancellation_notice_minutes,
            )
            for name, service in self.services.items()
        }


def instant(minutes):
    return TUESDAY + minutes * MINUTE


class Run:
    """Runs a sequence of steps in the model and in BookIt, and compares both after each step."""

    def __init__(self, world):
        self.world, self.model = world, Model(world.offers())
        self.keys = []
        self.ids = {}

    @property
    def now(self):
        return instant(self.model.now)

    def key(self, number):
        """Return the key of an existing or deleted booking, or None before the first booking."""
        return self.keys[number % len(self.keys)] if self.keys else None

    def booking(self, key, actor):
        return {
            "booking_id": self.ids.get(key) or uuid4(),
            "actor": self.world.people[actor],
            "at": self.now,
        }

    def compare(self, by_model, by_service):
        """Run a step in the model and in BookIt; return BookIt's result, or None if both refuse."""
        try:
            by_model()
            expected = None
        except Refused as refusal:
            expected = str(refusal)
        made = None
        try:
            with transaction.atomic():
                made = by_service()
            actual = None
        except ServiceError as error:
            actual = error.code
        except ObjectDoesNotExist:
            actual = "not_found"
        assert actual == expected
        return made

    def create(self, service, start, owner):
        key = len(self.keys)
        booking = self.compare(
            lambda: self.model.create(key, service, start * STEP, owner),
            lambda: services.create_booking(
                actor=self.world.people[owner],
                service_id=self.world.services[service].pk,
                start_time=instant(start * STEP),
                at=self.now,
            ),
        )
        if booking:
            self.keys.append(key)
            self.ids[key] = booking.pk

    def move(self, number, start, actor):
        key = self.key(number)
        self.compare(
            lambda: self.model.move(key, start * STEP, actor),
            lambda: services.reschedule_booking(
                **self.booking(key, actor), start_time=instant(start * STEP)
            ),
        )

    def cancel(self, number, actor):
        key = self.key(number)
        self.compare(
            lambda: self.model.enter(key, "cancelled", actor, owner_may=True),
            lambda: services.cancel_booking(**self.booking(key, actor)),
        )

    def enter(self, number, status, actor):
        key = self.key(number)
        self.compare(
            lambda: self.model.enter(key, status, actor),
            lambda: services.change_status(**self.booking(key, actor), status=status),
        )

    def delete(self, number, actor):
        key = self.key(number)
        self.compare(
            lambda: self.model.delete(key, actor),
            lambda: services.delete_booking(**self.booking(key, actor)),
        )

    def wait(self, steps):
        self.model.now += steps * STEP

    def change_service(self, service, capacity, active):
        """Change the capacity of a service that may have bookings, and whether it is active."""
        self.model.offers[service].capacity = capacity
        self.model.offers[service].active = active
        Service.objects.filter(pk=self.world.services[service].pk).update(
            capacity=capacity, is_active=active
        )

    def check(self):
        """Compare the stored rows with the model, and check that no seat is booked twice."""
        rows = {
            row.pk: (
                row.service_id,
                row.user_id,
                row.seat,
                row.start_time,
                row.end_time,
                row.blocked.lower,
                row.blocked.upper,
                row.status,
            )
            for row in Booking.objects.all()
        }
        assert rows == {
            self.ids[key]: (
                self.world.services[entry.service].pk,
                self.world.people[entry.owner].pk,
                entry.seat,
                instant(entry.start),
                instant(entry.start + entry.length),
                instant(entry.start - entry.before),
                instant(entry.start + entry.length + entry.after),
                entry.status,
            )
            for key, entry in self.model.entries.items()
        }
        assert ask(DOUBLE_BOOKINGS) == 0
        self.check_history()

    def check_history(self):
        events = {}
        for event in BookingEvent.objects.all():
            events.setdefault(event.booking_id, []).append(event)
        assert {pk: len(recorded) for pk, recorded in events.items()} == {
            **{self.ids[key]: entry.events for key, entry in self.model.entries.items()},
            **{self.ids[key]: count for key, count in self.model.deleted.items()},
        }
        for pk, recorded in events.items():
            assert recorded[0].type == "booking.created"
            assert all(event.type != "booking.deleted" for event in recorded[:-1])
            row = Booking.objects.filter(pk=pk).first()
            assert (recorded[-1].type == "booking.deleted") == (row is None)
            if row:
                data = recorded[-1].data
                assert data["status"] == row.status
                assert data["seat"] == row.seat
                assert datetime.fromisoformat(data["start_time"]) == row.start_time
                assert datetime.fromisoformat(data["end_time"]) == row.end_time


which = st.integers(0, 7)
people = st.sampled_from(PEOPLE)
# A value or a step that is listed twice is drawn twice as often.
near = st.integers(-5, 8)
# Some starts are about a day ahead, at the horizon of one service.
starts = st.one_of(near, near, near, near, st.integers(90, 99))
offered = st.sampled_from(["class", "class", "lesson", "elsewhere"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), offered, starts, people),
        st.tuples(st.just("create"), offered, starts, people),
        st.tuples(st.just("move"), which, starts, people),
        st.tuples(st.just("cancel"), which, people),
        st.tuples(st.just("enter"), which, st.sampled_from(STATES), people),
        st.tuples(st.just("delete"), which, people),
        st.tuples(st.just("wait"), st.integers(1, 3)),
        st.tuples(st.just("change_service"), offered, st.integers(1, 4), st.booleans()),
    ),
    min_size=10,
    max_size=30,
)


@pytest.fixture
def world(db):
    return World()


@given(steps=STEPS)
@settings(
    max_examples=40,
    # The examples can share the fixture, because each example rolls back its changes.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_plain_model_makes_the_same_decisions(world, steps):
    with transaction.atomic():
        run = Run(world)
        for name, *arguments in steps:
            note(f"{name} {arguments}")
            getattr(run, name)(*arguments)
            run.check()
        transaction.set_rollback(True)
