"""Permissions: every endpoint and method of the API against every kind of user."""

import re
from copy import deepcopy
from datetime import timedelta

import pytest
from django.db import transaction
from django.test import override_settings
from django.urls import resolve
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.keys import services as keys
from accounts.links.kinds import PASSWORD_RESET, VERIFICATION
from accounts.links.tests.tokens import emailed_token
from accounts.roles.models import Role
from accounts.sessions import services as sessions
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
from bookit.tests.plugin import QUICK_HASHERS
from bookit.tests.routes import ANY_ID, every_route
from catalog.tests.factories import CalendarFactory, ServiceFactory, TimeOffFactory

pytestmark = pytest.mark.django_db

PEOPLE = ["anonymous", "user", "owner", "provider", "other", "staff", "admin"]

# `owner` owns the bookings, the review, the waitlist entry, the API key and the session. `provider`
# owns the calendar of the bookings, and `other` owns another calendar. `user` owns nothing. `staff`
# is a receptionist, who owns nothing and holds a role with the permissions to see and to change
# bookings.
#
#                                                anonymous user owner provider other staff admin
TABLE = """
POST   /auth/register                                  201  201   201      201   201   201   201
POST   /auth/login                                     200  200   200      200   200   200   200
POST   /auth/refresh                                   200  200   200      200   200   200   200
POST   /auth/logout                                    204  204   204      204   204   204   204

POST   /auth/password-reset                            202  202   202      202   202   202   202
POST   /auth/password-reset/confirm                    204  204   204      204   204   204   204
POST   /auth/verify-email                              204  204   204      204   204   204   204
POST   /auth/verify-email/resend                       401  202   202      202   202   202   202

GET    /me                                             401  200   200      200   200   200   200
PATCH  /me                                             401  200   200      200   200   200   200
DELETE /me    with-the-password                        401  204   204      204   204   204   204
POST   /me/password                                    401  204   204      204   204   204   204
GET    /me/sessions                                    401  200   200      200   200   200   200
DELETE /me/sessions/{session}                          401  404   204      404   404   404   404
GET    /me/export                                      401  200   200      200   200   200   200
PATCH  /me/provider                                    401  403   403      200   200   403   200

GET    /users                                          401  403   403      403   403   403   200
POST   /users                                          401  403   403      403   403   403   201
GET    /users/{owner}                                  401  403   403      403   403   403   200
PATCH  /users/{owner}                                  401  403   403      403   403   403   200
DELETE /users/{owner}                                  401  403   403      403   403   403   204

GET    /me/api-keys                                    401  200   200      200   200   200   200
POST   /me/api-keys                                    401  201   201      201   201   201   201
DELETE /me/api-keys/{api_key}                          401  404   204      404   404   404   404

GET    /roles                                          401  403   403      403   403   403   200
POST   /roles                                          401  403   403      403   403   403   201
GET    /roles/{role}                                   401  403   403      403   403   403   200
PATCH  /roles/{role}                                   401  403   403      403   403   403   200
DELETE /roles/{role}                                   401  403   403      403   403   403   204

GET    /calendars                                      200  200   200      200   200   200   200
GET    /calendars/{calendar}                           200  200   200      200   200   200   200
POST   /calendars                                      401  403   403      201   201   403   201
POST   /calendars    for-the-provider                  401  403   403      201   403   403   201
PATCH  /calendars/{calendar}                           401  403   403      200   403   403   200
PATCH  /calendars/{calendar}    to-the-other           401  403   403      403   403   403   200
PATCH  /calendars/{calendar}    to-nobody              401  403   403      403   403   403   200
DELETE /calendars/{empty_calendar}                     401  403   403      204   403   403   204

GET    /calendars/{calendar}/time-off                  401  403   403      200   403   403   200
POST   /calendars/{calendar}/time-off                  401  403   403      201   403   403   201
DELETE /calendars/{calendar}/time-off/{time_off}       401  403   403      204   403   403   204

GET    /services                                       200  200   200      200   200   200   200
GET    /services/{service}                             200  200   200      200   200   200   200
GET    /services/{inactive_service}                    200  200   200      200   200   200   200
GET    /services/{service}/availability                200  200   200      200   200   200   200
GET    /services/{service}/availability?explain=true   401  403   403      200   403   403   200
GET    /availability?service_id={service}              200  200   200      200   200   200   200
GET    /services/{service}/reviews                     200  200   200      200   200   200   200
POST   /services                                       401  403   403      201   201   403   201
POST   /services    on-the-calendar                    401  403   403      201   403   403   201
PATCH  /services/{service}                             401  403   403      200   403   403   200
PATCH  /services/{unbooked_service}    to-the-other    401  403   403      403   403   403   200
DELETE /services/{unbooked_service}                    401  403   403      204   403   403   204

GET    /categories                                     200  200   200      200   200   200   200
GET    /providers                                      200  200   200      200   200   200   200
GET    /providers/{provider}                           200  200   200      200   200   200   200

GET    /slots                                          200  200   200      200   200   200   200
GET    /slots/{slot}                                   200  200   200      200   200   200   200
POST   /slots                                          401  403   403      201   403   403   201
POST   /slots    a-series                              401  403   403      201   403   403   201
PATCH  /slots/{slot}                                   401  403   403      200   403   403   200
PATCH  /slots/{slot}    cancel                         401  403   403      200   403   403   200
DELETE /slots/{slot}                                   401  403   403      204   403   403   204

GET    /slots/{full_slot}/waitlist                     401  200   200      200   200   200   200
POST   /slots/{full_slot}/waitlist                     401  201   201      201   201   201   201
GET    /slots/{full_slot}/waitlist/{entry}             401  403   200      200   403   403   200
DELETE /slots/{full_slot}/waitlist/{entry}             401  403   204      204   403   403   204

GET    /bookings                                       401  200   200      200   200   200   200
GET    /bookings?scope=provider                        401  200   200      200   200   200   200
GET    /bookings?user_id={owner}                       401  403   403      403   403   200   200
POST   /bookings                                       401  201   201      201   201   201   201
POST   /bookings    for-the-owner                      401  403   201      403   403   403   201
GET    /bookings/{booking}                             401  403   200      200   403   200   200
PATCH  /bookings/{booking}    move                     401  403   200      200   403   200   200
PATCH  /bookings/{booking}    cancel                   401  403   200      200   403   200   200
PATCH  /bookings/{booking}    confirm                  401  403   403      200   403   200   200
PATCH  /bookings/{booking}    details                  401  403   200      200   403   200   200
PATCH  /bookings/{past_booking}    details             401  403   403      200   403   200   200
PATCH  /bookings/{booking}    metadata                 401  403   200      200   403   200   200
PATCH  /bookings/{past_booking}    metadata            401  403   403      200   403   200   200
PATCH  /bookings/{booking}    nothing                  401  403   200      200   403   200   200
PATCH  /bookings/{booking}/status    cancel            401  403   403      200   403   200   200
PATCH  /bookings/{booking}/status    confirm           401  403   403      200   403   200   200
DELETE /bookings/{booking}                             401  403   204      403   403   403   204
DELETE /bookings/{past_booking}                        401  403   403      403   403   403   204
GET    /bookings/{booking}/history                     401  403   200      200   403   200   200

GET    /bookings/{booking}.ics                         401  403   200      200   403   200   200
GET    /me/calendar                                    401  200   200      200   200   200   200
POST   /me/calendar                                    401  200   200      200   200   200   200
GET    /me/calendar.ics?token={own_token}              200  200   200      200   200   200   200
GET    /me/calendar.ics?token=other                    404  404   404      404   404   404   404
GET    /calendars/{calendar}/feed                      401  403   403      200   403   403   200
POST   /calendars/{calendar}/feed                      401  403   403      200   403   403   200
GET    /calendars/{calendar}.ics?token={busy_token}    200  200   200      200   200   200   200
GET    /calendars/{calendar}.ics?token={names_token}   200  200   200      200   200   200   200
GET    /calendars/{calendar}.ics?token={own_token}     404  404   404      404   404   404   404

GET    /reviews                                        200  200   200      200   200   200   200
GET    /reviews/{review}                               200  200   200      200   200   200   200
POST   /reviews                                        401  403   201      403   403   403   403
PATCH  /reviews/{review}                               401  403   200      403   403   403   403
DELETE /reviews/{review}                               401  403   204      403   403   403   204

GET    /webhooks                                       401  403   403      403   403   403   200
POST   /webhooks                                       401  403   403      403   403   403   201
GET    /webhooks/{webhook}                             401  403   403      403   403   403   200
PATCH  /webhooks/{webhook}                             401  403   403      403   403   403   200
DELETE /webhooks/{webhook}                             401  403   403      403   403   403   204
POST   /webhooks/{webhook}/rotate-secret               401  403   403      403   403   403   200
POST   /webhooks/{webhook}/test                        401  403   403      403   403   403   202
GET    /webhooks/{webhook}/deliveries                  401  403   403      403   403   403   200
POST   /webhooks/{webhook}/deliveries/{delivery}/redeliver 401  403   403      403   403   403   202
GET    /events                                         401  403   403      403   403   403   200

GET    /reports/utilisation                            401  403   403      403   403   403   200
GET    /reports/revenue                                401  403   403      403   403   403   200
GET    /reports/customers                              401  403   403      403   403   403   200
GET    /reports/lead_time                              401  403   403      403   403   403   200
GET    /reports/cancellations                          401  403   403      403   403   403   200
GET    /reports/nothing                                401  403   403      403   403   403   404
GET    /reports/reviews                                401  403   403      403   403   403   200

GET    /                                               302  302   302      302   302   302   302
GET    /admin                                          302  302   302      302   302   302   302
GET    /docs                                           200  200   200      200   200   200   200
GET    /redoc                                          200  200   200      200   200   200   200
GET    /example                                        200  200   200      200   200   200   200
GET    /openapi.json                                   200  200   200      200   200   200   200
GET    /errors                                         200  200   200      200   200   200   200
GET    /errors/booking_conflict                        200  200   200      200   200   200   200
GET    /health                                         200  200   200      200   200   200   200
GET    /health/ready                                   200  200   200      200   200   200   200
GET    /metrics                                        200  200   200      200   200   200   200
"""

# The bodies of requests, by the path and, if the row has one, the variant.
BODIES = {
    "/auth/register": {"name": "New", "email": "new@example.com", "password": "correct horse 9"},
    "/auth/login": {"email": "{owner_email}", "password": PASSWORD},
    "/auth/refresh": {"refresh_token": "{refresh_token}"},
    "/auth/logout": {"refresh_token": "{refresh_token}"},
    "/auth/password-reset": {"email": "{owner_email}"},
    "/auth/password-reset/confirm": {"token": "{reset_token}", "password": "7431-8820-5596x"},
    "/auth/verify-email": {"token": "{verify_token}"},
    "/auth/verify-email/resend": {},
    "/me": {"name": "Somebody"},
    "/me with-the-password": {"password": PASSWORD},
    "/me/password": {"current_password": PASSWORD, "new_password": "7431-8820-5596x"},
    "/users": {"name": "New", "email": "new@example.com"},
    "/me/provider": {"biography": "Since 1998."},
    "/users/{owner}": {"name": "Renamed"},
    "/me/api-keys": {"name": "Till", "permissions": ["bookings.view_booking"]},
    "/roles": {"name": "Cleaner", "permissions": ["catalog.view_calendar"]},
    "/roles/{role}": {"description": "At the door"},
    "/calendars": {"name": "Room 1"},
    "/calendars for-the-provider": {"name": "Room 1", "provider_id": "{provider}"},
    "/calendars/{calendar}": {"name": "Room 2"},
    "/calendars/{calendar} to-the-other": {"provider_id": "{other}"},
    "/calendars/{calendar} to-nobody": {"provider_id": None},
    "/calendars/{calendar}/time-off": {
        "start_time": "2999-08-01T00:00:00Z",
        "end_time": "2999-09-01T00:00:00Z",
    },
    "/services": {"title": "Cut", "price": "20.00", "duration_minutes": 30},
    "/services on-the-calendar": {
        "title": "Cut",
        "price": "20.00",
        "duration_minutes": 30,
        "calendar_id": "{calendar}",
    },
    "/services/{service}": {"title": "Shave"},
    "/services/{unbooked_service} to-the-other": {"calendar_id": "{others_calendar}"},
    "/slots": {"service_id": "{service}", "start_time": "{next_week}"},
    "/slots a-series": {
        "service_id": "{service}",
        "start_time": "{next_week}",
        "rrule": "FREQ=DAILY;COUNT=2",
    },
    "/slots/{slot}": {"capacity": 9},
    "/slots/{slot} cancel": {"status": "cancelled"},
    "/slots/{full_slot}/waitlist": {},
    "/bookings": {"service_id": "{service}", "start_time": "2999-01-03T10:00:00Z"},
    "/bookings for-the-owner": {
        "service_id": "{service}",
        "start_time": "2999-01-03T10:00:00Z",
        "user_id": "{owner}",
    },
    "/bookings/{booking} move": {"start_time": "2999-01-04T10:00:00Z"},
    "/bookings/{booking} cancel": {"status": "cancelled"},
    "/bookings/{booking} confirm": {"status": "confirmed"},
    "/bookings/{booking} details": {"attendee_name": "Rui", "notes": "By the window"},
    "/bookings/{past_booking} details": {"attendee_name": "Rui", "notes": "By the window"},
    "/bookings/{booking} metadata": {"metadata": {"invoice": "118"}},
    "/bookings/{past_booking} metadata": {"metadata": {"invoice": "118"}},
    "/bookings/{booking} nothing": {},
    "/bookings/{booking}/status cancel": {"status": "cancelled"},
    "/bookings/{booking}/status confirm": {"status": "confirmed"},
    "/me/calendar": {},
    "/calendars/{calendar}/feed": {},
    "/reviews": {"booking_id": "{completed_booking}", "rating": 4},
    "/reviews/{review}": {"rating": 3},
    "/webhooks": {"url": "https://8.8.8.8/hook", "events": ["booking.created"]},
    "/webhooks/{webhook}": {"events": ["review.created"]},
    "/webhooks/{webhook}/rotate-secret": {},
    "/webhooks/{webhook}/test": {},
    "/webhooks/{webhook}/deliveries/{delivery}/redeliver": {},
}

# The method, the path, the variant, and the expected status for each kind of user.
ROWS = [
    (method, path, " ".join(rest[:-7]), dict(zip(PEOPLE, map(int, rest[-7:]), strict=True)))
    for method, path, *rest in (line.split() for line in TABLE.splitlines() if line)
]
NAMES = [" ".join(filter(None, row[:3])) for row in ROWS]


@pytest.fixture(scope="module")
def created(django_db_setup, django_db_blocker):
    """Create the people and the world for all tests of a module, and delete them afterwards.

    They are created in a transaction that is still open while the tests run. pytest-django rolls
    the changes of each test back to a savepoint in this transaction.
    """
    hashers = override_settings(PASSWORD_HASHERS=QUICK_HASHERS)
    with django_db_blocker.unblock(), transaction.atomic(), hashers:
        people = create_people()
        yield people, create_world(people)
        transaction.set_rollback(True)


@pytest.fixture
def people(created):
    """Return a user of each kind, by the name of the kind."""
    return deepcopy(created[0])


@pytest.fixture
def world(created):
    """Return the values of the table's placeholders."""
    return {**created[1]}


def create_people():
    return {
        "user": UserFactory(),
        "owner": UserFactory(),
        "provider": ProviderFactory(),
        "other": ProviderFactory(),
        "staff": staff(["bookings.view_booking", "bookings.change_booking"]),
        "admin": AdminFactory(),
    }


def create_world(people):
    at = timezone.now()
    calendar = CalendarFactory(provider=people["provider"])
    service = ServiceFactory(calendar=calendar)

    def booking(hours, **fields):
        return BookingFactory(
            user=people["owner"],
            service=service,
            start_time=TUESDAY + timedelta(hours=hours),
            **fields,
        )

    def slot(days):
        return SlotFactory(
            service=ServiceFactory(calendar=calendar), start_time=at + timedelta(days=days)
        )

    signed_in = sessions.log_in(
        email=people["owner"].email,
        password=PASSWORD,
        client=sessions.Client("192.0.2.1", "a browser"),
        at=at,
    )
    client = APIClient()
    client.force_authenticate(people["owner"])
    reviewed = booking(1, status=Booking.Status.COMPLETED)
    review = client.post("/reviews", {"booking_id": str(reviewed.pk), "rating": 5}, format="json")
    # Its only seat is promised to the user of `entry`.
    full_slot = slot(days=60)
    delivery = DeliveryFactory()
    things = {
        "webhook": delivery.webhook,
        "delivery": delivery,
        "role": Role.objects.get(),
        "api_key": keys.create_key(owner=people["owner"], name="Till", at=at)[0],
        "session": people["owner"].sessions.get(),
        "calendar": calendar,
        "others_calendar": CalendarFactory(provider=people["other"]),
        "empty_calendar": CalendarFactory(provider=people["provider"]),
        "time_off": TimeOffFactory(calendar=calendar),
        "service": service,
        "inactive_service": ServiceFactory(calendar=calendar, is_active=False),
        "unbooked_service": ServiceFactory(calendar=calendar),
        "slot": slot(days=30),
        "full_slot": full_slot,
        "entry": WaitlistEntryFactory(slot=full_slot, user=people["owner"]),
        "booking": booking(0),
        "completed_booking": booking(2, status=Booking.Status.COMPLETED),
        "past_booking": BookingFactory(
            user=people["owner"], service=service, start_time=at - timedelta(days=1)
        ),
        **people,
    }
    busy_token, names_token = feeds.calendar_tokens(calendar=calendar, reader=people["provider"])
    return {
        **{name: str(thing.pk) for name, thing in things.items()},
        "own_token": feeds.own_token(user=people["owner"]),
        "busy_token": busy_token,
        "names_token": names_token,
        "review": review.json()["id"],
        "next_week": (at + timedelta(days=7)).isoformat(),
        "owner_email": people["owner"].email,
        "refresh_token": signed_in.refresh_token,
        "reset_token": emailed_token(PASSWORD_RESET, people["owner"]),
        "verify_token": emailed_token(VERIFICATION, people["owner"]),
    }


def send(client, row, world):
    """Send the request of a row of the table, and roll back its changes."""
    method, path, variant, _ = row
    body = None
    if method in ("POST", "PATCH") or variant == "with-the-password":
        body = {
            name: value.format(**world) if isinstance(value, str) else value
            for name, value in BODIES[f"{path} {variant}".strip()].items()
        }
    with transaction.atomic():
        response = client.generic(
            method,
            path.format(**world),
            b"" if body is None else client._encode_data(body, "json")[0],
            content_type="application/json",
        )
        transaction.set_rollback(True)
    return response


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_every_endpoint_responds_to_each_user_as_the_table_says(api, people, world, row):
    responses = {
        who: send(api if who == "anonymous" else api.as_(people[who]), row, world) for who in PEOPLE
    }
    assert {who: response.status_code for who, response in responses.items()} == row[3]
    for response in responses.values():
        if response.status_code in (401, 403):
            assert response["Content-Type"] == "application/problem+json"
        if response.status_code == 401:
            assert response.json()["code"] == "not_authenticated"
            assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_token_of_a_deactivated_account_is_refused(api, people, world, row):
    path = row[1]
    client = api.as_(people["admin"])
    people["admin"].is_active = False
    people["admin"].save()
    response = send(client, row, world)
    if reads_tokens(path):
        assert response.status_code == 401
        assert response.json()["code"] == "token_invalid"
    else:
        assert response.status_code == row[3]["anonymous"]


def reads_tokens(path):
    """Return whether the endpoints under this path authenticate the client."""
    kind = path.split("/")[1].split("?")[0]
    return path == "/auth/verify-email/resend" or kind in (
        *("me", "users", "roles", "calendars", "services", "availability", "slots", "bookings"),
        *("reviews", "webhooks", "events", "categories", "providers", "reports"),
    )


def api_routes():
    """Yield each method and route of the URLconf, except HEAD, OPTIONS and the admin site."""
    for route, view in every_route():
        if route.startswith("admin/"):
            continue
        if hasattr(view, "actions"):
            methods = view.actions
        elif hasattr(view, "cls"):
            methods = [name for name in view.cls.http_method_names if hasattr(view.cls, name)]
        else:
            methods = ["get"]
        for method in methods:
            if method not in ("head", "options"):
                yield method.upper(), route


def nowhere(path):
    """Return a path of the table with an id of no row in place of each name."""
    return re.sub(r"{\w+}", ANY_ID, path)


def route_of(path):
    return resolve(nowhere(path).split("?")[0]).route


def test_the_table_lists_every_endpoint_and_method():
    """A new endpoint needs a row of `TABLE` for each method, and a body in `BODIES`."""
    table = {(method, route_of(path)) for method, path, *_ in ROWS}
    assert table == set(api_routes())


@pytest.mark.parametrize("route", sorted({route for _, route in api_routes()}))
def test_unsupported_methods_are_refused(api, people, route):
    admin = api.as_(people["admin"])
    path = "/" + (
        re.sub(r"<id:\w+>", ANY_ID, route)
        .replace("<slug:code>", "not_found")
        .replace("<slug:name>", "revenue")
    )
    if path == "/admin":  # This endpoint redirects every method.
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert api.generic(method, path).status_code == 302, (method, path)
        return
    allowed = {method for method, known in api_routes() if known == route}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
        for client in (api, admin):
            response = client.generic(method, path)
            assert response.status_code == 405, (method, path)
            assert response.json()["code"] == "method_not_allowed"
            assert allowed <= set(response["Allow"].split(", "))


def test_the_admin_site_does_not_accept_tokens(api, people):
    response = api.as_(people["admin"]).get("/admin/")
    assert (response.status_code, response["Location"]) == (302, "/admin/login/?next=/admin/")
