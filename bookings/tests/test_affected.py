"""Bookings that a change of a calendar leaves outside: they stay, and the answer names them."""

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
# `TUESDAY` is one, at ten.
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
    """Change the calendar, and return what is affected."""

    def send(changes):
        answer = api.as_(provider).patch(f"/calendars/{calendar.pk}", changes)
        assert answer.status_code == 200, answer.content
        return answer.json()["affected_bookings"]

    return send


@pytest.fixture
def close(api, provider, calendar):
    """Take time off, and return what is affected."""

    def send(start, end):
        body = {"start_time": start.isoformat(), "end_time": end.isoformat()}
        answer = api.as_(provider).post(f"/calendars/{calendar.pk}/time-off", body)
        assert answer.status_code == 201, answer.content
        return answer.json()["affected_bookings"]

    return send


@pytest.fixture
def book(service):
    """Book at so many hours after `TUESDAY`."""

    def build(hours=0.0, **fields):
        return BookingFactory(
            **{"service": service, "start_time": TUESDAY + hours * HOUR, **fields}
        )

    return build


def these(*bookings):
    return {"count": len(bookings), "ids": [str(booking.pk) for booking in bookings]}


def everything():
    """Return all that is kept of bookings."""
    return [*Booking.objects.order_by("id").values(), *BookingEvent.objects.order_by("id").values()]


class TestOpeningHours:
    def test_bookings_outside_are_named_the_earliest_first_and_stay(self, change, book):
        last, _, first = book(30), book(1), book(3)
        before = everything()
        assert change({"opening_hours": MORNINGS}) == these(first, last)
        assert everything() == before

    def test_a_booking_must_be_inside_from_its_start_to_its_end(self, change, book):
        inside = [book(-1), book(1)]
        outside = [book(-1.5, seat=2), book(1.5, seat=2), book(2)]
        assert change({"opening_hours": MORNINGS}) == these(outside[0], outside[1], outside[2])
        assert len(inside) == 2

    def test_its_buffers_may_stick_out(self, change, book, service):
        service.buffer_before_minutes = service.buffer_after_minutes = 90
        book(-1, service=service)
        book(1, service=service, seat=2)
        assert change({"opening_hours": MORNINGS}) == these()

    def test_hours_that_touch_are_one_period(self, change, book):
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
        assert change({"opening_hours": spans}) == these()
        assert change({"opening_hours": spans[:1]}) == these(around_noon, around_midnight)

    def test_without_hours_it_is_always_open(self, change, book):
        book(-7)
        assert change({"opening_hours": MORNINGS})["count"] == 1
        assert change({"opening_hours": []}) == these()

    def test_all_that_lie_outside_are_named_whatever_the_change_was(self, change, book):
        """Those as well that lay there before."""
        booking = book(6)
        for _ in range(2):
            assert change({"opening_hours": MORNINGS}) == these(booking)

    def test_nothing_is_affected_where_neither_hours_nor_zone_were_sent(self, change, book, close):
        booking = book(3)
        change({"opening_hours": MORNINGS})
        close(TUESDAY + 3 * HOUR, TUESDAY + 4 * HOUR)
        assert change({"name": "Chair"}) == these()
        assert change({}) == these()
        assert change({"name": "Chair", "timezone": "UTC"}) == these(booking)

    def test_another_calendar_is_another_matter(self, change, book):
        book(3, service=ServiceFactory())
        assert change({"opening_hours": MORNINGS}) == these()

    def test_of_many_a_hundred_are_named_and_all_are_counted(self, change, close, book):
        bookings = [book(3 + number / 100, seat=number + 1) for number in range(103)]
        named = {"count": 103, "ids": these(*bookings[:100])["ids"]}
        assert change({"opening_hours": MORNINGS}) == named
        assert close(TUESDAY + 3 * HOUR, TUESDAY + 5 * HOUR) == named
        assert change({"opening_hours": []}) == named


class TestTimeZone:
    def test_the_hours_move_along(self, change, book):
        inside, outside = book(0), book(1.5)
        change({"opening_hours": MORNINGS})
        # At ten in Greenwich it is eleven there.
        assert change({"timezone": "Europe/Paris"}) == these(outside)
        assert change({"timezone": "America/New_York"}) == these(inside, outside)
        assert change({"timezone": "UTC", "opening_hours": AFTERNOONS}) == these(inside, outside)

    def test_where_it_is_always_open_a_zone_changes_nothing(self, change, book):
        book()
        assert change({"timezone": "Pacific/Apia"}) == these()


class TestTimeOff:
    def test_bookings_that_meet_it_are_named_and_stay(self, close, book):
        book(-1)
        later, first = book(1), book(0)
        book(2)
        before = everything()
        assert close(TUESDAY, TUESDAY + 2 * HOUR) == these(first, later)
        assert everything() == before

    def test_a_moment_is_enough(self, close, book):
        booking = book()
        moment = timedelta(seconds=1)
        assert close(TUESDAY - moment, TUESDAY + moment) == these(booking)
        assert close(TUESDAY + HOUR - moment, TUESDAY + HOUR) == these(booking)
        assert close(TUESDAY + HOUR, TUESDAY + HOUR + moment) == these()

    def test_its_buffers_may_reach_into_it(self, close, book, service):
        service.buffer_after_minutes = 60
        book(service=service)
        assert close(TUESDAY + HOUR, TUESDAY + 2 * HOUR) == these()

    def test_only_those_that_meet_the_new_one_are_named(self, change, close, book):
        book(3)
        change({"opening_hours": MORNINGS})
        close(TUESDAY + 3 * HOUR, TUESDAY + 4 * HOUR)
        booking = book(24)
        assert close(TUESDAY + DAY, TUESDAY + 2 * DAY) == these(booking)

    def test_after_a_change_of_hours_those_in_time_off_lie_outside_as_well(
        self, change, close, book
    ):
        off, outside = book(0), book(3)
        book(1)
        close(TUESDAY - DAY, TUESDAY + HOUR)
        assert change({"opening_hours": MORNINGS}) == these(off, outside)
        assert change({"opening_hours": []}) == these(off)

    def test_time_off_of_another_calendar_is_another_matter(self, change, book):
        TimeOffFactory(start_time=TUESDAY)
        book()
        assert change({"opening_hours": MORNINGS}) == these()

    def test_past_time_off_names_nobody(self, close, service):
        now = timezone.now()
        BookingFactory(service=service, start_time=now - 3 * HOUR)
        assert close(now - 4 * HOUR, now - HOUR) == these()


class TestSlots:
    def test_hours_leave_a_booking_in_a_slot_alone_and_time_off_does_not(
        self, change, close, service
    ):
        slot = SlotFactory(service=service)
        booking = BookingFactory(service=service, slot=slot)
        assert change({"opening_hours": AFTERNOONS}) == these()
        assert close(TUESDAY, TUESDAY + HOUR) == these(booking)
        assert change({"opening_hours": AFTERNOONS}) == these(booking)
        assert change({"opening_hours": []}) == these(booking)


class TestUpcoming:
    @pytest.mark.parametrize(
        ("status", "named"),
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
    def test_only_those_count_that_will_take_place(self, change, close, book, status, named):
        booking = book(3, status=status)
        expected = these(booking) if named else these()
        assert change({"opening_hours": MORNINGS}) == expected
        assert close(TUESDAY, TUESDAY + DAY) == expected

    def test_a_hold_that_has_expired_counts_for_nothing(self, change, close, book):
        now = timezone.now()
        book(3, status="held", hold_expires_at=now - timedelta(seconds=1))
        live = book(4, status="held", hold_expires_at=now + HOUR)
        assert change({"opening_hours": MORNINGS}) == these(live)
        assert close(TUESDAY, TUESDAY + DAY) == these(live)

    def test_what_has_begun_counts_and_what_is_over_does_not(self, change, close, service):
        now = timezone.now()
        going_on = BookingFactory(service=service, start_time=now - HOUR / 2)
        BookingFactory(service=service, start_time=now - 2 * HOUR)
        # Open for one minute of a day, at which nothing is.
        closed = [{"weekday": (now.weekday() + 3) % 7, "opens": "00:00", "closes": "00:01"}]
        assert change({"opening_hours": closed}) == these(going_on)
        assert close(now - DAY, now + DAY) == these(going_on)

    def test_the_length_that_its_service_has_today_is_no_matter(self, change, book, service):
        booking = book(1)
        service.duration_minutes = 600
        service.save()
        assert change({"opening_hours": MORNINGS}) == these()
        assert change({"opening_hours": AFTERNOONS}) == these(booking)


class TestQueries:
    """As many for a few bookings as for many, and no rows but those that may be affected."""

    @pytest.mark.parametrize("rows", [1, 60])
    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            # The account, whose calendar it is; savepoint, calendar, change, savepoint; the answer.
            ({"name": "Chair"}, 7),
            # And its hours, and bookings.
            ({"timezone": "Europe/Paris"}, 9),
            # Also out with the hours it had, and in with the new ones.
            ({"opening_hours": MORNINGS}, 10),
            ({"timezone": "Europe/Paris", "opening_hours": MORNINGS}, 11),
        ],
    )
    def test_a_change_costs_a_fixed_number(
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

    @pytest.mark.parametrize("asked", ["change", "close"])
    def test_past_bookings_are_not_read_one_by_one(self, change, close, service, asked):
        """An index leads to those that are left: a calendar's history may be long."""
        now, user = timezone.now(), UserFactory()
        for at in (service, ServiceFactory()):
            Booking.objects.bulk_create(
                BookingFactory.build(
                    service=at, user=user, start_time=now - number * HOUR, status="completed"
                )
                for number in range(1, 1000)
            )
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE bookings_booking")
            with CaptureQueriesContext(connection) as captured:
                if asked == "change":
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


def test_a_calendar_that_is_read_says_nothing_of_it(api, calendar, change):
    change({"opening_hours": MORNINGS})
    assert "affected_bookings" not in api.get(f"/calendars/{calendar.pk}").json()
    assert "affected_bookings" not in api.get("/calendars").json()["results"][0]


def test_a_new_calendar_has_no_bookings_and_says_nothing_of_them(api, provider):
    made = api.as_(provider).post("/calendars", {"name": "Room", "opening_hours": MORNINGS})
    assert "affected_bookings" not in made.json()


def test_a_calendar_without_bookings_affects_none(api, provider):
    calendar = CalendarFactory(provider=provider)
    answer = api.as_(provider).patch(f"/calendars/{calendar.pk}", {"opening_hours": MORNINGS})
    assert answer.json()["affected_bookings"] == {"count": 0, "ids": []}
