"""The HTML pages work in a real browser that can reach no other host."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory, staff
from bookings.mails.models import MailText
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, WebhookFactory
from bookit.tests.browser import needs_chromium, sign_in
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = [
    needs_chromium,
    pytest.mark.django_db(transaction=True),
]


def test_docs_show_the_operations_and_can_run_them(watched):
    page = watched.page
    page.goto("/docs")
    page.get_by_text("Find services").wait_for()
    assert page.locator(".opblock").count() > 30
    assert page.locator(".opblock-tag").count() == 8
    operation = page.locator("#operations-Catalog-services_list")
    operation.click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    response = operation.locator(".live-responses-table .response-col_description")
    response.get_by_text('"count": 0').first.wait_for()
    watched.assert_no_errors()


def test_redoc_shows_the_operations(watched):
    page = watched.page
    page.goto("/redoc")
    page.locator("h2", has_text="Find services").first.wait_for()
    assert page.locator("[data-section-id^='tag/Catalog/operation/']").count() >= 10
    watched.assert_no_errors()


def test_errors_and_requests_to_other_hosts_are_recorded(watched):
    """Control for the other tests, which check that nothing was recorded.

    The test opens a page without a content security policy. A policy would block the requests.
    """
    page = watched.page
    page.goto("/health")
    watched.assert_no_errors()
    page.evaluate("fetch('https://fonts.example.com/font.css').catch(() => {})")
    with page.expect_event("console"):
        page.evaluate("fetch('/nothing')")
    with page.expect_event("pageerror"):
        page.evaluate("setTimeout(() => { throw Error('on purpose') })")
    assert watched.outside == ["https://fonts.example.com/font.css"]
    assert any("/nothing" in text for text in watched.errors)
    assert any("on purpose" in text for text in watched.errors)


def test_the_list_of_errors_links_to_each_error(watched):
    page = watched.page
    page.goto("/errors")
    page.get_by_role("link", name="booking_conflict").click()
    assert page.locator("h1").inner_text() == "booking_conflict"
    page.get_by_role("link", name="All errors").click()
    assert page.locator("h1").inner_text() == "Errors"
    watched.assert_no_errors()


def test_an_admin_signs_in_opens_a_booking_and_signs_out(watched):
    boss = AdminFactory(name="Boss", email="boss@example.com")
    booking = BookingFactory(attendee_name="Ada Lovelace", status=Booking.Status.CONFIRMED)
    page = watched.page

    sign_in(page, boss, "not the password")
    page.get_by_text("Please enter the correct email address and password").wait_for()
    sign_in(page, boss)
    page.get_by_role("link", name="Bookings", exact=True).first.wait_for()

    page.goto("/admin/bookings/booking/")
    page.locator(f"a[href*='{booking.pk}']").first.click()
    page.wait_for_url(f"**/admin/bookings/booking/{booking.pk}/change/**")
    page.get_by_text("Ada Lovelace").first.wait_for()

    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Logged out").wait_for()
    page.goto("/admin/bookings/booking/")
    assert page.url.endswith("/admin/login/?next=/admin/bookings/booking/")
    watched.assert_no_errors()


def test_a_receptionist_moves_a_booking_adds_a_note_and_cancels_it(watched):
    rui = staff(["bookings.view_booking", "bookings.change_booking"], name="Rui")
    this_hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    booking = BookingFactory(start_time=this_hour + timedelta(days=2))
    page = watched.page
    sign_in(page, rui)
    page.goto(f"/admin/bookings/booking/{booking.pk}/change/")
    page.get_by_role("link", name="Move…").click()
    page.get_by_role("radio").nth(3).check()
    page.get_by_role("button", name="Move to the chosen time").click()
    page.get_by_text("Moved to").wait_for()
    page.get_by_label("New note").fill("Prefers mornings")
    page.get_by_role("button", name="Save the note").click()
    page.get_by_text("Prefers mornings").wait_for()
    page.get_by_text("Cancel…").click()
    page.get_by_label("Reason").fill("The room is wet")
    page.get_by_role("button", name="Cancel this booking").click()
    page.locator(".booking-head .state", has_text="Cancelled").wait_for()
    booking.refresh_from_db()
    assert (booking.status, booking.cancellation_reason) == ("cancelled", "The room is wet")
    assert booking.staff_notes.get().author == rui
    watched.assert_no_errors()


def test_an_operator_sees_how_an_email_will_look_before_saving_its_words(watched):
    page = watched.page
    sign_in(page, AdminFactory(email="boss@example.com"))
    page.goto("/admin/bookings/mailtext/")
    page.locator("a[href*='mailtext/booked']").click()
    preview = page.frame_locator("iframe[name='mail-preview']")
    light, dark = (preview.frame_locator(f"iframe.{name}") for name in ("light", "dark"))
    light.get_by_text("Your booking is confirmed.").last.wait_for()
    # The frames forbid scripts and contain none. Playwright adds its own scripts to the frames, and
    # Chromium logs that it blocks them; the end of this test ignores these errors.
    for frame in (preview, light, dark):
        assert frame.locator("body").count() == 1
        assert frame.locator("script").count() == 0

    page.get_by_label("Text for the customer").fill("Park behind {calendar}.")
    page.get_by_role("button", name="As the customer sees it").click()
    light.get_by_text("Park behind Helena's chair.").last.wait_for()
    preview.get_by_label("Dark").check()
    dark.get_by_text("Park behind Helena's chair.").last.wait_for()
    shades = [
        frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        for frame in (light, dark)
    ]
    assert shades == ["rgb(243, 244, 246)", "rgb(15, 18, 22)"]
    preview.get_by_label("On a phone").check()
    assert preview.locator("iframe.dark").evaluate("frame => frame.clientWidth") == 390
    preview.get_by_label("Plain text").check()
    preview.locator("pre").get_by_text("Park behind Helena's chair.").wait_for()
    page.get_by_label("Text for the customer").fill("Park behind {house}.")
    page.get_by_role("button", name="As the customer sees it").click()
    preview.get_by_text("{house} is not a placeholder").wait_for()
    assert not MailText.objects.exists()

    page.get_by_label("Text for the customer").fill("Park behind {calendar}.")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Your words").wait_for()
    assert MailText.objects.get().attendee == "Park behind {calendar}."
    watched.errors = [each for each in watched.errors if "Blocked script" not in each]
    watched.assert_no_errors()


def test_a_button_that_is_pressed_after_the_session_ended_leads_back_to_its_page(watched):
    boss, webhook = AdminFactory(), WebhookFactory()
    page = watched.page
    sign_in(page, boss)
    page.goto(f"/admin/bookings/webhook/{webhook.pk}/change/")
    page.context.clear_cookies(name="sessionid")
    page.get_by_role("button", name="Send a test").click()
    page.get_by_text("You were signed out, so nothing was changed.").wait_for()
    assert not webhook.deliveries.exists()
    page.get_by_label("Email address").fill(boss.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("button", name="Send a test").click()
    page.get_by_text("1 test is on its way.").wait_for()
    watched.assert_no_errors()


def test_a_form_can_be_sent_after_signing_in_again_in_another_tab(watched):
    boss, page = AdminFactory(), watched.page
    service = ServiceFactory(calendar=CalendarFactory(name="Chair"))
    sign_in(page, boss)
    page.goto(f"/admin/phone/?service={service.pk}")
    page.get_by_label("Name").fill("Ada Lovelace")
    page.get_by_label("Phone number").fill("+351 912 345 678")
    page.context.clear_cookies(name="sessionid")
    with page.context.expect_page() as opened:
        page.evaluate("open('/admin/')")
    sign_in(opened.value, boss)
    # The radio button is invisible, and its text covers it.
    page.locator("input[name=start]").first.check(force=True)
    page.get_by_text("Held for this call").wait_for()
    page.get_by_role("button", name="Book", exact=True).click()
    page.get_by_text("Ada Lovelace").first.wait_for()
    assert Booking.objects.get().status == "confirmed"
    watched.assert_no_errors()


def test_a_user_without_admin_rights_cannot_sign_in(watched):
    page = watched.page
    sign_in(page, UserFactory(email="ada@example.com"))
    page.get_by_text("for a staff account").wait_for()
    page.goto("/admin/accounts/user/")
    assert "/admin/login/" in page.url
    watched.assert_no_errors()
