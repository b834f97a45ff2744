"""With `BOOKING_REQUIRES_VERIFIED_EMAIL`, users must verify their address before they book."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.tests.expect import problem
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def required(settings):
    settings.BOOKING_REQUIRES_VERIFIED_EMAIL = True


def verify(user):
    User.objects.filter(pk=user.pk).update(verified_email=user.email)


def book(client, **more):
    body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat(), **more}
    return client.post("/bookings", body)


def hold_of(user):
    return BookingFactory(
        user=user,
        status=Booking.Status.HELD,
        hold_expires_at=timezone.now() + timedelta(minutes=5),
    )


def test_an_unverified_user_can_book_by_default(api):
    assert book(api.as_(UserFactory())).status_code == 201


@pytest.mark.parametrize("more", [{}, {"hold": True}])
def test_a_user_can_book_after_verifying_the_address(api, required, more):
    user = UserFactory()
    problem(book(api.as_(user), **more), 403, "email_not_verified")
    assert not Booking.objects.exists()
    verify(user)
    assert book(api.as_(user), **more).status_code == 201


def test_an_unverified_user_cannot_book_a_hold(api, required):
    user = UserFactory()
    url = f"/bookings/{hold_of(user).pk}"
    problem(api.as_(user).patch(url, {"status": "pending"}), 403, "email_not_verified")
    verify(user)
    assert api.as_(user).patch(url, {"status": "pending"}).status_code == 200


def test_an_unverified_user_cannot_join_a_waitlist(api, required):
    user = UserFactory()
    slot = SlotFactory(start_time=timezone.now() + timedelta(days=3), capacity=1)
    BookingFactory(
        slot=slot, service=slot.service, start_time=slot.start_time, end_time=slot.end_time
    )
    url = f"/slots/{slot.pk}/waitlist"
    problem(api.as_(user).post(url), 403, "email_not_verified")
    verify(user)
    assert api.as_(user).post(url).status_code == 201


def test_an_admin_can_book_for_an_unverified_user(api, required):
    user = UserFactory()
    assert book(api.as_(AdminFactory()), user_id=str(user.pk)).status_code == 201


def test_an_unverified_user_can_cancel_a_booking(api, required):
    user = UserFactory()
    url = f"/bookings/{BookingFactory(user=user).pk}"
    assert api.as_(user).patch(url, {"status": "cancelled"}).status_code == 200
