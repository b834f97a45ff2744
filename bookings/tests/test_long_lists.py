"""Long lists of bookings are read through an index, and contain exactly the right bookings."""

from datetime import timedelta

import pytest
from django.db import connection

from accounts.tests.factories import ProviderFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.tests.plans import planning_without
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)


@pytest.fixture
def finished():
    """Store finished bookings, and let PostgreSQL collect statistics about them."""
    service, user = ServiceFactory(), UserFactory()
    Booking.objects.bulk_create(
        BookingFactory.build(
            service=service, user=user, start_time=TUESDAY - n * DAY, status="completed"
        )
        for n in range(300)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE bookings_booking")


def test_ending_after_returns_long_bookings_that_began_days_before():
    days = ServiceFactory(duration_minutes=5 * 24 * 60)
    ended, long = (BookingFactory(service=days, start_time=TUESDAY - n * DAY) for n in (9, 4))
    short = BookingFactory(start_time=TUESDAY)
    BookingFactory(start_time=TUESDAY - DAY)
    assert [*Booking.objects.ending_after(TUESDAY)] == [long, short]
    assert [*Booking.objects.ending_after(TUESDAY + 2 * DAY)] == []
    assert [*Booking.objects.ending_after(TUESDAY - 5 * DAY)][:2] == [ended, long]


def test_ending_after_returns_a_24_hour_booking_until_the_booking_ends():
    """This is the longest booking that does not count as long (`bookings.models.IS_LONG`)."""
    service = ServiceFactory(duration_minutes=24 * 60)
    booking = BookingFactory(service=service, start_time=TUESDAY)
    almost_over = TUESDAY + DAY - timedelta(seconds=1)
    assert [*Booking.objects.ending_after(almost_over)] == [booking]
    assert [*Booking.objects.ending_after(TUESDAY + DAY)] == []


@pytest.mark.usefixtures("finished")
def test_long_bookings_are_found_through_their_own_index():
    rows = Booking.objects.ending_after(TUESDAY)
    with planning_without("seqscan"):
        assert "booking_long" in rows.explain()


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("statuses", "index"),
    [
        (["held"], "booking_holds_by_end"),
        (["pending"], "booking_unfinished"),
        (["pending", "confirmed"], "booking_unfinished"),
    ],
)
def test_bookings_of_a_status_are_found_through_a_partial_index(statuses, index):
    rows = Booking.objects.with_status(*statuses)
    rows = rows.order_by("hold_expires_at") if statuses == ["held"] else rows.order_by("start_time")
    with planning_without("seqscan", "bitmapscan", "sort"):
        assert index in rows.explain()


@pytest.mark.parametrize("status", Booking.Status.values)
def test_with_status_returns_exactly_the_bookings_of_each_status(status):
    holds = {"hold_expires_at": TUESDAY} if status == "held" else {}
    booking = BookingFactory(status=status, **holds)
    other = "pending" if status != "pending" else "confirmed"
    BookingFactory(status=other, start_time=TUESDAY + DAY)
    assert [*Booking.objects.with_status(status)] == [booking]
    assert Booking.objects.with_status(status, other).count() == 2


def test_on_calendars_finds_a_providers_bookings_with_a_condition_that_is_written_twice():
    provider = ProviderFactory()
    ours = BookingFactory(service=ServiceFactory(calendar=CalendarFactory(provider=provider)))
    BookingFactory()
    rows = Booking.objects.on_calendars(Calendar.objects.filter(provider=provider))
    assert [*rows] == [ours]
    # The condition is written twice, so PostgreSQL expects few rows; see `on_calendars`.
    assert str(rows.query).count("= ANY(ARRAY(") == 2
