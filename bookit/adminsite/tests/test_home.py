"""The home page and the menu of the admin site, and how lists name their cells."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
import time_machine
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.safestring import mark_safe

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, SlotFactory, WebhookFactory
from bookit.adminsite.extensions import HOME_CARDS, PAGES, HomeCard
from bookit.adminsite.lists import named_by
from bookit.adminsite.menu import Menu
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


# --- who sees what ----------------------------------------------------------------------------


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


def test_the_home_page_takes_fewer_than_ten_queries(site, world):
    BookingFactory.create_batch(3, start_time=NOON + timedelta(hours=1))
    SlotFactory.create_batch(3, start_time=NOON + timedelta(hours=1))
    WebhookFactory.create_batch(3, failing_since=NOON)
    with CaptureQueriesContext(connection) as captured:
        assert site.get(HOME).status_code == 200
    assert len(captured) == 9, [each["sql"] for each in captured.captured_queries]


# --- confirming -------------------------------------------------------------------------------


def confirm(user, booking):
    browser = Client()
    browser.force_login(user)
    return browser.post(HOME, {"card": "waiting", "booking": booking}, follow=True)


def test_a_receptionist_confirms_a_booking_on_the_home_page():
    booking = BookingFactory(start_time=NOON + timedelta(hours=1))
    receptionist = staff(["bookings.view_booking", "bookings.change_booking"])
    assert f'value="{booking.pk}"' in opened(receptionist).content.decode()

    response = confirm(receptionist, booking.pk)

    assert response.redirect_chain == [(HOME, 302)]
    page = unescape(response.content.decode())
    assert f"Confirmed: {booking.service.title} for {booking.user.name}, Wed 2 Dec, 13:00." in page
    assert "Nothing waits." in page
    booking.refresh_from_db()
    assert booking.status == "confirmed"
    assert booking.events.get().actor == receptionist


def test_a_receptionist_who_may_not_change_bookings_gets_no_button_and_a_403():
    booking = BookingFactory(start_time=NOON + timedelta(hours=1))
    reader = staff(["bookings.view_booking"])
    assert f'value="{booking.pk}"' not in opened(reader).content.decode()
    assert confirm(reader, booking.pk).status_code == 403
    booking.refresh_from_db()
    assert booking.status == "pending"


@pytest.mark.parametrize("booking", ["", "abc", "\0", "01a00000-0000-7000-8000-000000000000"])
def test_a_senseless_booking_is_refused_with_a_message(booking):
    response = confirm(AdminFactory(), booking)
    assert response.status_code == 200
    assert 'class="error"' in response.content.decode()


def test_confirming_a_cancelled_booking_says_why_not():
    booking = book("cancelled", start_time=NOON + timedelta(hours=1))
    assert "cannot become confirmed" in confirm(AdminFactory(), booking.pk).content.decode()


@pytest.mark.parametrize("card", ["", "nothing", "today"])
def test_a_form_of_no_card_gets_a_404(site, card):
    assert site.post(HOME, {"card": card}).status_code == 404


# --- numbers ----------------------------------------------------------------------------------


def test_today_is_the_day_of_the_user(site):
    tokyo = AdminFactory(timezone="Asia/Tokyo")  # Today lasts from 15:00 to 15:00 in UTC.
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
        book(
            slot=slot,
            service=slot.service,
            seat=seat,
            start_time=slot.start_time,
            blocked=slot.blocked,
        )
    book("cancelled", start_time=NOON + timedelta(hours=2))
    book(start_time=NOON + timedelta(hours=25))
    now, later = shown(AdminFactory())["next"]["lines"]
    assert (now["hours"], now["zone"], now["is_now"]) == ("11:30–12:30", "", True)  # noqa: RUF001
    assert (now["who"], now["title"], now["calendar"]) == ("Rita", "Cut", "Chair")
    assert now["url"] == reverse("admin:bookings_booking_change", args=[first.pk])
    assert (later["hours"], later["zone"]) == ("15:00–16:00", "Europe/Athens")  # noqa: RUF001
    assert (later["who"], later["title"]) == ("3 people", "Yoga")
    assert found(site, later["url"]) == 3


def test_bookings_that_wait_are_counted_up_to_a_hundred(site):
    for hours in range(8):
        BookingFactory(start_time=NOON + timedelta(hours=hours))
    BookingFactory(start_time=NOON - timedelta(hours=1))
    book(start_time=NOON)
    waiting = shown(AdminFactory())["waiting"]
    assert (waiting["count"], len(waiting["lines"]), waiting["more"]) == (8, 6, True)
    assert found(site, waiting["url"]) == 8


def test_a_slot_shows_the_seats_that_nobody_has_taken_or_waits_for(site):
    slot = SlotFactory(capacity=4, start_time=NOON + timedelta(hours=1))
    book(slot=slot, service=slot.service, start_time=slot.start_time, blocked=slot.blocked)
    slot.waitlist.create(user=UserFactory())
    SlotFactory(start_time=NOON + timedelta(hours=1), status="cancelled")
    [line] = shown(AdminFactory())["slots"]["lines"]
    assert (line["free"], line["taken"], line["capacity"], line["waiting"]) == (2, 1, 4, 1)
    assert found(site, line["bookings"]) == 1
    assert found(site, shown(AdminFactory())["slots"]["url"]) == 1


def test_the_last_30_days_are_compared_with_the_30_days_before(site):
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
    recent = shown(AdminFactory())["recent"]
    told = {
        (each["label"], each["now"]): (each["before"], each["change"]) for each in recent["numbers"]
    }
    assert told == {
        ("Revenue", "40.00 USD"): ("20.00 USD", "+100 %"),
        ("Revenue", "7.00 EUR"): ("0.00 EUR", "none before"),
        ("Bookings", "4"): ("2", "+100 %"),
        ("Cancelled", "1"): ("0", "none before"),
        ("No-shows", "1"): ("0", "none before"),
    }
    for each in recent["numbers"][2:]:
        assert found(site, each["url"]) == int(each["now"])
        assert found(site, each["before_url"]) == int(each["before"])
    assert [(each["title"], each["count"]) for each in recent["services"]] == [
        ("Cut", 3),
        ("Shave", 1),
    ]
    for each in recent["services"]:
        assert found(site, each["list"]) == each["count"]
    bars = recent["chart"]["bars"]
    assert (len(bars), bars[0]["count"], bars[0]["height"], bars[-1]["count"]) == (30, 2, 100, 1)
    assert sum(bar["count"] for bar in bars) == 4
    assert found(site, bars[0]["url"]) == 2


def test_a_failing_webhook_is_named():
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


# --- the menu and the lists -------------------------------------------------------------------


def menu(user):
    return {
        part["name"]: [model["object_name"] for model in part["models"]]
        for part in opened(user).context["available_apps"]
    }


def test_the_menu_shows_the_models_by_what_people_do():
    parts = menu(AdminFactory())
    assert [*parts] == [str(part.label) for part in Menu]
    assert parts["Diary"] == ["Booking", "Slot", "WaitlistEntry"]
    assert parts["Catalog"] == ["Calendar", "Service"]
    assert {*parts["People"]} == {"User", "Profile", "Role"}
    assert parts["Reviews"] == ["Review"]
    assert parts["System"][0] == "docs"
    links = sum(len(each) for each in parts.values())
    assert links == len(admin.site._registry) + len(PAGES)
    assert menu(staff(["bookings.view_booking"])) == {"Diary": ["Booking"]}


def test_each_cell_of_a_list_names_its_column(site, world):
    page = site.get(reverse("admin:bookings_booking_changelist")).content.decode()
    names = re.findall(r'<t[dh] data-label="([^"]+)" class="field-', page)
    columns = len(admin.site.get_model_admin(Booking).list_display)
    assert len(names) == columns * Booking.objects.count()
    assert {"Status", "Service", "Seat"} <= {*names}
    assert 'data-label="' not in re.findall(r"<td[^>]*action-checkbox[^>]*>", page)[0]


def test_the_text_of_a_cell_cannot_end_the_label(site, world):
    header = [{"text": 'a "b" > c'}]
    [cell] = named_by([mark_safe('<td class="field-x">1</td>')], header)
    assert cell == '<td data-label="A &quot;b&quot; &gt; c" class="field-x">1</td>'
