"""Concurrent changes: one of many bookings of a seat wins, and the others are refused at once.

A control shows what happens without a protection. Its docstring begins with "Control".
"""

from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import pytest
from django.db import IntegrityError, OperationalError
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.services import BookingConflict, InvalidTransition, ServiceInactive
from bookings.tests.factories import TUESDAY, BookingFactory
from bookings.transitions import TRANSITIONS
from bookit.errors import CONSTRAINT_ERRORS, Invalid, database_error_facts
from bookit.tests.crowd import (
    ask,
    at_once,
    behind_a_rival,
    deadlocks,
    disabled_trigger,
    run,
    starting_line,
    tally,
)
from catalog.services import ServiceInUse, delete_service, update_service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)

CROWD = 40
# The maximum duration of a call in seconds, generous for a busy machine. If forty clients
# deadlocked, the last client would wait for half a minute, because PostgreSQL ends one deadlock a
# second.
SLOWEST = 5
Status = Booking.Status

# Counts forbidden pairs of bookings: a seat booked twice, or two services of a calendar at once.
DOUBLE_BOOKINGS = """
    SELECT count(*) FROM bookings_booking AS one JOIN bookings_booking AS other
    ON one.id < other.id AND one.calendar_id = other.calendar_id
    AND one.active AND other.active AND one.blocked && other.blocked
    AND (one.service_id <> other.service_id OR one.seat = other.seat)
"""


def hour(number):
    return TUESDAY + timedelta(hours=number)


def book(user, service, start_time):
    return partial(
        services.create_booking,
        actor=user,
        service_id=service.pk,
        start_time=start_time,
        at=timezone.now(),
    )


def move(booking, start_time):
    return partial(
        services.reschedule_booking,
        booking_id=booking.pk,
        actor=booking.user,
        start_time=start_time,
        at=timezone.now(),
    )


def is_service_inactive(error):
    """Return whether the API responds to `error` with `service_inactive`."""
    if isinstance(error, IntegrityError):
        return CONSTRAINT_ERRORS[database_error_facts(error)[1]] is ServiceInactive
    return isinstance(error, ServiceInactive)


@contextmanager
def without_constraints():
    """Create a bookings table without constraints, for sessions that call `use_bare_table`."""
    run("CREATE SCHEMA bare")
    run(
        "CREATE TABLE bare.bookings_booking"
        " (LIKE public.bookings_booking INCLUDING DEFAULTS INCLUDING GENERATED)"
    )
    use_bare_table()
    try:
        yield
    finally:
        run("RESET search_path")
        run("DROP SCHEMA bare CASCADE")


def use_bare_table():
    run("SET search_path TO bare, public")


def reset_after(call):
    """Return `call` followed by a reset of the search path, because the connection is reused."""

    def call_and_reset():
        try:
            return call()
        finally:
            run("RESET search_path")

    return call_and_reset


@pytest.fixture
def crowd():
    return UserFactory.create_batch(CROWD)


@pytest.fixture
def call_together():
    """Return a function that makes all calls store their bookings at the same moment."""
    with starting_line("bookings_booking") as set_off:
        yield set_off


def test_one_of_forty_concurrent_bookings_wins(crowd):
    service = ServiceFactory()
    deadlocks_before = deadlocks()
    for number in range(60):
        outcomes = at_once([book(user, service, hour(number)) for user in crowd])
        assert tally(outcomes) == {None: 1, BookingConflict: 39}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0
    assert Booking.objects.count() == BookingEvent.objects.count() == 60


def test_one_of_forty_clients_wins_if_all_of_them_saw_the_free_seat(crowd, call_together):
    service = ServiceFactory()
    deadlocks_before = deadlocks()
    for number in range(20):
        outcomes = call_together([book(user, service, hour(number)) for user in crowd])
        assert tally(outcomes) == {None: 1, BookingConflict: 39}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


def test_thirty_nine_of_forty_clients_get_a_conflict(api, crowd):
    service = ServiceFactory()
    clients = [api.as_(user) for user in crowd]
    for number in range(5):
        body = {"service_id": str(service.pk), "start_time": hour(number).isoformat()}
        responses = [
            outcome.value
            for outcome in at_once([partial(client.post, "/bookings", body) for client in clients])
        ]
        assert Counter(response.status_code for response in responses) == {201: 1, 409: 39}
        winner = next(response.json() for response in responses if response.status_code == 201)
        assert str(Booking.objects.get(start_time=hour(number)).pk) == winner["id"]
        for response in responses:
            if response.status_code == 409:
                assert response["Content-Type"] == "application/problem+json"
                problem = response.json()
                assert problem.pop("request_id") == response["X-Request-ID"]
                assert len(problem.pop("alternatives")) == 3
                # Nothing in the response shows who has booked the time.
                assert problem == {
                    "type": "/errors/booking_conflict",
                    "title": "Conflict",
                    "status": 409,
                    "detail": "This time is already booked.",
                    "code": "booking_conflict",
                }


def test_three_of_forty_concurrent_bookings_get_the_three_seats(crowd, call_together):
    service = ServiceFactory(capacity=3)
    deadlocks_before = deadlocks()
    for number in range(15):
        outcomes = call_together([book(user, service, hour(number)) for user in crowd])
        assert tally(outcomes) == {None: 3, BookingConflict: 37}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
        assert {outcome.value.seat for outcome in outcomes if outcome.value} == {1, 2, 3}
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


def test_only_one_of_two_services_on_a_calendar_is_booked(crowd, call_together):
    calendar = CalendarFactory()
    yoga, boxing = ServiceFactory.create_batch(2, calendar=calendar, capacity=20)
    deadlocks_before = deadlocks()
    for number in range(10):
        # Boxing starts half an hour later, which still overlaps yoga.
        calls = [book(user, yoga, hour(2 * number)) for user in crowd[:20]]
        calls += [
            book(user, boxing, hour(2 * number) + timedelta(minutes=30)) for user in crowd[20:]
        ]
        outcomes = call_together(calls)
        assert tally(outcomes) == {None: 20, BookingConflict: 20}
        assert len({outcome.value.service_id for outcome in outcomes if outcome.value}) == 1
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


@pytest.mark.parametrize(("service_count", "capacity"), [(1, 1), (1, 3), (2, 20)])
@pytest.mark.one_server("uses a table without shards")
def test_all_forty_bookings_are_made_without_the_constraints(crowd, service_count, capacity):
    """Control for the tests above: the table has no constraints."""
    calendar = CalendarFactory()
    booked = ServiceFactory.create_batch(service_count, calendar=calendar, capacity=capacity)
    with without_constraints(), starting_line("bare.bookings_booking") as set_off:
        calls = [
            reset_after(book(user, booked[index % service_count], TUESDAY))
            for index, user in enumerate(crowd)
        ]
        assert tally(set_off(calls, first=use_bare_table)) == {None: 40}
        # All bookings are in seat 1 at the same time, so every pair is forbidden.
        assert ask(DOUBLE_BOOKINGS) == 40 * 39 / 2
    assert not Booking.objects.exists()


def test_one_of_forty_bookings_moved_to_the_same_time_wins(crowd, call_together):
    service = ServiceFactory()
    bookings = [
        BookingFactory(user=user, service=service, start_time=hour(number))
        for number, user in enumerate(crowd)
    ]
    deadlocks_before = deadlocks()
    for number in range(100, 120):
        outcomes = call_together([move(booking, hour(number)) for booking in bookings])
        assert tally(outcomes) == {None: 1, BookingConflict: 39}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0
    assert BookingEvent.objects.filter(type="booking.rescheduled").count() == 20


def test_new_and_moved_bookings_do_not_share_a_seat(crowd, call_together):
    service = ServiceFactory(capacity=2)
    bookings = [
        BookingFactory(user=user, service=service, start_time=hour(number))
        for number, user in enumerate(crowd[:20])
    ]
    deadlocks_before = deadlocks()
    for number in range(100, 112):
        calls = [move(booking, hour(number)) for booking in bookings]
        calls += [book(user, service, hour(number)) for user in crowd[20:]]
        outcomes = call_together(calls)
        assert tally(outcomes) == {None: 2, BookingConflict: 38}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == deadlocks_before
    assert ask(DOUBLE_BOOKINGS) == 0


class TestWaiting:
    """Clients wait for a rival, which books the same time and is rolled back while they wait."""

    @pytest.fixture
    def service(self):
        return ServiceFactory()

    @pytest.fixture
    def rival(self, service):
        return partial(BookingFactory, service=service, start_time=hour(100), user=UserFactory())

    @pytest.fixture
    def two_bookings(self, service):
        return [
            BookingFactory(service=service, start_time=hour(0)),
            BookingFactory(service=service, start_time=hour(1)),
        ]

    def test_one_waiting_client_gets_the_seat(self, service, rival, crowd):
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival([book(user, service, hour(100)) for user in crowd], rival=rival)
        assert tally(outcomes) == {None: 1, BookingConflict: 39}
        assert deadlocks() == deadlocks_before

    def test_one_waiting_booking_is_moved(self, rival, two_bookings):
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival(
            [move(booking, hour(100)) for booking in two_bookings], rival=rival
        )
        assert tally(outcomes) == {None: 1, BookingConflict: 1}
        assert deadlocks() == deadlocks_before

    def test_either_the_new_or_the_moved_booking_gets_the_time(self, service, rival, two_bookings):
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival(
            [move(two_bookings[0], hour(100)), book(UserFactory(), service, hour(100))],
            rival=rival,
        )
        assert tally(outcomes) == {None: 1, BookingConflict: 1}
        assert deadlocks() == deadlocks_before

    def test_two_plain_inserts_deadlock(self, service, rival):
        """Control for `test_one_waiting_client_gets_the_seat`: an INSERT without ON CONFLICT."""
        user = UserFactory()
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival(
            [partial(BookingFactory, service=service, user=user, start_time=hour(100))] * 2,
            rival=rival,
        )
        assert tally(outcomes) == {None: 1, OperationalError: 1}
        assert deadlocks() == deadlocks_before + 1

    @pytest.mark.one_server("the UPDATE names no calendar, so it would run on every shard")
    def test_two_plain_updates_deadlock(self, rival, two_bookings):
        """Control for `test_one_waiting_booking_is_moved`: the calendar is not locked."""
        update = (
            "UPDATE bookings_booking SET start_time = start_time + %(by)s,"
            " end_time = end_time + %(by)s,"
            " blocked = tstzrange(start_time + %(by)s, end_time + %(by)s) WHERE id = %(id)s"
        )
        deadlocks_before = deadlocks()
        outcomes = behind_a_rival(
            [
                partial(run, update, {"id": one.pk, "by": hour(100) - one.start_time})
                for one in two_bookings
            ],
            rival=rival,
        )
        assert tally(outcomes) == {None: 1, OperationalError: 1}
        assert deadlocks() == deadlocks_before + 1


def test_a_booking_is_either_cancelled_or_completed():
    service, admin = ServiceFactory(), AdminFactory()
    for number in range(40):
        booking = BookingFactory(service=service, start_time=hour(number), status=Status.CONFIRMED)
        cancel = partial(
            services.cancel_booking,
            booking_id=booking.pk,
            actor=booking.user,
            at=timezone.now(),
        )
        complete = partial(
            services.change_status,
            booking_id=booking.pk,
            status=Status.COMPLETED,
            actor=admin,
            at=timezone.now(),
        )
        outcomes = at_once([cancel, complete, cancel, complete])
        assert tally(outcomes) == {None: 1, InvalidTransition: 3}
        booking.refresh_from_db()
        event = BookingEvent.objects.get(booking_id=booking.pk)
        assert event.data["status"] == booking.status
        assert event.type == f"booking.{booking.status}"


def test_a_status_read_without_a_lock_is_out_of_date():
    """Control for the test above: both copies of the booking are read before either is saved.

    The trigger that would also refuse the second change is disabled.
    """
    booking = BookingFactory(status=Status.CONFIRMED)
    one, other = (Booking.objects.get(pk=booking.pk) for _ in range(2))
    for stale, status in ((one, Status.CANCELLED), (other, Status.COMPLETED)):
        assert status in TRANSITIONS[stale.status]
        stale.status = status
        with disabled_trigger("bookings_booking", "booking_transition"):
            stale.save(update_fields=["status"])
    assert Status.COMPLETED not in TRANSITIONS[Status.CANCELLED]
    booking.refresh_from_db()
    assert booking.status == Status.COMPLETED


def test_a_booking_moved_and_cancelled_at_once_stays_cancelled():
    service = ServiceFactory()
    for number in range(20):
        booking = BookingFactory(service=service, start_time=hour(number))
        cancel = partial(
            services.cancel_booking, booking_id=booking.pk, actor=booking.user, at=timezone.now()
        )
        moved, cancelled = at_once([move(booking, hour(number + 100)), cancel])
        assert cancelled.error is None
        assert moved.error is None or isinstance(moved.error, InvalidTransition)
        booking.refresh_from_db()
        assert booking.status == Status.CANCELLED
        assert booking.start_time == hour(number if moved.error else number + 100)
        last = BookingEvent.objects.filter(booking_id=booking.pk).last()
        assert last.type == BookingEvent.Type.CANCELLED


def test_a_booking_deleted_four_times_at_once_is_deleted_once():
    booking = BookingFactory()
    delete = partial(
        services.delete_booking, booking_id=booking.pk, actor=booking.user, at=timezone.now()
    )
    assert tally(at_once([delete] * 4)) == {None: 1, Booking.DoesNotExist: 3}
    recorded = BookingEvent.objects.values_list("type", flat=True)
    assert list(recorded) == [BookingEvent.Type.CANCELLED, BookingEvent.Type.DELETED]


def test_a_service_is_either_booked_or_deleted():
    admin, user = AdminFactory(), UserFactory()
    for _ in range(40):
        service = ServiceFactory()
        delete = partial(delete_service, service_id=service.pk, actor=admin)
        deleted, booked = at_once([delete, book(user, service, TUESDAY)])
        if deleted.error:
            assert isinstance(deleted.error, ServiceInUse)
            assert Booking.objects.get(service_id=service.pk).pk == booked.value.pk
        else:
            # The service was deleted before it was read or before the booking was stored.
            assert isinstance(booked.error, Invalid) or is_service_inactive(booked.error)
            assert not Booking.objects.filter(service_id=service.pk).exists()


def test_a_service_is_not_booked_on_a_calendar_that_it_has_left():
    admin, user = AdminFactory(), UserFactory()
    calendars = CalendarFactory.create_batch(2)
    for _ in range(30):
        service = ServiceFactory(calendar=calendars[0])
        leave = partial(
            update_service,
            service_id=service.pk,
            actor=admin,
            changes={"calendar_id": calendars[1].pk},
        )
        left, booked = at_once([leave, book(user, service, TUESDAY)])
        assert left.error is None or isinstance(left.error, ServiceInUse)
        assert booked.error is None or is_service_inactive(booked.error)
        service.refresh_from_db()
        for booking in Booking.objects.filter(service=service):
            assert booking.calendar_id == service.calendar_id
            booking.delete()
