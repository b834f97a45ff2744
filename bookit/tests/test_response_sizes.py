"""No list, search or feed of the API is larger than 30 MB, not even with very large rows.

`GET /me/export` and the downloads of the admin site can be larger.
"""

import re
from datetime import timedelta

import pytest

from accounts.tests.factories import AdminFactory, UserFactory
from bookings.availability.viewsets import MAX_TIMES
from bookings.feeds.services import MAX_ENTRIES
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.api.pagination import MAX_LIMIT
from bookit.database.metadata import MAX_KEY_LENGTH, MAX_KEYS, MAX_VALUE_LENGTH
from catalog.models import OpeningHours
from catalog.providers.models import MAX_BIOGRAPHY, Profile
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review

MOST = 30_000_000
# A character of four bytes.
WIDE = "\U0001f488"
METADATA = {
    WIDE * (MAX_KEY_LENGTH - 2) + f"{number:02}": WIDE * MAX_VALUE_LENGTH
    for number in range(MAX_KEYS)
}


@pytest.fixture
def world(db):
    """Store rows with the longest texts and metadata, and return the admin who sees all of them."""
    admin = AdminFactory(name=WIDE * 200, metadata=METADATA)
    Profile.objects.create(user=admin, biography=WIDE * MAX_BIOGRAPHY)
    calendar = CalendarFactory(name=WIDE * 200, metadata=METADATA, provider=admin)
    for number in range(100):  # The API accepts no more opening hours.
        opens = number // 7 * 90
        OpeningHours.objects.create(
            calendar=calendar, weekday=number % 7, opens=opens, closes=opens + 60
        )
    service = ServiceFactory(
        calendar=calendar,
        title=WIDE * 200,
        description=WIDE * 10_000,
        category=WIDE * 100,
        metadata=METADATA,
    )
    booking = BookingFactory(
        user=UserFactory(name=WIDE * 200, metadata=METADATA),
        service=service,
        status="completed",
        start_time=TUESDAY - timedelta(days=7),
        attendee_name=WIDE * 200,
        notes=WIDE * 2_000,
        cancellation_reason=WIDE * 500,
        metadata=METADATA,
    )
    Review.objects.create(
        booking=booking,
        calendar=calendar,
        service=service,
        user=booking.user,
        rating=5,
        comment=WIDE * 5_000,
    )
    return admin


@pytest.mark.parametrize(
    "path",
    [
        "/services",
        "/calendars",
        "/bookings?expand=service,calendar,slot,user",
        "/bookings?scope=provider&expand=service,calendar,slot,user",
        "/users",
        "/reviews",
        "/providers",
    ],
)
def test_a_page_of_the_largest_rows_is_at_most_30_mb(world, api, path):
    api = api.as_(world)
    response = api.get(path)
    rows = response.json()["results"]
    assert rows
    assert len(response.content) / len(rows) * MAX_LIMIT < MOST


@pytest.mark.django_db
def test_the_longest_list_of_free_times_is_at_most_30_mb(api):
    slot = SlotFactory(service__capacity=1000, capacity=1000)
    path = f"/services/{slot.service_id}/availability?from={slot.start_time:%Y-%m-%d}"
    # An offset is longer than the `Z` of UTC.
    content = api.get(f"{path}&tz=Asia/Tokyo").content
    [time] = re.findall(rb'{"start_time".*?}', content)
    assert b'"seats_left":1000' in time
    assert str(slot.pk).encode() in time
    assert len(time + b",") * MAX_TIMES < MOST


def test_the_longest_feed_of_full_classes_is_at_most_30_mb(world, api):
    calendar = world.calendars.get()
    course = ServiceFactory(calendar=calendar, title=WIDE * 200, mode="slots", capacity=120)
    slot = SlotFactory(service=course, start_time=TUESDAY, capacity=120)
    for seat in range(1, 121):
        BookingFactory(
            service=course, slot=slot, seat=seat, status="confirmed", attendee_name=WIDE * 50
        )
    address = api.as_(world).get(f"/calendars/{calendar.pk}/feed").json()["address_with_names"]
    [_appointment, entry] = re.findall(
        rb"BEGIN:VEVENT.*?END:VEVENT\r\n", api.get(address).content, re.DOTALL
    )
    text = entry.replace(b"\r\n ", b"").decode()  # without the breaks in long lines
    assert "120 of 120" in text
    assert text.count(WIDE * 50) == 20 + 4  # 20 names, and a title as long as four names
    assert "and 100 more" in text
    assert len(entry) * MAX_ENTRIES < MOST


def test_the_longest_feed_of_appointments_is_at_most_30_mb(world, api):
    booking = world.calendars.get().bookings.get()
    # The file of a booking contains all that an entry of a feed contains, and the organizer.
    content = api.as_(world).get(f"/bookings/{booking.pk}.ics").content
    assert len(content) * MAX_ENTRIES < MOST
