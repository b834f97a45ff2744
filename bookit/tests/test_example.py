"""Visitors can book with the example client, in a real browser, from another origin."""

import re
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from zoneinfo import ZoneInfo

import httpx
import pytest
from django.utils.timezone import now

from accounts.tests.factories import PASSWORD, AdminFactory
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.workers import database_url
from bookit.runtime.servers import BOOKIT, production, serving
from bookit.runtime.startup import BASE_DIR
from bookit.tests.browser import needs_chromium
from catalog.tests.factories import ServiceFactory

PAGE = BASE_DIR / "bookit/templates/bookit/example.html"
# A zone in which no hour begins at the same moment as an hour in UTC.
ZONE = "Asia/Kathmandu"
TITLE = "Yoga <img src=x onerror='document.title = 1'>"

pytestmark = pytest.mark.django_db(transaction=True)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    """Return the origin of a static web server, which serves the page as a file."""
    handler = partial(QuietHandler, directory=PAGE.parent)
    with ThreadingHTTPServer(("localhost", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def server(django_db_setup, site):
    """Return the URL of a server in production that allows the origin of the page."""
    environment = production(database_url(), workers=1) | {"CORS_ALLOWED_ORIGINS": site}
    with serving(BOOKIT, environment) as running:
        running.wait("/health")
        yield f"http://localhost:{running.port}"


@pytest.fixture
def browse(chromium):
    """Return a function that opens a URL, and returns the page and the list of its errors."""
    contexts = []

    def _browse(url, width=1280):
        context = chromium.new_context(
            timezone_id=ZONE, viewport={"width": width, "height": 800}, reduced_motion="reduce"
        )
        context.set_default_timeout(10_000)
        contexts.append(context)
        page, errors = context.new_page(), []
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(url)
        return page, errors

    yield _browse
    for context in contexts:
        context.close()


def register(page):
    """Fill in the dialog that is open, and send it with the Enter key."""
    page.get_by_label("Email").fill("ana@example.com")
    page.get_by_label("I am new here").check()
    page.get_by_label("Name").fill("Ana")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Password").press("Enter")
    page.get_by_role("heading", name="Your bookings").wait_for()


def a_class(seats=1):
    """Return four slots of a class in the next days."""
    start = now().replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
    service = ServiceFactory(title=TITLE, mode="slots", capacity=seats, requires_confirmation=False)
    return [
        SlotFactory(service=service, start_time=start + timedelta(days=day)) for day in range(4)
    ]


def take_all_seats(slot):
    for seat in range(1, slot.capacity + 1):
        BookingFactory(service=slot.service, slot=slot, seat=seat, start_time=slot.start_time)


def shown(slot):
    """Return the start of a slot as the page shows it: without and with the day."""
    start = slot.start_time.astimezone(ZoneInfo(ZONE))
    return f"{start:%H:%M}", f"{start:%a} {start.day} {start:%B}, {start:%H:%M}"


def open_service(page):
    # Outside of `#services`, the button that cancels a booking also has the title of its service.
    page.locator("#services").get_by_role("button", name=TITLE).click()
    return page.get_by_role("dialog", name=TITLE)


def allowed(site):
    """Return the header that lets a page of the origin `site` read a made-up response."""
    return {"Access-Control-Allow-Origin": site}


def failures(errors):
    """Return the status or network error of each failed request; check that nothing else failed."""
    found = [re.search(r"status of (\d+)|net::ERR_(\w+)", error) for error in errors]
    assert all(found), errors
    return [match[1] or match[2] for match in found]


@needs_chromium
def test_a_visitor_books_and_resolves_a_conflict_from_another_origin(site, server, browse):
    first, second, third, _ = slots = a_class(seats=2)
    page, errors = browse(f"{site}/{PAGE.name}?api={server}")
    dialog = open_service(page)
    dialog.locator("details").nth(len(slots) - 1).wait_for()
    assert dialog.get_by_text("Times are in Asia/").is_visible()
    clock, _ = shown(first)
    button = dialog.get_by_role("button", name=clock).first
    assert button.inner_text().split() == [clock, "2", "left"]

    # The page first asks the visitor to sign in, and explains a mistake in the form.
    button.click()
    page.get_by_label("Email").fill("ana@example.com")
    page.get_by_label("Password").fill("12345678")
    page.get_by_label("I am new here").check()
    page.get_by_label("Name").fill("Ana")
    page.get_by_role("button", name="Continue").click()
    page.get_by_text("password: This password is").wait_for()
    assert page.get_by_label("Password").evaluate("input => input === document.activeElement")
    register(page)
    button.click()
    page.get_by_role("status").get_by_text(f"{shown(first)[1]}: confirmed.").wait_for()

    # Other customers take the seats that the page still shows. The visitor books an alternative.
    dialog = open_service(page)
    day = dialog.locator("details").nth(1)
    day.locator("summary").click()
    take_all_seats(second)
    day.get_by_role("button").click()
    dialog.get_by_role("alert").get_by_text("Every seat in this slot is taken").wait_for()
    others = [text.strip() for text in dialog.locator(".days button").all_inner_texts()]
    assert len(others) == 3
    assert shown(third)[1] in others
    dialog.get_by_role("button", name=shown(third)[1]).click()
    page.get_by_role("status").get_by_text(f"{shown(third)[1]}: confirmed.").wait_for()
    own = Booking.objects.filter(user__email="ana@example.com").order_by("start_time")
    assert [booking.slot_id for booking in own] == [first.pk, third.pk]

    cards = page.locator("#mine .card")
    cards.nth(1).wait_for()
    assert [shown(first)[1] in cards.nth(0).inner_text(), cards.count()] == [True, 2]
    cards.nth(0).get_by_role("button", name="Cancel").click()
    page.get_by_role("status").get_by_text(f"{shown(first)[1]}: cancelled.").wait_for()
    assert [booking.status for booking in own.all()] == ["cancelled", "confirmed"]
    assert failures(errors) == ["400", "409"]
    assert page.title() == "Book a class or an appointment"


@needs_chromium
def test_a_lost_response_an_expired_token_and_a_changed_booking_do_no_harm(site, server, browse):
    first = a_class()[0]
    page, errors = browse(f"{site}/{PAGE.name}?api={server}")
    page.get_by_role("button", name="Sign in").click()
    register(page)

    def lose_response(route):
        route.fetch()
        route.abort()

    page.route("**/bookings", lose_response, times=1)
    dialog = open_service(page)
    with page.expect_response(
        lambda response: response.url.endswith("/bookings") and response.status == 201
    ) as repeated:
        dialog.get_by_role("button", name=shown(first)[0]).click()
    assert repeated.value.headers["idempotent-replayed"] == "true"
    card = page.locator("#mine .card")
    card.wait_for()
    booking = Booking.objects.get()

    # The token of the next request is refused. The page renews its session, and repeats the
    # request. Meanwhile, somebody else changes the booking, so the cancellation is refused, and the
    # visitor must press the button again.
    renewals = []
    page.on("request", lambda request: "refresh" in request.url and renewals.append(request))

    def expire(route):
        route.continue_(headers={**route.request.headers, "authorization": "Bearer expired"})

    def change(route):
        if route.request.method == "PATCH":
            Booking.objects.filter(pk=booking.pk).update(notes="Mat 4")
            page.unroute("**/bookings/*", change)
        route.fallback()

    page.route("**/bookings/*", change)
    page.route("**/bookings/*", expire, times=1)  # Playwright tries the last route first.
    card.get_by_role("button", name="Cancel").click()
    page.get_by_text("The resource has changed since you read it.").wait_for()
    assert len(renewals) == 1
    card.get_by_role("button", name="Cancel").click()
    page.get_by_role("status").get_by_text("cancelled.").wait_for()
    with page.expect_response("**/auth/logout") as ended:
        page.get_by_role("button", name="Sign out").click()
    assert ended.value.status == 204
    page.get_by_role("button", name="Sign in").wait_for()
    assert failures(errors) == ["FAILED", "401", "412"]


def sign_in(page, email):
    page.get_by_role("button", name="Sign in").click()
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Password").press("Enter")
    page.get_by_role("heading", name="Your bookings").wait_for()


@needs_chromium
@pytest.mark.real_passwords  # The web server checks passwords.
def test_admins_see_only_their_own_bookings_and_none_after_they_are_signed_out(
    site, server, browse
):
    admin = AdminFactory(email="root@example.com")
    service = ServiceFactory(title="Haircut", category="")
    start = now() + timedelta(days=1)
    BookingFactory(service=service, start_time=start)
    BookingFactory(service=service, user=admin, start_time=start + timedelta(days=1))
    page, errors = browse(f"{site}/{PAGE.name}?api={server}/")
    assert page.locator("#services small").inner_text().startswith("60 min")
    sign_in(page, admin.email)
    cards = page.locator("#mine .card")
    cards.first.wait_for()
    assert cards.count() == 1

    # The access token is refused. If the session cannot be renewed for now (429), the admin stays
    # signed in. If the session has ended (401), the page signs the admin out.
    def refuse(status):
        def respond(route):
            route.fulfill(
                status=status, json={"status": status, "detail": "Refused."}, headers=allowed(site)
            )

        return respond

    page.route("**/bookings/*", refuse(401))
    page.route("**/auth/refresh", refuse(429))
    cards.get_by_role("button", name="Cancel").click()
    page.locator("#mine").get_by_text("Refused.").wait_for()
    assert page.get_by_role("button", name="Sign out").is_visible()
    page.unroute("**/auth/refresh")
    page.route("**/auth/refresh", refuse(401))
    cards.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Sign in").wait_for()
    assert cards.count() == 0
    assert failures(errors) == ["401", "429", "401", "401"]


@needs_chromium
def test_a_visitor_can_try_a_refused_booking_again(site, server, browse):
    first = a_class()[0]
    page, errors = browse(f"{site}/{PAGE.name}?api={server}")
    page.get_by_role("button", name="Sign in").click()
    register(page)
    keys = []

    def note_key(request):
        if request.method == "POST" and request.url.endswith("/bookings"):
            keys.append(request.headers["idempotency-key"])

    page.on("request", note_key)

    def refuse(status, **members):
        def respond(route):
            content = {"status": status, "detail": f"Refused with {status}.", **members}
            route.fulfill(status=status, json=content, headers=allowed(site))

        page.route("**/bookings", respond, times=1)

    dialog = open_service(page)
    button = dialog.get_by_role("button", name=shown(first)[0]).first
    for status, members in [(403, {"code": "email_not_verified"}), (409, {"alternatives": []})]:
        refuse(status, **members)
        button.click()
        dialog.get_by_text(f"Refused with {status}.").wait_for()
    button.click()
    page.get_by_role("status").get_by_text("confirmed.").wait_for()
    # BookIt stores no 403 and no 409 for a key, so the page can send the same key again.
    assert keys == [keys[0]] * 3
    assert failures(errors) == ["403", "409"]


@needs_chromium
def test_the_url_of_the_api_may_have_a_path(site, browse):
    page, _ = browse(f"{site}/{PAGE.name}")
    with page.expect_request(f"{site}/api/services*"):
        page.goto(f"{site}/{PAGE.name}?api={site}/api")


@needs_chromium
def test_without_the_setting_the_browser_refuses_another_origin(site, live_server, browse):
    """Control for the tests above: only CORS_ALLOWED_ORIGINS lets the page reach the API."""
    page, errors = browse(f"{site}/{PAGE.name}?api={live_server.url}")
    page.get_by_text("The server cannot be reached.").wait_for()
    assert any("blocked by CORS policy" in error for error in errors)


@needs_chromium
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_of_the_server_fits_and_breaks_no_policy(live_server, browse, width):
    a_class()
    page, errors = browse(f"{live_server.url}/example", width)
    open_service(page).locator("details").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.querySelector('dialog[open]').scrollWidth") <= width
    assert errors == []


@needs_chromium
def test_the_policy_of_the_page_blocks_other_scripts_and_servers(live_server, server, browse):
    """Control for the test above: the browser reports violations of the policy."""
    page, errors = browse(f"{live_server.url}/example?api={server}")
    page.evaluate(
        "const script = document.createElement('script');"
        "script.textContent = 'document.title = 1'; document.body.append(script)"
    )
    assert page.title() == "Book a class or an appointment"
    for directive in ("default-src", "script-src"):
        assert any("Content Security Policy" in error and directive in error for error in errors)


def test_the_example_is_off_in_production(server):
    assert httpx.get(f"{server}/health").status_code == 200
    for method in ("GET", "HEAD", "POST"):
        assert httpx.request(method, f"{server}/example").status_code == 404


def test_the_example_is_short_and_never_parses_texts_of_the_api_as_html():
    text = PAGE.read_text()
    assert len(text.splitlines()) < 200
    assert max(map(len, text.splitlines())) <= 120
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    # It names no other server.
    assert not re.search(r"https?:|//\w", text)
