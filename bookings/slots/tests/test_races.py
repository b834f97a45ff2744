"""When calls race for a time, one slot or booking gets the time. Other calls are refused quickly.

As in `bookings.tests.test_races`, controls show the races without the protection.
"""

import re
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from random import Random

import pytest
from django.db import IntegrityError, OperationalError

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.models import Booking, Slot
from bookings.services import BookingConflict, ServiceInactive
from bookings.slots import services as slots
from bookings.slots.recurrence import parse_rule
from bookings.slots.services import SlotConflict
from bookings.tests.factories import TUESDAY, SlotFactory
from bookit.errors import CONSTRAINT_ERRORS, Invalid, database_error_facts
from bookit.tests.crowd import (
    ask,
    at_once,
    behind_a_rival,
    close_line,
    deadlocks,
    open_line,
    run,
    starting_line,
    tally,
    until_waiting,
)
from catalog.services import ServiceInUse, delete_service, update_service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)

# The maximum duration of a call, in seconds; see `bookings.tests.test_races`.
SLOWEST = 5
NOW = TUESDAY - timedelta(days=1)

# Counts slots that overlap, on the same calendar, another slot or a booking without a slot.
OVERLAPS = """
    SELECT count(*) FROM bookings_slot AS slot
    WHERE slot.status = 'scheduled' AND (
        EXISTS (
            SELECT FROM bookings_booking AS booking
            WHERE booking.calendar_id = slot.calendar_id AND booking.active
              AND booking.slot_id IS NULL AND booking.blocked && slot.blocked
        ) OR EXISTS (
            SELECT FROM bookings_slot AS other
            WHERE other.calendar_id = slot.calendar_id AND other.id <> slot.id
              AND other.status = 'scheduled' AND other.blocked && slot.blocked
        )
    )
"""


def hour(number):
    return TUESDAY + timedelta(hours=number)


def book(user, service, start_time):
    return partial(
        services.create_booking, actor=user, service_id=service.pk, start_time=start_time, at=NOW
    )


def publish(admin, service, start_time, rrule=None):
    return partial(
        slots.publish_slots,
        actor=admin,
        service_id=service.pk,
        start_time=start_time,
        rrule=rrule and parse_rule(rrule),
        at=NOW,
    )


def is_a(refusal, error):
    """Return whether `error` is a `refusal`, or a constraint violation reported as a `refusal`."""
    if isinstance(error, IntegrityError):
        return CONSTRAINT_ERRORS.get(database_error_facts(error)[1]) is refusal
    return isinstance(error, refusal)


def is_taken(error):
    """Return whether `error` refuses a booking because a slot or booking occupies the time."""
    by_the_database = (
        isinstance(error, IntegrityError)
        and database_error_facts(error)[1] == "booking_beside_slots"
    )
    return by_the_database or isinstance(error, BookingConflict)


@contextmanager
def without_the_exclusion():
    """Drop the constraint that keeps slots and bookings apart.

    At the end, delete all slots and bookings, and restore the constraint.
    """
    name = "occupancy_one_at_a_time"
    definition = ask(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [name]
    )
    run(f"ALTER TABLE bookings_occupancy DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        run("TRUNCATE bookings_occupancy, bookings_slot, bookings_booking CASCADE")
        run(f"ALTER TABLE bookings_occupancy ADD CONSTRAINT {name} {definition}")


@pytest.fixture
def admin():
    return AdminFactory()


@pytest.fixture
def yoga():
    return ServiceFactory(capacity=12)


@pytest.fixture
def hire(yoga):
    """Another service on the same calendar."""
    return ServiceFactory(calendar=yoga.calendar)


@pytest.fixture
def crowd():
    return UserFactory.create_batch(20)


def test_a_time_is_published_or_booked_but_never_both(admin, yoga, hire):
    user = UserFactory()
    deadlocks_before = deadlocks()
    for number in range(80):
        # The booking starts half an hour after the slot, in the same service or in another service.
        booked_service = hire if number % 2 else yoga
        calls = [
            publish(admin, yoga, hour(2 * number)),
            book(user, booked_service, hour(2 * number + 0.5)),
        ]
        published, booked = at_once(calls)
        assert (published.error is None) != (booked.error is None), (published, booked)
        assert published.error is None or isinstance(published.error, SlotConflict)
        assert booked.error is None or is_taken(booked.error)
        assert max(published.seconds, booked.seconds) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(OVERLAPS) == 0
    assert Slot.objects.count() + Booking.objects.count() == 80


def test_only_one_of_the_requests_that_saw_a_free_time_gets_the_time(admin, yoga, hire, crowd):
    deadlocks_before = deadlocks()
    with starting_line("bookings_occupancy") as from_the_line:
        for number in range(20):
            calls = [book(user, hire, hour(number)) for user in crowd]
            published, *booked = from_the_line([publish(admin, yoga, hour(number)), *calls])
            if published.error is None:
                assert all(is_taken(outcome.error) for outcome in booked)
            else:
                assert isinstance(published.error, SlotConflict)
                assert sum(outcome.error is None for outcome in booked) == 1
            assert max(each.seconds for each in (published, *booked)) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(OVERLAPS) == 0


def test_without_the_constraint_all_requests_that_saw_a_free_time_get_the_time(admin, yoga, hire):
    """Control for the test above: nothing else prevents an overlap."""
    with without_the_exclusion(), starting_line("bookings_occupancy") as from_the_line:
        calls = [publish(admin, yoga, TUESDAY), book(UserFactory(), hire, TUESDAY)]
        assert tally(from_the_line(calls)) == {None: 2}
        assert ask(OVERLAPS) == 1


def test_one_of_ten_publishers_of_the_same_time_wins(admin, yoga, hire):
    deadlocks_before = deadlocks()
    for number in range(40):
        services_in_turn = [yoga, hire] * 5
        outcomes = at_once([publish(admin, service, hour(number)) for service in services_in_turn])
        assert tally(outcomes) == {None: 1, SlotConflict: 9}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(OVERLAPS) == 0


def test_one_of_two_overlapping_series_is_published(admin, yoga, hire):
    deadlocks_before = deadlocks()
    for number in range(15):
        # The series begin on different days, and overlap on five days.
        calls = [
            publish(admin, yoga, hour(number), "FREQ=DAILY;COUNT=40"),
            publish(admin, hire, hour(24 + number), "FREQ=DAILY;INTERVAL=7;COUNT=5"),
        ]
        assert tally(at_once(calls)) == {None: 1, SlotConflict: 1}
    assert deadlocks() == deadlocks_before
    assert ask(OVERLAPS) == 0


def test_a_series_is_published_completely_or_not_at_all_while_people_book(admin, yoga, hire, crowd):
    deadlocks_before = deadlocks()
    random = Random(7)
    for number in range(20):
        days = random.sample(range(60), len(crowd))
        calls = [
            book(user, hire, hour(number) + timedelta(days=day))
            for user, day in zip(crowd, days, strict=True)
        ]
        published, *booked = at_once(
            [publish(admin, yoga, hour(number), "FREQ=DAILY;COUNT=60"), *calls]
        )
        made = sum(outcome.error is None for outcome in booked)
        assert all(outcome.error is None or is_taken(outcome.error) for outcome in booked)
        if published.error is None:
            assert (len(published.value), made) == (60, 0)
        else:
            assert isinstance(published.error, SlotConflict)
            assert re.match(r"The slot at [\d-]+T[\d:+]+ overlaps ", published.error.detail)
            assert made > 0
            assert not Slot.objects.exists()
        Slot.objects.all().delete()
        Booking.objects.all().delete()
    assert deadlocks() == deadlocks_before


def test_a_refusal_names_the_slot_whose_time_was_booked_between_the_check_and_the_insert(
    admin, yoga, hire
):
    user = UserFactory()

    def book_between():
        try:
            until_waiting(1)
            book(user, hire, hour(48.5))()
        finally:
            open_line()

    with starting_line("bookings_slot"):
        close_line()
        [published] = at_once(
            [publish(admin, yoga, TUESDAY, "FREQ=DAILY;COUNT=5")], meanwhile=book_between
        )
    assert isinstance(published.error, SlotConflict)
    assert published.error.detail.startswith(
        "The slot at 2999-01-03T10:00:00+00:00 overlaps another"
    )
    assert not Slot.objects.exists()


class TestWaiting:
    """Two calls want the time of an uncommitted slot. They wait until the slot is rolled back."""

    @pytest.fixture
    def rival(self, yoga):
        return partial(SlotFactory, service=yoga)

    def test_one_of_two_publishers_gets_the_time(self, admin, yoga, hire, rival):
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival(
            [publish(admin, yoga, TUESDAY), publish(admin, hire, TUESDAY)], rival=rival
        )
        assert tally(outcomes) == {None: 1, SlotConflict: 1}
        assert deadlocks() == deadlocks_before

    def test_either_a_publisher_or_a_client_gets_the_time(self, admin, yoga, hire, rival):
        deadlocks_before = deadlocks()
        published, booked = behind_a_rival(
            [publish(admin, yoga, TUESDAY), book(UserFactory(), hire, TUESDAY)], rival=rival
        )
        assert (published.error is None) != (booked.error is None)
        assert published.error is None or isinstance(published.error, SlotConflict)
        assert booked.error is None or is_taken(booked.error)
        assert deadlocks() == deadlocks_before

    def test_two_plain_inserts_wait_for_each_other(self, rival):
        """Control for the tests above: publishers that do not lock their calendar deadlock."""
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival([rival, rival], rival=rival)
        assert tally(outcomes) == {None: 1, OperationalError: 1}
        assert deadlocks() == deadlocks_before + 1


def test_a_service_gets_slots_or_is_deleted_but_never_both(admin):
    for _ in range(40):
        service = ServiceFactory()
        deleted, published = at_once(
            [
                partial(delete_service, service_id=service.pk, actor=admin),
                publish(admin, service, TUESDAY, "FREQ=DAILY;COUNT=5"),
            ]
        )
        if deleted.error:
            assert isinstance(deleted.error, ServiceInUse)
            assert Slot.objects.filter(service_id=service.pk).count() == 5
        else:
            # The service was deleted before the publisher read it or stored the slots.
            assert is_a(Invalid, published.error) or is_a(ServiceInactive, published.error)
            assert not Slot.objects.filter(service_id=service.pk).exists()


def test_a_service_that_moves_gets_no_slots_on_its_old_calendar(admin):
    calendars = CalendarFactory.create_batch(2)
    for _ in range(40):
        service = ServiceFactory(calendar=calendars[0])
        move = partial(
            update_service,
            service_id=service.pk,
            actor=admin,
            changes={"calendar_id": calendars[1].pk},
        )
        moved, published = at_once([move, publish(admin, service, TUESDAY)])
        assert moved.error is None or isinstance(moved.error, ServiceInUse)
        assert published.error is None or is_a(ServiceInactive, published.error)
        service.refresh_from_db()
        for slot in Slot.objects.filter(service=service):
            assert slot.calendar_id == service.calendar_id
            slot.delete()
