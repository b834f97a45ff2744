"""An admin, a client that is signed in as this admin, and rows that the admin site shows."""

import pytest
from django.utils import timezone

from accounts.keys.services import create_key
from accounts.sessions import services as sessions
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, staff
from bookings import services
from bookings.mails.models import MailText
from bookings.tests.factories import (
    TUESDAY,
    BookingFactory,
    DeliveryFactory,
    SlotFactory,
    WaitlistEntryFactory,
    WebhookFactory,
)
from bookit.mails.models import MailCount
from catalog.models import OpeningHours
from catalog.providers.models import Profile
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory
from reviews.tests.factories import ReviewFactory


@pytest.fixture
def boss():
    return AdminFactory(email="boss@example.com", name="Boss")


@pytest.fixture
def site(client, boss):
    client.force_login(boss)
    return client


@pytest.fixture
def world(boss):
    """Create at least one row of every model that the admin site shows. Events enqueue the jobs."""
    signed_in = sessions.log_in(
        email=boss.email,
        password=PASSWORD,
        client=sessions.Client("192.0.2.1", "a browser"),
        at=timezone.now(),
    )
    # This blacklists the first refresh token, so there is a row of `BlacklistedToken`.
    sessions.refresh(refresh_token=signed_in.refresh_token, at=timezone.now())
    calendar = CalendarFactory(provider=ProviderFactory())
    OpeningHours.objects.create(calendar=calendar, weekday=1, opens=540, closes=1440)
    TimeOffFactory(calendar=calendar)
    Profile.objects.create(user=calendar.provider, biography="Cuts hair since 1998.")
    booking = services.create_booking(
        actor=boss,
        service_id=ServiceFactory(calendar=calendar, category="Barber").pk,
        start_time=TUESDAY,
        at=timezone.now(),
    )
    services.change_status(booking_id=booking.pk, status="completed", actor=boss, at=timezone.now())
    ReviewFactory(booking=booking)
    BookingFactory(user=boss)
    WaitlistEntryFactory(slot=SlotFactory(), user=boss)
    WebhookFactory()
    DeliveryFactory()
    staff(["bookings.view_booking"])
    create_key(owner=boss, name="Till", at=timezone.now())
    MailText.objects.create(key="reminder", attendee="Bring a towel.")
    MailCount.objects.create(subject="a booking", day=timezone.now().date(), sent=1, most=8)
