"""Changes to services and calendars that have bookings."""

import pytest
from django.utils import timezone

from accounts.tests.factories import AdminFactory, ProviderFactory, UserFactory
from bookings import services
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.tests.expect import problem
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def provider():
    return ProviderFactory()


@pytest.fixture
def service(provider):
    return ServiceFactory(calendar=CalendarFactory(provider=provider))


@pytest.fixture(params=["provider", "admin"])
def client(request, api, provider):
    return api.as_(provider if request.param == "provider" else AdminFactory())


@pytest.mark.parametrize("status", Booking.Status)
def test_a_service_with_any_booking_cannot_be_deleted(client, service, status):
    BookingFactory(service=service, status=status)
    problem(client.delete(f"/services/{service.pk}"), 409, "service_in_use")
    problem(client.delete(f"/calendars/{service.calendar_id}"), 409, "service_in_use")
    assert Service.objects.count() == Calendar.objects.count() == Booking.objects.count() == 1


def test_a_booked_service_can_be_deactivated(client, api, service):
    booking = BookingFactory(service=service)
    response = client.patch(f"/services/{service.pk}", {"is_active": False})
    assert (response.status_code, response.json()["is_active"]) == (200, False)
    assert api.get("/services").json()["count"] == 0
    # The bookings of the service are not affected.
    owner = api.as_(booking.user)
    assert owner.get(f"/bookings/{booking.pk}").json()["status"] == "pending"
    assert client.patch(f"/bookings/{booking.pk}", {"status": "confirmed"}).status_code == 200
    assert owner.patch(f"/bookings/{booking.pk}", {"status": "cancelled"}).status_code == 200


def test_a_service_can_be_deleted_once_its_bookings_are_deleted(client, service):
    booking = BookingFactory(service=service)
    services.delete_booking(booking_id=booking.pk, actor=booking.user, at=timezone.now())
    assert client.delete(f"/services/{service.pk}").status_code == 204
    assert client.delete(f"/calendars/{service.calendar_id}").status_code == 204


@pytest.mark.parametrize("status", Booking.Status)
def test_a_service_with_any_booking_cannot_move_to_another_calendar(
    client, provider, service, status
):
    BookingFactory(service=service, status=status)
    other = CalendarFactory(provider=provider)
    response = client.patch(f"/services/{service.pk}", {"calendar_id": str(other.pk), "price": "1"})
    problem(response, 409, "service_in_use")
    service.refresh_from_db()
    assert (service.calendar != other, service.price) == (True, 25)


def test_sending_the_current_calendar_of_a_booked_service_is_accepted(client, service):
    BookingFactory(service=service)
    body = {"calendar_id": str(service.calendar_id), "price": "30.00"}
    response = client.patch(f"/services/{service.pk}", body)
    assert (response.status_code, response.json()["price"]) == (200, "30.00")


def test_the_new_provider_of_a_calendar_sees_its_bookings_and_the_former_does_not(
    api, service, provider
):
    booking = BookingFactory(service=service)
    successor = ProviderFactory()
    api.as_(AdminFactory()).patch(
        f"/calendars/{service.calendar_id}", {"provider_id": str(successor.pk)}
    )
    assert api.as_(successor).get(f"/bookings/{booking.pk}").status_code == 200
    assert api.as_(successor).get("/bookings?scope=provider").json()["count"] == 1
    problem(api.as_(provider).get(f"/bookings/{booking.pk}"), 403, "permission_denied")
    assert api.as_(provider).get("/bookings?scope=provider").json()["count"] == 0


def test_a_raised_capacity_accepts_more_bookings(client, api, service):
    BookingFactory(service=service)
    body = {"service_id": str(service.pk), "start_time": TUESDAY.isoformat()}
    as_user = api.as_(UserFactory())
    problem(as_user.post("/bookings", body), 409, "booking_conflict")
    client.patch(f"/services/{service.pk}", {"capacity": 2})
    assert as_user.post("/bookings", body).json()["seat"] == 2
