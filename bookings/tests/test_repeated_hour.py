"""Pages of the admin site show which of two equal times they mean when the clocks go back."""

import re
from datetime import UTC, datetime

import pytest

from accounts.tests.factories import AdminFactory
from bookings.tests.factories import BookingFactory, SlotFactory
from bookit.database.versions import version_of
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

# In Berlin, 02:30 occurs twice on this day: as CEST at 00:30 UTC, and as CET an hour later.
FIRST, SECOND = (datetime(2999, 10, 27, hour, 30, tzinfo=UTC) for hour in (0, 1))


@pytest.fixture
def site(client):
    client.force_login(AdminFactory(timezone="Europe/Berlin"))
    return client


@pytest.fixture
def calendar():
    return CalendarFactory(timezone="Europe/Berlin")


def test_the_page_for_booking_during_a_call(site, calendar):
    service = ServiceFactory(calendar=calendar, duration_minutes=30)
    query = {"service": str(service.pk), "day": "2999-10-27"}
    text = site.get("/admin/phone/times/", query).content.decode()
    labels = [each.strip() for each in re.findall(r"<span>(02:30[^<]*)", text)]
    # The third time is on the next day, on which 02:30 occurs once.
    assert labels[:3] == ["02:30 CEST", "02:30 CET", "02:30"]
    # The script reads these words to say which time is held.
    assert re.findall(r'data-words="[^"]*, (02:30[^"]*)"', text)[:2] == [
        "02:30 CEST–02:00 CET",  # noqa: RUF001
        "02:30 CET–03:00",  # noqa: RUF001
    ]


def test_the_list_and_the_page_of_slots(site, calendar):
    service = ServiceFactory(calendar=calendar, mode="slots", duration_minutes=30)
    for start, words in (FIRST, "02:30 CEST–02:00 CET"), (SECOND, "02:30 CET–03:00"):  # noqa: RUF001
        slot = SlotFactory(service=service, start_time=start)
        for address in ("/admin/bookings/slot/", f"/admin/bookings/slot/{slot.pk}/change/"):
            assert words in site.get(address).content.decode()


def test_day_sheets(site, calendar):
    BookingFactory(service=ServiceFactory(calendar=calendar, duration_minutes=30), start_time=FIRST)
    text = site.get(f"/admin/day-sheets/{calendar.pk}/2999-10-27/").content.decode()
    assert "02:30 CEST - 02:00 CET" in text


def test_messages_of_the_diary(site, calendar):
    service = ServiceFactory(calendar=calendar, duration_minutes=30)
    booking = BookingFactory(service=service, start_time=SECOND)
    version = version_of(booking.updated_at)
    form = {"booking": str(booking.pk), "version": version, "zone": "Europe/Berlin"}
    message = site.post("/admin/diary/confirm/", form).json()["message"]
    assert message.endswith(", 02:30 CET.")
