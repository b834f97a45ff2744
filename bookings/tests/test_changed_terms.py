"""A change of terms sees each concurrent booking, or the booking follows the new terms.

Terms are a calendar's opening hours, time off and time zone, and the columns of its services that
bookings depend on.

As in `test_races`, controls show what happens without a protection.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection, transaction
from django.urls import reverse

from accounts.tests.factories import AdminFactory, UserFactory
from bookings import services
from bookings.availability.terms import TRIES, OutsideOpeningHours, ServiceInactive
from bookings.models import Booking, Slot
from bookings.slots import services as slots
from bookings.slots.recurrence import parse_rule
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory, WaitlistEntryFactory
from bookings.waitlist import services as waitlist
from bookit.errors import Conflict
from bookit.tests.crowd import (
    ask,
    at_once,
    deadlocks,
    run,
    starting_line,
    until_waiting,
)
from catalog.models import Calendar, OpeningHours, Service, TimeOff
from catalog.services import create_time_off, update_calendar, update_service
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 200
# The maximum duration of a call in seconds; see `test_races`.
SLOWEST = 5
HOUR = timedelta(hours=1)
NOW = TUESDAY - timedelta(days=1)
Status = Booking.Status
# Open all day, except on Tuesdays.
CLOSED_ON_TUESDAYS = [{"weekday": day, "opens": 0, "closes": 1440} for day in (0, 2, 3, 4, 5, 6)]


def hour(number):
    return TUESDAY + number * HOUR


@pytest.fixture
def admin():
    return AdminFactory()


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def service():
    return ServiceFactory()


@pytest.fixture
def course():
    return ServiceFactory(mode="slots", capacity=2)


@pytest.fixture
def close(admin):
    """Return a function that builds a call that adds an hour of time off.

    The call returns the ids of the affected bookings.
    """

    def call(calendar, start):
        period = {"start_time": start, "end_time": start + HOUR}
        _, affected = create_time_off(calendar_id=calendar.pk, actor=admin, at=NOW, **period)
        return {pk for pk, _ in affected.first}

    return lambda calendar, start: partial(call, calendar, start)


@pytest.fixture
def change(admin):
    """Return a function that builds a call that changes a calendar.

    The call returns the ids of the affected bookings.
    """

    def call(calendar, changes):
        _, affected = update_calendar(calendar_id=calendar.pk, actor=admin, changes=changes, at=NOW)
        return {pk for pk, _ in affected.first}

    return lambda calendar, **changes: partial(call, calendar, changes)


def close_in_sql(calendar, start):
    """Add an hour of time off with plain SQL, without BookIt's code.

    Return the ids of the bookings at `start` that the transaction sees.
    """
    with transaction.atomic():
        run(
            "INSERT INTO catalog_timeoff (id, calendar_id, start_time, end_time, reason)"
            " VALUES (gen_random_uuid(), %s, %s, %s, '')",
            [calendar.pk, start, start + HOUR],
        )
        return set(Booking.objects.filter(start_time=start).values_list("pk", flat=True))


def move_to_tokyo():
    """Change the time zone in SQL, and return the number of bookings that the transaction sees."""
    with transaction.atomic():
        run("UPDATE catalog_calendar SET timezone = 'Asia/Tokyo'")
        return Booking.objects.count()


def book(user, service, start_time, **more):
    return partial(
        services.create_booking,
        actor=user,
        service_id=service.pk,
        start_time=start_time,
        at=NOW,
        **more,
    )


def move(booking, start_time):
    return partial(
        services.reschedule_booking,
        booking_id=booking.pk,
        actor=booking.user,
        start_time=start_time,
        at=NOW,
    )


def join_waitlist(slot, user):
    WaitlistEntryFactory(slot=slot, user=user, created_at=NOW - HOUR)


@contextmanager
def without_versions():
    """Disable all triggers on the tables of terms, so that nothing raises a calendar's version."""
    tables = ("catalog_calendar", "catalog_openinghours", "catalog_timeoff", "catalog_service")
    for table in tables:
        run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    try:
        yield
    finally:
        for table in tables:
            run(f"ALTER TABLE {table} ENABLE TRIGGER USER")


@contextmanager
def without_version_key():
    """Drop the unique key that makes a change of the version wait for bookings in progress."""
    run("ALTER TABLE catalog_calendar DROP CONSTRAINT calendar_version")
    try:
        yield
    finally:
        run("ALTER TABLE catalog_calendar ADD CONSTRAINT calendar_version UNIQUE (id, version)")


def was_missed(closed, booked):
    """Return whether a booking was made that the change did not see."""
    assert closed.error is None, closed.error
    if isinstance(booked.error, OutsideOpeningHours):
        return False
    assert booked.error is None, booked.error
    return booked.value.pk not in closed.value


def count_missed(pairs):
    """Run the change and the booking of each pair at once; return the number of missed bookings."""
    deadlocks_before, missed = deadlocks(), 0
    for number, pair in enumerate(pairs):
        # The change starts first in every second pair; otherwise, the booking starts first.
        turn = 1 if number % 2 else -1
        closed, booked = at_once(list(pair)[::turn])[::turn]
        missed += was_missed(closed, booked)
        assert max(closed.seconds, booked.seconds) < SLOWEST
    assert deadlocks() == deadlocks_before
    return missed


class TestTwoHundredRaces:
    def test_time_off_sees_every_booking(self, close, user, service):
        assert not count_missed(
            (close(service.calendar, hour(number)), book(user, service, hour(number)))
            for number in range(ROUNDS)
        )

    def test_time_off_in_sql_sees_every_booking(self, user, service):
        assert not count_missed(
            (
                partial(close_in_sql, service.calendar, hour(number)),
                book(user, service, hour(number)),
            )
            for number in range(ROUNDS)
        )

    def test_new_opening_hours_see_every_booking(self, change, user, service):
        def pairs():
            for _ in range(ROUNDS):
                yield (
                    change(service.calendar, opening_hours=CLOSED_ON_TUESDAYS),
                    book(user, service, TUESDAY),
                )
                Booking.objects.all().delete()
                OpeningHours.objects.all().delete()

        assert not count_missed(pairs())

    def test_a_new_time_zone_sees_every_booking(self, change, user, service):
        OpeningHours.objects.create(calendar=service.calendar, weekday=1, opens=540, closes=1020)

        def pairs():
            for _ in range(ROUNDS):
                yield change(service.calendar, timezone="Asia/Tokyo"), book(user, service, TUESDAY)
                Booking.objects.all().delete()
                Calendar.objects.update(timezone="UTC")

        assert not count_missed(pairs())

    def test_time_off_sees_every_hold(self, close, service):
        people = UserFactory.create_batch(ROUNDS)
        deadlocks_before = deadlocks()
        for number, person in enumerate(people):
            if number % 2:
                # An expired hold is in the way.
                BookingFactory(
                    service=service,
                    user=person,
                    start_time=hour(number),
                    status=Status.HELD,
                    hold_expires_at=NOW - HOUR,
                )
            closed, held = at_once(
                [
                    close(service.calendar, hour(number)),
                    book(person, service, hour(number), hold=True),
                ]
            )
            assert not was_missed(closed, held)
            assert max(closed.seconds, held.seconds) < SLOWEST
        assert deadlocks() == deadlocks_before

    def test_time_off_sees_every_moved_booking(self, close, user, service):
        booking = BookingFactory(service=service, user=user, start_time=hour(-2))
        assert not count_missed(
            (close(service.calendar, hour(number)), move(booking, hour(number)))
            for number in range(ROUNDS)
        )

    def test_time_off_sees_every_booking_in_a_slot(self, close, user, course):
        made = [SlotFactory(service=course, start_time=hour(number)) for number in range(ROUNDS)]
        assert not count_missed(
            (
                close(course.calendar, slot.start_time),
                partial(services.create_booking, actor=user, slot_id=slot.pk, at=NOW),
            )
            for slot in made
        )

    def test_time_off_sees_every_seat_offered_from_the_waitlist(self, close, user, course):
        deadlocks_before = deadlocks()
        for number in range(ROUNDS):
            slot = SlotFactory(service=course, start_time=hour(number))
            join_waitlist(slot, user)
            offer = partial(waitlist.offer_seats, at=NOW, slot_ids=[str(slot.pk)])
            closed, offered = at_once([close(course.calendar, slot.start_time), offer])
            assert (closed.error, offered.error) == (None, None)
            held = set(slot.bookings.values_list("pk", flat=True))
            assert len(held) == offered.value
            assert held <= closed.value
        assert deadlocks() == deadlocks_before

    def test_a_deactivated_service_gets_no_later_booking(self, admin, user, service):
        def deactivate():
            update_service(service_id=service.pk, actor=admin, changes={"is_active": False})
            return Booking.objects.count()

        deadlocks_before = deadlocks()
        for number in range(ROUNDS):
            seen, booked = at_once([deactivate, book(user, service, hour(number))])
            assert seen.error is None
            assert booked.error is None or isinstance(booked.error, ServiceInactive)
            # `deactivate` would not have counted a booking that was made after the deactivation.
            assert seen.value == Booking.objects.count()
            Service.objects.update(is_active=True)
        assert deadlocks() == deadlocks_before

    def test_without_versions_time_off_misses_some_bookings(self, close, user, service):
        """Control for `test_time_off_sees_every_booking`: the version is not raised."""
        with without_versions():
            assert count_missed(
                (close(service.calendar, hour(number)), book(user, service, hour(number)))
                for number in range(ROUNDS)
            )


@contextmanager
def without_turns():
    """Disable the advisory locks that order bookings and changes. Row locks stay enabled."""
    for name in ("calendar_share_turn", "calendar_take_turn"):
        run(
            f"CREATE OR REPLACE FUNCTION {name}(calendar_id uuid) RETURNS boolean LANGUAGE sql"
            " AS 'SELECT calendar_id IS NOT NULL'"
        )
    try:
        yield
    finally:
        for name, lock in (
            ("calendar_share_turn", "pg_advisory_xact_lock_shared"),
            ("calendar_take_turn", "pg_advisory_xact_lock"),
        ):
            run(
                f"CREATE OR REPLACE FUNCTION {name}(calendar_id uuid) RETURNS boolean LANGUAGE sql"
                f" AS 'SELECT {lock}(uuid_hash_extended(calendar_id, 0)) IS NOT NULL'"
            )


class TestTurns:
    """A change waits only for earlier bookings, and later bookings wait for the change."""

    @pytest.fixture
    def begin(self):
        """Return a function that starts a call on its own connection."""
        with ThreadPoolExecutor(4) as threads:

            def start(call):
                return threads.submit(lambda: at_once([call])[0])

            yield start

    @pytest.fixture
    def deactivate(self, admin, service):
        return lambda: update_service(
            service_id=service.pk, actor=admin, changes={"is_active": False}
        )

    def test_a_change_waits_for_the_earlier_booking_and_blocks_the_later_booking(
        self, begin, close, user, service
    ):
        with transaction.atomic():
            first = book(user, service, TUESDAY)()
            closing = begin(close(service.calendar, TUESDAY))
            until_waiting(1)
            second = begin(book(user, service, hour(1)))
            until_waiting(2)
        assert closing.result().value == {first.pk}
        assert second.result().value.start_time == hour(1)

    @pytest.mark.one_server("on a cluster, later bookings do not wait for a change in SQL")
    def test_changes_in_sql_and_changes_to_services_also_block_later_bookings(
        self, begin, deactivate, user, service
    ):
        other = UserFactory()
        for change, expected in (
            (partial(close_in_sql, service.calendar, hour(9)), type(None)),
            (deactivate, ServiceInactive),
        ):
            with transaction.atomic():
                book(user, service, TUESDAY)()
                changing = begin(change)
                until_waiting(1)
                second = begin(book(other, service, hour(1)))
                until_waiting(2)
            assert changing.result().error is None
            assert isinstance(second.result().error, expected)
            Booking.objects.all().delete()

    def test_without_turns_later_bookings_overtake_a_change(self, begin, close, user, service):
        """Control for the tests above: bookings and changes do not take turns."""
        other = UserFactory()
        with without_turns():
            with transaction.atomic():
                book(user, service, TUESDAY)()
                closing = begin(close(service.calendar, TUESDAY))
                until_waiting(1)
                for number in range(1, 6):
                    assert begin(book(other, service, hour(number))).result().error is None
                assert not closing.done()
            assert closing.result().error is None

    def test_calls_that_lock_calendars_do_not_deadlock(self, admin, close, service, course):
        """Time off, bookings, holds, moves, waitlist offers and slot changes run concurrently."""
        before = deadlocks()
        for number in range(ROUNDS // 10):
            # New users in each round, because a user can have only three live holds.
            people = UserFactory.create_batch(4)
            slot = SlotFactory(service=course, start_time=hour(number))
            other = SlotFactory(
                service__calendar=course.calendar, start_time=hour(1000 + 2 * number)
            )
            moving = BookingFactory(service=service, user=people[0], start_time=hour(-number - 2))
            BookingFactory(
                service=service,
                user=people[1],
                start_time=hour(number),
                status=Status.HELD,
                hold_expires_at=NOW - HOUR,
            )
            join_waitlist(slot, people[3])
            in_slot = {"slot_id": slot.pk, "at": NOW}
            outcomes = at_once(
                [
                    close(course.calendar, hour(5000)),
                    close(service.calendar, hour(5000)),
                    partial(services.create_booking, actor=people[0], **in_slot),
                    partial(services.create_booking, actor=people[1], hold=True, **in_slot),
                    partial(waitlist.offer_seats, at=NOW, slot_ids=[str(slot.pk)]),
                    partial(slots.change_slot, slot_id=slot.pk, actor=admin, at=NOW, capacity=3),
                    partial(slots.delete_slot, slot_id=other.pk, actor=admin, at=NOW),
                    book(people[2], service, hour(number)),
                    move(moving, hour(2000 + number)),
                    close(course.calendar, hour(6000)),
                ]
            )
            errors = [each.error for each in outcomes if each.error]
            assert all(isinstance(each, Conflict) for each in errors), errors
            assert max(each.seconds for each in outcomes) < SLOWEST
        assert deadlocks() == before


class TestBookingFirst:
    """The terms change when a booking is about to be stored."""

    @pytest.fixture
    def race(self):
        """Return a function that starts a change when a booking is about to be inserted.

        The booking is inserted once the change waits for it.
        """

        def run_race(closing, booking):
            def change_after_booking():
                until_waiting(1)
                return closing()

            with starting_line("bookings_booking") as set_off:
                return set_off([change_after_booking, booking])

        return run_race

    def test_the_change_waits_and_lists_the_booking(self, race, close, user, service):
        closed, booked = race(close(service.calendar, TUESDAY), book(user, service, TUESDAY))
        assert closed.value == {booked.value.pk}

    def test_a_change_in_sql_waits_too(self, race, user, service):
        closed, booked = race(
            partial(close_in_sql, service.calendar, TUESDAY), book(user, service, TUESDAY)
        )
        assert closed.value == {booked.value.pk}

    def test_a_new_zone_in_sql_waits_too(self, race, user, service):
        changed, booked = race(move_to_tokyo, book(user, service, TUESDAY))
        assert (changed.value, booked.error) == (1, None)

    def test_a_new_zone_in_sql_does_not_wait_without_the_key(self, user, service):
        """Control for the test above: the version has no unique key."""

        def change_before_insert():
            until_waiting(1)
            seen = move_to_tokyo()
            # `set_off` lets the booking be inserted once both sessions wait. The change does not
            # wait for the booking, so its session waits here.
            ask("SELECT pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1)")
            return seen

        with without_version_key(), starting_line("bookings_booking") as set_off:
            changed, booked = set_off([change_before_insert, book(user, service, TUESDAY)])
        assert (changed.value, booked.error) == (0, None)

    def test_other_bookings_do_not_wait_for_a_booking(self, user, service):
        another_user = UserFactory()
        with transaction.atomic():
            book(user, service, TUESDAY)()
            [other] = at_once([book(another_user, service, hour(1))])
        assert other.error is None
        assert Booking.objects.count() == 2


class TestChangeFirst:
    """A booking reads the old terms while a change is not committed yet."""

    @pytest.fixture
    def race(self):
        """Return a function that makes a booking wait for an open change.

        `end` commits the change or rolls it back once the booking waits.
        """

        def run_race(closing, booking, end):
            transaction.set_autocommit(False)
            try:
                closing()

                def finish():
                    try:
                        until_waiting(1)
                    finally:
                        end()

                return at_once([booking], meanwhile=finish)[0]
            finally:
                transaction.rollback()
                transaction.set_autocommit(True)

        return run_race

    def test_the_booking_waits_and_is_refused(self, race, close, user, service):
        booked = race(
            close(service.calendar, TUESDAY), book(user, service, TUESDAY), transaction.commit
        )
        assert isinstance(booked.error, OutsideOpeningHours)
        assert len(booked.error.members["alternatives"]) == 3
        assert not Booking.objects.exists()

    def test_the_booking_waits_and_is_made_if_the_change_is_rolled_back(
        self, race, close, user, service
    ):
        booked = race(
            close(service.calendar, TUESDAY), book(user, service, TUESDAY), transaction.rollback
        )
        assert booked.value.start_time == TUESDAY

    def test_a_booking_at_another_time_is_made(self, race, close, user, service):
        booked = race(
            close(service.calendar, TUESDAY), book(user, service, hour(5)), transaction.commit
        )
        assert booked.value.start_time == hour(5)

    @pytest.mark.one_server("on a cluster, the booking does not wait for the change")
    def test_without_versions_the_booking_is_made(self, race, close, user, service):
        """Control for `test_the_booking_waits_and_is_refused`: the version is not raised."""
        with without_versions():
            booked = race(
                close(service.calendar, TUESDAY), book(user, service, TUESDAY), transaction.commit
            )
        assert booked.error is None


@contextmanager
def between_check_and_insert(*calls):
    """Run each call once, just before a statement that stores a booking or locks the calendar.

    At this point, the terms have been read. Publishing slots locks the calendar before it stores
    the slots.
    """
    waiting = list(calls)

    def run_call_before(execute, sql, *rest):
        steps = ("INSERT INTO bookings_booking (", " book_in_", 'FROM "catalog_calendar" WHERE')
        if waiting and any(step in sql for step in steps):
            [outcome] = at_once([waiting.pop(0)])
            assert outcome.error is None
        return execute(sql, *rest)

    with connection.execute_wrapper(run_call_before):
        yield


class TestBetweenCheckAndInsert:
    """Terms change after a booking has read them and before the booking is stored."""

    @pytest.fixture
    def change_service(self, admin):
        def call(service, changes):
            update_service(service_id=service.pk, actor=admin, changes=changes)

        return lambda service, **changes: partial(call, service, changes)

    def test_a_calendar_that_was_closed_is_not_booked(self, close, user, service):
        call = book(user, service, TUESDAY)
        closed = between_check_and_insert(close(service.calendar, TUESDAY))
        with closed, pytest.raises(OutsideOpeningHours):
            call()
        assert not Booking.objects.exists()

    def test_without_versions_a_calendar_that_was_closed_is_booked(self, close, user, service):
        """Control for the test above: the version is not raised."""
        with without_versions(), between_check_and_insert(close(service.calendar, TUESDAY)):
            book(user, service, TUESDAY)()
        assert Booking.objects.exists()

    def test_a_service_that_was_deactivated_is_not_booked(self, change_service, user, service):
        call = book(user, service, TUESDAY)
        deactivated = between_check_and_insert(change_service(service, is_active=False))
        with deactivated, pytest.raises(ServiceInactive):
            call()

    def test_a_booking_has_the_new_price_and_duration(self, change_service, user, service):
        more = {"price": 99, "currency": "EUR", "duration_minutes": 90, "buffer_after_minutes": 5}
        with between_check_and_insert(change_service(service, **more)):
            booking = book(user, service, TUESDAY)()
        booking.refresh_from_db()
        assert (booking.price, booking.currency) == (99, "EUR")
        assert booking.end_time == TUESDAY + timedelta(minutes=90)
        assert booking.blocked.upper == TUESDAY + timedelta(minutes=95)

    def test_a_request_for_any_of_several_services_is_booked_on_the_new_terms(
        self, change_service, user, service
    ):
        other = ServiceFactory()
        with between_check_and_insert(change_service(service, is_active=False)):
            booking = services.create_booking(
                actor=user, service_ids=[service.pk, other.pk], start_time=TUESDAY, at=NOW
            )
        assert booking.service_id == other.pk

    def test_slots_are_published_on_the_new_terms(self, change_service, admin, course):
        with between_check_and_insert(change_service(course, duration_minutes=45, capacity=7)):
            [slot] = slots.publish_slots(
                actor=admin, service_id=course.pk, start_time=TUESDAY, at=NOW
            )
        slot.refresh_from_db()
        assert (slot.capacity, slot.end_time - slot.start_time) == (7, timedelta(minutes=45))

    def test_a_series_keeps_its_local_time_in_the_new_zone(self, change, admin, course):
        with between_check_and_insert(change(course.calendar, timezone="Europe/Lisbon")):
            slots.publish_slots(
                actor=admin,
                service_id=course.pk,
                start_time=TUESDAY,
                rrule=parse_rule("FREQ=MONTHLY;COUNT=7"),
                at=NOW,
            )
        # In July, 10:00 in Lisbon is 9:00 in UTC.
        assert Slot.objects.order_by("start_time").last().start_time.hour == 9

    def test_a_booking_is_refused_as_unavailable_after_ten_changes(self, api, close, user, service):
        body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
        changes = [close(service.calendar, hour(number)) for number in range(1, TRIES + 1)]
        with between_check_and_insert(*changes):
            response = api.as_(user).post("/bookings", body)
        assert (response.status_code, response.json()["code"]) == (503, "service_unavailable")
        assert response["Retry-After"]
        assert not Booking.objects.exists()

    def test_a_booking_is_made_after_nine_changes(self, close, user, service):
        changes = [close(service.calendar, hour(number)) for number in range(1, TRIES)]
        with between_check_and_insert(*changes):
            assert book(user, service, TUESDAY)().start_time == TUESDAY


# Marks a statement that Citus refuses. BookIt itself does not use any of these statements.
REFUSED = pytest.mark.one_server("Citus refuses the statement")


class TestVersion:
    @pytest.fixture
    def calendar(self, service):
        OpeningHours.objects.create(calendar=service.calendar, weekday=1, opens=540, closes=1020)
        TimeOffFactory(calendar=service.calendar)
        # Another calendar, which must not change.
        CalendarFactory()
        return service.calendar

    @pytest.mark.parametrize(
        "statement",
        [
            pytest.param(
                "INSERT INTO catalog_openinghours (id, calendar_id, weekday, opens, closes)"
                " SELECT gen_random_uuid(), calendar_id, 2, 540, 1020 FROM catalog_service",
                marks=REFUSED,
            ),
            "UPDATE catalog_openinghours SET closes = 1080",
            "DELETE FROM catalog_openinghours",
            pytest.param(
                "INSERT INTO catalog_timeoff (id, calendar_id, start_time, end_time, reason)"
                " SELECT gen_random_uuid(), calendar_id, now(), now() + interval '1 day', ''"
                " FROM catalog_service",
                marks=REFUSED,
            ),
            pytest.param(
                "UPDATE catalog_timeoff SET end_time = end_time + interval '1 day'", marks=REFUSED
            ),
            "DELETE FROM catalog_timeoff",
            (
                "UPDATE catalog_calendar SET timezone = 'Asia/Tokyo'"
                " WHERE id = (SELECT calendar_id FROM catalog_service)"
            ),
            "UPDATE catalog_service SET is_active = false",
            "UPDATE catalog_service SET mode = 'slots'",
            "UPDATE catalog_service SET capacity = 2",
            "UPDATE catalog_service SET duration_minutes = 90",
            "UPDATE catalog_service SET buffer_before_minutes = 5",
            "UPDATE catalog_service SET buffer_after_minutes = 5",
            "UPDATE catalog_service SET min_notice_minutes = 5",
            "UPDATE catalog_service SET max_advance_days = 5",
            "UPDATE catalog_service SET requires_confirmation = false",
            "UPDATE catalog_service SET price = 26",
            "UPDATE catalog_service SET currency = 'EUR'",
        ],
    )
    def test_the_version_rises_when_a_term_changes(self, calendar, statement):
        versions = dict(Calendar.objects.values_list("pk", "version"))
        run(statement)
        versions[calendar.pk] += 1
        assert dict(Calendar.objects.values_list("pk", "version")) == versions

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE catalog_calendar SET name = 'Chair', timezone = timezone",
            "UPDATE catalog_service SET title = 'Cut', rating_sum = 5, rating_count = 1",
            "UPDATE catalog_service SET capacity = capacity",
            "DELETE FROM catalog_timeoff WHERE reason = 'No row has this reason.'",
        ],
    )
    def test_the_version_stays_when_no_term_changes(self, calendar, statement):
        before = dict(Calendar.objects.values_list("pk", "version"))
        run(statement)
        assert dict(Calendar.objects.values_list("pk", "version")) == before

    def test_moving_time_off_raises_the_version_of_the_old_and_the_new_calendar(self, calendar):
        before = dict(Calendar.objects.values_list("pk", "version"))
        other = Calendar.objects.exclude(pk=calendar.pk).get()
        TimeOff.objects.update(calendar=other)
        after = dict(Calendar.objects.values_list("pk", "version"))
        assert after == {pk: version + 1 for pk, version in before.items()}

    def test_saving_a_stale_calendar_does_not_restore_an_old_version(self, calendar):
        stale = Calendar.objects.get(pk=calendar.pk)
        TimeOffFactory(calendar=calendar)
        current = Calendar.objects.get(pk=calendar.pk).version
        assert current > stale.version
        stale.name = "Chair"
        stale.save()
        assert Calendar.objects.get(pk=calendar.pk).version == current
        stale.timezone = "Asia/Tokyo"
        stale.save()
        assert Calendar.objects.get(pk=calendar.pk).version == current + 1


def test_the_admin_site_waits_for_a_booking_in_progress_and_lists_it(client, admin, user, service):
    client.force_login(admin)
    path = reverse("admin:catalog_calendar_change", args=[service.calendar_id])
    body = {
        "name": service.calendar.name,
        "timezone": "UTC",
        "provider": "",
        "hours-TOTAL_FORMS": 1,
        "hours-INITIAL_FORMS": 0,
        "hours-0-calendar": service.calendar_id,
        "hours-0-weekday": 3,
        "hours-0-opens": "09:00",
        "hours-0-closes": "12:00",
        "time_off-TOTAL_FORMS": 0,
        "time_off-INITIAL_FORMS": 0,
    }

    def save():
        until_waiting(1)
        return client.post(path, body, follow=True)

    with starting_line("bookings_booking") as set_off:
        saved, booked = set_off([save, book(user, service, TUESDAY)])
    page = saved.value.content.decode()
    assert "1 upcoming booking is now outside the open times" in page
    assert str(booked.value.pk) in page
