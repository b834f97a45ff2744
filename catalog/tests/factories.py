"""Builders of calendars, time off and services."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import factory
from factory.django import DjangoModelFactory

from catalog.models import Calendar, Service, TimeOff


class CalendarFactory(DjangoModelFactory):
    """A calendar that is always open."""

    class Meta:
        model = Calendar

    name = factory.Faker("company")


class TimeOffFactory(DjangoModelFactory):
    """A day of time off without a reason."""

    class Meta:
        model = TimeOff

    calendar = factory.SubFactory(CalendarFactory)
    start_time = datetime(2999, 8, 1, tzinfo=UTC)
    end_time = factory.LazyAttribute(lambda time_off: time_off.start_time + timedelta(days=1))


class ServiceFactory(DjangoModelFactory):
    """A service of one hour with one seat, on a calendar of its own, for 25.00 USD."""

    class Meta:
        model = Service

    calendar = factory.SubFactory(CalendarFactory)
    title = factory.Sequence(lambda number: f"Service {number}")
    price = Decimal("25.00")
    duration_minutes = 60
