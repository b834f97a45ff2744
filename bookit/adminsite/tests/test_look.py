"""In a real browser, the admin site fits different screens, and filters and buttons work."""

import re
from functools import lru_cache
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles import finders
from django.urls import reverse
from django.utils import timezone

from bookings.tests.factories import AttemptFactory, BookingFactory, DeliveryFactory, SlotFactory
from bookit.adminsite.links import list_of
from bookit.adminsite.tests.addresses import url_of
from bookit.tests.browser import needs_chromium, sign_in
from bookit.tests.conftest import chromium, watched  # noqa: F401 - fixtures
from catalog.tests.factories import CalendarFactory, ServiceFactory

LAPTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}
# A script that returns the largest number of pixels by which the content of a box is wider than the
# box. Content that is too wide is cut off, or people have to scroll sideways.
HIDDEN = """() => Math.max(...[document.documentElement, ...document.querySelectorAll(
    '.main, .content, #changelist, .results, .cards, .card')]
    .map(each => each.scrollWidth - each.clientWidth))"""
# A script that returns by how many pixels the text in an empty field is too long for the field.
TOO_LONG = """field => {
    const style = getComputedStyle(field);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `${style.fontSize} ${style.fontFamily}`;
    const padding = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
    return pen.measureText(field.placeholder).width - (field.clientWidth - padding);
}"""
LONG = "Maximiliana Wolfeschlegelsteinhausenbergerdorff"
STYLE = re.compile(rf'<link[^>]* href="{settings.STATIC_URL}([^"]+\.css)"[^>]*>')
SCRIPT = re.compile(r"<script[^>]*></script>")

pytestmark = needs_chromium


@lru_cache
def styles(name):
    return f"<style>{Path(finders.find(name)).read_text()}</style>"


def show(page, response):
    """Show a response of Django's test client in the browser, with its styles, without its scripts.

    This takes a tenth of the time that loading the page from a server takes.
    """
    assert response.status_code == 200
    html = STYLE.sub(lambda found: styles(found[1]), response.content.decode())
    assert styles("bookit/admin.css") in html
    # The class `shifted` shows the menu at the side. A script would set it.
    html = SCRIPT.sub("", html).replace('<div class="main"', '<div class="main shifted"')
    page.set_content(html)


@pytest.fixture
def page(chromium):  # noqa: F811
    context = chromium.new_context(viewport=LAPTOP)
    yield context.new_page()
    context.close()


@pytest.mark.django_db
def test_the_home_page_and_all_lists_fit_a_laptop_and_a_phone(page, site, boss, world):
    boss.name = LONG
    boss.email = f"{LONG.replace(' ', '.')}@example.com".lower()
    boss.save()
    BookingFactory(start_time=timezone.now().replace(microsecond=0), attendee_name=LONG)
    pages = [reverse("admin:index")]
    pages += [list_of(each) for each in admin.site._registry]
    hidden = {}
    for path in pages:
        show(page, site.get(path))
        for size in (LAPTOP, PHONE):
            page.set_viewport_size(size)
            hidden[path, size["width"]] = page.evaluate(HIDDEN)
    # Browsers round widths, so a difference of one pixel means nothing.
    assert {where: width for where, width in hidden.items() if width > 1} == {}


@pytest.mark.django_db
def test_a_name_that_is_one_long_word_fits_a_laptop_a_tablet_and_a_phone(page, site):
    word = 3 * "Donaudampfschifffahrtsgesellschaft"
    service = ServiceFactory(title=word, calendar=CalendarFactory(name=word))
    slot = SlotFactory(service=service)
    booking = BookingFactory(service=service, attendee_name=word, start_time=timezone.now())
    paths = ["/admin/day-sheets/"]
    paths += [
        url_of(row, kind, row.pk)
        for row in (service, service.calendar, slot, booking)
        for kind in ("change", "delete", "history")
    ]
    hidden = {}
    for path in paths:
        response = site.get(path)
        assert word in response.content.decode(), path
        show(page, response)
        for size in (LAPTOP, TABLET, PHONE):
            page.set_viewport_size(size)
            hidden[path, size["width"]] = page.evaluate(HIDDEN)
    assert {where: width for where, width in hidden.items() if width > 1} == {}


@pytest.mark.django_db
def test_a_long_response_to_a_webhook_message_leaves_room_for_the_other_cells(page, site):
    delivery = DeliveryFactory()
    attempt = AttemptFactory(delivery=delivery, response=f"<html>{2000 * 'x'}")
    show(page, site.get(f"/admin/bookings/delivery/{delivery.pk}/change/"))
    result = page.locator("td", has_text=f"after {attempt.duration_ms} ms").last
    page.locator("pre", has_text="<html>").wait_for()
    for size in (LAPTOP, TABLET, PHONE):
        page.set_viewport_size(size)
        assert page.evaluate(HIDDEN) <= 1
        assert result.bounding_box()["width"] > 100


@pytest.mark.parametrize("language", [code for code, _name in settings.LANGUAGES])
@pytest.mark.django_db
def test_the_text_in_the_field_above_the_menu_fits(page, site, boss, language):
    boss.language = language
    boss.save()
    show(page, site.get("/admin/"))
    assert page.locator("#nav-filter").evaluate(TOO_LONG) <= 0


@pytest.mark.django_db
def test_a_row_is_a_card_on_a_phone(page, site, world):
    page.set_viewport_size(PHONE)
    show(page, site.get("/admin/catalog/service/"))
    cell = page.locator("#result_list td.field-length").first
    label = cell.evaluate("each => getComputedStyle(each, '::before').content")
    assert label == '"Length"'
    assert cell.bounding_box()["width"] > 300
    assert not page.locator("#result_list thead th.column-length").is_visible()


@pytest.mark.django_db(transaction=True)
def test_a_filter_closes_on_escape_and_a_booking_is_confirmed_on_the_home_page(
    watched,  # noqa: F811
    boss,
):
    booking = BookingFactory(attendee_name="Ada Lovelace")
    page = watched.page
    sign_in(page, boss)
    page.goto("/admin/bookings/booking/")
    summary = page.locator("#changelist-filter summary", has_text="Status").first
    summary.click()
    pending = page.locator("#changelist-filter .filter[open] a", has_text="Pending")
    pending.wait_for()
    page.keyboard.press("Escape")
    assert not pending.is_visible()
    summary.click()
    pending.click()
    page.get_by_text("Status: Pending").wait_for()
    page.goto("/admin/")
    page.get_by_role("button", name="Confirm Ada Lovelace").click()
    page.get_by_text("No booking waits to be confirmed.").wait_for()
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    watched.assert_no_errors()
