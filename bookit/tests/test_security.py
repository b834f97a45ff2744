"""Attacks on many endpoints. `docs/security.md` names these tests, and tests of other modules."""

import json
from decimal import Decimal
from itertools import product
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.test import Client
from django.utils import timezone

from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import BookingFactory, SlotFactory
from bookings.tests.jobs import work
from bookit.tests.expect import problem
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory
from reviews.models import Review

pytestmark = pytest.mark.django_db

# --- fields that a client must not write ---------------------------------------------------------

# Fields and attributes that the server decides, and the values that an attacker wants to store. The
# server itself stores none of these values.
WANTED = {
    "id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "pk": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "role": "admin",
    "roles": ["Reception"],
    "groups": [1],
    "is_staff": True,
    "is_superuser": True,
    "is_active": False,
    "email_verified": True,
    "verified_email": "owner@example.com",
    "new_email": "attacker@example.com",
    "deleted_at": "2020-01-01T00:00:00Z",
    "created_at": "2020-01-01T00:00:00Z",
    "updated_at": "2020-01-01T00:00:00Z",
    "user": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
    "author_name": "The Mayor",
    "price": "0.01",
    "currency": "JPY",
    "seat": 7,
    "active": False,
    "buffer_before_minutes": 500,
    "hold_expires_at": "2999-01-01T00:00:00Z",
    "cancellation_reason": "none",
    "rating_sum": 500,
    "rating_count": 100,
    "version": 77,
    "provider_id": "0199d3a1-7c1e-7f61-b2ab-0a1c5d3f9e10",
}


@pytest.fixture
def owner():
    return UserFactory(email="owner@example.com")


@pytest.fixture
def world(owner):
    """Return ids of rows by the names of the placeholders in `WRITES`."""
    service = ServiceFactory(calendar=CalendarFactory(provider=ProviderFactory()), capacity=3)

    def booking(seat, **fields):
        return BookingFactory(user=owner, service=service, seat=seat, **fields)

    reviewed = booking(1, status=Booking.Status.COMPLETED)
    review = Review.objects.create(
        calendar=reviewed.calendar,
        booking=reviewed,
        service=service,
        user=owner,
        rating=3,
        created_at=timezone.now(),
    )
    return {
        "service": service.pk,
        "booking": booking(2).pk,
        "done": booking(3, status=Booking.Status.COMPLETED).pk,
        "review": review.pk,
    }


# Requests with which a customer writes, and a valid body for each of them.
WRITES = {
    "POST /auth/register": {"name": "New", "email": "new@example.com", "password": PASSWORD},
    "PATCH /me": {"name": "Renamed"},
    "POST /bookings": {"service_id": "{service}", "start_time": "2999-01-03T10:00:00Z"},
    "PATCH /bookings/{booking}": {"notes": "By the window"},
    "POST /reviews": {"booking_id": "{done}", "rating": 4},
    "PATCH /reviews/{review}": {"comment": "Good"},
}


@pytest.mark.parametrize("write", WRITES)
def test_no_body_sets_a_field_that_the_server_decides(api, owner, world, write):
    """Mass assignment: send each request of `WRITES` with each field of `WANTED`.

    Each request is undone, so that no later request gets a 409, whatever its field does.
    """
    method, path = write.format(**world).split()
    body = {
        name: value.format(**world) if isinstance(value, str) else value
        for name, value in WRITES[write].items()
    }
    client = api if path == "/auth/register" else api.as_(owner)
    with transaction.atomic():
        # Control: without such a field, the request is accepted.
        assert client.generic(method, path, *encoded(body)).status_code in (200, 201)
        transaction.set_rollback(True)
    for name, value in WANTED.items():
        with transaction.atomic():
            response = client.generic(method, path, *encoded({**body, name: value}))
            # A read-only field is ignored, and any other name is refused.
            assert response.status_code in (200, 201, 400), (name, response.content)
            assert value not in stored(name), name
            assert not User.groups.through.objects.exists(), name
            transaction.set_rollback(True)


def stored(name):
    """Return an attribute of all users, bookings, reviews, services and calendars, as in JSON.

    For a relation, return the ids.
    """
    rows = [
        row for model in (User, Booking, Review, Service, Calendar) for row in model.objects.all()
    ]
    found = [getattr(row, f"{name}_id", None) or getattr(row, name, None) for row in rows]
    found = [value.normalize() if isinstance(value, Decimal) else value for value in found]
    # The only callable attributes are managers of groups.
    found = [value for value in found if not callable(value)]
    return json.loads(json.dumps(found, cls=DjangoJSONEncoder))


def encoded(body):
    return Client()._encode_json(body, "application/json"), "application/json"


# --- conditional requests ----------------------------------------------------------------------


def test_an_entity_tag_reveals_nothing_to_strangers(api, owner, world):
    path = f"/bookings/{world['booking']}"
    tag = api.as_(owner).get(path)["ETag"]
    stranger = api.as_(UserFactory())
    for given in (tag, "*", '"made-up"'):
        problem(stranger.get(path, headers={"if-none-match": given}), 403, "permission_denied")
        for method in ("patch", "delete"):
            response = getattr(stranger, method)(path, {}, headers={"if-match": given})
            problem(response, 403, "permission_denied")
        problem(api.get(path, headers={"if-none-match": given}), 401, "not_authenticated")
    # The tag of another user's profile is not the tag of the stranger's own profile.
    profile = api.as_(owner).get("/me")["ETag"]
    assert stranger.get("/me", headers={"if-none-match": profile}).status_code == 200


# --- the admin site, and links in emails ---------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example/admin/",
        "///evil.example",
        "/\\evil.example",
        "https:evil.example",
        "javascript:alert(1)",
        "\thttps://evil.example",
    ],
)
def test_signing_in_to_the_admin_site_leads_to_no_other_site(target):
    admin = AdminFactory()
    browser = Client(enforce_csrf_checks=False)
    response = browser.post(
        "/admin/login/", {"username": admin.email, "password": PASSWORD, "next": target}
    )
    assert response.status_code == 302
    to = urlsplit(response["Location"])
    assert (to.scheme, to.netloc) == ("", "")
    assert to.path.startswith("/admin/")


@pytest.mark.parametrize("path", ["/admin/accounts/user/add/", "/admin/logout/"])
def test_another_site_cannot_make_an_admin_act(path):
    """CSRF: the browser sends the admin's cookie along, but the form has no token."""
    admin = AdminFactory()
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(admin)
    body = {"email": "evil@example.com", "name": "Evil", "role": "admin"}
    response = browser.post(path, body, headers={"origin": "https://evil.example"})
    assert response.status_code == 403
    assert browser.get("/admin/").status_code == 200
    assert not User.objects.filter(email="evil@example.com").exists()


def test_the_host_of_a_request_is_never_in_an_email(api, owner):
    for host in ("evil.example", "testserver:80@evil.example", "testserver"):
        response = api.post(
            "/auth/password-reset",
            {"email": owner.email},
            headers={"host": host, "x-forwarded-host": "evil.example"},
        )
        assert response.status_code == (202 if host == "testserver" else 400)
    work()
    [message] = mail.outbox
    parts = [message.subject, message.body, message.extra_headers]
    parts += [part.content for part in message.alternatives]
    assert not any("evil" in str(part) or "testserver" in str(part) for part in parts)


# --- browsers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [*product(("GET", "OPTIONS"), ("/me", "/services"))])
def test_another_site_cannot_read_the_api_with_a_cookie(method, path):
    """The API ignores cookies, and sends no CORS headers unless the operator lists origins."""
    browser = Client()
    browser.force_login(AdminFactory())
    response = browser.generic(method, path, headers={"origin": "https://evil.example"})
    expected = {"OPTIONS": 204, "GET": 401 if path == "/me" else 200}
    assert response.status_code == expected[method]
    assert not [name for name in response.headers if name.startswith("Access-Control-")]


# --- ids of other providers -----------------------------------------------------------------------


def test_a_provider_cannot_change_a_slot_of_another_provider(api):
    """Object-level access: the id in the path and the id in the body belong to two providers."""
    provider, other = ProviderFactory(), ProviderFactory()
    own = ServiceFactory(calendar=CalendarFactory(provider=provider))
    theirs = SlotFactory(service=ServiceFactory(calendar=CalendarFactory(provider=other)))
    client = api.as_(provider)
    body = {"service_id": str(own.pk), "capacity": 9}
    problem(client.patch(f"/slots/{theirs.pk}", body), 403, "permission_denied")
    theirs.refresh_from_db()
    assert theirs.capacity != 9
