"""Builds a valid request for each operation of the OpenAPI document and each kind of caller.

Tests that change a part of a request start from here. A new operation needs nothing in this module
if the example of its body in the document is valid, if the ids in its path and body are of known
kinds, and if it needs no query parameters.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import quote, urlencode

from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.utils import timezone

from accounts.keys.services import create_key
from accounts.links.kinds import PASSWORD_RESET, VERIFICATION
from accounts.links.tests.tokens import emailed_token
from accounts.sessions.services import Client, record_admin_login
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory, staff
from bookings.feeds import services as feeds
from bookings.models import Booking
from bookings.tests.factories import (
    TUESDAY,
    BookingFactory,
    DeliveryFactory,
    SlotFactory,
    WaitlistEntryFactory,
)
from bookit.tests import contract
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory
from reviews.tests.factories import ReviewFactory

HOURS = [{"weekday": 0, "opens": "09:00", "closes": "12:00"}]

# Valid bodies that have more fields than the example in the document, or that need values of the
# caller. `{name}` stands for a value of the caller. An operation that is not listed here uses the
# example in the document.
BODIES: dict[str, list[dict[str, Any]]] = {
    "POST /auth/register": [
        {
            "name": "Ada",
            "email": "new@example.com",
            "password": PASSWORD,
            "phone": "+351 912 345 678",
            "timezone": "UTC",
            "language": "pt-BR",
            "metadata": {"a": "1"},
        }
    ],
    "POST /auth/login": [{"email": "{email}", "password": PASSWORD}],
    "POST /auth/refresh": [{"refresh_token": "{refresh_token}"}],
    "POST /auth/logout": [{"refresh_token": "{refresh_token}"}],
    "POST /auth/password-reset": [{"email": "{email}"}],
    "POST /auth/password-reset/confirm": [
        {"token": "{reset_token}", "password": "another good password"}
    ],
    "POST /auth/verify-email": [{"token": "{verify_token}"}],
    "PATCH /me": [
        {
            "name": "Ada",
            "email": "new@example.com",
            "current_password": PASSWORD,
            "phone": "+351 912 345 678",
            "timezone": "UTC",
            "language": "pt-BR",
            "metadata": {"a": "1"},
        }
    ],
    "DELETE /me": [{"password": PASSWORD}],
    "POST /me/password": [{"current_password": PASSWORD, "new_password": "another good password"}],
    "POST /users": [
        {
            "name": "Ada",
            "email": "new@example.com",
            "role": "provider",
            "phone": "+351 912 345 678",
            "timezone": "UTC",
            "language": "pt-BR",
            "metadata": {"a": "1"},
        }
    ],
    "PATCH /users/{id}": [
        {
            "name": "Ada",
            "roles": [],
            "role": "provider",
            "is_active": True,
            "metadata": {"a": "1"},
        }
    ],
    "POST /calendars": [
        {
            "name": "Chair",
            "timezone": "UTC",
            "provider_id": "{provider}",
            "opening_hours": HOURS,
            "metadata": {"a": "1"},
        }
    ],
    "PATCH /calendars/{id}": [
        {
            "name": "Chair",
            "timezone": "UTC",
            "provider_id": "{provider}",
            "opening_hours": HOURS,
            "metadata": {"a": "1"},
        }
    ],
    "POST /services": [
        {
            "title": "Cut",
            "price": "25.00",
            "duration_minutes": 30,
            "description": "Short",
            "currency": "EUR",
            "capacity": 2,
            "mode": "open",
            "requires_confirmation": False,
            "buffer_before_minutes": 5,
            "buffer_after_minutes": 5,
            "min_notice_minutes": 5,
            "max_advance_days": 5,
            "cancellation_notice_minutes": 5,
            "step_minutes": 15,
            "category": "Hair",
            "is_active": True,
            "calendar_id": "{calendars}",
            "metadata": {"a": "1"},
        }
    ],
    "PATCH /services/{id}": [
        {
            "title": "Cut",
            "price": "25.00",
            "duration_minutes": 30,
            "description": "Short",
            "currency": "EUR",
            "capacity": 2,
            "mode": "open",
            "buffer_before_minutes": 5,
            "buffer_after_minutes": 5,
            "min_notice_minutes": 5,
            "max_advance_days": 5,
            "step_minutes": 15,
            "category": "Hair",
            "is_active": True,
            "cancellation_notice_minutes": 5,
            "requires_confirmation": False,
            "calendar_id": "{calendars}",
            "metadata": {"a": "1"},
        }
    ],
    "POST /slots": [
        {
            "service_id": "{services}",
            "start_time": "{next_week}",
            "capacity": 3,
            "rrule": "FREQ=WEEKLY;COUNT=2",
        }
    ],
    "PATCH /slots/{id}": [{"capacity": 3, "status": "cancelled"}],
    "POST /bookings": [
        {
            "service_id": "{services}",
            "start_time": "2999-02-01T10:00:00Z",
            "end_time": "2999-02-01T11:00:00Z",
            "user_id": "{user}",
            "attendee_name": "Ada",
            "attendee_email": "ada@example.com",
            "attendee_phone": "+351 912 345 678",
            "language": "pt",
            "notes": "By the window",
            "metadata": {"a": "1"},
        },
        {"service_ids": ["{services}"], "start_time": "2999-02-01T10:00:00Z", "hold": True},
        {"slot_id": "{slots}"},
    ],
    "PATCH /bookings/{id}": [
        {"start_time": "2999-02-01T10:00:00Z"},
        {
            "attendee_name": "Ada",
            "attendee_email": "ada@example.com",
            "attendee_phone": "+351 912 345 678",
            "language": "pt",
            "notes": "By the window",
            "metadata": {"a": "1"},
        },
        {"status": "cancelled", "reason": "I am ill"},
    ],
    "PATCH /bookings/{id}/status": [{"status": "confirmed", "reason": "Why not"}],
    "POST /reviews": [{"booking_id": "{completed}", "rating": 5, "comment": "Fine"}],
    "PATCH /reviews/{id}": [{"rating": 4, "comment": "Fine"}],
    # The URLs contain an IP address, because saving a webhook looks up the host name in its URL.
    "POST /webhooks": [
        {"url": "https://8.8.8.8/hook", "events": ["booking.created"], "is_active": False}
    ],
    "PATCH /webhooks/{id}": [
        {"url": "https://8.8.8.8/hook", "events": ["booking.created"], "is_active": False}
    ],
}

# Query parameters of valid requests. Only those of reports are optional. Tests of hostile input
# replace one of these two by times in 2999, which must fit the other.
QUERIES = {
    "GET /availability": {"service_id": "{services}"},
    "GET /calendars/{id}.ics": {"token": "{calendar_token}"},
    "GET /me/calendar.ics": {"token": "{own_token}"},
    "GET /reports/{name}": {"from": "2999-01-01", "to": "2999-03-01"},
}

# The kinds of rows for some parameters of paths, in place of the kinds that `kind_of` returns. For
# example, a calendar with services cannot be deleted, so the request deletes an unused calendar.
IN_PATH = {
    ("DELETE /calendars/{id}", "id"): "unused_calendar",
    ("DELETE /services/{id}", "id"): "unused_service",
    ("DELETE /slots/{id}", "id"): "unused_slot",
    ("POST /slots/{slot_id}/waitlist", "slot_id"): "full_slot",
    ("PATCH /users/{id}", "id"): "other",
    ("DELETE /users/{id}", "id"): "other",
}

# The kind of row that a field of a body or a query parameter names.
REFERENCES = {
    "service_id": "services",
    "calendar_id": "calendars",
    "booking_id": "completed",
    "user_id": "users",
    "slot_id": "slots",
    "provider_id": "provider",
}

RECEPTIONIST = ["bookings.view_booking", "bookings.change_booking"]


@dataclass(frozen=True)
class Caller:
    """Somebody who sends requests.

    Args:
        headers: the headers of each request of the caller, as in a WSGI environment.
        rows: ids of rows and other values, by kind. If the caller has a row of a kind, the id is
            the id of this row.
    """

    headers: dict[str, str]
    rows: dict[str, str]


@dataclass(frozen=True)
class Request:
    """A request of an operation, in parts that a test can replace."""

    label: str
    path: str
    path_parameters: dict[str, str]
    query: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.label.split()[0]

    @property
    def target(self) -> str:
        """The path and the query, percent-encoded."""
        path = self.path
        for name, value in self.path_parameters.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return f"{path}?{urlencode(self.query)}" if self.query else path

    @property
    def content(self) -> bytes:
        """The body in JSON; empty if there is none."""
        return b"" if self.body is None else json.dumps(self.body).encode()

    def with_body(self, **fields: Any) -> "Request":
        """Return the request with other values of fields of its body."""
        return replace(self, body={**self.body, **fields})


def valid_requests(label: str, caller: Caller) -> list[Request]:
    """Return valid requests of an operation, which differ only in their bodies."""
    operation = contract.documented_operations()[label]
    _, path = label.split()
    names = re.findall(r"{(\w+)}", path)
    ids = {name: caller.rows[IN_PATH.get((label, name)) or kind_of(path, name)] for name in names}
    query = _fill(QUERIES.get(label, {}), caller)
    bodies: list[Any] = [None]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        bodies = BODIES.get(label) or contract.resolve(contract.document(), schema)["examples"]
    return [Request(label, path, ids, query, _moved(_fill(body, caller))) for body in bodies]


def kind_of(path: str, name: str) -> str:
    """Return the segment of the path in front of a parameter: `calendars` for `/calendars/{id}`."""
    return path.partition(f"/{{{name}}}")[0].rpartition("/")[2]


def _fill(part: Any, caller: Caller) -> Any:
    """Return a part of a request with values of the caller in place of `{name}` and example ids."""
    if isinstance(part, dict):
        return {
            name: caller.rows[REFERENCES[name]]
            if name in REFERENCES and value is not None and "{" not in str(value)
            else _fill(value, caller)
            for name, value in part.items()
        }
    if isinstance(part, list):
        return [_fill(each, caller) for each in part]
    if isinstance(part, str):
        return re.sub(r"^{(\w+)}$", lambda match: caller.rows[match[1]], part)
    return part


def _moved(body: Any) -> Any:
    """Move all times of a body by the same number of weeks, to more than six days from now."""
    if not isinstance(body, dict):
        return body
    times = {
        name: datetime.fromisoformat(value)
        for name, value in body.items()
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT\d\d:", value)
    }
    earliest = timezone.now() + timedelta(days=6)
    for weeks in count():
        if all(value + timedelta(weeks=weeks) > earliest for value in times.values()):
            break
    moved = {name: value + timedelta(weeks=weeks) for name, value in times.items()}
    return {**body, **{name: value.isoformat() for name, value in moved.items()}}


@contextmanager
def in_process() -> Iterator[None]:
    """Let the WSGI application use the connection of the test's transaction, and log nothing.

    Call `callers` before you enter this context: `callers` signs in with Django's test client,
    which connects `close_old_connections` to the signals again.
    """
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for signal in signals:
            signal.connect(close_old_connections)


def callers(api, *, only=()):
    """Create rows, and return every kind of caller by name.

    Args:
        api: the fixture `api`, with which the users sign in.
        only: the names of users, to leave out other users.
    """
    provider = ProviderFactory()
    AdminFactory()  # With a second admin, each admin can be deleted and can lose the role.
    users = {
        "customer": UserFactory(),
        "provider": provider,
        "receptionist": staff(RECEPTIONIST),
        "admin": AdminFactory(),
    }
    users = {name: user for name, user in users.items() if not only or name in only}
    service = ServiceFactory(calendar=CalendarFactory(provider=provider))
    slot = SlotFactory(service__calendar__provider=provider, service__capacity=9)
    shared = _shared_rows(provider, service, slot)
    found = {}
    for number, (name, user) in enumerate(users.items()):
        rows = shared | _own_rows(user, service, slot, TUESDAY + timedelta(hours=number))
        session = api.post("/auth/login", {"email": user.email, "password": PASSWORD}).json()
        rows["refresh_token"] = session["refresh_token"]
        headers = {"HTTP_AUTHORIZATION": f"Bearer {session['access_token']}"}
        found[name] = Caller(headers, {kind: str(row) for kind, row in rows.items()})
    for name in sorted({"provider", "admin"} & users.keys()):
        _, key = create_key(owner=users[name], name="Key", at=timezone.now())
        headers = {"HTTP_AUTHORIZATION": f"Bearer {key}"}
        found[f"key of {name}"] = replace(found[name], headers=headers)
    anybody = next(iter(found.values()))
    return {"nobody": replace(anybody, headers={}), **found}


def _shared_rows(provider, service, slot):
    """Create the rows that all callers share; return their ids and other values, by kind."""
    full_slot = SlotFactory(service__calendar__provider=provider)
    WaitlistEntryFactory(slot=full_slot, user=UserFactory())
    delivery = DeliveryFactory()
    calendar_token, _ = feeds.calendar_tokens(calendar=service.calendar, reader=provider)
    return {
        "provider": provider.pk,
        "providers": provider.pk,
        "other": UserFactory().pk,
        "calendars": service.calendar.pk,
        "unused_calendar": CalendarFactory(provider=provider).pk,
        "services": service.pk,
        "unused_service": ServiceFactory(calendar=service.calendar).pk,
        "slots": slot.pk,
        "unused_slot": SlotFactory(service__calendar__provider=provider).pk,
        "full_slot": full_slot.pk,
        "reports": "revenue",
        "time-off": TimeOffFactory(calendar=service.calendar).pk,
        "webhooks": delivery.webhook_id,
        "deliveries": delivery.pk,
        "roles": staff([]).groups.get().role.pk,
        "calendar_token": calendar_token,
        "next_week": (timezone.now() + timedelta(days=7)).isoformat(),
    }


def _own_rows(user, service, slot, start_time):
    """Create rows of the user; return their ids, and tokens and other values, by kind."""
    booking = BookingFactory(user=user, service=service, start_time=start_time)
    completed = BookingFactory(
        user=user,
        service=service,
        start_time=start_time - timedelta(days=1),
        status=Booking.Status.COMPLETED,
    )
    review = ReviewFactory(
        user=user,
        booking__user=user,
        booking__service__calendar__provider=service.calendar.provider,
        booking__service__rating_sum=5,
        booking__service__rating_count=1,
    )
    return {
        "user": user.pk,
        "users": user.pk,
        "email": user.email,
        "bookings": booking.pk,
        "completed": completed.pk,
        "reviews": review.pk,
        "waitlist": WaitlistEntryFactory(slot=slot, user=user).pk,
        "api-keys": create_key(owner=user, name="Till", at=timezone.now())[0].pk,
        "sessions": _session_of(user).pk,
        "reset_token": emailed_token(PASSWORD_RESET, user),
        "verify_token": emailed_token(VERIFICATION, user),
        "own_token": feeds.own_token(user=user),
    }


def _session_of(user):
    client = Client("192.0.2.7", "A browser")
    return record_admin_login(
        user=user, client=client, lifetime=timedelta(hours=1), at=timezone.now()
    )
