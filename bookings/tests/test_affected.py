"""Bookings that a change leaves outside the open times are kept, and the response lists them."""

import re
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.tests.factories import ProviderFactory, UserFactory
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# `TUESDAY` is at 10:00, within the morning hours.
MORNINGS = [{"weekday": day, "opens": "09:00", "closes": "12:00"} for day in range(7)]
AFTERNOONS = [{"weekday": day, "opens": "13:00", "closes": "18:00"} for day in range(7)]


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def service(provider):
    return ServiceFactory(calendar__provider=provider, capacity=200)


@pytest.fixture
def calendar(service):
    return service.calendar


@pytest.fixture
def change(api, provider, calendar):
    """Return a function that changes the calendar and returns the affected bookings."""

    def send(changes):
        response = api.as_(provider).patch(f"/calendars/{calendar.pk}", changes)
        assert response.status_code == 200, response.content
        return response.json()["affected_bookings"]

    return send


@pytest.fixture
def close(api, provider, calendar):
    """Return a function that adds time off and returns the affected bookings."""

    def send(start, end):
        body = {"start_time": start.isoformat(), "end_time": end.isoformat()}
        response = api.as_(provider).post(f"/calendars/{calendar.pk}/time-off", body)
        assert response.status_code == 201, response.content
        return response.json()["affected_bookings"]

    return send


@pytest.fixture
def book(service):
    """Return a function that stores a booking that starts `hours` after `TUESDAY`."""

    def build(hours=0.0, **fields):
        return BookingFactory(
            **{"service": service, "start_time": TUESDAY + hours * HOUR, **fields}
        )

    return build


def affected(*bookings):
    return {"count": len(bookings), "ids": [str(booking.pk) for booking in bookings]}


def stored():
    """Return every stored booking and event."""
    return [*Booking.objects.order_by("id").values(), *BookingEvent.objects.order_by("id").values()]


class TestOpeningHours:
    def test_bookings_outside_the_hours_are_kept_and_listed_earliest_first(self, change, book):
        last, _, first = book(30), book(1), book(3)
        before = stored()
        assert change({"opening_hours": MORNINGS}) == affected(first, last)
        assert stored() == before

    def test_a_booking_that_is_partly_outside_the_hours_is_listed(self, change, book):
        book(-1)
        book(1)
        outside = [book(-1.5, seat=2), book(1.5, seat=2), book(2)]
        assert change({"opening_hours": MORNINGS}) == affected(*outside)

    def test_buffers_may_reach_outside_the_hours(self, change, book, service):
        # Not saved, because only `BookingFactory` needs them: bookings store their own buffers.
        service.buffer_before_minutes = service.buffer_after_minutes = 90
        book(-1)
        book(1, seat=2)
        assert change({"opening_hours": MORNINGS}) == affected()

    def test_adjacent_hours_form_one_period(self, change, book):
        around_noon = book(1.5)
        around_midnight = book(13.5)
        spans = [
            {"weekday": day, "opens": opens, "closes": closes}
            for day in range(7)
            for opens, closes in (
                ("00:00", "01:00"),
                ("11:00", "12:00"),
                ("12:00", "13:00"),
                ("23:00", "24:00"),
            )
        ]
        assert change({"opening_hours": spans}) == affected()
        assert change({"opening_hours": spans[:1]}) == affected(around_noon, around_midnight)

    def test_a_calendar_without_hours_is_always_open(self, change, book):
        book(-7)
        assert change({"opening_hours": MORNINGS})["count"] == 1
        assert change({"opening_hours": []}) == affected()

    def test_bookings_that_were_outside_before_the_change_are_listed_too(self, change, book):
        booking = book(6)
        for _ in range(2):
            assert change({"opening_hours": MORNINGS}) == affected(booking)

    def test_a_request_with_neither_hours_nor_time_zone_lists_no_bookings(
        self, change, book, close
    ):
        booking = book(3)
        change({"opening_hours": MORNINGS})
        close(TUESDAY + 3 * HOUR, TUESDAY + 4 * HOUR)
        assert change({"name": "Chair"}) == affected()
        assert change({}) == affected()
        assert change({"name": "Chair", "timezone": "UTC"}) == affected(booking)

    def test_bookings_on_other_calendars_are_not_listed(self, change, book):
        book(3, service=ServiceFactory())
        assert change({"opening_hours": MORNINGS}) == affected()

    def test_all_affected_bookings_are_counted_and_the_first_hundred_are_listed(
        self, change, close, book
    ):
        bookings = [book(3 + number / 100, seat=number + 1) for number in range(103)]
        expected = {"count": 103, "ids": affected(*bookings[:100])["ids"]}
        assert change({"opening_hours": MORNINGS}) == expected
        assert close(TUESDAY + 3 * HOUR, TUESDAY + 5 * HOUR) == expected
        # Without opening hours, the bookings are still in time off.
        assert change({"opening_hours": []}) == expected


class TestTimeZone:
    def test_the_hours_move_with_the_time_zone(self, change, book):
        inside, outside = book(0), book(1.5)
        change({"opening_hours": MORNINGS})
        # 10:00 UTC is 11:00 in Paris.
        assert change({"timezone": "Europe/Paris"}) == affected(outside)
        assert change({"timezone": "America/New_York"}) == affected(inside, outside)
        assert change({"timezone": "UTC", "opening_hours": AFTERNOONS}) == affected(inside, outside)

    def test_a_new_zone_affects_nothing_if_the_calendar_is_always_open(self, change, book):
        book()
        assert change({"timezone": "Pacific/Apia"}) == affected()


class TestTimeOff:
    def test_bookings_that_overlap_time_off_are_listed_and_kept(self, close, book):
        book(-1)
        later, first = book(1), book(0)
        book(2)
        before = stored()
        assert close(TUESDAY, TUESDAY + 2 * HOUR) == affected(first, later)
        assert stored() == before

    def test_an_overlap_of_one_second_affects_a_booking(self, close, book):
        booking = book()
        moment = timedelta(seconds=1)
        assert close(TUESDAY - moment, TUESDAY + moment) == affected(booking)
        assert close(TUESDAY + HOUR - moment, TUESDAY + HOUR) == affected(booking)
        assert close(TUESDAY + HOUR, TUESDAY + HOUR + moment) == affected()

    def test_buffers_may_reach_into_time_off(self, close, book, service):
        service.buffer_after_minutes = 60
        book()
        assert close(TUESDAY + HOUR, TUESDAY + 2 * HOUR) == affected()

    def test_only_bookings_that_overlap_the_new_time_off_are_listed(self, change, close, book):
        book(3)
        change({"opening_hours": MORNINGS})
        close(TUESDAY + 3 * HOUR, TUESDAY + 4 * HOUR)
        booking = book(24)
        assert close(TUESDAY + DAY, TUESDAY + 2 * DAY) == affected(booking)

    def test_a_change_of_hours_lists_bookings_in_time_off_too(self, change, close, book):
        off, outside = book(0), book(3)
        book(1)
        close(TUESDAY - DAY, TUESDAY + HOUR)
        assert change({"opening_hours": MORNINGS}) == affected(off, outside)
        assert change({"opening_hours": []}) == affected(off)

    def test_time_off_of_another_calendar_affects_nothing(self, change, book):
        TimeOffFactory(start_time=TUESDAY)
        book()
        assert change({"opening_hours": MORNINGS}) == affected()

    def test_time_off_in_the_past_affects_nothing(self, close, service):
        now = timezone.now()
        BookingFactory(service=service, start_time=now - 3 * HOUR)
        assert close(now - 4 * HOUR, now - HOUR) == affected()


class TestSlots:
    def test_time_off_affects_a_booking_in_a_slot_but_hours_do_not(self, change, close, service):
        slot = SlotFactory(service=service)
        booking = BookingFactory(service=service, slot=slot)
        assert change({"opening_hours": AFTERNOONS}) == affected()
        assert close(TUESDAY, TUESDAY + HOUR) == affected(booking)
        assert change({"opening_hours": AFTERNOONS}) == affected(booking)
        assert change({"opening_hours": []}) == affected(booking)


class TestUpcoming:
    @pytest.mark.parametrize(
        ("status", "is_listed"),
        [
            ("held", True),
            ("pending", True),
            ("confirmed", True),
            ("cancelled", False),
            ("completed", False),
            ("expired", False),
            ("no_show", False),
        ],
    )
    def test_only_unfinished_bookings_are_listed(self, change, close, book, status, is_listed):
        booking = book(3, status=status)
        expected = affected(booking) if is_listed else affected()
        assert change({"opening_hours": MORNINGS}) == expected
        assert close(TUESDAY, TUESDAY + DAY) == expected

    def test_an_expired_hold_is_not_listed(self, change, close, book):
        now = timezone.now()
        book(3, status="held", hold_expires_at=now - timedelta(seconds=1))
        live = book(4, status="held", hold_expires_at=now + HOUR)
        assert change({"opening_hours": MORNINGS}) == affected(live)
        assert close(TUESDAY, TUESDAY + DAY) == affected(live)

    def test_a_running_booking_is_listed_and_a_past_booking_is_not(self, change, close, service):
        now = timezone.now()
        running = BookingFactory(service=service, start_time=now - HOUR / 2)
        BookingFactory(service=service, start_time=now - 2 * HOUR)
        # Open for one minute on a day without bookings.
        closed = [{"weekday": (now.weekday() + 3) % 7, "opens": "00:00", "closes": "00:01"}]
        assert change({"opening_hours": closed}) == affected(running)
        assert close(now - DAY, now + DAY) == affected(running)

    def test_the_current_duration_of_the_service_does_not_matter(self, change, book, service):
        booking = book(1)
        service.duration_minutes = 600
        service.save()
        assert change({"opening_hours": MORNINGS}) == affected()
        assert change({"opening_hours": AFTERNOONS}) == affected(booking)


class TestQueries:
    """A change takes a fixed number of queries, and reads only bookings that may be affected."""

    @pytest.mark.parametrize("rows", [1, 60])
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            # Read the account and the calendar's provider. In a savepoint, lock the calendar,
            # change it, and read the time of the change, which a trigger sets. Then read the
            # calendar for the response.
            ({"name": "Chair"}, 8),
            # Also read the opening hours and the bookings of the calendar.
            ({"timezone": "Europe/Paris"}, 10),
            # Also read the opening hours and the bookings. Instead of changing the calendar and
            # reading the time of the change, delete the old opening hours and insert the new ones.
            ({"opening_hours": MORNINGS}, 10),
            ({"timezone": "Europe/Paris", "opening_hours": MORNINGS}, 12),
        ],
    )
    @pytest.mark.one_server("counts statements, and a cluster needs more of them")
    def test_a_change_takes_a_fixed_number_of_queries(
        self, api, provider, calendar, book, rows, changes, expected
    ):
        OpeningHours.objects.create(calendar=calendar, weekday=0, opens=0, closes=1)
        for number in range(rows):
            book(number)
            TimeOffFactory(calendar=calendar, start_time=TUESDAY + number * DAY)
        client = api.as_(provider)
        with CaptureQueriesContext(connection) as captured:
            client.patch(f"/calendars/{calendar.pk}", changes)
        assert len(captured) == expected, captured.captured_queries

    @pytest.mark.parametrize("kind", ["change", "close"])
    def test_past_bookings_are_not_read(self, change, close, service, kind):
        """A calendar may have a long history, so an index must find the upcoming bookings."""
        now, user = timezone.now(), UserFactory()
        for each in (service, ServiceFactory()):
            Booking.objects.bulk_create(
                BookingFactory.build(
                    service=each, user=user, start_time=now - number * HOUR, status="completed"
                )
                for number in range(1, 1000)
            )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE bookings_booking")
            with CaptureQueriesContext(connection) as captured:
                if kind == "change":
                    change({"opening_hours": MORNINGS})
                else:
                    close(now, now + DAY)
            [text] = [
                query["sql"]
                for query in captured.captured_queries
                if 'FROM "bookings_booking"' in query["sql"]
            ]
            cursor.execute(f"EXPLAIN {text}")
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert re.search(r"Index Cond: .*blocked && ", plan), plan


def test_reading_a_calendar_does_not_show_affected_bookings(api, calendar, change):
    change({"opening_hours": MORNINGS})
    assert "affected_bookings" not in api.get(f"/calendars/{calendar.pk}").json()
    assert "affected_bookings" not in api.get("/calendars").json()["results"][0]


def test_a_new_calendar_does_not_show_affected_bookings(api, provider):
    made = api.as_(provider).post("/calendars", {"name": "Room", "opening_hours": MORNINGS})
    assert "affected_bookings" not in made.json()


def test_a_change_to_a_calendar_without_bookings_affects_no_booking(api, provider):
    calendar = CalendarFactory(provider=provider)
    response = api.as_(provider).patch(f"/calendars/{calendar.pk}", {"opening_hours": MORNINGS})
    assert response.json()["affected_bookings"] == {"count": 0, "ids": []}
