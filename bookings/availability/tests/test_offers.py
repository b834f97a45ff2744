"""The preview of what customers are offered, on the page of a service in the admin site."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.urls import reverse

from accounts.tests.factories import AdminFactory, staff
from bookings.availability.search import search
from bookings.tests.factories import BookingFactory, SlotFactory
from catalog.models import OpeningHours, Service
from catalog.offers import MAX_TIMES, offered_days
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

# A Monday; in Lisbon, it is 8:00 in the morning.
MONDAY = datetime(2026, 11, 30, 8, tzinfo=UTC)


@pytest.fixture(autouse=True)
def monday():
    """Freeze the time. A session that began at another time could have expired by then."""
    with time_machine.travel(MONDAY, tick=False):
        yield


@pytest.fixture
def site(client):
    client.force_login(AdminFactory())
    return client


@pytest.fixture
def service():
    calendar = CalendarFactory(timezone="Europe/Lisbon")
    for weekday in (0, 1):
        OpeningHours.objects.create(
            calendar=calendar, weekday=weekday, opens=9 * 60, closes=12 * 60
        )
    return ServiceFactory(calendar=calendar)


def starts(service, at=MONDAY):
    return [
        time.start.strftime("%a %H:%M")
        for day in offered_days(service, at=at)
        for time in day.times
    ]


def form_of(service, **changes):
    """Return the form of a service with `changes`, as `forms.js` sends it for a preview."""
    return {
        "title": service.title,
        "calendar": service.calendar_id,
        "price": service.price,
        "currency": service.currency,
        "duration_minutes": service.duration_minutes,
        "capacity": service.capacity,
        "mode": service.mode,
        "is_active": "on",
        "buffer_before_minutes": 0,
        "buffer_after_minutes": 0,
        "min_notice_minutes": 0,
        "cancellation_notice_minutes": 0,
        **changes,
    }


def test_the_preview_shows_the_times_that_the_search_finds(service):
    BookingFactory(service=service, start_time=MONDAY + timedelta(hours=2))
    at = MONDAY
    found = search([service.pk], at, at + timedelta(days=7), at=at)
    [terms] = found.services
    expected = [f"{time['start_time']:%a %H:%M}" for time in found.free_times(terms)]
    assert starts(service) == expected
    assert expected == [*("Mon 09:00", "Mon 11:00", "Tue 09:00", "Tue 10:00", "Tue 11:00")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"duration_minutes": 180}, ["Mon 09:00", "Tue 09:00"]),
        ({"duration_minutes": 90, "step_minutes": 30, "min_notice_minutes": 1440}, [
            *("Tue 09:00", "Tue 09:30", "Tue 10:00", "Tue 10:30")
        ]),
        ({"max_advance_days": 1}, ["Mon 09:00", "Mon 10:00", "Mon 11:00"]),
        ({"is_active": False}, []),
        ({"mode": "slots"}, []),
    ],
)  # fmt: skip
def test_the_preview_shows_the_effect_of_unsaved_changes(service, change, expected):
    for name, value in change.items():
        setattr(service, name, value)
    assert starts(service) == expected


def test_slots_are_shown_with_their_seats(service):
    Service.objects.update(mode="slots", capacity=12)
    service.refresh_from_db()
    SlotFactory(service=service, start_time=MONDAY + timedelta(days=2), capacity=12)
    [day] = [each for each in offered_days(service, at=MONDAY) if each.times]
    assert [time.seats_left for time in day.times] == [12]
    assert day.day.isoformat() == "2026-12-02"


def test_the_seats_of_a_slot_are_shown_even_if_the_service_has_one_seat(site, service):
    Service.objects.update(mode="slots")
    SlotFactory(service=service, start_time=MONDAY + timedelta(days=2), capacity=5)
    page = site.get(reverse("admin:catalog_service_change", args=[service.pk]))
    assert "5 seats</time>" in page.content.decode()


def test_a_day_with_many_times_says_how_many_more_it_has(service):
    service.duration_minutes, service.step_minutes = 5, 5
    days = offered_days(service, at=MONDAY)
    assert len(days) == 7
    # In three hours, 36 bookings can start, one every five minutes.
    assert (len(days[0].times), days[0].more) == (MAX_TIMES, 36 - MAX_TIMES)


def test_the_page_contains_the_url_of_the_preview_which_shows_unsaved_values(
    site, service, django_assert_max_num_queries
):
    page = site.get(reverse("admin:catalog_service_change", args=[service.pk]))
    path = reverse("admin:catalog_service_offers", args=[service.pk])
    # More than half of these queries check the values against the constraints of the table.
    with django_assert_max_num_queries(26):
        text = site.get(path, form_of(service, duration_minutes=180)).content.decode()
    assert f'data-preview="{path}"' in page.content.decode()
    assert page.content.decode().count("<time ") == 6
    assert text.count("<time ") == 2
    assert "Mon 30 Nov" in text
    assert "Europe/Lisbon" in text
    service.refresh_from_db()
    assert service.duration_minutes == 60


@pytest.mark.parametrize(
    "change",
    [
        *({"duration_minutes": 0}, {"duration_minutes": "9" * 30}, {"step_minutes": 0}),
        *({"capacity": "x"}, {"calendar": "\0"}, {"price": "NaN"}),
    ],
)
def test_an_invalid_form_has_no_preview(site, service, change):
    path = reverse("admin:catalog_service_offers", args=[service.pk])
    response = site.get(path, form_of(service, **change))
    assert response.status_code == 200
    assert "Correct the form" in response.content.decode()
    response = site.post(
        reverse("admin:catalog_service_change", args=[service.pk]), form_of(service, **change)
    )
    assert response.status_code == 200
    assert "Correct the form" in response.content.decode()


def test_another_calendar_has_no_preview_until_the_form_is_saved(site, service):
    other = CalendarFactory(timezone="America/New_York")
    path = reverse("admin:catalog_service_offers", args=[service.pk])
    text = site.get(path, form_of(service, calendar=other.pk)).content.decode()
    assert "Save to see what customers are offered in the new calendar." in text
    assert "<time " not in text
    assert "New_York" not in text
    page = reverse("admin:catalog_service_change", args=[service.pk])
    saved = site.post(page, form_of(service, calendar=other.pk, _continue="on"), follow=True)
    text = saved.content.decode()
    assert (
        "The next seven days with the settings on this page, in the zone America/New_York." in text
    )
    assert "<time " in text


def test_a_new_service_has_no_preview(site):
    page = site.get(reverse("admin:catalog_service_add")).content.decode()
    assert "What customers are offered" not in page


def test_users_who_may_only_see_services_see_the_preview_of_the_stored_service(client, service):
    client.force_login(staff(["catalog.view_service"]))
    page = client.get(reverse("admin:catalog_service_change", args=[service.pk]))
    assert "What customers are offered" in page.content.decode()
    assert page.content.decode().count("<time ") == 6
    path = reverse("admin:catalog_service_offers", args=[service.pk])
    assert path not in page.content.decode()
    assert client.get(path, form_of(service)).status_code == 403


def test_the_preview_of_a_deleted_service_is_not_found(site, service):
    path = reverse("admin:catalog_service_offers", args=[service.pk])
    assert starts(service)
    service.delete()
    assert site.get(path).status_code == 404
    assert starts(service) == []
