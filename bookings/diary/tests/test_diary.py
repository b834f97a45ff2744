"""What the diary shows, to whom, and what users can do in it."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import pytest
from django.urls import reverse
from django.utils import timezone

from accounts.tests.factories import AdminFactory, UserFactory, staff
from bookings.diary import reading
from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.database import versions
from bookit.database.versions import expect, version_of
from catalog.models import OpeningHours, TimeOff
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

PAGE = reverse("admin:bookings_diary")
SHEET = reverse("admin:bookings_diary_sheet")
MOVE = reverse("admin:bookings_diary_move")
BOOK = reverse("admin:bookings_diary_book")
CLOSE = reverse("admin:bookings_diary_close")
REOPEN = reverse("admin:bookings_diary_reopen")
CONFIRM = reverse("admin:bookings_diary_confirm")
READ = [PAGE, SHEET, BOOK]
PATHS = [*READ, MOVE, CONFIRM, CLOSE, REOPEN]
WEEK = {"first": "2998-12-31", "until": "2999-01-07", "zone": "UTC"}
DAY = {"first": "2999-01-01", "until": "2999-01-02", "zone": "UTC"}
TOO_MANY = reading.MAX_CALENDARS + 1


@pytest.fixture
def boss():
    return AdminFactory(timezone="Europe/Lisbon")


@pytest.fixture
def site(client, boss):
    client.force_login(boss)
    return client


@pytest.fixture
def receptionist(client):
    """Return the browser of a user who may see bookings and nothing else."""
    client.force_login(staff(["bookings.view_booking"]))
    return client


def sheet_of(site, *calendars, **changes):
    response = site.get(SHEET, {**WEEK, **changes, "calendar": [each.pk for each in calendars]})
    assert response.status_code == 200, response.content
    return response.json()


# --- permissions ------------------------------------------------------------------------------


def test_a_receptionist_sees_the_diary_but_cannot_change_it(receptionist):
    booking = BookingFactory(attendee_name="Ada Lovelace")

    page = receptionist.get(PAGE)
    [shown] = sheet_of(receptionist, booking.calendar)["bookings"]

    assert page.status_code == 200
    assert shown["attendee"] == "Ada Lovelace"
    assert 'id="diary-close"' not in page.content.decode()
    assert 'id="diary-free"' not in page.content.decode()
    [calendar] = page.context["diary"]["calendars"]
    assert not calendar["movable"]
    assert not calendar["closable"]
    assert move(receptionist, booking, "2999-01-01T12:00").status_code == 403
    assert confirm(receptionist, booking).status_code == 403
    assert book(receptionist, booking.service).status_code == 403
    assert close(receptionist, booking.calendar).status_code == 403
    off = TimeOffFactory(calendar=booking.calendar)
    assert reopen(receptionist, off).status_code == 403
    assert TimeOff.objects.get() == off
    booking.refresh_from_db()
    assert booking.start_time == TUESDAY


@pytest.mark.parametrize("path", PATHS)
def test_staff_who_may_not_see_bookings_get_a_403(client, path):
    client.force_login(staff(["accounts.view_user"]))
    send = client.get if path in READ else client.post

    assert send(path).status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_customers_are_sent_to_the_sign_in_form(client, path):
    client.force_login(UserFactory())
    send = client.get if path in READ else client.post

    response = send(path)

    assert response.status_code == 302
    assert response["Location"].startswith("/admin/login/")


def test_changes_need_a_post(site):
    assert site.get(MOVE).status_code == 405
    assert site.get(CONFIRM).status_code == 405
    assert site.get(CLOSE).status_code == 405
    assert site.get(REOPEN).status_code == 405


def test_the_reason_of_time_off_is_shown_only_to_those_who_may_see_calendars(client, boss):
    off = TimeOffFactory(start_time=TUESDAY, reason="Dentist")
    for user, reason in [(boss, "Dentist"), (staff(["bookings.view_booking"]), "")]:
        client.force_login(user)
        [shown] = sheet_of(client, off.calendar)["off"]
        assert shown["reason"] == reason


def test_providers_with_a_role_see_the_reasons_on_their_own_calendars(client):
    provider = staff(["bookings.view_booking"], role="provider")
    for calendar, reason in [
        (CalendarFactory(provider=provider), "Dentist"),
        (CalendarFactory(), ""),
    ]:
        TimeOffFactory(calendar=calendar, start_time=TUESDAY, reason="Dentist")
        client.force_login(provider)
        [shown] = sheet_of(client, calendar)["off"]
        assert shown["reason"] == reason


# --- the page ---------------------------------------------------------------------------------


def test_the_list_of_bookings_links_to_the_diary(site):
    assert f'href="{PAGE}"' in site.get("/admin/bookings/booking/").content.decode()


@pytest.mark.parametrize("more", [[], ["bookings.view_slot"], ["bookings.change_slot"]])
def test_the_button_of_a_class_opens_a_page_that_the_user_may_see(client, more):
    slot = SlotFactory()
    BookingFactory(slot=slot, service=slot.service, attendee_name="Rui")
    client.force_login(staff(["bookings.view_booking", *more]))
    url = client.get("/admin/diary/").context["diary"]["urls"]["slot"].replace("ID", str(slot.pk))
    opened = client.get(url)
    assert opened.status_code == 200
    assert "Rui" in opened.content.decode()


def test_users_first_see_their_own_calendars(client):
    admin = AdminFactory()
    CalendarFactory.create_batch(3)
    own = CalendarFactory(provider=admin, name="zzz", timezone="Asia/Tokyo")
    client.force_login(admin)

    diary = client.get(PAGE).context["diary"]

    assert [each["id"] for each in diary["calendars"]] == [str(own.pk)]
    assert diary["zone"] == "Asia/Tokyo"
    assert diary["offset"] == "+09:00"


def test_calendars_in_several_zones_are_shown_in_the_zone_of_the_user(site):
    CalendarFactory(timezone="Asia/Tokyo")
    CalendarFactory(timezone="America/Lima")

    assert site.get(PAGE).context["diary"]["zone"] == "Europe/Lisbon"
    assert site.get(PAGE, {"zone": "Asia/Tokyo"}).context["diary"]["zone"] == "Asia/Tokyo"


def test_a_link_can_name_calendars_a_view_and_a_day(site):
    chosen, _ = CalendarFactory.create_batch(2)

    response = site.get(PAGE, {"calendar": chosen.pk, "view": "month", "date": "2999-01-01"})

    diary = response.context["diary"]
    assert [each["id"] for each in diary["calendars"]] == [str(chosen.pk)]
    assert (diary["view"], diary["date"]) == ("month", "2999-01-01")


@pytest.mark.parametrize("value", ["", "abc", "\0", "9" * 5000, "9999-12-31", "2999-02-31"])
def test_invalid_parameters_of_the_page_are_ignored(site, value):
    CalendarFactory()
    names = ("calendar", "view", "date", "zone")

    response = site.get(PAGE, dict.fromkeys(names, value))

    assert response.status_code == 200
    assert response.context["diary"]["date"] == timezone.now().date().isoformat()


def test_a_diary_without_calendars_opens(site):
    assert "There is no calendar yet." in site.get(PAGE).content.decode()


# --- the sheet --------------------------------------------------------------------------------


def test_times_are_the_wall_clock_times_of_the_zone(site):
    booking = BookingFactory(status="confirmed", attendee_name="Ada", attendee_phone="+351210000")

    [shown] = sheet_of(site, booking.calendar, zone="Asia/Tokyo")["bookings"]

    assert shown == {
        "id": str(booking.pk),
        "calendar": str(booking.calendar_id),
        "start": "2999-01-01T19:00:00",
        "end": "2999-01-01T20:00:00",
        "version": str(version_of(booking.updated_at)),
        "status": "confirmed",
        "state": "Confirmed",
        "attendee": "Ada",
        "phone": "+351210000",
        "has_mailbox": True,
        "service": booking.service.title,
        "movable": True,
    }


def test_a_booking_without_an_attendee_shows_who_booked(site):
    booking = BookingFactory(user__name="Grace Hopper", user__phone="+351219999")

    [shown] = sheet_of(site, booking.calendar)["bookings"]

    assert (shown["attendee"], shown["phone"]) == ("Grace Hopper", "+351219999")


def test_an_erased_customer_is_shown_as_a_former_user(site):
    booking = BookingFactory(user__name="")

    [shown] = sheet_of(site, booking.calendar)["bookings"]

    assert shown["attendee"] == "a former user"


def test_the_diary_marks_bookings_of_users_who_get_no_email(site):
    booking = BookingFactory(user__email="01a00000@no-mail.invalid")
    [shown] = sheet_of(site, booking.calendar)["bookings"]
    assert shown["has_mailbox"] is False


def test_only_bookings_that_occupy_time_are_shown(site):
    service = ServiceFactory(capacity=9)
    kept = []
    for seat, status in enumerate(Booking.Status.values, 1):
        booking = BookingFactory(service=service, seat=seat, status=status)
        if status in Booking.ACTIVE:
            kept.append(str(booking.pk))
    BookingFactory(service=service, seat=9, status="held", hold_expires_at=timezone.now())

    shown = sheet_of(site, service.calendar)["bookings"]

    assert sorted(each["id"] for each in shown) == sorted(kept)
    movable = {each["status"] for each in shown if each["movable"]}
    assert movable == {"pending", "confirmed"}


def test_only_the_chosen_calendars_and_days_are_shown(site):
    service = ServiceFactory()
    inside = BookingFactory(service=service, start_time=TUESDAY + timedelta(days=5))
    # The next two bookings touch the week, but are not in it.
    BookingFactory(service=service, start_time=datetime(2998, 12, 30, 23, tzinfo=UTC))
    BookingFactory(service=service, start_time=datetime(2999, 1, 7, tzinfo=UTC))
    BookingFactory()

    shown = sheet_of(site, service.calendar)["bookings"]

    assert [each["id"] for each in shown] == [str(inside.pk)]


def test_a_booking_that_began_long_before_the_week_is_shown(site):
    service = ServiceFactory(duration_minutes=60 * 24 * 100)
    BookingFactory(service=service, start_time=TUESDAY - timedelta(days=50))

    assert len(sheet_of(site, service.calendar)["bookings"]) == 1


def test_a_class_shows_how_many_seats_are_taken_and_how_many_are_pending(site):
    slot = SlotFactory(capacity=7)
    for seat, status in enumerate(["pending", "confirmed", "confirmed", "cancelled"], 1):
        BookingFactory(
            slot=slot,
            service=slot.service,
            start_time=slot.start_time,
            blocked=slot.blocked,
            seat=seat,
            status=status,
        )
    SlotFactory(service=slot.service, status="cancelled")

    found = sheet_of(site, slot.calendar)

    [shown] = found["slots"]
    assert found["bookings"] == []
    assert (shown["capacity"], shown["taken"], shown["pending"]) == (7, 3, 1)
    assert shown["service"] == slot.service.title


def test_buffers_are_shown_around_a_booking(site):
    service = ServiceFactory(buffer_before_minutes=10, buffer_after_minutes=20)
    BookingFactory(service=service)

    found = sheet_of(site, service.calendar)

    assert [(each["start"][11:16], each["end"][11:16]) for each in found["buffers"]] == [
        ("09:50", "10:00"),
        ("11:00", "11:20"),
    ]


def test_times_outside_the_opening_hours_are_closed(site):
    calendar = CalendarFactory(timezone="Europe/Lisbon")
    # The days before and after are open too, but are not shown.
    for weekday in range(3):
        for opens, closes in [(9 * 60, 13 * 60), (14 * 60, 17 * 60 + 30)]:
            OpeningHours.objects.create(
                calendar=calendar, weekday=weekday, opens=opens, closes=closes
            )

    found = sheet_of(site, calendar, **DAY)

    assert [(each["start"][8:16], each["end"][8:16]) for each in found["closed"]] == [
        ("01T00:00", "01T09:00"),
        ("01T13:00", "01T14:00"),
        ("01T17:30", "02T00:00"),
    ]
    assert (found["opens"], found["closes"]) == (9, 18)


def test_a_calendar_without_hours_is_never_closed(site):
    found = sheet_of(site, CalendarFactory())

    assert found["closed"] == []
    assert (found["opens"], found["closes"]) == (0, 24)


def test_a_whole_day_without_hours_is_closed(site):
    calendar = CalendarFactory()
    OpeningHours.objects.create(calendar=calendar, weekday=3, opens=540, closes=1440)

    [shown] = sheet_of(site, calendar, **DAY)["closed"]

    assert (shown["start"], shown["end"]) == ("2999-01-01T00:00:00", "2999-01-02T00:00:00")


def test_a_booking_during_the_hour_that_is_repeated_does_not_end_before_it_begins(site):
    # On 2026-10-25, the clocks of Lisbon go from 02:00 back to 01:00.
    start = datetime(2026, 10, 25, 0, 45, tzinfo=UTC)
    assert start.astimezone(ZoneInfo("Europe/Lisbon")).hour == 1
    booking = BookingFactory(start_time=start, end_time=start + timedelta(minutes=30))
    days = {"first": "2026-10-25", "until": "2026-10-26", "zone": "Europe/Lisbon"}

    [shown] = sheet_of(site, booking.calendar, **days)["bookings"]

    assert (shown["start"][11:16], shown["end"][11:16]) == ("01:45", "02:15")


def test_an_unchanged_sheet_is_a_304(site):
    booking = BookingFactory()
    query = {**WEEK, "calendar": booking.calendar_id}
    first = site.get(SHEET, query)

    again = site.get(SHEET, query, headers={"If-None-Match": first["ETag"]})
    Booking.objects.update(attendee_name="Somebody else")
    changed = site.get(SHEET, query, headers={"If-None-Match": first["ETag"]})

    assert again.status_code == 304
    assert changed.status_code == 200


def test_a_sheet_that_is_too_full_says_so(site, monkeypatch):
    monkeypatch.setattr(reading, "MAX_ENTRIES", 2)
    service = ServiceFactory(capacity=3)
    for seat in (1, 2):
        BookingFactory(service=service, seat=seat)
    assert not sheet_of(site, service.calendar)["more"]
    BookingFactory(service=service, seat=3)

    found = sheet_of(site, service.calendar)

    assert found["more"]
    assert len(found["bookings"]) == 2


@pytest.mark.parametrize("most", [2000, 3])
def test_the_statements_for_a_distributed_database_find_the_same_rows(site, monkeypatch, most):
    monkeypatch.setattr(reading, "MAX_ENTRIES", most)
    calendars = CalendarFactory.create_batch(3)
    for number, calendar in enumerate(calendars):
        service = ServiceFactory(calendar=calendar, capacity=2)
        for hours in (number, 5 - number):
            BookingFactory(service=service, start_time=TUESDAY + timedelta(hours=hours))
        slot = SlotFactory(service=service, start_time=TUESDAY + timedelta(hours=8 - number))
        BookingFactory(slot=slot, service=service, start_time=slot.start_time)
    expected = sheet_of(site, *calendars)
    assert (len(expected["bookings"]), len(expected["slots"])) == (min(most, 6), 3)

    monkeypatch.setattr(reading, "is_distributed", lambda: True)

    assert sheet_of(site, *calendars) == expected


@pytest.mark.one_server("counts statements, and a cluster needs more of them")
def test_a_sheet_takes_the_same_number_of_queries_for_many_calendars(
    site, django_assert_num_queries
):
    bookings = BookingFactory.create_batch(20)
    for booking in bookings:
        OpeningHours.objects.create(calendar=booking.calendar, weekday=1, opens=540, closes=1020)
        TimeOffFactory(calendar=booking.calendar, start_time=TUESDAY)
        SlotFactory(service=booking.service, start_time=TUESDAY + timedelta(days=2))
    for chosen in (bookings[:1], bookings):
        # The queries read Django's session, the `Session` of the login, user, calendars, bookings,
        # slots, time off and hours.
        with django_assert_num_queries(8):
            found = sheet_of(site, *(each.calendar for each in chosen))
        assert len(found["bookings"]) == len(found["slots"]) == len(chosen)


def test_the_page_takes_at_most_six_queries_for_many_calendars(site, django_assert_max_num_queries):
    shown = [booking.calendar_id for booking in BookingFactory.create_batch(20)]
    for chosen in (shown[:1], shown):
        # The queries read Django's session, the `Session` of the login, user, offered and chosen
        # calendars, and services.
        with django_assert_max_num_queries(6):
            response = site.get(PAGE, {"calendar": chosen})
        assert len(response.context["diary"]["services"]) == len(chosen)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"first": "2999-01-07"}, "until"),
        ({"until": "2999-03-01"}, "until"),
        ({"first": ""}, "first"),
        ({"first": "9999-12-31"}, "first"),
        ({"first": "2999-01-01T10:00:00Z"}, "first"),
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"zone": "\0"}, "zone"),
        ({"calendar": ["abc"]}, "calendar"),
        ({"calendar": []}, "calendar"),
        ({"calendar": ["01a00000-0000-7000-8000-000000000000"] * TOO_MANY}, "calendar"),
    ],
)
def test_a_wrong_request_for_a_sheet_names_the_parameter(site, changes, field):
    query = {**WEEK, "calendar": [CalendarFactory().pk], **changes}

    response = site.get(SHEET, query)

    assert response.status_code == 400
    assert [*response.json()["fields"]] == [field]


# --- moving -----------------------------------------------------------------------------------


def move(site, booking, start, zone="UTC"):
    known = version_of(booking.updated_at)
    return site.post(MOVE, {"booking": booking.pk, "version": known, "start": start, "zone": zone})


def test_the_user_moves_a_booking_to_a_wall_clock_time(site, boss):
    booking = BookingFactory()

    response = move(site, booking, "2999-01-02T09:30", zone="Asia/Tokyo")

    assert response.status_code == 200
    assert response.json() == {"message": "Moved to Wed 2 Jan 2999, 09:30."}
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 1, 2, 0, 30, tzinfo=UTC)
    event = BookingEvent.objects.get()
    assert (event.type, event.actor) == ("booking.rescheduled", boss)


def test_a_conflict_is_refused_with_the_nearest_free_times(site):
    service = ServiceFactory()
    BookingFactory(service=service)
    booking = BookingFactory(service=service, start_time=TUESDAY + timedelta(days=1))

    response = move(site, booking, "2999-01-01T10:30")

    assert response.status_code == 409
    refusal = response.json()
    assert refusal["message"] == "This time is already booked."
    assert len(refusal["alternatives"]) == 3
    first = refusal["alternatives"][0]
    assert first == {"start": "2999-01-01T11:00:00", "label": "Tue 1 Jan 2999, 11:00"}
    assert move(site, booking, first["start"]).status_code == 200


def test_moving_a_completed_booking_is_refused_with_the_reason(site):
    response = move(site, BookingFactory(status="completed"), "2999-01-02T10:00")

    assert response.status_code == 409
    assert "cannot be rescheduled" in response.json()["message"]


@pytest.mark.parametrize(
    "start",
    [
        *("", "abc", "2999-01-01", "2999-13-01T10:00", "\0", "2999-01-01T24:00", "9" * 5000),
        *("2999-01-01T10:00Z", "2999-01-01T10:00:00+05:00", "2999-01-01T10:00 am"),
    ],
)
def test_an_invalid_time_is_refused_at_its_field(site, start):
    response = move(site, BookingFactory(), start)

    assert response.status_code == 400
    assert [*response.json()["fields"]] == ["start"]


def test_a_time_in_the_past_is_refused(site):
    response = move(site, BookingFactory(), "2001-01-01T10:00")

    assert response.status_code == 400
    assert response.json()["message"] == "The start is in the past."


def test_moving_a_deleted_booking_says_that_it_is_gone(site):
    booking = BookingFactory()
    Booking.objects.all().delete()

    response = move(site, booking, "2999-01-02T10:00")

    assert response.status_code == 404
    assert "no longer exists" in response.json()["message"]


def test_a_booking_that_somebody_else_has_moved_is_not_moved_by_mistake(site):
    booking = BookingFactory()
    seen = Booking.objects.get()
    assert move(site, booking, "2999-01-03T10:00").status_code == 200
    moved = Booking.objects.get()

    response = move(site, seen, "2999-01-02T10:00")

    assert response.status_code == 409
    refusal = response.json()
    assert refusal["message"] == (
        "Somebody has just changed this booking. Now it is on Thu 3 Jan 2999, 10:00 (Pending)."
    )
    assert refusal["current"] == {"start": "2999-01-03T10:00:00", "end": "2999-01-03T11:00:00"}
    assert refusal["version"] == str(version_of(moved.updated_at))
    assert Booking.objects.get().start_time == moved.start_time
    # With the new version, the booking can be moved.
    assert move(site, moved, "2999-01-02T10:00").status_code == 200


def test_a_booking_that_changes_during_the_request_is_not_moved(site, monkeypatch):
    booking = BookingFactory()

    def expect_late(*arguments):
        Booking.objects.update(notes="Changed by somebody else")
        expect(*arguments)

    monkeypatch.setattr(versions, "expect", expect_late)
    response = move(site, booking, "2999-01-02T10:00")

    assert response.status_code == 409
    assert response.json()["message"].startswith("Somebody has just changed this booking.")
    assert Booking.objects.get().start_time == TUESDAY


def test_moving_a_booking_that_somebody_has_cancelled_says_so(site):
    booking = BookingFactory()
    Booking.objects.update(status="cancelled")

    response = move(site, booking, "2999-01-02T10:00")

    assert response.status_code == 409
    assert "(Cancelled)" in response.json()["message"]


def test_a_booking_keeps_its_wall_clock_time_across_a_change_of_clocks(site):
    # On 2999-03-31, the clocks of Lisbon go from 01:00 to 02:00.
    booking = BookingFactory(start_time=datetime(2999, 3, 30, 10, tzinfo=UTC))

    response = move(site, booking, "2999-04-01T10:00", zone="Europe/Lisbon")

    assert response.json() == {"message": "Moved to Mon 1 Apr 2999, 10:00."}
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 4, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("start", ["2999-03-31T01:00", "2999-03-31T01:30"])
def test_a_time_that_the_clocks_skip_is_refused_at_its_field(site, start):
    booking = BookingFactory(start_time=datetime(2999, 3, 30, 10, tzinfo=UTC))

    response = move(site, booking, start, zone="Europe/Lisbon")

    assert response.status_code == 400
    assert response.json()["fields"] == {
        "start": ["This time does not exist: the clocks are put forward on this day."]
    }
    assert move(site, booking, "2999-03-31T02:00", zone="Europe/Lisbon").status_code == 200


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        # On 2999-10-27, the clocks of Lisbon show the hour from 01:00 twice.
        (datetime(2999, 10, 27, 1, 30, tzinfo=UTC), "2999-10-27T01:30"),
        # The form has no seconds.
        (datetime(2999, 1, 1, 10, 0, 30, tzinfo=UTC), "2999-01-01T10:00"),
    ],
)
def test_a_booking_stays_where_it_is_if_its_time_is_left_alone(site, start, shown):
    booking = BookingFactory(start_time=start)
    assert move(site, booking, shown, zone="Europe/Lisbon").status_code == 200
    booking.refresh_from_db()
    assert booking.start_time == start
    assert not BookingEvent.objects.exists()


def test_the_second_of_two_equal_hours_is_chosen_in_utc(site):
    booking = BookingFactory(service__calendar__timezone="Europe/Lisbon")
    # The page offers UTC, although neither the user nor the calendar is in UTC.
    page = site.get(PAGE, {"zone": "Europe/Lisbon"}).content.decode()
    assert '<option value="UTC"' in page
    response = move(site, booking, "2999-10-27T01:30", zone="UTC")
    assert response.json() == {"message": "Moved to Sun 27 Oct 2999, 01:30."}
    booking.refresh_from_db()
    assert booking.start_time == datetime(2999, 10, 27, 1, 30, tzinfo=UTC)
    # In local time, the first of two equal hours counts, and the message says which hour it is.
    response = move(site, booking, "2999-10-27T01:15", zone="Europe/Lisbon")
    assert response.json() == {"message": "Moved to Sun 27 Oct 2999, 01:15 WEST."}


# --- confirming -------------------------------------------------------------------------------


def confirm(site, booking, **changes):
    shown = {"booking": booking.pk, "version": version_of(booking.updated_at), "zone": "UTC"}
    return site.post(CONFIRM, {**shown, **changes})


def test_a_booking_is_confirmed_by_the_user(site, boss):
    booking = BookingFactory()

    assert confirm(site, booking).json() == {"message": "Confirmed for Tue 1 Jan 2999, 10:00."}
    assert Booking.objects.get().status == "confirmed"
    assert BookingEvent.objects.get().actor == boss
    # The booking is confirmed already.
    again = confirm(site, booking)
    assert again.status_code == 409
    assert again.json()["message"] == (
        "Somebody has just changed this booking. Now it is on Tue 1 Jan 2999, 10:00 (Confirmed)."
    )
    refused = confirm(site, booking, version="")
    assert refused.status_code == 400
    assert refused.json()["message"] == "Reload the page and try again."
    assert site.post(CONFIRM, {"booking": "abc", "version": "1", "zone": "UTC"}).status_code == 400


def test_a_booking_that_was_moved_meanwhile_is_confirmed_only_after_its_new_time_is_shown(site):
    booking = BookingFactory()
    move(site, booking, "2999-01-01T12:00")

    refused = confirm(site, booking)

    assert refused.status_code == 409
    assert refused.json()["current"]["start"] == "2999-01-01T12:00:00"
    assert Booking.objects.get().status == "pending"
    confirmed = confirm(site, booking, version=refused.json()["version"])
    assert confirmed.json() == {"message": "Confirmed for Tue 1 Jan 2999, 12:00."}


# --- booking ----------------------------------------------------------------------------------


def book(site, service, **changes):
    usual = {"start": "2999-01-01T10:00", "zone": "UTC", "diary": "view=week"}
    return site.get(BOOK, {**usual, "service": service.pk if service else "", **changes})


def test_booking_leads_to_the_page_for_callers_with_the_service_and_the_time(site):
    service = ServiceFactory(calendar__timezone="Asia/Tokyo")

    response = book(site, service, start="2999-01-01T20:00")

    assert response.status_code == 302
    target = urlsplit(response["Location"])
    assert target.path == reverse("admin:bookings_booking_add")
    assert dict(parse_qsl(target.query)) == {
        "service": str(service.pk),
        "day": "2999-01-02",
        "start": "2999-01-01T20:00:00Z",
        "diary": "view=week",
    }
    page = site.get(response["Location"]).content.decode()
    assert f'<option value="{service.pk}" selected>' in page
    assert 'value="2999-01-02"' in page
    assert 'value="2999-01-01T20:00:00Z" checked' in page
    assert f'href="{PAGE}?view=week"' in page


def test_the_page_for_callers_returns_to_the_diary(site):
    response = site.post(
        reverse("admin:bookings_booking_add"),
        {
            "service": ServiceFactory().pk,
            "start": "2999-01-01T10:00:00Z",
            "name": "Ada Lovelace",
            "phone": "+351 21 000 00 00",
            "diary": "view=week&date=2999-01-01",
        },
    )

    assert Booking.objects.get().start_time == TUESDAY
    assert response["Location"] == f"{PAGE}?view=week&date=2999-01-01"


@pytest.mark.parametrize("start", ["2999-01-01T20:00:30", "2999-01-01T20:00:30.500"])
def test_the_seconds_of_a_time_to_book_are_ignored(site, start):
    location = book(site, ServiceFactory(), start=start)["Location"]

    assert dict(parse_qsl(urlsplit(location).query))["start"] == "2999-01-01T20:00:00Z"


@pytest.mark.parametrize("start", ["", "abc", "9999-12-31T10:00", "\0"])
def test_an_invalid_time_to_book_is_ignored(site, start):
    response = book(site, ServiceFactory(), start=start)

    assert response["Location"].endswith("?diary=view%3Dweek")


def test_without_a_service_only_the_day_is_chosen(site):
    location = book(site, None)["Location"]

    chosen = dict(parse_qsl(urlsplit(location).query))
    assert chosen == {"day": "2999-01-01", "diary": "view=week"}


def test_the_page_offers_the_active_services_of_the_shown_calendars(site):
    service = ServiceFactory(title="Haircut", mode="slots")
    ServiceFactory(calendar=service.calendar, is_active=False)
    ServiceFactory()

    page = site.get(PAGE, {"calendar": service.calendar_id})

    [offered] = page.context["diary"]["services"]

    assert offered == {
        "id": str(service.pk),
        "title": "Haircut",
        "calendar": str(service.calendar_id),
        "in_slots": True,
        "minutes": service.duration_minutes,
    }


# --- closing ----------------------------------------------------------------------------------


def close(site, calendar, **changes):
    usual = {"start": "2999-01-01T09:00", "end": "2999-01-01T12:00", "zone": "UTC"}
    return site.post(CLOSE, {**usual, "calendar": calendar.pk, **changes})


def test_a_time_is_closed_and_the_bookings_in_it_are_named(site):
    booking = BookingFactory()

    response = close(site, booking.calendar, reason="Dentist")

    assert response.status_code == 200
    found = response.json()
    assert found["message"] == "Closed. 1 booking is in this time and stays as it is."
    [link] = found["bookings"]
    assert link["url"] == f"/admin/bookings/booking/{booking.pk}/change/"
    title, name = booking.service.title, booking.user.name
    assert link["label"] == f"Tue 1 Jan 2999, 10:00 · {title} · {name}"
    off = TimeOff.objects.get()
    assert (off.calendar, off.reason) == (booking.calendar, "Dentist")
    assert off.start_time == datetime(2999, 1, 1, 9, tzinfo=UTC)
    assert off.end_time == datetime(2999, 1, 1, 12, tzinfo=UTC)


def test_the_message_about_a_closed_time_without_bookings_is_short(site):
    assert close(site, CalendarFactory()).json() == {"message": "Closed.", "bookings": []}


def test_a_time_that_ends_before_it_begins_is_refused(site):
    response = close(site, CalendarFactory(), end="2999-01-01T08:00")

    assert response.status_code == 400
    assert response.json()["message"] == "The end must be after the start."
    assert not TimeOff.objects.exists()


def reopen(site, off, **changes):
    usual = {"calendar": off.calendar_id, "time_off": off.pk, "zone": "UTC"}
    return site.post(REOPEN, {**usual, **changes})


def test_a_closed_time_is_opened_again(site):
    off = TimeOffFactory()

    assert reopen(site, off).json() == {"message": "The time off was deleted."}
    assert not TimeOff.objects.exists()
    assert reopen(site, off).status_code == 404


def test_time_off_of_another_calendar_is_not_deleted(site):
    off = TimeOffFactory()

    assert reopen(site, off, calendar=CalendarFactory().pk).status_code == 404
    assert reopen(site, off, calendar="abc").status_code == 400
    assert TimeOff.objects.exists()
