"""Concurrent users and workers: a free seat is offered only to the first user on the waitlist.

As in `bookings.tests.test_races`, control tests run the same crowd without the protection.
"""

from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import pytest

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.availability.taken import SlotFull
from bookings.availability.terms import ServiceInactive
from bookings.models import Booking, Slot
from bookings.services import InvalidTransition
from bookings.slots import services as slots
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WaitlistEntryFactory
from bookings.waitlist import services as waitlist
from bookit.tests.crowd import ask, at_once, deadlocks, run, starting_line, tally
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)

# The maximum duration of a call in seconds; see `bookings.tests.test_races`.
SLOWEST = 5
NOW = TUESDAY - timedelta(days=1)

# Counts pairs of active bookings that share a seat of a slot.
DOUBLE_BOOKINGS = """
    SELECT count(*) FROM bookings_booking AS one JOIN bookings_booking AS other
    ON one.id < other.id AND one.calendar_id = other.calendar_id
    AND one.slot_id = other.slot_id AND one.seat = other.seat AND one.active AND other.active
"""


def offer():
    return waitlist.offer_seats(at=NOW)


def book(user, slot, **more):
    return partial(services.create_booking, actor=user, slot_id=slot.pk, at=NOW, **more)


def cancel(booking):
    return partial(services.cancel_booking, booking_id=booking.pk, actor=booking.user, at=NOW)


def join(user, slot, at=NOW):
    return partial(waitlist.join, slot_id=slot.pk, actor=user, at=at)


def leave(entry):
    return partial(
        waitlist.leave, slot_id=entry.slot_id, entry_id=entry.pk, actor=entry.user, at=NOW
    )


def seated(slot, seat):
    return BookingFactory(
        slot=slot,
        service=slot.service,
        start_time=slot.start_time,
        end_time=slot.end_time,
        blocked=slot.blocked,
        seat=seat,
    )


def held(slot):
    return list(slot.bookings.filter(status=Booking.Status.HELD))


@pytest.fixture
def service():
    return ServiceFactory(mode="slots", capacity=2)


@pytest.fixture
def people():
    return UserFactory.create_batch(10)


@pytest.fixture
def full(service, people):
    """Return a function that makes a full slot with two seats, for which ten users are waiting."""

    def slot(number=0):
        slot = SlotFactory(service=service, start_time=TUESDAY + number * timedelta(hours=2))
        for seat in (1, 2):
            seated(slot, seat)
        for place, user in enumerate(people):
            waited = NOW - timedelta(minutes=len(people) - place)
            WaitlistEntryFactory(slot=slot, user=user, created_at=waited)
        return slot

    return slot


@pytest.fixture
def freed(full):
    """A slot with one free seat, for which ten users are waiting."""
    slot = full()
    slot.bookings.filter(seat=1).update(status=Booking.Status.CANCELLED)
    return slot


@pytest.fixture
def without_the_lock(monkeypatch):
    """Lock neither a slot nor its calendar, so that workers offer its seats at the same time."""
    monkeypatch.setattr(waitlist, "_locked_slot", lambda slot_id: Slot.objects.get(pk=slot_id))


@contextmanager
def without_the_constraint():
    """Drop the constraint that stops a seat from being taken twice.

    At the end, delete all slots and bookings, so that the constraint can be added again.
    """
    definition = ask(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'booking_seat_free'"
    )
    run("ALTER TABLE bookings_booking DROP CONSTRAINT booking_seat_free")
    try:
        yield
    finally:
        run("TRUNCATE bookings_occupancy, bookings_slot, bookings_booking CASCADE")
        run(f"ALTER TABLE bookings_booking ADD CONSTRAINT booking_seat_free {definition}")


def test_a_freed_seat_is_offered_to_the_first_of_ten_users(full, people):
    outsiders = UserFactory.create_batch(6)
    deadlocks_before = deadlocks()
    for number in range(25):
        slot = full(number)
        leaving = slot.bookings.get(seat=number % 2 + 1)
        calls = [
            cancel(leaving),
            *[offer] * 6,
            *[book(user, slot, hold=number % 2 == 1) for user in outsiders],
            book(people[1], slot),
        ]
        outcomes = at_once(calls)
        assert tally(outcomes[:7]) == {None: 7}
        assert tally(outcomes[7:]) == {SlotFull: 7}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
        # All workers may have looked before the cancellation was committed, so offer once more.
        offered = sum(outcome.value for outcome in outcomes[1:7]) + offer()
        assert offered == 1
        [hold] = held(slot)
        assert (hold.user, hold.seat) == (people[0], leaving.seat)
        assert slot.waitlist.filter(status="waiting").count() == 9
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


def test_eight_concurrent_offers_of_a_seat_make_one_hold(freed, people):
    deadlocks_before = deadlocks()
    with starting_line("bookings_booking") as set_off:
        outcomes = set_off([offer] * 8)
    assert tally(outcomes) == {None: 8}
    assert sorted(outcome.value for outcome in outcomes) == [0] * 7 + [1]
    assert [hold.user for hold in held(freed)] == [people[0]]
    assert deadlocks() == deadlocks_before


def test_the_constraint_alone_prevents_a_second_offer_of_a_seat(freed, people, without_the_lock):
    deadlocks_before = deadlocks()
    with starting_line("bookings_booking") as set_off:
        outcomes = set_off([offer] * 8)
    assert tally(outcomes) == {None: 8}
    assert [hold.user for hold in held(freed)] == [people[0]]
    assert deadlocks() == deadlocks_before


@pytest.mark.one_server("on a cluster, other locks keep the offers apart, too")
def test_a_seat_is_offered_eight_times_without_lock_and_constraint(freed, without_the_lock):
    """Control for the two tests above: without the protections, eight holds share the seat."""
    with without_the_constraint():
        with starting_line("bookings_booking") as set_off:
            outcomes = set_off([offer] * 8)
        assert tally(outcomes) == {None: 8}
        assert len(held(freed)) == 8
        assert ask(DOUBLE_BOOKINGS) > 0


def test_one_of_six_concurrent_bookings_wins_without_a_waitlist(freed):
    """Control for the first test: without a waitlist, one of six users gets the free seat."""
    freed.waitlist.all().delete()
    outcomes = at_once([book(user, freed) for user in UserFactory.create_batch(6)])
    assert tally(outcomes) == {None: 1, SlotFull: 5}


def test_the_first_user_gets_one_seat_either_by_booking_or_by_an_offer(full, people):
    deadlocks_before = deadlocks()
    for number in range(20):
        slot = full(number)
        slot.bookings.filter(seat=1).update(status=Booking.Status.CANCELLED)
        booked, *offered = at_once([book(people[0], slot), *[offer] * 5])
        assert tally(offered) == {None: 5}
        assert booked.error is None or isinstance(booked.error, SlotFull)
        seats = slot.bookings.filter(user=people[0], active=True)
        assert [booking.status for booking in seats] == ["held" if booked.error else "pending"]
        entry = slot.waitlist.get(user=people[0])
        assert entry.status == ("offered" if booked.error else "booked")
        assert slot.waitlist.filter(status="waiting").count() == 9
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


def test_the_third_user_gets_the_seat_when_the_first_two_users_leave(full, people):
    deadlocks_before = deadlocks()
    for number in range(20):
        slot = full(number)
        slot.bookings.filter(seat=1).update(status=Booking.Status.CANCELLED)
        first, second = slot.waitlist.order_by("created_at")[:2]
        outcomes = at_once([leave(first), leave(second), *[offer] * 4])
        assert tally(outcomes) == {None: 6}
        offer()
        assert [hold.user for hold in held(slot)] == [people[2]]
        gone = slot.waitlist.filter(pk__in=[first.pk, second.pk])
        assert [entry.status for entry in gone] == ["left", "left"]
    assert deadlocks() == deadlocks_before


def test_an_offer_is_either_booked_or_cancelled_but_never_both(full, people):
    for number in range(20):
        slot = full(number)
        slot.bookings.filter(seat=1).update(status=Booking.Status.CANCELLED)
        offer()
        [hold] = held(slot)
        entry = slot.waitlist.get(user=people[0])
        book_offer = partial(
            services.book_hold, booking_id=hold.pk, actor=people[0], at=NOW + timedelta(minutes=1)
        )
        booked, left = at_once([book_offer, leave(entry)])
        assert left.error is None
        hold.refresh_from_db()
        entry.refresh_from_db()
        if booked.error is None:
            assert (hold.status, entry.status) == ("pending", "booked")
        else:
            # A cancelled booking cannot become `pending`.
            assert isinstance(booked.error, InvalidTransition)
            assert (hold.status, entry.status) == ("cancelled", "left")


def test_ten_concurrent_joins_of_one_user_make_one_entry(full):
    slot, user = full(), UserFactory()
    outcomes = at_once([join(user, slot)] * 10)
    assert tally(outcomes) == {None: 10}
    assert len({outcome.value.pk for outcome in outcomes}) == 1
    assert slot.waitlist.filter(user=user).count() == 1


def test_no_user_still_waits_for_a_cancelled_slot(full):
    admin, outsiders = AdminFactory(), UserFactory.create_batch(4)
    deadlocks_before = deadlocks()
    for number in range(20):
        slot = full(number)
        end = partial(slots.change_slot, slot_id=slot.pk, actor=admin, status="cancelled", at=NOW)
        calls = [cancel(slot.bookings.get(seat=1)), offer, offer]
        ended, cancelled, *rest = at_once([end, *calls, *[join(user, slot) for user in outsiders]])
        assert ended.error is None
        assert cancelled.error is None or isinstance(cancelled.error, InvalidTransition)
        for outcome in rest:
            assert outcome.error is None or isinstance(outcome.error, ServiceInactive), outcome
        assert not slot.waitlist.filter(status__in=["waiting", "offered"]).exists()
        assert not slot.bookings.filter(active=True).exists()
    assert deadlocks() == deadlocks_before
