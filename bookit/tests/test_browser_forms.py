"""Forms of the admin site in a real browser: opening hours, time off, publishing, services."""

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts.tests.factories import AdminFactory
from bookings.models import Slot
from bookings.tests.factories import BookingFactory
from bookit.tests.browser import needs_chromium, sign_in
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def page(watched):
    sign_in(watched.page, AdminFactory())
    watched.page.get_by_role("link", name="Calendars").first.wait_for()
    yield watched.page
    watched.assert_no_errors()


def test_an_admin_edits_the_week_and_adds_time_off(page):
    calendar = CalendarFactory(timezone="Europe/Lisbon")
    OpeningHours.objects.create(calendar=calendar, weekday=0, opens=540, closes=720)
    OpeningHours.objects.create(calendar=calendar, weekday=6, opens=600, closes=660)
    BookingFactory(
        service=ServiceFactory(calendar=calendar), start_time=datetime(2999, 1, 1, 10, tzinfo=UTC)
    )
    page.goto(f"/admin/catalog/calendar/{calendar.pk}/change/")

    def day(name):
        return page.get_by_role("group", name=name, exact=True)

    assert day("Tuesday").get_by_text("Closed").is_visible()
    day("Monday").get_by_role("button", name="Add hours").click()
    page.keyboard.type("14")
    page.keyboard.press("Tab")
    page.keyboard.type("6pm")
    day("Monday").get_by_text("Copy to").click()
    day("Monday").get_by_role("checkbox", name="Friday").uncheck()
    day("Monday").get_by_role("button", name="Copy", exact=True).click()
    page.get_by_text("Copied to: Tuesday, Wednesday, Thursday.").wait_for()
    day("Sunday").get_by_role("button", name="Remove").click()
    assert day("Sunday").get_by_text("Closed").is_visible()

    page.get_by_role("button", name="Add time off").click()
    page.get_by_label("Date of the start").fill("2999-01-01")
    page.get_by_label("Date of the end").fill("2999-01-02")
    page.get_by_text("1 booking is in this time:").wait_for()
    page.get_by_label("Close the calendar anyway").check()
    page.get_by_role("button", name="Save and continue editing").click()
    page.get_by_text("was changed successfully").wait_for()

    spans = [*calendar.hours.values_list("weekday", "opens", "closes")]
    assert spans == [(day, *span) for day in range(4) for span in ((540, 720), (840, 1080))]
    # The form includes the day of the end.
    assert calendar.time_off.get().end_time == datetime(2999, 1, 3, tzinfo=UTC)


@pytest.fixture
def monday():
    """Return a Monday in the near future, because the server uses the real time."""
    today = timezone.localdate()
    return today + timedelta(days=14 - today.weekday())


def test_a_class_is_previewed_and_published(page, monday):
    service = ServiceFactory(mode="slots")
    page.goto("/admin/bookings/slot/add/")
    page.get_by_role("combobox", name="Service").click()
    page.locator(".select2-results__option", has_text=service.title).click()
    page.get_by_label("First day").fill(monday.isoformat())
    page.get_by_label("Starts at").fill("18:00")
    assert not page.get_by_label("Ends after").is_visible()
    page.get_by_label("Repeats").select_option("weekly")
    page.get_by_label("Ends after").fill("3")
    page.get_by_text("Every Monday at 18:00, three times").wait_for()
    page.get_by_role("button", name="Publish").click()
    page.get_by_text("3 slots were published.").wait_for()
    assert Slot.objects.count() == 3


def test_the_preview_appears_if_the_service_is_chosen_after_the_time(page, monday):
    service = ServiceFactory(mode="slots")
    page.goto("/admin/bookings/slot/add/")
    page.get_by_label("First day").fill(monday.isoformat())
    page.get_by_label("Starts at").fill("18:00")
    page.get_by_role("combobox", name="Service").click()
    page.locator(".select2-results__option", has_text=service.title).click()
    page.get_by_text(f"{monday:%a} {monday.day} {monday:%b %Y}").wait_for()


def test_a_preview_that_fails_to_load_leaves_the_previous_preview_visible(page):
    service = ServiceFactory(calendar=CalendarFactory(), duration_minutes=60)
    page.goto(f"/admin/catalog/service/{service.pk}/change/")
    offers = page.get_by_role("region", name="What customers are offered")
    offers.get_by_text("more").first.wait_for()
    page.context.clear_cookies()  # as if the user signed out in another tab
    with page.expect_response("**/login/**"):
        page.get_by_label("Duration").press("ArrowUp")
    page.locator("[data-preview]:not([aria-busy])").wait_for()
    assert offers.get_by_text("more").first.is_visible()


def test_a_service_shows_its_new_offer_before_it_is_saved(page):
    service = ServiceFactory(calendar=CalendarFactory(), duration_minutes=60)
    page.goto(f"/admin/catalog/service/{service.pk}/change/")
    offers = page.get_by_role("region", name="What customers are offered")
    offers.get_by_text("more").first.wait_for()
    page.get_by_label("Customers can book this service").uncheck()
    offers.get_by_text("Nothing, because the service is not active.").wait_for()
    page.get_by_label("Customers can book this service").check()
    page.get_by_label("Duration").fill("0")
    offers.get_by_text("Correct the form").wait_for()


def test_the_form_for_publishing_is_empty_if_the_browser_goes_back_to_it(page, monday):
    page.goto("/admin/bookings/slot/add/")
    page.get_by_label("First day").fill(monday.isoformat())
    page.get_by_label("Repeats").select_option("weekly")
    page.goto("/admin/")

    page.go_back()

    page.wait_for_load_state("load")
    assert page.get_by_label("First day").input_value() == ""
    # The fields of the repetition are shown exactly if there is one.
    assert page.get_by_label("Repeats").input_value() == "once"
    assert not page.get_by_label("Ends after").is_visible()
