"""The home page and the menu of the admin site, and the labels and texts of its lists."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from urllib.parse import parse_qs
from uuid import UUID

import pytest
import time_machine
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import mark_safe
from procrastinate.contrib.django import app as procrastinate

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings import clock
from bookings.events import record
from bookings.models import Booking, BookingEvent, Slot
from bookings.reports.charts import percent
from bookings.tests.factories import (
    BookingFactory,
    SlotFactory,
    WaitlistEntryFactory,
    WebhookFactory,
)
from bookit.adminsite import words
from bookit.adminsite.changelist import StrictChangeList
from bookit.adminsite.extensions import HOME_CARDS, PAGES, HomeCard
from bookit.adminsite.links import list_of
from bookit.adminsite.lists import named_by
from bookit.adminsite.menu import Menu
from bookit.database.versions import version_of
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

# A Wednesday, at noon in UTC.
NOON = datetime(2026, 12, 2, 12, tzinfo=UTC)
HOME = "/admin/"


@pytest.fixture(autouse=True)
def at_noon():
    with time_machine.travel(NOON, tick=False):
        yield


def opened(user):
    """Return the home page as `user` sees it."""
    browser = Client()
    browser.force_login(user)
    response = browser.get(HOME)
    assert response.status_code == 200
    return response


def shown(user):
    """Return what each card shows to `user`, by the name of the card."""
    return {each["name"]: each["shown"] for each in opened(user).context["cards"]}


def found(site, link):
    """Return the number of rows of the list to which a link leads."""
    response = site.get(link)
    assert response.status_code == 200, link
    return response.context["cl"].result_count


def book(status="confirmed", **fields):
    return BookingFactory(status=status, **fields)


def release(**fields):
    """Create a hold, and release it."""
    hold = book("held", hold_expires_at=NOON + timedelta(minutes=10), **fields)
    was = {"status": "held"}
    Booking.objects.filter(pk=hold.pk).update(status="cancelled", hold_expires_at=None)
    record(hold, BookingEvent.Type.CANCELLED, actor=None, at=NOON, was=was)


def book_in_class(slot, **fields):
    return book(
        slot=slot,
        service=slot.service,
        start_time=slot.start_time,
        blocked=slot.blocked,
        **fields,
    )


# --- permissions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "names"),
    [
        (["bookings.view_booking"], {"today", "next", "waiting"}),
        (["bookings.view_slot"], {"slots"}),
        (["catalog.view_service"], set()),
    ],
)
def test_staff_see_the_cards_that_their_roles_allow(permissions, names):
    SlotFactory(start_time=NOON + timedelta(hours=1))
    assert shown(staff(permissions)).keys() == names


def test_admins_see_every_card_in_order():
    SlotFactory(start_time=NOON + timedelta(hours=1))
    assert [*shown(AdminFactory())] == [
        *("today", "next", "waiting", "slots", "recent", "jobs", "webhooks")
    ]
    assert {*HOME_CARDS} == {*shown(AdminFactory())}


def test_a_page_without_cards_says_why():
    page = opened(staff(["catalog.view_service"])).content.decode()
    assert "Your roles contain nothing that this page can show." in page


def test_only_admins_see_a_card_without_a_permission():
    card = HomeCard(0, "admin/home/today.html", dict)
    assert card.is_for(User(role="admin"))
    assert not card.is_for(staff(["bookings.view_booking"]))


# --- the cost ---------------------------------------------------------------------------------


def test_the_home_page_takes_eleven_queries(site, world):
    BookingFactory.create_batch(3, start_time=NOON + timedelta(hours=1))
    SlotFactory.create_batch(3, start_time=NOON + timedelta(hours=1))
    WebhookFactory.create_batch(3, failing_since=NOON)
    with CaptureQueriesContext(connection) as captured:
        assert site.get(HOME).status_code == 200
    assert len(captured) == 11, [each["sql"] for each in captured.captured_queries]


# --- confirming -------------------------------------------------------------------------------


def confirm(user, booking):
    """Send the form that confirms a booking, or that has a text in place of the booking's id."""
    browser = Client()
    browser.force_login(user)
    pk, version = booking, ""
    if isinstance(booking, Booking):
        pk, version = booking.pk, version_of(booking.updated_at)
    form = {"card": "waiting", "booking": pk, f"version-{pk}": version}
    return browser.post(HOME, form, follow=True)


def test_a_receptionist_confirms_a_booking_on_the_home_page():
    booking = BookingFactory(start_time=NOON + timedelta(hours=1))
    receptionist = staff(["bookings.view_booking", "bookings.change_booking"])
    page = unescape(opened(receptionist).content.decode())
    assert f'value="{booking.pk}"' in page
    assert f'aria-label="Confirm {booking.user.name}, Today, 13:00' in page

    response = confirm(receptionist, booking)

    assert response.redirect_chain == [(HOME, 302)]
    page = unescape(response.content.decode())
    assert f"Confirmed: {booking.service.title} for {booking.user.name}, Wed 2 Dec, 13:00." in page
    assert "No booking waits to be confirmed." in page
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    assert booking.events.get().actor == receptionist


def test_a_receptionist_who_may_not_change_bookings_gets_no_button_and_a_403():
    booking = BookingFactory(start_time=NOON + timedelta(hours=1))
    reader = staff(["bookings.view_booking"])
    assert f'value="{booking.pk}"' not in opened(reader).content.decode()
    assert confirm(reader, booking).status_code == 403
    booking.refresh_from_db()
    assert booking.status == "pending"


def test_a_booking_that_has_changed_since_the_page_was_opened_stays_pending():
    booking = BookingFactory(start_time=NOON + timedelta(hours=1))
    assert f'value="{version_of(booking.updated_at)}"' in opened(AdminFactory()).content.decode()
    Booking.objects.update(notes="Two people instead of one, please.")

    page = confirm(AdminFactory(), booking).content.decode()

    assert "Somebody has changed this booking since you opened the page." in page
    booking.refresh_from_db()
    assert booking.status == "pending"
    confirm(AdminFactory(), booking)
    booking.refresh_from_db()
    assert booking.status == "confirmed"


@pytest.mark.parametrize("booking", ["", "abc", "\0", "01a00000-0000-7000-8000-000000000000"])
def test_a_senseless_booking_is_refused_with_a_message(booking):
    response = confirm(AdminFactory(), booking)
    assert response.status_code == 200
    assert 'class="error"' in response.content.decode()


def test_confirming_a_cancelled_booking_is_refused_with_the_reason():
    booking = book("cancelled", start_time=NOON + timedelta(hours=1))
    assert "cannot become confirmed" in confirm(AdminFactory(), booking).content.decode()


@pytest.mark.parametrize("card", ["", "nothing", "today"])
def test_a_form_for_an_unknown_card_or_a_card_without_an_action_gets_a_404(site, card):
    assert site.post(HOME, {"card": card}).status_code == 404


# --- numbers ----------------------------------------------------------------------------------


def test_today_is_the_day_of_the_user(site):
    # In UTC, today in Tokyo lasts from 15:00 on 1 December to 15:00 on 2 December.
    tokyo = AdminFactory(timezone="Asia/Tokyo")
    book(start_time=NOON.replace(day=1, hour=16))
    book("pending", start_time=NOON.replace(hour=14))
    book("no_show", start_time=NOON.replace(hour=14))
    book(start_time=NOON.replace(hour=15))
    today = shown(tokyo)["today"]
    assert {each["status"]: each["count"] for each in today["states"]} == {
        "pending": 1,
        "confirmed": 1,
        "no_show": 1,
    }
    for number, link in [
        (today["total"], today["url"]),
        *((each["count"], each["url"]) for each in today["states"]),
    ]:
        assert found(site, link) == number
    assert "in Asia/Tokyo, your time zone" in opened(tokyo).content.decode()


def test_today_leaves_out_holds_that_were_released_or_have_expired(site):
    book("cancelled", start_time=NOON)
    book("held", start_time=NOON, hold_expires_at=NOON + timedelta(minutes=5))
    release(start_time=NOON)
    book("held", start_time=NOON, hold_expires_at=NOON - timedelta(minutes=1))
    assert clock.expire_bookings(at=NOON) == 1
    today = shown(AdminFactory())["today"]
    counts = {each["status"]: each["count"] for each in today["states"]}
    assert counts == {"pending": 0, "confirmed": 0, "held": 1, "cancelled": 1}
    assert today["total"] == found(site, today["url"]) == 2
    for each in today["states"]:
        assert found(site, each["url"]) == each["count"]


def test_the_next_hours_show_a_class_as_one_line_and_each_time_in_its_calendars_zone(site):
    lisbon = CalendarFactory(name="Chair", timezone="Europe/Lisbon")
    athens = CalendarFactory(name="Mat", timezone="Europe/Athens")
    cut = ServiceFactory(calendar=lisbon, title="Cut")
    first = book(start_time=NOON - timedelta(minutes=30), service=cut, attendee_name="Rita")
    slot = SlotFactory(
        service=ServiceFactory(calendar=athens, title="Yoga", capacity=9, mode="slots"),
        start_time=NOON + timedelta(hours=1),
    )
    for seat in (1, 2, 3):
        book_in_class(slot, seat=seat)
    book_in_class(slot, seat=4, status="cancelled")
    book_in_class(slot, seat=5, status="held", hold_expires_at=NOON + timedelta(minutes=5))
    book("cancelled", start_time=NOON + timedelta(hours=2))
    book(start_time=NOON + timedelta(hours=25))
    now, later = shown(AdminFactory())["next"]["lines"]
    assert (now["hours"], now["zone"], now["is_now"]) == ("11:30–12:30", "", True)  # noqa: RUF001
    assert (now["who"], now["title"], now["calendar"]) == ("Rita", "Cut", "Chair")
    assert now["url"] == reverse("admin:bookings_booking_change", args=[first.pk])
    assert (later["hours"], later["zone"]) == ("15:00–16:00", "Europe/Athens")  # noqa: RUF001
    assert (later["who"], later["title"]) == ("3 people", "Yoga")
    assert found(site, later["url"]) == 3


def test_a_class_that_began_yesterday_shows_all_its_people(site):
    service = ServiceFactory(capacity=9, mode="slots", duration_minutes=24 * 60)
    slot = SlotFactory(service=service, start_time=NOON - timedelta(hours=20))
    for seat in (1, 2):
        book_in_class(slot, seat=seat)
    [line] = shown(AdminFactory())["next"]["lines"]
    assert (line["who"], line["is_now"]) == ("2 people", True)
    assert found(site, line["url"]) == 2


def test_a_class_shows_all_its_people_if_another_class_begins_at_the_same_time(monkeypatch):
    monkeypatch.setattr("bookings.home.MAX_NEXT", 4)
    slots = [
        SlotFactory(
            service=ServiceFactory(capacity=9, mode="slots"), start_time=NOON + timedelta(hours=1)
        )
        for _calendar in range(2)
    ]
    for seat in (1, 2, 3):
        for slot in slots:
            book_in_class(slot, seat=seat, id=UUID(int=2 * seat + slots.index(slot)))
    card = shown(AdminFactory())["next"]
    # Only one booking of the second class was read, so this class has no line.
    assert [line["who"] for line in card["lines"]] == ["3 people"]
    assert card["more"]


def test_a_line_names_its_day_unless_it_is_today():
    BookingFactory(start_time=NOON + timedelta(hours=1))
    BookingFactory(start_time=NOON + timedelta(hours=20))
    BookingFactory(start_time=NOON + timedelta(days=2))
    lines = shown(AdminFactory())["waiting"]["lines"]
    assert [line["day"] for line in lines] == ["", "Tomorrow", "Fri 4 Dec"]


def test_waiting_requests_are_counted_and_the_first_six_are_listed(site):
    last_to_first = [
        BookingFactory(start_time=NOON + timedelta(hours=hours)) for hours in reversed(range(8))
    ]
    BookingFactory(start_time=NOON - timedelta(hours=1))
    book(start_time=NOON)
    waiting = shown(AdminFactory())["waiting"]
    assert (waiting["count"], waiting["more"]) == (8, True)
    first_to_last = [booking.pk for booking in reversed(last_to_first)]
    assert [line["id"] for line in waiting["lines"]] == first_to_last[:6]
    assert found(site, waiting["url"]) == 8


def test_the_count_of_waiting_requests_has_a_limit(monkeypatch):
    monkeypatch.setattr("bookings.home.MAX_COUNTED", 7)
    counts = []
    for hours in range(9):
        BookingFactory(start_time=NOON + timedelta(hours=hours))
        counts.append(shown(AdminFactory())["waiting"]["count"])
    assert counts == [1, 2, 3, 4, 5, 6, 7, "7+", "7+"]


def test_taken_seats_and_people_who_wait_reduce_the_free_seats_of_a_slot(site):
    slot = SlotFactory(capacity=4, start_time=NOON + timedelta(hours=1))
    book_in_class(slot)
    book_in_class(slot, seat=2, status="cancelled")
    WaitlistEntryFactory(slot=slot, user=UserFactory())
    SlotFactory(start_time=NOON + timedelta(hours=1), status="cancelled")
    [line] = shown(AdminFactory())["slots"]["lines"]
    assert (line["free"], line["taken"], line["capacity"], line["waiting"]) == (2, 1, 4, 1)
    assert found(site, line["bookings"]) == 1
    assert found(site, line["waitlist"]) == 1
    assert found(site, shown(AdminFactory())["slots"]["url"]) == 1


@pytest.mark.one_server("opens the home page in a transaction that has changed a reference table")
@pytest.mark.parametrize("distributed", [False, True])
def test_the_last_30_days_are_compared_with_the_30_days_before(site, distributed, monkeypatch):
    """The statement for a distributed database gives the same result on one server."""
    monkeypatch.setattr("bookings.home.is_distributed", lambda: distributed)
    cut, shave = ServiceFactory(title="Cut"), ServiceFactory(title="Shave", currency="EUR")
    dollars, euros = {"service": cut, "price": 20}, {"service": shave, "price": 7}
    for days, status, fields in [
        (0, "confirmed", dollars),
        (1, "completed", dollars),
        (29, "completed", euros),
        (29, "no_show", dollars),
        (10, "cancelled", dollars),
        (30, "completed", dollars),
        (59, "pending", dollars),
        (60, "completed", dollars),
        (-1, "confirmed", dollars),
    ]:
        book(status, start_time=NOON - timedelta(days=days), **fields)
    # Released holds were never booked, so no number counts them, and no list contains them.
    release(service=cut, start_time=NOON - timedelta(days=5))
    release(service=cut, start_time=NOON - timedelta(days=35))
    recent = shown(AdminFactory())["recent"]
    told = {
        (each["label"], each["now"]): (each["before"], each["change"]) for each in recent["numbers"]
    }
    assert told == {
        ("Revenue", "40.00 USD"): ("20.00 USD in the previous 30 days", "+100 %"),
        ("Revenue", "7.00 EUR"): ("none in the previous 30 days", ""),
        ("Bookings", "4"): ("2 in the previous 30 days", "+100 %"),
        ("Cancelled", "1"): ("none in the previous 30 days", ""),
        ("No-shows", "1"): ("none in the previous 30 days", ""),
    }
    shares = {each["label"]: each["share"] for each in recent["numbers"][2:]}
    # One of the five bookings was cancelled. One of the three that are over was a no-show.
    assert shares == {"Bookings": "", "Cancelled": "20.0 %", "No-shows": "33.3 %"}
    dollars, euros, *counted = recent["numbers"]
    assert (found(site, dollars["url"]), found(site, dollars["before_url"])) == (2, 1)
    assert (found(site, euros["url"]), found(site, euros["before_url"])) == (1, 0)
    for each, before in zip(counted, (2, 0, 0), strict=True):
        assert found(site, each["url"]) == int(each["now"])
        assert found(site, each["before_url"]) == before
    assert [(each["title"], each["count"]) for each in recent["services"]] == [
        ("Cut", 3),
        ("Shave", 1),
    ]
    for each in recent["services"]:
        assert found(site, each["list"]) == each["count"]
    bars = recent["chart"]["bars"]
    assert (len(bars), bars[0]["count"], bars[0]["height"], bars[-1]["count"]) == (30, 2, 100, 1)
    assert sum(bar["count"] for bar in bars) == 4
    for bar in bars[:3]:
        assert found(site, bar["url"]) == bar["count"]


@pytest.mark.parametrize(
    ("expected", "days"), [([250_000], 30), ([250_001, 250_000], 7), ([9_000_000, 250_001], 1)]
)
def test_fewer_days_are_compared_if_there_are_very_many_bookings(site, monkeypatch, expected, days):
    for ago in (0, 1, 7, 20, 40):
        book("completed", start_time=NOON - timedelta(days=ago), price=20)
    numbers = iter(expected)
    monkeypatch.setattr("bookings.home.expected", lambda rows: next(numbers))
    recent = shown(AdminFactory())["recent"]
    assert (recent["days"], len(recent["chart"]["bars"])) == (days, days)
    [_revenue, booked, *_rest] = recent["numbers"]
    made, before = {30: (4, 1), 7: (2, 1), 1: (1, 1)}[days]
    assert booked["now"] == str(made)
    assert booked["before"] == f"{before} in the previous {days} day{'s' * (days > 1)}"
    assert (found(site, booked["url"]), found(site, booked["before_url"])) == (made, before)


@pytest.mark.one_server("opens the home page in a transaction that has changed a reference table")
def test_each_day_begins_at_midnight_in_a_zone_that_postgresql_takes_for_an_abbreviation(site):
    """For PostgreSQL, CET is an hour ahead of UTC all year. As a time zone, it has summer time."""
    with time_machine.travel(NOON.replace(month=7), tick=False):
        # On 3 June, at 0:30: the first of the last 30 days.
        book(start_time=datetime(2026, 6, 2, 22, 30, tzinfo=UTC))
        recent = shown(AdminFactory(timezone="CET"))["recent"]
        [_revenue, booked, *_rest] = recent["numbers"]
        assert (booked["now"], found(site, booked["url"])) == ("1", 1)
        bar = recent["chart"]["bars"][0]
        assert (bar["day"], bar["count"], found(site, bar["url"])) == ("Wed 3 Jun", 1, 1)


def test_failed_jobs_are_counted_by_what_they_do(site):
    for name in ("bookings.send_mail", "bookings.send_mail", "bookit.prune_jobs"):
        fail(name)
    jobs = shown(AdminFactory())["jobs"]
    assert jobs["count"] == found(site, jobs["url"]) == 3
    assert [(each["title"], each["count"]) for each in jobs["lines"]] == [
        ("Email about a booking", 2),
        ("Delete old jobs", 1),
    ]
    for each in jobs["lines"]:
        assert found(site, each["url"]) == each["count"]


def test_the_card_links_to_all_failed_jobs_if_it_does_not_count_all(monkeypatch):
    for name in ("bookit.prune_jobs", "bookings.send_mail", "bookings.send_mail"):
        fail(name)
    assert not shown(AdminFactory())["jobs"]["more"]
    monkeypatch.setattr("bookit.jobs.home.MAX_JOBS", 2)
    jobs = shown(AdminFactory())["jobs"]
    assert (jobs["count"], jobs["more"]) == ("2+", True)
    assert [(each["title"], each["count"]) for each in jobs["lines"]] == [
        ("Email about a booking", "")
    ]


def fail(task):
    job = procrastinate.configure_task(task).defer()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = %s", [job])


@pytest.mark.parametrize("user", ["admin", "staff"])
def test_every_link_of_the_page_leads_to_a_page_that_the_user_may_see(user, world):
    """The fixture `world` has a row of every model that the admin site shows."""
    slot = SlotFactory(start_time=NOON + timedelta(hours=1))
    WaitlistEntryFactory(slot=slot, user=UserFactory())
    book_in_class(slot)
    BookingFactory(start_time=NOON + timedelta(hours=2))
    book("cancelled", start_time=NOON - timedelta(hours=2))
    WebhookFactory(failing_since=NOON)
    fail("bookings.send_mail")
    viewer = (
        AdminFactory()
        if user == "admin"
        else staff(["bookings.view_booking", "bookings.view_slot"])
    )
    browser = Client()
    browser.force_login(viewer)
    page = unescape(browser.get(HOME).content.decode())
    links = {*re.findall(r'href="(/[^"#]*)', page)} - {"/admin/logout/"}
    pages = {each for each in links if not each.startswith("/static/")}
    assert len(pages) > 10
    assert {
        each: status for each in pages if (status := browser.get(each).status_code) != 200
    } == {}


def test_webhooks_that_fail_or_that_bookit_has_switched_off_are_listed():
    WebhookFactory(url="https://8.8.8.8/well")
    WebhookFactory(url="https://8.8.8.8/ill", failing_since=NOON - timedelta(hours=2))
    WebhookFactory(url="https://8.8.8.8/off", is_active=False)
    WebhookFactory(url="https://8.8.8.8/given-up", is_active=False, disabled_reason="It was gone.")
    page = opened(AdminFactory())
    webhooks = {each["name"]: each["shown"] for each in page.context["cards"]}["webhooks"]
    assert [each["title"] for each in webhooks["lines"]] == [
        "https://8.8.8.8/ill",
        "https://8.8.8.8/given-up",
    ]
    assert "Every attempt has failed since Wed 2 Dec, 10:00." in page.content.decode()


def test_failed_deliveries_are_counted(site):
    ill = WebhookFactory(failing_since=NOON)
    well = WebhookFactory()
    for webhook, status, number in [(ill, "failed", 2), (ill, "pending", 1), (well, "failed", 1)]:
        for _each in range(number):
            webhook.deliveries.create(type="test", status=status)
    page = opened(AdminFactory())
    webhooks = {each["name"]: each["shown"] for each in page.context["cards"]}["webhooks"]
    assert [line["title"] for line in webhooks["lines"]] == [ill.url]
    assert (webhooks["count"], webhooks["failed"]) == (1, 3)
    assert found(site, webhooks["failed_url"]) == 3
    assert "3 failed deliveries" in page.content.decode()


def test_the_count_of_failing_webhooks_has_a_limit(monkeypatch):
    monkeypatch.setattr("bookings.webhooks.home.MAX_COUNTED", 2)
    counts = []
    for _each in range(4):
        WebhookFactory(failing_since=NOON)
        counts.append(shown(AdminFactory())["webhooks"]["count"])
    assert counts == [1, 2, "2+", "2+"]


def test_without_failed_deliveries_the_card_does_not_mention_them():
    WebhookFactory().deliveries.create(type="test", status="delivered")
    assert "failed deliver" not in opened(AdminFactory()).content.decode()


# --- the menu and the lists -------------------------------------------------------------------


def menu(user):
    return {
        part["name"]: [model["object_name"] for model in part["models"]]
        for part in opened(user).context["available_apps"]
    }


def test_the_menu_groups_pages_by_what_people_do_on_them():
    parts = menu(AdminFactory())
    assert [*parts] == [str(part.label) for part in Menu]
    assert {"diary", "phone", "day_sheets"} == {*parts["Diary"][:3]}
    assert parts["Diary"][3:] == ["Booking", "Slot", "WaitlistEntry"]
    assert parts["Catalog"] == ["Calendar", "Service"]
    assert {*parts["People"]} == {"User", "Profile", "Role"}
    assert parts["Reviews"] == ["Review"]
    assert {*parts["System"][:2]} == {"docs", "imports"}
    assert "OutstandingToken" not in parts["System"]
    links = sum(len(each) for each in parts.values())
    # Two models of tokens have pages, but no place in the menu.
    assert links == len(admin.site._registry) - 2 + len(PAGES)
    desk = menu(staff(["bookings.view_booking"]))
    assert {*desk} == {"Diary"}
    assert {*desk["Diary"]} == {"diary", "day_sheets", "Booking"}


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/admin/bookings/booking/", "Booking"),
        ("/admin/phone/", "phone"),
        ("/admin/reports/revenue/", "report_revenue"),
        ("/admin/", None),
    ],
)
def test_the_menu_marks_the_page_that_is_shown(site, path, name):
    parts = site.get(path).context["available_apps"]
    marked = [
        link["object_name"] for part in parts for link in part["models"] if link["is_current"]
    ]
    assert marked == ([name] if name else [])


def test_the_home_page_has_only_the_buttons_that_the_user_may_use():
    def buttons(permissions):
        return [str(page.title) for page in opened(staff(permissions)).context["buttons"]]

    assert buttons(["catalog.view_service"]) == []
    assert buttons(["bookings.view_booking"]) == ["Diary"]
    both = ["bookings.view_booking", "bookings.add_booking"]
    assert {*buttons(both)} == {"Diary", "Book for a customer"}


def test_the_times_of_a_list_are_in_the_zone_of_the_user_and_the_list_names_the_zone():
    booking = BookingFactory()
    BookingEvent.objects.create(
        calendar=booking.calendar,
        booking=booking,
        type="booking.created",
        at=NOON.replace(hour=20),
    )
    browser = Client()
    browser.force_login(AdminFactory(timezone="Asia/Tokyo"))
    page = browser.get(reverse("admin:bookings_bookingevent_changelist")).content.decode()
    assert "3 December 2026, 05:00" in page
    assert "Times are in Asia/Tokyo, your time zone." in page
    # The zone of the user applied only to this request.
    assert timezone.get_current_timezone_name() == "UTC"


def test_a_list_says_what_a_link_has_selected(site, world):
    slot = Slot.objects.first()
    link = list_of(
        Booking,
        slot__id__exact=slot.pk,
        status__in="pending,confirmed",
        currency__exact="EUR",
        start_time__gte=NOON.replace(hour=0),
        start_time__lt=NOON.replace(hour=0) + timedelta(days=30),
    )
    page = site.get(link)
    assert page.context["cl"].conditions == ["Slot", "Status: Pending, Confirmed", "Currency: EUR"]
    text = unescape(page.content.decode())
    assert "<strong>Wed 2 Dec – Thu 31 Dec</strong>" in text  # noqa: RUF001
    assert "Clear all filters" in text


def test_the_list_of_coming_slots_begins_with_the_next_and_the_list_of_all_slots_with_the_last(
    site,
):
    past, later, soon = (SlotFactory(start_time=NOON + timedelta(days=days)) for days in (-3, 9, 2))
    path = reverse("admin:bookings_slot_changelist")
    assert [*site.get(path).context["cl"].result_list] == [soon, later]
    everything = site.get(path, {"start_time__isnull": "False"})
    assert [*everything.context["cl"].result_list] == [later, soon, past]


@pytest.mark.parametrize("end", ["", "tomorrow", "2026-12-99", "\0"])
def test_an_invalid_period_causes_no_error(site, end):
    path = reverse("admin:bookings_slot_changelist")
    assert site.get(path, {"start_time__lt": end}, follow=True).status_code == 200


def test_each_cell_of_a_list_names_its_column(site, world):
    page = site.get(reverse("admin:bookings_booking_changelist")).content.decode()
    names = re.findall(r'<t[dh] data-label="([^"]+)" class="field-', page)
    columns = len(admin.site.get_model_admin(Booking).list_display)
    assert len(names) == columns * Booking.objects.count()
    assert {"When", "Status", "Attendee"} <= {*names}
    assert 'data-label="' not in re.findall(r"<td[^>]*action-checkbox[^>]*>", page)[0]


def test_the_header_of_a_column_is_escaped_in_the_labels_of_its_cells():
    header = [{"text": 'a "b" > c'}]
    [cell] = named_by([mark_safe('<td class="field-x">1</td>')], header)
    assert cell == '<td data-label="A &quot;b&quot; &gt; c" class="field-x">1</td>'


@pytest.mark.parametrize(
    ("cell", "blank"),
    [("-", True), ("", True), ("0", False), ("<b>a</b>", False)],
)
def test_a_cell_without_a_value_is_marked_as_blank(cell, blank):
    [shown] = named_by([mark_safe(f'<td class="field-x">{cell}</td>')], [{"text": "x"}])
    assert ("data-blank" in shown) == blank


def test_an_empty_list_says_whether_a_filter_hides_rows(site):
    path = reverse("admin:bookings_waitlistentry_changelist")
    assert "There is nothing here yet." in site.get(path).content.decode()
    assert "Nothing matches." in site.get(path, {"q": "Ada"}).content.decode()
    # By default, this list shows only today and later.
    path = reverse("admin:bookings_booking_changelist")
    assert "Nothing matches." in site.get(path).content.decode()


def test_clearing_the_search_keeps_the_filters_and_the_order(site):
    path = reverse("admin:bookings_booking_changelist")
    text = site.get(path, {"status__exact": "pending", "o": "1", "q": "Ada"}).content.decode()
    [clear] = re.findall(r'href="([^"]*)">Clear the search', text)
    assert parse_qs(unescape(clear).lstrip("?")) == {"status__exact": ["pending"], "o": ["1"]}


def test_clearing_the_search_keeps_filters_that_begin_with_the_same_letter():
    changes = StrictChangeList.__new__(StrictChangeList)
    changes.filter_params = {"q": ["Ada"], "quantity__exact": ["2"]}
    assert changes.url_without_search == "?quantity__exact=2"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(2, 3, "66.7 %"), (1, 1, "100.0 %"), (0, 3, "0.0 %"), (0, 0, ""), (23, 80, "28.7 %")],
)
def test_a_share_is_rounded(part, whole, text):
    assert words.share(part, whole) == text
    if whole:
        assert percent(part / whole) == text  # The reports round a share in the same way.


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (3, 3, "unchanged"),
        (1004, 1000, "+0 %"),
        (Decimal("999.99"), Decimal(1000), "\N{MINUS SIGN}0 %"),
        (0, 3, "\N{MINUS SIGN}100 %"),
    ],
)
def test_only_an_equal_number_is_called_unchanged(now, before, text):
    assert words.change(now, before) == text
