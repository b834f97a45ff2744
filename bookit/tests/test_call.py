"""A receptionist books for a customer who calls, in a real browser."""

from datetime import datetime
from time import monotonic, sleep

import pytest

from accounts.tests.factories import UserFactory, staff
from bookings.models import Booking
from bookings.tests.factories import BookingFactory
from bookit.tests.browser import needs_chromium, sign_in
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

PAGE = "/admin/phone/"
# The place, in the list of free times, of the time to choose. The first times may pass meanwhile.
CHOSEN = 30
RECEPTION = ["bookings.add_booking", "bookings.view_booking", "bookings.change_booking"]


@pytest.fixture
def service():
    return ServiceFactory(
        calendar=CalendarFactory(timezone="Europe/Lisbon"),
        title="Haircut",
        requires_confirmation=False,
    )


@pytest.fixture
def page(watched, service):
    sign_in(watched.page, staff(RECEPTION))
    watched.page.locator("#user-tools").wait_for()
    watched.page.goto(PAGE)
    yield watched.page
    watched.assert_no_errors()
    # Leaving the page releases its hold. This must not happen while the test empties the tables.
    watched.page.goto("about:blank")
    assert eventually(lambda: not Booking.objects.filter(status="held").exists())


def hold_a_time(page):
    """Choose a free time, and wait until the page says that the time is held."""
    page.locator("#phone-times:not([aria-busy]) input[name=start]").nth(CHOSEN).check(force=True)
    page.locator("#phone-hold", has_text="Held for this call:").wait_for()


def eventually(is_so):
    """Return whether a condition becomes true within five seconds.

    Polling is necessary, because the browser reports nothing about a request that it sends while it
    leaves a page.
    """
    ends = monotonic() + 5
    while not is_so():
        if monotonic() > ends:
            return False
        sleep(0.05)
    return True


def test_a_receptionist_books_with_the_keyboard_alone(page, service):
    ada = UserFactory(name="Ada Lovelace", email="ada@example.com", phone="+351 912 345 678")
    BookingFactory(user=ada)
    press = page.keyboard.press

    page.keyboard.type("lovel", delay=20)
    page.get_by_role("option", name="Ada Lovelace").wait_for()
    press("ArrowDown")
    press("Enter")
    assert page.locator("#id_email").input_value() == "ada@example.com"
    for _ in range(12):
        if page.evaluate("document.activeElement.name") == "start":
            break
        press("Tab")
    press("Space")
    press("ArrowRight")
    page.locator("#phone-hold", has_text="Held for this call:").wait_for()
    assert Booking.objects.get(service=service).status == "held"
    press("Enter")

    page.get_by_text("Booked: Ada Lovelace, Haircut").wait_for()
    booking = Booking.objects.get(service=service)
    assert (booking.status, booking.user) == ("confirmed", ada)


def test_a_time_of_other_days_replaces_the_hold_and_leaving_the_page_releases_it(page, service):
    hold_a_time(page)
    page.get_by_role("button", name="Later").click()
    page.get_by_text("Choose a service and a time.").wait_for()
    hold_a_time(page)
    assert Booking.objects.filter(status="held").count() == 1

    page.goto("/admin/")

    assert eventually(lambda: not Booking.objects.filter(status="held").exists())
    assert {*Booking.objects.values_list("status", flat=True)} == {"cancelled"}


def test_while_new_times_load_no_old_time_can_be_chosen_with_the_keyboard(page, service):
    requests = []
    page.route("**/phone/times/**", lambda request: requests.append(request))
    page.locator("input[name=start]").nth(CHOSEN).focus()
    page.get_by_label("Service", exact=True).select_option(str(service.pk))
    page.locator("#phone-times[aria-busy]").wait_for()

    page.keyboard.press("ArrowRight")

    assert page.locator("input[name=start]:checked").count() == 0
    page.get_by_text("Choose a service and a time.").wait_for()
    requests[0].continue_()
    page.locator("#phone-times:not([aria-busy])").wait_for()
    assert page.evaluate("document.activeElement.name") == "start"
    assert not Booking.objects.exists()


def test_if_a_time_is_taken_during_the_call_the_page_offers_other_times(page, service):
    start = page.locator("input[name=start]").nth(CHOSEN)
    taken = datetime.fromisoformat(start.get_attribute("value"))
    BookingFactory(service=service, calendar=service.calendar, start_time=taken, status="confirmed")

    start.check(force=True)

    page.locator("#phone-error-start", has_text="This time is already booked.").wait_for()
    nearest = page.get_by_role("group", name="The nearest free times")
    assert nearest.get_by_role("radio").count() == 3
    nearest.get_by_role("radio").first.check(force=True)
    page.locator("#phone-hold", has_text="Held for this call:").wait_for()
    assert Booking.objects.get(status="held").start_time != taken


def test_the_page_fits_on_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    hold_a_time(page)
    book = page.get_by_role("button", name="Book", exact=True).bounding_box()
    assert book["x"] + book["width"] <= 390
    assert book["y"] + book["height"] <= 844


def test_a_page_to_which_the_browser_goes_back_is_the_page_of_a_new_call(page, service):
    ServiceFactory(title="Shave")  # If there is only one service, the page chooses it.
    page.goto(PAGE)
    page.get_by_label("Service", exact=True).select_option(str(service.pk))
    page.get_by_label("Notes").fill("Prefers the window seat")
    hold_a_time(page)
    page.goto("/admin/")

    page.go_back()

    page.locator("#phone-times", has_text="Choose a service to see its free times.").wait_for()
    # The browser restores fields at the end of the event `load` at the latest.
    page.wait_for_load_state("load")
    assert page.get_by_label("Service", exact=True).input_value() == ""
    assert page.get_by_label("Notes").input_value() == ""
