"""API keys: creating them, what they can be used for, and when they stop working."""

import re
from base64 import urlsafe_b64encode
from datetime import timedelta
from uuid import UUID

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from time_machine import travel

from accounts.extensions import PERMISSIONS
from accounts.keys import secrets, services
from accounts.keys.models import ApiKey
from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory, staff
from bookings.models import BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookit.idempotency.models import KeptResponse
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem
from catalog.models import Calendar
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def with_key(api):
    """Return a function that returns a client with a new API key of a user; `key` is its row."""

    def make(owner, **fields):
        row, key = services.create_key(owner=owner, name="Till", at=timezone.now(), **fields)
        client = bearer(api, key)
        client.key = row
        return client

    return make


def bearer(api, key):
    client = type(api)()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    return client


def queries(client, path="/bookings", status=200):
    with CaptureQueriesContext(connection) as captured:
        assert client.get(path).status_code == status
    return captured.captured_queries


# --- creating ---------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_stored_hashed(api):
    client = api.as_(UserFactory())
    body = {"name": "Till", "permissions": ["bookings.view_booking"]}
    response = client.post("/me/api-keys", {**body, "expires_at": "2999-01-01T00:00:00Z"})
    created = response.json()
    key = created.pop("key")
    assert response.status_code == 201
    assert re.fullmatch(r"bk_[A-Za-z0-9_-]{54}", key)
    assert created == {
        **body,
        "id": created["id"],
        "prefix": key[:11],
        "expires_at": "2999-01-01T00:00:00Z",
        "last_used_at": None,
        "created_at": created["created_at"],
    }
    assert client.get("/me/api-keys").json()["results"] == [created]
    assert bearer(api, key).get("/bookings").status_code == 200
    with connection.cursor() as cursor:
        cursor.execute("SELECT accounts_apikey::text FROM accounts_apikey")
        [(row,)] = cursor.fetchall()
    assert key[11:] not in row


def test_users_see_and_delete_only_their_own_keys(api, with_key):
    owner = UserFactory()
    client = with_key(owner)
    stranger = api.as_(UserFactory())
    assert stranger.get("/me/api-keys").json()["results"] == []
    path = f"/me/api-keys/{client.key.pk}"
    problem(stranger.delete(path), 404, "not_found")
    assert client.get("/bookings").status_code == 200
    assert api.as_(owner).delete(path).status_code == 204
    problem(client.get("/bookings"), 401, "token_invalid")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"permissions": ["bookings.fly"]}, "permissions"),
        ({"permissions": ["accounts.change_user"]}, "permissions"),
        ({"permissions": []}, "permissions"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": ""}, "name"),
    ],
)
def test_a_key_with_an_invalid_field_is_refused(api, body, field):
    response = api.as_(AdminFactory()).post("/me/api-keys", {"name": "Till", **body})
    problem(response, 400, "validation_error", field)


def test_nobody_creates_a_key_with_permissions_that_they_do_not_have(api):
    body = {"name": "Till", "permissions": ["catalog.change_service"]}
    for owner, status in (
        (UserFactory(), 403),
        (ProviderFactory(), 201),
        (staff(["bookings.view_booking"]), 403),
        (staff(["catalog.change_service"]), 201),
        (AdminFactory(), 201),
    ):
        assert api.as_(owner).post("/me/api-keys", body).status_code == status, owner.role


def test_a_key_beyond_the_maximum_number_is_refused(api, monkeypatch):
    monkeypatch.setattr(services, "MAX_KEYS", 2)
    client = api.as_(UserFactory())
    responses = [client.post("/me/api-keys", {"name": "Till"}) for _ in range(3)]
    assert [response.status_code for response in responses] == [201, 201, 400]


@pytest.mark.django_db(transaction=True)
def test_concurrent_requests_do_not_exceed_the_maximum_number_of_keys(api, monkeypatch):
    monkeypatch.setattr(services, "MAX_KEYS", 2)
    client = api.as_(UserFactory())
    outcomes = at_once([lambda: client.post("/me/api-keys", {"name": "Till"}).status_code] * 6)
    assert sorted(outcome.value for outcome in outcomes) == [201, 201, 400, 400, 400, 400]


def test_creating_a_key_with_an_idempotency_key_is_refused(api):
    """The response would be stored with the API key in it."""
    client = api.as_(UserFactory())
    response = client.post("/me/api-keys", {"name": "Till"}, headers={"Idempotency-Key": "1"})
    problem(response, 400, "validation_error", "Idempotency-Key")
    assert not ApiKey.objects.exists()
    assert not KeptResponse.objects.exists()


def test_the_list_of_keys_takes_two_queries_however_many_keys_there_are(api, with_key):
    owner = UserFactory()
    for _ in range(12):
        with_key(owner)
        assert len(queries(api.as_(owner), "/me/api-keys")) == 2


# --- what a key can be used for ---------------------------------------------------------------


def test_a_key_without_listed_permissions_can_do_what_its_owner_may_do(with_key):
    provider = ProviderFactory()
    booking = BookingFactory(service=ServiceFactory(calendar=CalendarFactory(provider=provider)))
    client, path = with_key(provider), f"/bookings/{booking.pk}"
    assert client.get(path).status_code == 200
    assert client.patch(path, {"status": "confirmed"}).status_code == 200
    problem(with_key(ProviderFactory()).get(path), 403, "permission_denied")


def test_a_key_can_do_only_what_its_permissions_allow(with_key):
    admin = AdminFactory()
    service, booking = ServiceFactory(), BookingFactory()
    client = with_key(admin, permissions=["bookings.view_booking"])
    path = f"/bookings/{booking.pk}"
    for allowed in (path, f"{path}/history", f"{path}.ics", "/bookings", "/services"):
        assert client.get(allowed).status_code == 200, allowed
    booked = {"service_id": str(service.pk), "start_time": "2999-01-03T10:00:00Z"}
    for response in (
        client.patch(path, {"status": "confirmed"}),
        client.patch(f"{path}/status", {"status": "confirmed"}),
        client.delete(path),
        client.post("/bookings", booked),
        client.patch(f"/services/{service.pk}", {"title": "Shave"}),
        client.get("/users"),
        client.get("/webhooks"),
        client.get("/events"),
    ):
        problem(response, 403, "permission_denied")


def test_a_key_creates_a_calendar_for_a_new_service_only_with_the_permission(with_key):
    owner = ProviderFactory()
    body = {"title": "Haircut", "duration_minutes": 30, "price": "20.00"}
    client = with_key(owner, permissions=["catalog.add_service"])

    problem(client.post("/services", body), 403, "permission_denied")

    assert not Calendar.objects.exists()
    on_calendar = {**body, "calendar_id": str(CalendarFactory(provider=owner).pk)}
    assert client.post("/services", on_calendar).status_code == 201
    client = with_key(owner, permissions=["catalog.add_service", "catalog.add_calendar"])
    assert client.post("/services", body).status_code == 201


def test_a_key_loses_the_permissions_that_its_owner_loses(with_key):
    owner = ProviderFactory()
    service = ServiceFactory(calendar=CalendarFactory(provider=owner))
    client = with_key(owner, permissions=["catalog.change_service"])
    assert client.patch(f"/services/{service.pk}", {"title": "Shave"}).status_code == 200
    User.objects.filter(pk=owner.pk).update(role="user")
    response = client.patch(f"/services/{service.pk}", {"title": "Cut"})
    problem(response, 403, "permission_denied")


def test_a_key_never_manages_accounts_and_reads_no_secret_urls(with_key):
    """A thief of a key must not get more rights, or a key or URL that outlives the stolen key."""
    owner = AdminFactory()
    client, other = with_key(owner), UserFactory()
    calendar = CalendarFactory()
    password = {"current_password": PASSWORD, "new_password": "7431-8820-5596x"}
    for response in (
        client.get("/me"),
        client.patch("/me", {"name": "Eve"}),
        client.post("/me/password", password),
        client.delete("/me", {"password": PASSWORD}),
        client.post("/auth/verify-email/resend", {}),
        client.get("/me/api-keys"),
        client.post("/me/api-keys", {"name": "Another"}),
        client.delete(f"/me/api-keys/{client.key.pk}"),
        client.get("/me/calendar"),
        client.post("/me/calendar"),
        client.get(f"/calendars/{calendar.pk}/feed"),
        client.post(f"/calendars/{calendar.pk}/feed"),
        client.post("/users", {"name": "Eve", "email": "eve@example.com"}),
        client.patch(f"/users/{other.pk}", {"role": "admin"}),
        client.delete(f"/users/{other.pk}"),
        client.post("/roles", {"name": "Reception", "permissions": []}),
    ):
        problem(response, 403, "permission_denied")
    assert ApiKey.objects.count() == 1


def test_every_permission_of_a_key_is_known_to_django():
    """A misspelt permission could be given to a key, but would permit nothing."""
    stored = {
        f"{app}.{name}"
        for app, name in Permission.objects.values_list("content_type__app_label", "codename")
    }
    assert PERMISSIONS.keys() <= stored


# --- when a key stops working -----------------------------------------------------------------


def test_a_key_stops_working_when_it_expires(with_key):
    now = timezone.now()
    with travel(now, tick=False) as time:
        client = with_key(UserFactory(), expires_at=now + timedelta(hours=1))
        assert client.get("/bookings").status_code == 200
        time.shift(3599)
        assert client.get("/bookings").status_code == 200
        time.shift(1)
        problem(client.get("/bookings"), 401, "token_invalid")


def test_a_key_stops_working_when_its_owner_is_deactivated(with_key):
    owner = UserFactory()
    client = with_key(owner)
    User.objects.filter(pk=owner.pk).update(is_active=False)
    problem(client.get("/bookings"), 401, "token_invalid")


def made_up(sealed):
    """Return a key that was never created, with a valid seal or with an invalid one."""
    secret = b"x" * secrets.LENGTH
    seal = secrets._seal(secret) if sealed else b"y" * secrets.SEAL
    return "bk_" + urlsafe_b64encode(secret + seal).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "key",
    ["bk_", "bk_x", f"bk_{'x' * 54}", f"bk_{'x' * 60000}", "bk_é", "BK_x", made_up(sealed=False)],
)
def test_a_key_without_a_valid_seal_is_refused_without_a_query(api, key):
    client = bearer(api, key.encode("utf-8").decode("latin-1"))
    assert queries(client, status=401) == []


def test_refusing_an_unknown_key_takes_one_query_like_the_token_of_a_deleted_user(api):
    user = UserFactory()
    token = api.as_(user)
    User.objects.all().delete()
    assert len(queries(token, status=401)) == 1
    assert len(queries(bearer(api, made_up(sealed=True)), status=401)) == 1


def test_a_key_of_another_installation_is_refused(api, settings):
    key = services.create_key(owner=UserFactory(), name="Till", at=timezone.now())[1]
    settings.SECRET_KEY = "another key, as long as the key of an installation has to be"
    assert queries(bearer(api, key), status=401) == []


# --- requests with a key ----------------------------------------------------------------------


def test_a_request_with_a_key_runs_as_many_queries_as_with_a_token(api, with_key):
    owner = UserFactory()
    client, other = with_key(owner), with_key(owner, permissions=["bookings.view_booking"])
    queries(client), queries(other)  # The first requests also update `last_used_at`.
    assert len(queries(client)) == len(queries(other)) == len(queries(api.as_(owner)))


def test_the_last_use_is_noted_at_most_once_a_minute(with_key):
    now = timezone.now()
    with travel(now, tick=False) as time:
        client, unused = with_key(UserFactory()), with_key(UserFactory())
        # Seconds since the last request, seconds from the start to the noted use, and statements.
        for pause, noted, updates in (
            (0, 0, 1),
            (59, 0, 0),
            (1, 60, 1),
            (30, 60, 0),
            (3600, 3690, 1),
        ):
            time.shift(pause)
            made = [each for each in queries(client) if each["sql"].startswith("UPDATE")]
            client.key.refresh_from_db()
            assert client.key.last_used_at == now + timedelta(seconds=noted)
            assert len(made) == updates
        unused.key.refresh_from_db()
        assert unused.key.last_used_at is None


def test_each_key_has_its_own_rate_limit(api, settings, with_key):
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "key": "2/minute", "user": "1/minute"}
    owner = UserFactory()
    client, other, person = with_key(owner), with_key(owner), api.as_(owner)
    assert [client.get("/bookings").status_code for _ in range(3)] == [200, 200, 429]
    response = other.get("/bookings")
    assert response.status_code == 200
    assert response["RateLimit-Policy"] == '"key";q=2;w=60'
    assert [person.get("/bookings").status_code for _ in range(2)] == [200, 429]
    # A request that gets a 403 counts too, so the next one is the third request of `other`.
    other.get("/me")
    problem(other.get("/me"), 429, "throttled")


def test_history_says_which_key_acted(api, with_key):
    owner, admin = UserFactory(), AdminFactory()
    client, boss = with_key(owner), with_key(admin)
    slot = SlotFactory(service=ServiceFactory(mode="slots", capacity=2))
    body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat()}
    for choice in (body, {"slot_id": str(slot.pk)}):
        booking = client.post("/bookings", choice).json()
        boss.patch(f"/bookings/{booking['id']}/status", {"status": "confirmed"})
        api.as_(owner).patch(f"/bookings/{booking['id']}", {"status": "cancelled"})
        events = client.get(f"/bookings/{booking['id']}/history").json()["results"]
        assert [(event["actor_id"], event["api_key_id"]) for event in events] == [
            (str(owner.pk), str(client.key.pk)),
            (str(admin.pk), str(boss.key.pk)),
            (str(owner.pk), None),
        ]
    booking = client.post("/bookings", {"slot_id": str(slot.pk)}).json()
    boss.patch(f"/slots/{slot.pk}", {"status": "cancelled"})
    event = BookingEvent.objects.filter(booking=UUID(booking["id"])).last()
    assert (event.type, event.api_key_id) == ("booking.cancelled", boss.key.pk)


def test_history_keeps_the_key_after_its_deletion(api, with_key):
    owner = UserFactory()
    client = with_key(owner)
    body = {"service_id": str(ServiceFactory().pk), "start_time": TUESDAY.isoformat()}
    booking = client.post("/bookings", body).json()
    api.as_(owner).delete(f"/me/api-keys/{client.key.pk}")
    [event] = api.as_(owner).get(f"/bookings/{booking['id']}/history").json()["results"]
    assert event["api_key_id"] == str(client.key.pk)


def test_idempotency_keys_are_separate_for_each_api_key(api, with_key):
    owner = UserFactory()
    clients = [with_key(owner), with_key(owner), api.as_(owner)]
    body = {"service_id": str(ServiceFactory(capacity=3).pk), "start_time": TUESDAY.isoformat()}
    headers = {"Idempotency-Key": "1"}
    made = [client.post("/bookings", body, headers=headers).json()["id"] for client in clients]
    assert len(set(made)) == 3
    again = [client.post("/bookings", body, headers=headers) for client in clients]
    assert [response.json()["id"] for response in again] == made
    assert all(response["Idempotent-Replayed"] == "true" for response in again)


def test_admins_see_and_delete_keys_in_the_admin_site(client, with_key):
    program = with_key(UserFactory())
    client.force_login(AdminFactory())
    page = f"/admin/accounts/apikey/{program.key.pk}/change/"
    shown = client.get(page).content.decode()
    assert program.key.prefix in shown
    assert "digest" not in shown.lower()
    delete = {"action": "delete_selected", "_selected_action": str(program.key.pk), "post": "yes"}
    client.post("/admin/accounts/apikey/", delete)
    problem(program.get("/bookings"), 401, "token_invalid")


def test_an_admin_revokes_a_key_on_its_page_after_a_confirmation(client, with_key):
    program = with_key(UserFactory())
    client.force_login(AdminFactory())
    path = f"/admin/accounts/apikey/{program.key.pk}/"
    assert f"{path}delete/" in client.get(f"{path}change/").content.decode()
    asked = client.get(f"{path}delete/").content.decode()
    assert "From then on, programs that use this key are refused." in asked
    assert program.get("/bookings").status_code == 200
    response = client.post(f"{path}delete/", {"post": "yes"})
    assert response["Location"] == "/admin/accounts/apikey/"
    problem(program.get("/bookings"), 401, "token_invalid")
