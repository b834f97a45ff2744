"""Exports: files with the rows of a list, and day sheets."""

import csv
import io
from codecs import BOM_UTF8
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone
from icalendar import Calendar as ICalendar

from accounts.privacy.services import erase_user
from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.events import SLOT_CANCELLED
from bookings.mails.models import MailText
from bookings.models import Booking, Slot
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.adminsite.exports import Format
from bookit.adminsite.tests.conftest import boss, world  # noqa: F401 - fixtures
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

BOOKINGS = "/admin/bookings/booking/"


@pytest.fixture
def site(client):
    client.force_login(AdminFactory(timezone="Europe/Lisbon"))
    return client


def rows_of(response):
    """Return the rows of a CSV file, as dictionaries."""
    text = response.getvalue().decode("utf-8-sig")
    assert response["Content-Type"] == "text/csv; charset=utf-8"
    return [*csv.DictReader(io.StringIO(text))]


# --- lists ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label)
def test_every_list_can_be_downloaded(site, world, model):  # noqa: F811
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

    # The page of `MailText` shows every kind of email, instead of a list of rows.
    if model is not MailText:
        assert f'href="{address}export.csv?"' in site.get(address).content.decode()
    content = site.get(f"{address}export.csv").getvalue()
    assert content.startswith(BOM_UTF8)
    assert content.count(b"\r\n") >= 2  # the titles and a row


@pytest.mark.parametrize("model", admin.site._registry, ids=lambda model: model._meta.label)
def test_the_titles_of_the_columns_are_in_the_language_of_the_user(client, model):
    client.force_login(AdminFactory(language="ru"))
    address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/export.csv"

    titles = csv.DictReader(io.StringIO(client.get(address).getvalue().decode("utf-8-sig")))

    assert {title for title in titles.fieldnames if title.isascii()} <= {"ID", "JTI", "URL"}


def test_a_csv_file_has_the_rows_and_the_order_of_the_list(site):
    confirmed = BookingFactory(status="confirmed")
    later = BookingFactory(status="confirmed", start_time=TUESDAY + timedelta(days=1))
    BookingFactory(status="pending")

    # The file has the rows of all pages.
    rows = rows_of(site.get(f"{BOOKINGS}export.csv?status__exact=confirmed&o=-1&p=7"))

    assert [row["id"] for row in rows] == [str(later.pk), str(confirmed.pk)]
    assert rows[0]["status"] == "confirmed"
    shown = site.get(f"{BOOKINGS}?status__exact=confirmed&o=-1&p=1").content.decode()
    assert f'"{BOOKINGS}export.csv?status__exact=confirmed&amp;o=-1"' in shown


def test_times_in_a_csv_file_are_in_the_zone_of_the_user_and_the_header_names_it(site):
    BookingFactory(start_time=datetime(2999, 7, 1, 10, tzinfo=UTC))

    [row] = rows_of(site.get(f"{BOOKINGS}export.csv"))

    assert row["start time (Europe/Lisbon)"] == "2999-07-01 11:00:00"


def test_bookits_own_reason_is_in_the_language_of_the_user_and_other_reasons_are_as_given(client):
    client.force_login(AdminFactory(language="de"))
    BookingFactory(status="cancelled", cancellation_reason=SLOT_CANCELLED)
    BookingFactory(
        status="cancelled",
        cancellation_reason="Krank",
        start_time=TUESDAY + timedelta(days=1),
    )

    rows = rows_of(client.get(f"{BOOKINGS}export.csv?o=1"))

    reasons = [row["Stornierungsgrund"] for row in rows]
    assert reasons == ["Der Termin wurde abgesagt.", "Krank"]


def test_text_from_a_customer_is_never_a_formula(site):
    BookingFactory(attendee_name="=HYPERLINK(1)", notes="@SUM(A1)", attendee_phone="+351 912 345")

    [row] = rows_of(site.get(f"{BOOKINGS}export.csv"))

    assert row["attendee name"] == "'=HYPERLINK(1)"
    assert row["notes"] == "'@SUM(A1)"
    assert row["attendee phone"] == "'+351 912 345"


def test_details_of_the_attendee_that_were_not_given_are_those_of_the_user_who_booked(site):
    user = UserFactory(name="Ana Silva", email="ana@example.com", phone="912 345 678")
    BookingFactory(user=user)
    BookingFactory(user=user, attendee_name="Rui", start_time=TUESDAY + timedelta(days=1))

    own, other = rows_of(site.get(f"{BOOKINGS}export.csv"))

    assert own["attendee name"] == "Ana Silva"
    assert own["attendee email"] == other["attendee email"] == "ana@example.com"
    assert own["attendee phone"] == "912 345 678"
    assert other["attendee name"] == "Rui"


@pytest.mark.parametrize(
    ("currency", "price"), [("EUR", "25.00"), ("JPY", "1500"), ("KWD", "1.500")]
)
def test_a_price_in_a_file_has_the_decimals_of_its_currency(site, currency, price):
    service = ServiceFactory(price=price, currency=currency)
    BookingFactory(service=service)

    for path in (BOOKINGS, "/admin/catalog/service/"):
        [row] = rows_of(site.get(f"{path}export.csv"))
        assert (row["price"], row["currency"]) == (price, currency)


def test_a_file_of_accounts_has_separate_columns_for_name_address_phone_and_roles(site):
    user = staff(["bookings.view_booking"], name="Rui Costa", phone="912 345 678")

    rows = rows_of(site.get("/admin/accounts/user/export.csv"))

    [row] = [each for each in rows if each["id"] == str(user.pk)]
    assert (row["name"], row["Email address"], row["phone"]) == (user.name, user.email, user.phone)
    assert row["Staff roles"] == user.groups.get().name


def test_a_download_of_many_accounts_takes_at_most_nine_queries(
    site, django_assert_max_num_queries
):
    for _ in range(20):
        staff(["bookings.view_booking"])

    with django_assert_max_num_queries(9):
        assert len(rows_of(site.get("/admin/accounts/user/export.csv"))) == 21


def test_a_download_of_many_bookings_takes_at_most_nine_queries(
    site, django_assert_max_num_queries
):
    BookingFactory.create_batch(20)

    with django_assert_max_num_queries(9):
        assert len(rows_of(site.get(f"{BOOKINGS}export.csv"))) == 20


def test_the_refusal_of_a_list_that_is_too_long_names_the_limit(site, monkeypatch):
    BookingFactory.create_batch(2)
    model_admin = admin.site._registry[Booking]
    short = Format("CSV", "text/csv", most=1, write=model_admin.formats["csv"].write)
    monkeypatch.setattr(type(model_admin), "formats", {"csv": short})

    response = site.get(f"{BOOKINGS}export.csv?status__exact=pending", follow=True)

    assert response.redirect_chain[0][0] == f"{BOOKINGS}?status__exact=pending"
    assert "more than 1 rows" in response.content.decode()


@pytest.mark.parametrize("query", ["status__exact=%00", "nonsense=1", "o=abc", "p=-1"])
def test_a_malformed_query_causes_no_server_error(site, query):
    response = site.get(f"{BOOKINGS}export.csv?{query}")

    assert response.status_code in (200, 302, 400)


def test_files_exist_only_in_known_formats_and_need_a_get(site):
    assert site.get(f"{BOOKINGS}export.pdf").status_code == 404
    assert site.get("/admin/accounts/user/export.ics").status_code == 404
    assert site.post(f"{BOOKINGS}export.csv").status_code == 405


def test_staff_download_only_what_they_may_see(client):
    client.force_login(staff(["bookings.view_booking"]))

    assert client.get(f"{BOOKINGS}export.csv").status_code == 200
    assert client.get("/admin/catalog/service/export.csv").status_code == 403


@pytest.mark.parametrize("model", [Booking, Slot])
def test_bookings_and_slots_can_be_downloaded_as_a_calendar(site, model):
    service = ServiceFactory(title="Yoga")
    user = UserFactory(name="Mia", phone="+351 912 345 678")
    row = (
        BookingFactory(service=service, user=user, status="confirmed")
        if model is Booking
        else SlotFactory(service=service)
    )
    name = model._meta.model_name

    response = site.get(f"/admin/bookings/{name}/export.ics")

    assert response["Content-Type"] == "text/calendar; charset=utf-8"
    [event] = ICalendar.from_ical(response.getvalue()).walk("VEVENT")
    assert event["UID"] == str(row.pk)
    assert event["DTSTART"].dt == TUESDAY
    assert event["STATUS"] == "CONFIRMED"
    assert event["SUMMARY"] == ("Yoga: Mia" if model is Booking else "Yoga")


def test_the_calendar_calls_a_deleted_customer_a_former_user(site):
    user = UserFactory(name="Ana")
    service = ServiceFactory(title="Yoga")
    BookingFactory(service=service, user=user, status="completed", attendee_name="")
    erase_user(user_id=user.pk, actor=AdminFactory(), at=TUESDAY + timedelta(days=1))

    response = site.get("/admin/bookings/booking/export.ics")

    [event] = ICalendar.from_ical(response.getvalue()).walk("VEVENT")
    assert event["SUMMARY"] == "Yoga: a former user"


# --- day sheets -------------------------------------------------------------------------------


@pytest.fixture
def studio():
    calendar = CalendarFactory(name="Studio", timezone="America/New_York")
    OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=1080)
    TimeOffFactory(
        calendar=calendar,
        start_time=TUESDAY + timedelta(hours=4),
        end_time=TUESDAY + timedelta(hours=5),
        reason="Lunch",
    )
    yoga = ServiceFactory(calendar=calendar, title="Yoga", mode="slots", capacity=5)
    slot = SlotFactory(service=yoga)
    for seat, name in enumerate(["Mia", "Rui"], 1):
        BookingFactory(
            service=yoga,
            slot=slot,
            seat=seat,
            status="confirmed",
            attendee_name=name,
            attendee_phone="+351 912 345 678",
            notes="Bad knee",
        )
    BookingFactory(service=yoga, slot=slot, seat=3, status="cancelled", attendee_name="Gone")
    SlotFactory(
        service=yoga,
        start_time=TUESDAY + timedelta(hours=8),
        end_time=TUESDAY + timedelta(hours=9),
    )
    return calendar


def test_a_day_sheet_shows_who_comes_when_in_the_zone_of_the_calendar(site, studio):
    page = site.get(f"/admin/day-sheets/{studio.pk}/2999-01-01/").content.decode()

    assert "05:00 - 06:00" in page
    assert "times in America/New_York" in page
    assert "09:00 - 18:00" in page
    assert "Lunch" in page
    assert "2 of 5 seats" in page
    assert "0 of 5 seats" in page
    for text in ("Mia", "Rui", "+351 912 345 678", "Bad knee", "state-confirmed"):
        assert text in page
    assert "Gone" not in page
    assert f'href="/admin/day-sheets/{studio.pk}/2998-12-31/"' in page
    assert 'href="tel:+351912345678"' in page
    # The form for another day sends this request.
    other_day = site.get(f"/admin/day-sheets/?calendar={studio.pk}&day=2999-02-01")
    assert other_day.url == f"/admin/day-sheets/{studio.pk}/2999-02-01/"


def test_a_sheet_that_leaves_out_bookings_does_not_show_their_slots_as_free(site, monkeypatch):
    monkeypatch.setattr("bookings.exports.daysheets.MAX_BOOKINGS", 1)
    yoga = ServiceFactory(calendar=CalendarFactory(timezone="UTC"), mode="slots", capacity=5)
    for hours in (1, 2, 3):
        start = TUESDAY + timedelta(hours=hours)
        slot = SlotFactory(service=yoga, start_time=start, end_time=start + timedelta(hours=1))
        if hours > 1:
            BookingFactory(service=yoga, slot=slot, start_time=start, status="confirmed")

    page = site.get(f"/admin/day-sheets/{yoga.calendar_id}/2999-01-01/").content.decode()

    assert page.count("0 of 5 seats") == page.count("1 of 5 seats") == 1
    assert "There are more bookings than a sheet shows." in page


def test_a_day_without_bookings_has_a_sheet_too(site, studio):
    page = site.get(f"/admin/day-sheets/{studio.pk}/2998-12-31/").content.decode()

    assert "Nothing is booked on this day." in page
    assert "No opening hours on this day" in page


def test_the_sheet_of_a_calendar_without_opening_hours_says_that_it_is_always_open(site):
    calendar = CalendarFactory(timezone="Europe/Lisbon")

    page = site.get(f"/admin/day-sheets/{calendar.pk}/2998-12-31/").content.decode()

    assert "Always open, times in Europe/Lisbon" in page


def test_a_sheet_calls_a_deleted_customer_a_former_user_and_links_to_the_booking(site):
    user = UserFactory(name="Ana")
    booking = BookingFactory(user=user, status="completed", attendee_name="")
    erase_user(user_id=user.pk, actor=AdminFactory(), at=TUESDAY + timedelta(days=1))

    page = site.get(f"/admin/day-sheets/{booking.calendar_id}/2999-01-01/").content.decode()

    link = reverse("admin:bookings_booking_change", args=[booking.pk])
    assert f'<a href="{link}">a former user</a>' in page


def test_a_sheet_shows_the_dates_of_an_appointment_that_ends_on_the_next_day(site):
    calendar = CalendarFactory(timezone="UTC")
    party = ServiceFactory(calendar=calendar, title="Party", mode="slots", capacity=9)
    SlotFactory(
        service=party,
        start_time=TUESDAY + timedelta(hours=12),
        end_time=TUESDAY + timedelta(hours=16),
    )

    for day, times in [
        ("2999-01-01", "22:00 - 2 Jan, 02:00"),
        ("2999-01-02", "1 Jan, 22:00 - 02:00"),
    ]:
        page = site.get(f"/admin/day-sheets/{calendar.pk}/{day}/").content.decode()
        assert times in page


def test_the_page_of_a_day_links_to_the_sheets_of_calendars_with_bookings(site, studio):
    CalendarFactory(name="Idle")

    page = site.get("/admin/day-sheets/?day=2999-01-01").content.decode()

    assert f'href="/admin/day-sheets/{studio.pk}/2999-01-01/"' in page
    assert "Idle" not in page
    # If the day does not exist, the page shows today.
    today = timezone.now().astimezone(ZoneInfo("Europe/Lisbon")).date()
    page = site.get("/admin/day-sheets/?day=nonsense").content.decode()
    assert f'name="day" value="{today}"' in page
    assert "Nothing is booked on" in page


def test_the_page_of_a_day_counts_the_bookings_that_each_sheet_shows(site):
    """The sheets show the day in the zone of their calendar, and what has begun before."""
    expected = {}
    # The times, in hours after the beginning of 1 January in UTC, and on which of three days the
    # bookings are: 31 December, 1 January and 2 January.
    for name, starts, ends, on_days in [
        ("America/New_York", 1, 2, [1, 0, 0]),
        ("Pacific/Kiritimati", 11, 12, [0, 0, 1]),
        ("Pacific/Pago_Pago", 34, 35, [0, 1, 0]),
        ("Europe/Lisbon", -30, 30, [1, 1, 1]),
    ]:
        start, end = (TUESDAY.replace(hour=0) + timedelta(hours=each) for each in (starts, ends))
        BookingFactory(
            service=ServiceFactory(calendar=CalendarFactory(name=name, timezone=name)),
            start_time=start,
            end_time=end,
            status="confirmed",
        )
        expected[name] = on_days
    for place, day in enumerate(["2998-12-31", "2999-01-01", "2999-01-02"]):
        rows = site.get(f"/admin/day-sheets/?day={day}").context["rows"]
        assert {name: number for name, number, _address in rows} == {
            name: 1 for name, on_days in expected.items() if on_days[place]
        }
        for _name, number, address in rows:
            sheet = site.get(address).context["sheet"]
            assert sum(len(each.bookings) for each in sheet.appointments) == number
    assert "Nothing is booked on" in site.get("/admin/day-sheets/?day=2999-01-03").content.decode()


@pytest.mark.parametrize("day", ["2999-02-30", "tomorrow", "1899-12-31", "3000-01-01"])
def test_an_invalid_day_or_a_year_before_1900_or_after_2999_has_no_sheet(site, studio, day):
    assert site.get(f"/admin/day-sheets/{studio.pk}/{day}/").status_code == 404


def test_a_sheet_takes_a_fixed_number_of_queries(site, studio, django_assert_num_queries):
    yoga = studio.services.get()
    slot = yoga.slots.first()
    for seat in range(4, 30):
        BookingFactory(service=yoga, slot=slot, seat=seat, status="confirmed")

    with django_assert_num_queries(8):
        site.get(f"/admin/day-sheets/{studio.pk}/2999-01-01/")


def test_only_people_who_may_see_time_off_see_its_reason(client, studio):
    for permissions, is_shown in [([], False), (["catalog.view_calendar"], True)]:
        client.force_login(staff(["bookings.view_booking", *permissions]))
        page = client.get(f"/admin/day-sheets/{studio.pk}/2999-01-01/").content.decode()
        assert "Closed from" in page
        assert ("Lunch" in page) == is_shown


def test_only_people_who_may_see_bookings_see_day_sheets(client, studio):
    client.force_login(staff(["catalog.view_service"]))
    assert client.get("/admin/day-sheets/").status_code == 403
    assert client.get(f"/admin/day-sheets/{studio.pk}/2999-01-01/").status_code == 403
    assert "/admin/day-sheets/" not in client.get("/admin/").content.decode()

    client.force_login(staff(["bookings.view_booking"]))
    assert client.get(f"/admin/day-sheets/{studio.pk}/2999-01-01/").status_code == 200
    assert "/admin/day-sheets/" in client.get("/admin/").content.decode()
