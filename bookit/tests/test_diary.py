"""The diary in a real browser: bookings are moved with the mouse and with the keyboard."""

from datetime import UTC, datetime, timedelta

import pytest
from django.urls import reverse

from accounts.tests.factories import AdminFactory
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.tests.browser import needs_chromium, sign_in
from catalog.models import TimeOff
from catalog.tests.factories import ServiceFactory

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def service():
    return ServiceFactory(title="Haircut", calendar__name="Chair 1")


@pytest.fixture
def diary(watched, service):
    """Return a page that shows the week of TUESDAY."""
    page = watched.page
    sign_in(page, AdminFactory(name="Boss"))
    page.get_by_role("link", name="Bookings", exact=True).first.wait_for()

    def show():
        query = f"calendar={service.calendar_id}&date=2999-01-01&view=week"
        page.goto(f"{reverse('admin:bookings_diary')}?{query}")
        page.locator("#diary[aria-busy=false]").wait_for()
        return page

    return show


def drag(page, entry, *, hours):
    """Drag an entry down the page. Half an hour is 28 pixels high."""
    entry.scroll_into_view_if_needed()
    box = entry.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 8
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x, y + 20)
    page.mouse.move(x, y + hours * 56, steps=3)
    page.mouse.up()


def test_a_booking_is_dragged_and_a_conflict_offers_other_times(diary, watched, service):
    taken = BookingFactory(
        service=service, attendee_name="Ada Lovelace", start_time=TUESDAY + timedelta(hours=2)
    )
    booking = BookingFactory(service=service, attendee_name="Grace Hopper", status="confirmed")
    page = diary()
    entry = page.get_by_role("button", name="Grace Hopper")
    dialog = page.get_by_role("dialog")

    drag(page, entry, hours=3)
    dialog.get_by_role("button", name="Leave it").click()
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY

    drag(page, entry, hours=3)
    dialog.get_by_role("button", name="Move").click()
    page.get_by_text("Moved to Tue 1 Jan 2999, 13:00.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY + timedelta(hours=3)
    watched.assert_no_errors()

    drag(page, entry, hours=-1)
    dialog.get_by_role("button", name="Move").click()
    dialog.get_by_text("This time is already booked.").wait_for()
    dialog.get_by_role("button", name="Tue 1 Jan 2999, 11:00").click()
    page.get_by_text("Moved to Tue 1 Jan 2999, 11:00.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY + timedelta(hours=1)
    taken.refresh_from_db()
    assert taken.start_time == TUESDAY + timedelta(hours=2)
    # The only errors are the refused move itself.
    assert all("/move/" in text or "409" in text for text in watched.errors), watched.errors


def test_the_keyboard_opens_and_moves_a_booking_and_closes_a_time(diary, watched, service):
    booking = BookingFactory(service=service, attendee_name="Grace Hopper")
    page = diary()

    page.get_by_role("button", name="Grace Hopper").press("Enter")
    page.get_by_role("dialog").get_by_text("Haircut · Pending · Chair 1").wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Move").press("Enter")
    page.get_by_label("New time (UTC)").fill("2999-01-02T08:30")
    page.get_by_label("New time (UTC)").press("Enter")
    page.get_by_text("Moved to Wed 2 Jan 2999, 08:30.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 1, 2, 8, 30, tzinfo=UTC)

    page.get_by_role("button", name="Close a time").press("Enter")
    page.get_by_label("Reason").fill("Dentist")
    page.get_by_role("button", name="Close this time").press("Enter")
    page.get_by_text("Closed.", exact=True).wait_for()
    assert TimeOff.objects.get().reason == "Dentist"
    page.get_by_role("button", name="Open again").first.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Open again").press("Enter")
    page.get_by_text("This time is open again.").wait_for()
    assert not TimeOff.objects.exists()
    watched.assert_no_errors()


def test_free_time_is_booked_by_dragging_over_it(diary, watched, service):
    page = diary()
    tuesday = page.locator(".ec-body .ec-day").nth(1).bounding_box()
    x, ten = tuesday["x"] + 20, tuesday["y"] + 10 * 56

    page.mouse.move(x, ten + 4)
    page.mouse.down()
    page.mouse.move(x, ten + 50, steps=3)
    page.mouse.up()
    page.get_by_role("dialog", name="Chair 1").get_by_role("button", name="Book").click()
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("Name").press("Enter")
    page.get_by_text("Booked for Tue 1 Jan 2999, 10:00.").wait_for()
    page.get_by_role("button", name="Ada Lovelace").wait_for()
    assert Booking.objects.get().start_time == TUESDAY
    watched.assert_no_errors()


def test_an_open_diary_shows_what_others_book(diary, watched, service):
    page = diary()
    page.get_by_text("No bookings in these days.").wait_for()
    BookingFactory(service=service, attendee_name="Ada Lovelace")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_role("button", name="Ada Lovelace").wait_for()
    watched.assert_no_errors()
