"""The diary in a real browser: bookings are moved with the mouse, a finger and the keyboard."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import AdminFactory
from bookings import services
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.tests.browser import needs_chromium, sign_in
from catalog.models import TimeOff
from catalog.tests.factories import ServiceFactory, TimeOffFactory

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

# The height of an hour, in pixels.
HOUR = 56


@pytest.fixture
def service():
    return ServiceFactory(title="Haircut", calendar__name="Chair 1")


@pytest.fixture
def diary(watched, service):
    """Return a function that shows a week; by default, of `service`'s calendar around TUESDAY."""
    page = watched.page
    sign_in(page, AdminFactory(name="Boss"))
    page.get_by_role("link", name="Bookings", exact=True).first.wait_for()

    def show(*calendars, date="2999-01-01"):
        shown = [each.pk for each in calendars] or [service.calendar_id]
        query = urlencode({"calendar": shown, "date": date, "view": "week"}, doseq=True)
        page.goto(f"{reverse('admin:bookings_diary')}?{query}")
        page.locator("#diary[aria-busy=false]").wait_for()
        return page

    return show


def drag(page, entry, *, hours=0, days=0):
    """Drag an entry down by `hours`, and to the right by `days`."""
    # `hover` also scrolls to the entry, and tries again if the diary redraws the entry meanwhile.
    # `scroll_into_view_if_needed` would fail then. An entry that is being redrawn has no box.
    entry.hover(position={"x": 20, "y": 8})
    box = next(box for box in (entry.bounding_box() for _ in range(100)) if box)
    x, y = box["x"] + 20, box["y"] + 8
    page.mouse.down()
    page.mouse.move(x, y + 20)  # The drag begins after a few pixels.
    page.mouse.move(x + days * width_of_day(page), y + hours * HOUR, steps=3)
    page.mouse.up()


def confirm_move(page, dialog, text):
    """Confirm a move; wait for its message, and until the diary has fetched its entries again."""
    with page.expect_response(lambda response: "/diary/sheet/" in response.url):
        dialog.get_by_role("button", name="Move").click()
        page.get_by_text(text).wait_for()


def width_of_day(page):
    return page.locator(".ec-body .ec-day").first.bounding_box()["width"]


def test_a_booking_is_dragged_and_a_conflict_offers_other_times(diary, watched, service):
    taken = BookingFactory(
        service=service, attendee_name="Ada Lovelace", start_time=TUESDAY + timedelta(hours=2)
    )
    booking = BookingFactory(service=service, attendee_name="Grace Hopper", status="confirmed")
    page = diary()
    entry = page.get_by_role("button", name="Grace Hopper")
    dialog = page.get_by_role("dialog")
    top = entry.bounding_box()["y"]

    drag(page, entry, hours=3)
    dialog.get_by_text("Tue 1 Jan 2999, 10:00\u201311:00").wait_for()
    assert entry.bounding_box()["y"] == pytest.approx(top + 3 * HOUR, abs=2)
    dialog.get_by_role("button", name="Leave it").click()
    page.wait_for_function(
        "([name, y]) => Math.abs(document.querySelector(name).getBoundingClientRect().y - y) < 2",
        arg=[".diary-confirmed", top],
    )
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY

    drag(page, entry, hours=3)
    confirm_move(page, dialog, "Moved to Tue 1 Jan 2999, 13:00.")
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
    assert_only_refused_moves(watched)


def assert_only_refused_moves(watched):
    assert watched.outside == []
    assert all("/move/" in text or "409" in text for text in watched.errors), watched.errors


def test_a_booking_that_somebody_else_moves_meanwhile_is_not_moved_by_mistake(
    diary, watched, service
):
    booking = BookingFactory(service=service, attendee_name="Grace Hopper")
    page = diary()
    dialog = page.get_by_role("dialog")
    Booking.objects.update(
        start_time=TUESDAY + timedelta(hours=4),
        end_time=TUESDAY + timedelta(hours=5),
        blocked=(TUESDAY + timedelta(hours=4), TUESDAY + timedelta(hours=5)),
    )

    drag(page, page.get_by_role("button", name="Grace Hopper"), hours=1)
    dialog.get_by_role("button", name="Move").click()
    dialog.get_by_text("Now it is on Tue 1 Jan 2999, 14:00 (Pending).").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY + timedelta(hours=4)

    dialog.get_by_role("button", name="Move").click()
    page.get_by_text("Moved to Tue 1 Jan 2999, 11:00.").wait_for()
    assert_only_refused_moves(watched)


def test_a_drag_across_a_change_of_clocks_keeps_the_time_of_day(diary, watched):
    service = ServiceFactory(calendar__timezone="Europe/Lisbon")
    # On 2999-03-31, the clocks of Lisbon go from 01:00 to 02:00.
    booking = BookingFactory(
        service=service,
        attendee_name="Grace Hopper",
        start_time=datetime(2999, 3, 30, 10, tzinfo=UTC),
    )
    page = diary(service.calendar, date="2999-03-30")

    drag(page, page.get_by_role("button", name="Grace Hopper"), days=1)
    page.get_by_role("dialog").get_by_role("button", name="Move").click()
    page.get_by_text("Moved to Sun 31 Mar 2999, 10:00.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 3, 31, 9, tzinfo=UTC)
    watched.assert_no_errors()


def test_a_booking_is_dragged_with_a_finger_after_a_long_press(diary, watched, service):
    booking = BookingFactory(service=service, attendee_name="Grace Hopper")
    page = diary()
    entry = page.get_by_role("button", name="Grace Hopper")
    entry.scroll_into_view_if_needed()
    box = entry.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 8
    browser = page.context.new_cdp_session(page)
    browser.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def touch(kind, *points):
        browser.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [*points]})

    touch("touchStart", {"x": x, "y": y})
    page.locator(".ec-preview").wait_for()
    for hours in (1, 2):
        touch("touchMove", {"x": x, "y": y + hours * HOUR})
    touch("touchEnd")
    page.get_by_role("dialog").get_by_role("button", name="Move").click()
    page.get_by_text("Moved to Tue 1 Jan 2999, 12:00.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY + timedelta(hours=2)
    watched.assert_no_errors()


def test_a_booking_that_somebody_has_moved_is_not_confirmed_unseen(diary, service):
    booking = BookingFactory(service=service, attendee_name="Grace Hopper")
    page = diary()
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="Grace Hopper").click()
    services.reschedule_booking(
        booking_id=booking.pk,
        actor=AdminFactory(),
        start_time=TUESDAY + timedelta(hours=3),
        at=timezone.now(),
    )

    dialog.get_by_role("button", name="Confirm").click()

    dialog.get_by_text("Now it is on Tue 1 Jan 2999, 13:00 (Pending).").wait_for()
    dialog.get_by_text("Tue 1 Jan 2999, 13:00\u201314:00 (UTC)").wait_for()
    assert not dialog.get_by_role("button", name="Confirm").is_visible()
    assert not dialog.get_by_role("button", name="Move").is_visible()
    booking.refresh_from_db()
    assert booking.status == "pending"
    dialog.get_by_role("button", name="Back").click()
    page.get_by_role("button", name=re.compile("13:00 ?\u201314:00 Grace Hopper")).click()
    dialog.get_by_role("button", name="Confirm").click()
    page.get_by_text("Confirmed for Tue 1 Jan 2999, 13:00.").wait_for()


def test_the_keyboard_opens_confirms_and_moves_a_booking_and_closes_a_time(diary, watched, service):
    booking = BookingFactory(service=service, attendee_name="Grace Hopper")
    page = diary()
    dialog = page.get_by_role("dialog")

    page.get_by_role("button", name="Grace Hopper").press("Enter")
    dialog.get_by_text("Haircut \u00b7 Chair 1").wait_for()
    dialog.get_by_role("button", name="Confirm").press("Enter")
    page.get_by_text("Confirmed for Tue 1 Jan 2999, 10:00.").wait_for()
    name = re.compile("Confirmed, Tue 1 Jan 2999 10:00 ?\u201311:00 Grace Hopper")
    page.get_by_role("button", name=name).press("Enter")
    assert not dialog.get_by_role("button", name="Confirm").is_visible()
    dialog.get_by_role("button", name="Move").press("Enter")
    page.get_by_label("New time (UTC)").fill("2999-01-02T08:30")
    page.get_by_label("New time (UTC)").press("Enter")
    page.get_by_text("Moved to Wed 2 Jan 2999, 08:30.").wait_for()
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 1, 2, 8, 30, tzinfo=UTC)
    assert booking.status == "confirmed"

    page.get_by_role("button", name="Close a time").press("Enter")
    page.get_by_label("Reason").fill("Dentist")
    page.get_by_role("button", name="Close this time").press("Enter")
    page.get_by_text("Closed.", exact=True).wait_for()
    assert TimeOff.objects.get().reason == "Dentist"
    page.get_by_role("button", name="Open again").first.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Open again").press("Enter")
    page.get_by_text("The time off was deleted.").wait_for()
    assert not TimeOff.objects.exists()
    page.get_by_role("button", name="Today").press("m")
    page.get_by_role("heading", name="January 2999").wait_for()
    watched.assert_no_errors()


def test_free_time_is_booked_by_dragging_over_it(diary, watched, service):
    page = diary()
    tuesday = page.locator(".ec-body .ec-day").nth(1).bounding_box()
    x, ten = tuesday["x"] + 20, tuesday["y"] + 10 * HOUR

    page.mouse.move(x, ten + 4)
    page.mouse.down()
    page.mouse.move(x, ten + 50, steps=3)
    page.mouse.up()
    page.get_by_role("dialog", name="Chair 1").get_by_role("link", name="Book: Haircut").click()
    chosen = page.locator("input[name=start]:checked")
    assert chosen.get_attribute("value") == "2999-01-01T10:00:00Z"
    page.get_by_label("Name", exact=True).fill("Ada Lovelace")
    page.get_by_label("Phone number").fill("+351 21 000 00 00")
    page.get_by_role("button", name="Book", exact=True).click()
    page.get_by_text("Booked: Ada Lovelace, Haircut").wait_for()
    page.get_by_role("button", name="Ada Lovelace").wait_for()
    assert Booking.objects.get().start_time == TUESDAY
    watched.assert_no_errors()


def test_an_open_diary_shows_what_others_book(diary, watched, service):
    page = diary()
    page.get_by_text("No bookings on these days.").wait_for()
    BookingFactory(service=service, attendee_name="Ada Lovelace")
    # The diary fetches its entries at intervals, and when the user comes back to the page.
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.get_by_role("button", name="Ada Lovelace").wait_for()
    watched.assert_no_errors()


def test_every_view_fits_wide_and_narrow_windows(diary, watched, service):
    """EventCalendar has separate code for each view, and for calendars side by side."""
    calendars = [service.calendar]
    for number in range(3):
        booking = BookingFactory(
            attendee_name=f"Customer {number}", service__calendar__name="A calendar " * 5
        )
        TimeOffFactory(calendar=booking.calendar, start_time=TUESDAY + timedelta(days=1))
        calendars.append(booking.calendar)
    page = diary(*calendars)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        for count in (1, 2, 4):
            diary(*calendars[-count:])
            for view in ("Day", "Week", "Month", "List"):
                page.get_by_role("button", name=view, exact=True).click()
                page.locator("#diary[aria-busy=false]").wait_for()
                page.get_by_role("button", name="Customer 2").first.wait_for()
                seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert seen[0] <= seen[1], (width, count, view)
    watched.assert_no_errors()


def test_a_diary_to_which_the_browser_goes_back_keeps_its_calendars(diary, service):
    other = ServiceFactory(calendar__name="Chair 2").calendar
    page = diary(service.calendar)
    choice = page.locator(".diary-choice")
    choice.locator("summary").click()
    page.get_by_role("checkbox", name="Chair 1").uncheck()
    page.get_by_role("checkbox", name="Chair 2").check()
    with page.expect_navigation():
        choice.get_by_role("button", name="Show").click()
    page.locator("#diary[aria-busy=false]").wait_for()

    page.go_back()

    page.locator("#diary[aria-busy=false]").wait_for()
    page.locator("[data-go=next]").click()
    page.locator("#diary-title", has_text="Jan 2999").wait_for()
    assert f"calendar={service.calendar_id}" in page.url
    assert f"calendar={other.pk}" not in page.url
