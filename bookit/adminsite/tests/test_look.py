"""The admin site fits a laptop and a phone, in a real browser."""

import pytest
from django.contrib import admin
from django.utils import timezone

from bookings.tests.factories import BookingFactory
from bookit.tests.browser import needs_chromium, sign_in
from bookit.tests.conftest import chromium, watched  # noqa: F401 - fixtures

pytestmark = [needs_chromium, pytest.mark.django_db(transaction=True)]

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
# The width of what is cut off, or that can be reached only by scrolling to the right.
HIDDEN = """() => Math.max(...[document.documentElement, ...document.querySelectorAll(
    '.main, .content, #changelist, .results, .cards, .card')]
    .map(each => each.scrollWidth - each.clientWidth))"""


def test_nothing_is_cut_off_on_a_laptop_or_a_phone(watched, boss, world):  # noqa: F811
    BookingFactory(start_time=timezone.now().replace(microsecond=0), attendee_name="Ada Lovelace")
    page = watched.page
    sign_in(page, boss)
    page.get_by_role("heading", name="Bookings today").wait_for()
    pages = ["/admin/"]
    pages += [
        f"/admin/{each._meta.app_label}/{each._meta.model_name}/" for each in admin.site._registry
    ]
    hidden = {}
    for path in pages:
        page.set_viewport_size(LAPTOP)
        page.goto(path, wait_until="load")
        for size in (LAPTOP, PHONE):
            page.set_viewport_size(size)
            hidden[path, size["width"]] = page.evaluate(HIDDEN)
    assert {where: width for where, width in hidden.items() if width > 1} == {}
    watched.assert_no_errors()


def test_a_row_is_a_card_on_a_phone_and_a_filter_closes_on_escape(watched, boss, world):  # noqa: F811
    page = watched.page
    sign_in(page, boss)
    page.set_viewport_size(PHONE)
    page.goto("/admin/bookings/booking/")
    cell = page.locator("#result_list td.field-service").first
    label = cell.evaluate("each => getComputedStyle(each, '::before').content")
    assert label == '"Service"'
    assert cell.bounding_box()["width"] > 300
    summary = page.locator("#changelist-filter summary", has_text="Status").first
    summary.click()
    confirmed = page.locator("#changelist-filter .filter[open] a", has_text="Confirmed")
    confirmed.wait_for()
    page.keyboard.press("Escape")
    assert not confirmed.is_visible()
    summary.click()
    confirmed.click()
    page.get_by_text("Status: Confirmed").wait_for()
    watched.assert_no_errors()


def test_a_booking_is_confirmed_on_the_home_page(watched, boss):  # noqa: F811
    booking = BookingFactory(attendee_name="Ada Lovelace")
    page = watched.page
    sign_in(page, boss)
    page.get_by_role("button", name="Confirm Ada Lovelace").click()
    page.get_by_text("Nothing waits.").wait_for()
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    watched.assert_no_errors()
