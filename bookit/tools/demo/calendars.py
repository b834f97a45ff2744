"""Calendars and their services."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import IntegrityError

from accounts.models import User
from bookings.availability.terms import Terms
from bookings.models import Slot
from bookit.adminsite.refusals import message_of
from bookit.errors import ServiceError
from bookit.tools.demo.chance import Chance
from bookit.tools.demo.entries import CalendarEntry, Entry, ServiceEntry, TownError
from bookit.tools.demo.people import People
from bookit.tools.demo.town import Town
from catalog.models import Calendar, Service
from catalog.services import create_calendar, create_service


@dataclass(eq=False)
class StoredService:
    """A stored service, and the times at which it can be booked.

    Args:
        calendar_entry: the entry of the calendar that the service is on.
        slots: the scheduled slots by their start times, in order.
        seats_left: the number of seats that stay free in some slots, by the ids of the slots.
        free: start times that nobody has booked. Sessions with several seats are left out.
        terms: the terms of the service, which are set after the slots and all time off are stored.
    """

    entry: ServiceEntry
    calendar_entry: CalendarEntry
    service: Service
    slots: dict[datetime, Slot] = field(default_factory=dict)
    seats_left: dict[UUID, int] = field(default_factory=dict)
    free: list[datetime] = field(default_factory=list)
    terms: Terms = field(init=False)


@dataclass(eq=False)
class StoredCalendar:
    """A stored calendar."""

    entry: CalendarEntry
    calendar: Calendar
    provider: User
    services: list[StoredService]


def store_calendars(town: Town, people: People, chance: Chance) -> list[StoredCalendar]:
    """Store all calendars and services, as if providers created them soon after they joined."""
    stored: list[StoredCalendar] = []
    for business in town.businesses:
        provider = people.providers[business.email]
        at = provider.created_at + timedelta(hours=1)
        for entry in business.calendars:
            with named_in_errors(entry):
                calendar = create_calendar(
                    actor=provider,
                    at=at,
                    id=chance.uuid(at),
                    name=entry.name,
                    timezone=chance.tz.key,
                    opening_hours=[span._asdict() for span in entry.spans],
                )
            stored.append(StoredCalendar(entry, calendar, provider, []))
            for service in entry.services:
                at += timedelta(minutes=chance.random.randint(4, 15))
                with named_in_errors(service):
                    row = create_service(
                        actor=provider,
                        at=at,
                        id=chance.uuid(at),
                        calendar_id=calendar.pk,
                        currency=town.settings.currency,
                        **service.columns,
                    )
                stored[-1].services.append(StoredService(service, entry, row))
    return stored


@contextmanager
def named_in_errors(entry: Entry) -> Iterator[None]:
    """Raise an error that names the entry, if BookIt refuses to store the entry.

    Raises:
        TownError: a rule of BookIt or a constraint of the database refused the entry.
    """
    try:
        yield
    except ServiceError as error:
        raise TownError(entry.source, message_of(error)) from error
    except IntegrityError as error:
        refusal = str(error).splitlines()[0]
        raise TownError(entry.source, f"The database refuses this: {refusal}.") from error
