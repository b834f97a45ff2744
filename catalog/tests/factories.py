"""Builders of what is offered."""

from decimal import Decimal

import factory
from factory.django import DjangoModelFactory

from catalog.models import Calendar, Service


class CalendarFactory(DjangoModelFactory):
    """A calendar that is always open."""

    class Meta:
        model = Calendar

    name = factory.Faker("company")


class ServiceFactory(DjangoModelFactory):
    """An hour with one seat, on a calendar of its own, for 25.00 USD."""

    class Meta:
        model = Service

    calendar = factory.SubFactory(CalendarFactory)
    title = factory.Sequence(lambda number: f"Service {number}")
    price = Decimal("25.00")
    duration_minutes = 60
