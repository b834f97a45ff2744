"""Fixtures for the tests of the desk: a receptionist, a customer, and a service in Lisbon."""

from datetime import UTC, datetime

import pytest
import time_machine
from django.test import Client

from accounts.tests.factories import ProviderFactory, UserFactory, staff
from bookings import services
from catalog.models import OpeningHours
from catalog.tests.factories import CalendarFactory, ServiceFactory

NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
# Ten o'clock in Lisbon, and eleven in Paris.
START = datetime(2026, 12, 1, 10, tzinfo=UTC)
LIST = "/admin/bookings/booking/"


@pytest.fixture(autouse=True)
def frozen_time():
    """Freeze the time at `NOW`, and yield an object that can move it."""
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def ana():
    return UserFactory(name="Ana Silva", email="ana@example.com", phone="+351 912 345 678")


@pytest.fixture
def rui():
    """Return a receptionist, who may see and change bookings and nothing else."""
    granted = ["bookings.view_booking", "bookings.change_booking"]
    return staff(granted, name="Rui", email="rui@example.com", timezone="Europe/Paris")


@pytest.fixture
def desk(rui):
    """Return a browser in which the receptionist is signed in."""
    browser = Client()
    browser.force_login(rui)
    return browser


@pytest.fixture
def haircut():
    provider = ProviderFactory(name="Helena", email="helena@example.com")
    chair = CalendarFactory(name="Chair", timezone="Europe/Lisbon", provider=provider)
    for weekday in range(5):
        OpeningHours.objects.create(calendar=chair, weekday=weekday, opens=540, closes=1020)
    return ServiceFactory(title="Haircut", calendar=chair)


@pytest.fixture
def book(haircut, ana):
    def book(start_time=START, actor=ana, **more):
        return services.create_booking(
            actor=actor, service_id=haircut.pk, start_time=start_time, at=NOW, **more
        )

    return book


def path_of(booking):
    """Return the path of the page of a booking."""
    return f"{LIST}{booking.pk}/change/"
