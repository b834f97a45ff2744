"""The API shows a booking's history, which always agrees with the booking's state."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import uuid4

import pytest
from django.core.exceptions import ObjectDoesNotExist
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import clock, services
from bookings.events import state
from bookings.models import Booking, BookingEvent, Slot
from bookings.slots import services as slots
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.test_transitions import STATES, TABLE
from bookit.errors import ServiceError
from bookit.tests.expect import problem
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# The indexes of the provider and the admin in `World.people`.
PROVIDER, ADMIN = 2, 3


# --- what the API shows -----------------------------------------------------------------------


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def owner():
    return UserFactory()


@pytest.fixture
def booking(provider, owner):
    """Return a booking that was created, confirmed with a reason, and moved."""
    service = ServiceFactory(calendar=CalendarFactory(provider=provider))
    booking = services.create_booking(actor=owner, service_id=service.pk, start_time=START, at=NOW)
    services.change_status(
        booking_id=booking.pk, status="confirmed", actor=provider, at=NOW + HOUR, reason="Paid."
    )
    return services.reschedule_booking(
        booking_id=booking.pk, actor=owner, start_time=START + HOUR, at=NOW + 2 * HOUR
    )


def test_the_history_lists_events_oldest_first(api, booking, owner, provider):
    response = api.as_(owner).get(f"/bookings/{booking.pk}/history")
    assert response.status_code == 200
    content = response.json()
    assert (content["count"], content["next"], content["previous"]) == (3, None, None)
    made, confirmed, moved = content["results"]
    assert made == {
        "type": "booking.created",
        "actor_id": str(owner.pk),
        "api_key_id": None,
        "at": "2026-11-21T09:00:00Z",
        "data": {
            "status": "pending",
            "start_time": "2026-12-01T10:00:00Z",
            "end_time": "2026-12-01T11:00:00Z",
            "seat": 1,
            "slot_id": None,
            "hold_expires_at": None,
        },
    }
    assert (confirmed["type"], confirmed["actor_id"]) == ("booking.confirmed", str(provider.pk))
    assert confirmed["data"]["was"] == {"status": "pending"}
    assert confirmed["data"]["reason"] == "Paid."
    assert moved["type"] == "booking.rescheduled"
    assert moved["data"]["start_time"] == "2026-12-01T11:00:00Z"
    assert moved["data"]["was"] == {
        "start_time": "2026-12-01T10:00:00Z",
        "end_time": "2026-12-01T11:00:00Z",
        "slot_id": None,
    }


@pytest.mark.parametrize("status", ["confirmed", "cancelled", "completed", "no_show"])
def test_an_event_does_not_contain_a_reason_that_the_user_of_the_booking_gave(provider, status):
    booking = BookingFactory(user=provider, service__calendar__provider=provider, start_time=START)
    services.change_status(
        booking_id=booking.pk, status=status, actor=provider, at=START, reason="I am ill."
    )
    [event] = booking.events.all()
    assert event.data["status"] == status
    assert "reason" not in event.data


def test_an_event_that_happens_automatically_has_no_actor(api, owner):
    booking = BookingFactory(user=owner, start_time=START)
    clock.expire_bookings(at=START)
    [event] = api.as_(owner).get(f"/bookings/{booking.pk}/history").json()["results"]
    assert (event["type"], event["actor_id"]) == ("booking.expired", None)


def test_all_times_of_the_history_are_in_the_requested_zone(api, booking, owner):
    hold = services.create_booking(
        actor=owner,
        service_id=booking.service_id,
        start_time=START + 3 * HOUR,
        hold=True,
        at=NOW,
    )
    moved, held = (
        api.as_(owner).get(f"/bookings/{pk}/history?tz=Asia/Kathmandu").json()["results"][-1]
        for pk in (booking.pk, hold.pk)
    )
    assert moved["at"] == "2026-11-21T16:45:00+05:45"
    assert moved["data"]["start_time"] == "2026-12-01T16:45:00+05:45"
    assert moved["data"]["end_time"] == "2026-12-01T17:45:00+05:45"
    assert moved["data"]["was"]["start_time"] == "2026-12-01T15:45:00+05:45"
    assert moved["data"]["was"]["end_time"] == "2026-12-01T16:45:00+05:45"
    assert held["data"]["hold_expires_at"] == "2026-11-21T14:55:00+05:45"


def test_the_history_is_paginated(api, booking, owner):
    path = f"/bookings/{booking.pk}/history?limit=2"
    first = api.as_(owner).get(path).json()
    assert (first["count"], first["previous"]) == (3, None)
    second = api.as_(owner).get(first["next"]).json()
    assert (second["count"], second["next"]) == (3, None)
    assert [event["type"] for event in first["results"] + second["results"]] == [
        *("booking.created", "booking.confirmed", "booking.rescheduled")
    ]


def test_the_history_of_a_missing_booking_is_not_found(api, booking, owner):
    problem(api.as_(owner).get(f"/bookings/{uuid4()}/history"), 404, "not_found")
    services.delete_booking(booking_id=booking.pk, actor=owner, at=NOW + 3 * HOUR)
    problem(api.as_(owner).get(f"/bookings/{booking.pk}/history"), 404, "not_found")


@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_the_history_takes_three_queries(api, booking, owner):
    with CaptureQueriesContext(connection) as queries:
        api.as_(owner).get(f"/bookings/{booking.pk}/history")
    # The queries read the account, the booking and the events of the booking.
    assert len(queries) == 3


# --- the state agrees with the history --------------------------------------------------------


class World:
    """A calendar with three services, the people who use it, and a clock."""

    def __init__(self):
        self.provider = ProviderFactory()
        self.people = [UserFactory(), UserFactory(), self.provider, AdminFactory()]
        calendar = CalendarFactory(provider=self.provider)
        self.services = [
            ServiceFactory(calendar=calendar, duration_minutes=60, capacity=2),
            ServiceFactory(calendar=calendar, duration_minutes=30, requires_confirmation=False),
            ServiceFactory(calendar=calendar, duration_minutes=60, capacity=2, mode="slots"),
        ]
        self.now = START - 30 * HOUR
        for hours in (2, 6):
            SlotFactory(service=self.services[2], start_time=START + hours * HOUR)

    def one_of(self, rows, number):
        """Return a row chosen by `number`; the choice is the same in every run."""
        found = list(rows.order_by("pk"))
        if not found:
            raise ObjectDoesNotExist
        return found[number % len(found)]

    def change(self, number, who):
        """Return the arguments of a service call in which `people[who]` changes a booking."""
        booking = self.one_of(Booking.objects, number)
        return {"booking_id": booking.pk, "actor": self.people[who], "at": self.now}

    def make(self, number, who, *, hold):
        service = self.services[number % 3]
        services.create_booking(
            actor=self.people[who],
            service_id=service.pk,
            start_time=START + (number // 3) * HOUR / 2,
            hold=hold,
            at=self.now,
        )

    def create(self, number, who):
        self.make(number, who, hold=False)

    def hold(self, number, who):
        self.make(number, who, hold=True)

    def book_hold(self, number, who):
        services.book_hold(**self.change(number, who))

    def cancel(self, number, who):
        services.cancel_booking(**self.change(number, who))

    def move(self, number, who):
        start_time = START + (number % 16) * HOUR / 2
        services.reschedule_booking(**self.change(number, who), start_time=start_time)

    def change_details(self, number, who):
        services.change_details(**self.change(number, who), details={"notes": f"{number % 5}"})

    def enter(self, number, who):
        status = STATES[number % len(STATES)]
        services.change_status(
            **self.change(number, who), status=status, reason="So." if number % 2 else ""
        )

    def confirm(self, number, who):
        services.change_status(**self.change(number, PROVIDER), status="confirmed")

    def end(self, number, who):
        status = "completed" if who % 2 else "no_show"
        services.change_status(**self.change(number, ADMIN), status=status)

    def delete(self, number, who):
        services.delete_booking(**self.change(number, who))

    def cancel_slot(self, number, who):
        slot = self.one_of(Slot.objects, number)
        slots.change_slot(slot_id=slot.pk, actor=self.people[who], status="cancelled", at=self.now)

    def wait(self, number, who):
        self.now += number * 8 * MINUTE

    def tick(self, number, who):
        [clock.complete_bookings, clock.expire_bookings, clock.send_reminders][number % 3](
            at=self.now
        )

    def check(self):
        """Check that every booking can be rebuilt, step by step, from its history alone."""
        rows = {booking.pk: booking for booking in Booking.objects.all()}
        events = {}
        for event in BookingEvent.objects.order_by("id"):
            events.setdefault(event.booking_id, []).append(event)
        assert rows.keys() <= events.keys()
        for pk, recorded in events.items():
            rebuilt = replayed(recorded)
            assert (rebuilt is None) == (pk not in rows)
            if rebuilt is not None:
                assert comparable(rebuilt) == comparable(state(rows[pk]))


def comparable(kept):
    """Return a state with parsed times, so that their format does not matter."""
    return {
        name: datetime.fromisoformat(value) if name.endswith(("_time", "_at")) and value else value
        for name, value in kept.items()
    }


# The statuses that each event can lead to. An event that is not listed keeps the status.
STATES_AFTER = {
    "booking.held": {"held"},
    "booking.created": {"pending", "confirmed"},
    "booking.confirmed": {"confirmed"},
    "booking.cancelled": {"cancelled"},
    "booking.completed": {"completed"},
    "booking.expired": {"expired"},
    "booking.no_show": {"no_show"},
}


def replayed(recorded):
    """Check a booking's events in order; return its last state, or None if it was deleted."""
    known = None
    for number, event in enumerate(recorded):
        more = ("was", "reason", "changed", "hours", "overridden")
        after = {name: value for name, value in event.data.items() if name not in more}
        was = event.data.get("was", {})
        if known is None:
            assert event.type in ("booking.held", "booking.created")
            assert was == {}
        elif event.type == "booking.rescheduled":
            assert comparable(was) == {name: comparable(known)[name] for name in was}
            assert was.keys() == {"start_time", "end_time", "slot_id"}
            assert (after["status"], after["hold_expires_at"]) == (known["status"], None)
        elif event.type in STATES_AFTER:
            assert was == {"status": known["status"]}
            assert after["status"] in TABLE[known["status"]].split()
            may_differ = {"status": "", "hold_expires_at": ""}
            assert comparable({**after, **may_differ}) == comparable({**known, **may_differ})
        else:
            assert event.type in ("booking.changed", "booking.reminded", "booking.deleted")
            assert comparable(after) == comparable(known)
        assert after["status"] in STATES_AFTER.get(event.type, {after["status"]})
        assert (after["status"] == "held") == (after["hold_expires_at"] is not None)
        if event.type == "booking.deleted":
            assert number == len(recorded) - 1
            return None
        known = after
    return known


OPERATIONS = [
    *("create", "create", "create", "hold", "book_hold", "cancel", "move", "move", "delete"),
    *("confirm", "confirm", "end", "enter", "cancel_slot", "wait", "tick", "tick"),
    "change_details",
]


@pytest.mark.parametrize("seed", range(6))
def test_every_booking_can_be_rebuilt_from_its_history(seed):
    chance = Random(seed)
    world = World()
    for _ in range(200):
        try:
            with transaction.atomic():
                step = chance.choice(OPERATIONS)
                getattr(world, step)(chance.randrange(48), chance.randrange(4))
        except (ServiceError, ObjectDoesNotExist):
            pass  # The step was refused and is rolled back.
        world.check()
    # Control: the checks above would also pass if no step ever succeeded.
    seen = Counter(event.type for event in BookingEvent.objects.all())
    assert len(seen) >= 7, seen
    assert seen.total() > 30
