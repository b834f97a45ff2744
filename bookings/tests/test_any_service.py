"""A request with `service_ids` books a free service; the least busy calendars are tried first."""

from datetime import timedelta
from functools import partial

import pytest
from django.db import transaction

from accounts.tests.factories import UserFactory
from bookings import services
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookings.tests.test_races import DOUBLE_BOOKINGS, SLOWEST
from bookit.tests.crowd import ask, at_once, deadlocks, tally
from bookit.tests.expect import problem
from catalog.models import Calendar, OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
NOW = TUESDAY - timedelta(days=2)


@pytest.fixture
def user():
    return UserFactory()


@pytest.fixture
def chairs():
    """Return three services of barbers, each on its own calendar."""
    return ServiceFactory.create_batch(3, category="Barber")


def body(chairs, hours=0, **more):
    return {
        "service_ids": [str(chair.pk) for chair in chairs],
        "start_time": (TUESDAY + hours * HOUR).isoformat(),
        **more,
    }


def booked_service(response):
    """Check that a booking was made, and return the id of its service."""
    assert response.status_code == 201, response.content
    return response.json()["service_id"]


class TestChoice:
    def test_the_first_service_is_booked_if_no_calendar_has_bookings(self, api, user, chairs):
        assert booked_service(api.as_(user).post("/bookings", body(chairs))) == str(chairs[0].pk)
        assert Booking.objects.count() == BookingEvent.objects.count() == 1

    def test_the_calendar_with_the_fewest_bookings_that_day_is_tried_first(self, api, user, chairs):
        for hours in (3, 4):
            BookingFactory(service=chairs[0], start_time=TUESDAY + hours * HOUR)
        BookingFactory(service=chairs[1], start_time=TUESDAY + 5 * HOUR)
        # Cancelled bookings and bookings on other days do not count.
        BookingFactory(service=chairs[2], start_time=TUESDAY + 24 * HOUR)
        BookingFactory(service=chairs[2], start_time=TUESDAY + 6 * HOUR, status="cancelled")
        client = api.as_(user)
        chosen = [booked_service(client.post("/bookings", body(chairs))) for _ in range(3)]
        assert chosen == [str(chair.pk) for chair in reversed(chairs)]

    def test_the_bookings_of_a_day_are_spread_evenly(self, user, chairs):
        for hours in range(9):
            services.create_booking(
                actor=user,
                service_ids=[chair.pk for chair in chairs],
                start_time=TUESDAY + hours * HOUR,
                at=NOW,
            )
        assert [Booking.objects.filter(service=chair).count() for chair in chairs] == [3, 3, 3]

    def test_days_begin_at_midnight_in_the_calendars_time_zone(self, user):
        # 10:00 UTC is 23:00 in Apia, so a booking at 12:00 UTC is on the next day there.
        there = ServiceFactory(calendar=CalendarFactory(timezone="Pacific/Apia"))
        here = ServiceFactory()
        for chair in (there, here):
            BookingFactory(service=chair, start_time=TUESDAY + 2 * HOUR)
        call = partial(services.create_booking, actor=user, service_ids=[here.pk, there.pk], at=NOW)
        assert call(start_time=TUESDAY).service_id == there.pk

    def test_bookings_of_other_services_on_the_same_calendar_count(self, user, chairs):
        BookingFactory(
            service=ServiceFactory(calendar=chairs[0].calendar), start_time=TUESDAY + 3 * HOUR
        )
        booking = services.create_booking(
            actor=user,
            service_ids=[chairs[0].pk, chairs[1].pk],
            start_time=TUESDAY,
            at=NOW,
        )
        assert booking.service_id == chairs[1].pk

    def test_services_that_cannot_be_booked_at_that_time_are_skipped(self, api, user, chairs):
        inactive = ServiceFactory(is_active=False)
        closed = ServiceFactory()
        OpeningHours.objects.create(calendar=closed.calendar, weekday=0, opens=0, closes=60)
        short_horizon = ServiceFactory(max_advance_days=1)
        BookingFactory(service=chairs[0])
        # The calendar of the last service is as busy, so the taken service is tried before it.
        BookingFactory(service=chairs[1], start_time=TUESDAY + 3 * HOUR)
        wanted = [inactive, closed, short_horizon, *chairs[:2]]
        assert booked_service(api.as_(user).post("/bookings", body(wanted))) == str(chairs[1].pk)

    def test_a_service_is_booked_in_its_slot_at_that_time(self, api, user, chairs):
        slot = SlotFactory()
        BookingFactory(service=chairs[0])
        response = api.as_(user).post("/bookings", body([chairs[0], slot.service]))
        assert response.json()["slot_id"] == str(slot.pk)

    def test_a_hold_can_be_placed_on_any_of_the_services(self, api, user, chairs):
        client = api.as_(user)
        for chair in chairs:
            held = client.post("/bookings", body(chairs, hold=True)).json()
            assert (held["service_id"], held["status"]) == (str(chair.pk), "held")

    def test_an_expired_hold_does_not_block_a_service(self, user, chairs):
        call = partial(
            services.create_booking,
            actor=user,
            service_ids=[chairs[0].pk, chairs[1].pk],
            start_time=TUESDAY,
        )
        for _ in range(2):
            call(at=NOW, hold=True)
        with pytest.raises(services.BookingConflict):
            call(at=NOW)
        assert {call(at=NOW + HOUR).service_id for _ in range(2)} == {chairs[0].pk, chairs[1].pk}


class TestRefusal:
    def test_a_conflict_offers_free_times_of_all_the_services(self, api, user, chairs):
        for hours in (0, 1):
            BookingFactory(service=chairs[0], start_time=TUESDAY + hours * HOUR)
        for hours in (-2, -1, 0):
            BookingFactory(service=chairs[1], start_time=TUESDAY + hours * HOUR)
        content = problem(
            api.as_(user).post("/bookings", body(chairs[:2])), 409, "booking_conflict"
        )
        starts = [each["start_time"] for each in content["alternatives"]]
        assert starts == ["2999-01-01T09:00:00Z", "2999-01-01T11:00:00Z", "2999-01-01T08:00:00Z"]
        for start, chair in zip(starts, (chairs[0], chairs[1], chairs[0]), strict=True):
            response = api.as_(user).post("/bookings", {**body(chairs[:2]), "start_time": start})
            assert booked_service(response) == str(chair.pk)

    def test_a_conflict_takes_precedence_over_an_inactive_service(self, api, user, chairs):
        BookingFactory(service=chairs[0])
        inactive = ServiceFactory(is_active=False)
        response = api.as_(user).post("/bookings", body([inactive, chairs[0]]))
        problem(response, 409, "booking_conflict")
        problem(api.as_(user).post("/bookings", body([inactive])), 409, "service_inactive")

    def test_the_limit_of_holds_takes_precedence_over_closed_services(self, api, user, chairs):
        """The user could not hold the alternatives to a closed service either."""
        holds = [BookingFactory(user=user, status="held") for _ in range(services.MAX_HOLDS)]
        chairs[0].mode = "slots"  # It has no slot at that time, so it counts as closed.
        chairs[0].save()
        response = api.as_(user).post("/bookings", body(chairs[:2], hold=True))
        assert "alternatives" not in problem(response, 409, "too_many_holds")
        assert Booking.objects.count() == len(holds)

    def test_failed_attempts_leave_no_rows(self, api, user, chairs):
        for chair in chairs:
            BookingFactory(service=chair)
        problem(api.as_(user).post("/bookings", body(chairs)), 409, "booking_conflict")
        assert Booking.objects.count() == 3
        assert not BookingEvent.objects.exists()

    def test_the_error_names_an_unknown_service(self, api, user, chairs):
        unknown = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"
        request_body = body(chairs)
        request_body["service_ids"].append(unknown)
        content = problem(
            api.as_(user).post("/bookings", request_body), 400, "validation_error", "service_ids"
        )
        assert unknown in content["errors"][0]["message"]

    @pytest.mark.parametrize("ids", [[], None, "x", ["x"], [1], {}])
    def test_invalid_service_ids_are_refused(self, api, user, chairs, ids):
        response = api.as_(user).post("/bookings", {**body(chairs), "service_ids": ids})
        content = problem(response, 400, "validation_error")
        assert content["errors"][0]["field"].startswith("service_ids")

    def test_at_most_twenty_services_are_accepted(self, api, user):
        chairs = ServiceFactory.create_batch(21)
        problem(api.as_(user).post("/bookings", body(chairs)), 400, "validation_error")
        assert booked_service(api.as_(user).post("/bookings", body(chairs[:20])))

    def test_service_id_and_service_ids_cannot_be_combined(self, api, user, chairs):
        response = api.as_(user).post(
            "/bookings", {**body(chairs), "service_id": str(chairs[0].pk)}
        )
        problem(response, 400, "validation_error", "service_ids")

    def test_a_service_named_three_times_is_booked_once(self, api, user, chairs):
        assert booked_service(api.as_(user).post("/bookings", body([chairs[0]] * 3)))
        problem(api.as_(user).post("/bookings", body([chairs[0]] * 3)), 409, "booking_conflict")


@pytest.mark.django_db(transaction=True)
def test_concurrent_bookings_in_any_order_do_not_deadlock():
    chairs = ServiceFactory.create_batch(4, capacity=2)
    crowd = UserFactory.create_batch(24)
    before = deadlocks()
    for day in range(25):
        calls = []
        for number, user in enumerate(crowd):
            rotated = chairs[number % 4 :] + chairs[: number % 4]
            named = rotated if number % 2 else rotated[::-1]
            calls.append(
                partial(
                    services.create_booking,
                    actor=user,
                    service_ids=[chair.pk for chair in named],
                    start_time=TUESDAY + day * 24 * HOUR,
                    at=NOW,
                )
            )
        outcomes = at_once(calls)
        assert tally(outcomes) == {None: 8, services.BookingConflict: 16}
        assert max(outcome.seconds for outcome in outcomes) < SLOWEST
    assert deadlocks() == before
    assert ask(DOUBLE_BOOKINGS) == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.one_server("counts the deadlocks of one server")
def test_attempts_that_keep_their_locks_cause_deadlocks():
    """Control for the test above: calls that keep locks on several calendars cause deadlocks."""
    chairs = ServiceFactory.create_batch(2)
    before = deadlocks()

    def lock_all(named):
        with transaction.atomic():
            for chair in named:
                Calendar.objects.select_for_update().get(pk=chair.calendar_id)

    for _ in range(20):
        at_once([partial(lock_all, chairs[:: 1 if number % 2 else -1]) for number in range(8)])
        if deadlocks() > before:
            break
    assert deadlocks() > before
