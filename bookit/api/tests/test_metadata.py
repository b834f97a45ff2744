"""Metadata: how changes are merged, which callers see it, and which values are refused."""

from functools import partial
from json import dumps

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts.keys.services import create_key
from accounts.models import User
from accounts.tests.factories import (
    PASSWORD,
    AdminFactory,
    ProviderFactory,
    UserFactory,
    staff,
)
from bookings.events import record
from bookings.models import Booking, BookingEvent
from bookings.payloads import payloads
from bookings.tests.factories import BookingFactory
from bookit.api.tests.test_schema import document  # noqa: F401 - a fixture
from bookit.database.metadata import MAX_KEYS, MAX_LENGTH, merged
from bookit.errors import database_error_facts
from bookit.tests import contract
from bookit.tests.crowd import at_once, starting_line
from bookit.tests.expect import problem
from catalog.models import Calendar, Service
from catalog.tests.factories import CalendarFactory, ServiceFactory

pytestmark = pytest.mark.django_db

MODELS = [User, Calendar, Service, Booking]
FULL = {f"key {number}": "x" for number in range(MAX_KEYS)}


@pytest.fixture
def people():
    """Return users by their part.

    `owner` has the booking, and `provider` has its calendar. `other` is another provider.
    """
    return {
        "admin": AdminFactory(),
        "provider": ProviderFactory(),
        "owner": UserFactory(),
        "other": ProviderFactory(),
        "user": UserFactory(),
    }


@pytest.fixture
def rows(people):
    """Return a row of each kind with empty metadata, by the name of its list."""
    service = ServiceFactory(calendar=CalendarFactory(provider=people["provider"]))
    booking = BookingFactory(service=service, user=people["owner"])
    return {
        "users": people["owner"],
        "calendars": service.calendar,
        "services": service,
        "bookings": booking,
    }


@pytest.fixture
def paths(rows):
    return {name: f"/{name}/{row.pk}" for name, row in rows.items()}


@pytest.fixture
def as_admin(api, people):
    return api.as_(people["admin"])


def stored(row):
    return type(row).objects.get(pk=row.pk).metadata


# --- merging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["users", "calendars", "services", "bookings"])
def test_a_change_is_merged_and_null_removes_a_key(as_admin, rows, paths, kind):
    for change, result in (
        ({"a": "1", "b": "2"}, {"a": "1", "b": "2"}),
        ({"b": "3", "c": ""}, {"a": "1", "b": "3", "c": ""}),
        ({}, {"a": "1", "b": "3", "c": ""}),
        ({"a": None, "unknown": None}, {"b": "3", "c": ""}),
    ):
        response = as_admin.patch(paths[kind], {"metadata": change})
        assert response.status_code == 200, response.content
        assert response.json()["metadata"] == result
        assert as_admin.get(paths[kind]).json()["metadata"] == stored(rows[kind]) == result
    other_change = {
        "users": {"name": "New"},
        "calendars": {"name": "New"},
        "services": {"title": "New"},
        "bookings": {"status": "confirmed"},
    }
    response = as_admin.patch(paths[kind], other_change[kind])
    assert response.status_code == 200, response.content
    assert stored(rows[kind]) == {"b": "3", "c": ""}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/users", {"name": "Rui", "email": "rui@example.com"}),
        ("/calendars", {"name": "Room 1"}),
        ("/services", {"title": "Cut", "price": "20.00", "duration_minutes": 30}),
        ("/bookings", {"service_id": "{service}", "start_time": "2999-01-03T10:00:00Z"}),
        (
            "/bookings",
            {"service_id": "{service}", "start_time": "2999-01-03T10:00:00Z", "hold": True},
        ),
    ],
)
def test_a_new_row_takes_metadata(as_admin, rows, path, body):
    body = {
        name: value.format(service=rows["services"].pk) if isinstance(value, str) else value
        for name, value in body.items()
    }
    made = as_admin.post(path, {**body, "metadata": {"a": "1", "b": None}})
    assert made.status_code == 201, made.content
    assert made.json()["metadata"] == {"a": "1"}
    assert as_admin.get(made["Location"]).json()["metadata"] == {"a": "1"}


def test_a_new_account_takes_metadata(api):
    body = {"name": "Ana", "email": "ana@example.com", "password": PASSWORD}
    made = api.post("/auth/register", {**body, "metadata": {"a": "1", "b": None}})
    assert made.status_code == 201, made.content
    assert made.json()["metadata"] == {"a": "1"}
    assert User.objects.get().metadata == {"a": "1"}


def test_users_change_their_own_metadata(api, people):
    me = api.as_(people["user"])
    assert me.get("/me").json()["metadata"] == {}
    assert me.patch("/me", {"metadata": {"a": "1"}}).json()["metadata"] == {"a": "1"}
    changed = me.patch("/me", {"metadata": {"b": "2"}, "name": "Ada"}).json()
    assert (changed["name"], changed["metadata"]) == ("Ada", {"a": "1", "b": "2"})
    assert me.get("/me").json() == changed


def test_the_owner_can_change_the_metadata_of_a_booking_until_it_starts(api, people, rows, paths):
    clients = {name: api.as_(people[name]) for name in ("owner", "provider", "other")}
    path = paths["bookings"]
    change = {"metadata": {"a": "1"}}
    before = clients["owner"].get(path).json()
    after = clients["owner"].patch(path, change).json()
    assert after == {**before, **change, "updated_at": after["updated_at"]}
    assert after["updated_at"] > before["updated_at"]
    problem(clients["other"].patch(path, change), 403, "permission_denied")
    at = timezone.now()
    booking = BookingFactory(user=people["owner"], service=rows["services"], start_time=at)
    path = f"/bookings/{booking.pk}"
    problem(clients["owner"].patch(path, change), 403, "booking_started")
    assert clients["provider"].patch(path, change).json()["metadata"] == {"a": "1"}
    # A booking that is sent back as it was read does not change, so this is allowed at any time.
    shown = clients["owner"].get(path).json()
    assert clients["owner"].patch(path, shown).json() == shown


def test_a_change_of_metadata_with_a_new_time_or_status_is_refused(api, people, paths):
    client = api.as_(people["owner"])
    for more in ({"start_time": "2999-01-04T10:00:00Z"}, {"status": "cancelled"}):
        response = client.patch(paths["bookings"], {"metadata": {"a": "1"}, **more})
        problem(response, 400, "validation_error")
    assert client.get(paths["bookings"]).json()["metadata"] == {}


# --- visibility -------------------------------------------------------------------------------


def seen(client, path, list_path, pk):
    """Return the metadata that the resource and its list show, or None if they show no metadata."""
    single = client.get(path).json()
    [listed] = [row for row in client.get(list_path).json()["results"] if row["id"] == str(pk)]
    assert single == listed
    return single.get("metadata")


@pytest.mark.parametrize("kind", ["calendars", "services"])
def test_only_those_who_may_change_a_row_see_its_metadata(api, people, rows, paths, kind):
    type(rows[kind]).objects.update(metadata={"a": "1"})
    CalendarFactory(provider=people["other"])
    ServiceFactory(calendar__provider=people["other"])
    lists = [f"/{kind}", f"/{kind}?ordering=-created_at"]
    if kind == "services":
        lists += ["/services?active=any", "/services?q=service"]
    for list_path in lists:
        found = {
            who: seen(api.as_(user), paths[kind], list_path, rows[kind].pk)
            for who, user in people.items()
        }
        found["anonymous"] = seen(api, paths[kind], list_path, rows[kind].pk)
        assert found == {
            "admin": {"a": "1"},
            "provider": {"a": "1"},
            "owner": None,
            "other": None,
            "user": None,
            "anonymous": None,
        }


@pytest.mark.parametrize("kind", ["calendar", "service"])
def test_staff_and_keys_see_the_metadata_of_rows_that_they_may_change(
    api, people, rows, paths, kind
):
    name = f"{kind}s"
    type(rows[name]).objects.update(metadata={"a": "1"})
    for verb, expected in (("change", {"a": "1"}), ("view", None)):
        permissions = [f"catalog.{verb}_{kind}"]
        clients = [api.as_(staff(permissions))]
        for who in ("admin", "provider"):
            _, key = create_key(
                owner=people[who], name="Till", permissions=permissions, at=timezone.now()
            )
            # Each key gets a client of its own, because a client keeps its credentials.
            clients.append(type(api)())
            clients[-1].credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        for client in clients:
            assert seen(client, paths[name], f"/{name}", rows[name].pk) == expected


def test_a_former_provider_does_not_see_metadata(api, people, paths):
    Service.objects.update(metadata={"a": "1"})
    User.objects.filter(pk=people["provider"].pk).update(role="user")
    response = api.as_(people["provider"]).get(paths["services"])
    assert response.status_code == 200
    assert "metadata" not in response.json()


def test_the_metadata_of_a_new_service_is_not_copied_to_its_new_calendar(api, people):
    body = {"title": "Cut", "price": "20.00", "duration_minutes": 30, "metadata": {"a": "1"}}
    made = api.as_(people["provider"]).post("/services", body).json()
    assert (made["metadata"], made["calendar"]["metadata"]) == ({"a": "1"}, {})


def test_everybody_who_sees_a_booking_sees_its_metadata(api, people, rows, paths):
    Booking.objects.update(metadata={"a": "1"})
    for who, list_path in (
        ("owner", "/bookings"),
        ("provider", "/bookings?scope=provider"),
        ("admin", "/bookings"),
    ):
        client = api.as_(people[who])
        assert seen(client, paths["bookings"], list_path, rows["bookings"].pk) == {"a": "1"}


def test_messages_show_only_the_metadata_of_the_booking_and_history_none(as_admin, people, rows):
    for model in MODELS:
        model.objects.update(metadata={model.__name__: "1"})
    at = timezone.now()
    event = record(rows["bookings"], BookingEvent.Type.CREATED, actor=people["owner"], at=at)
    [payload] = payloads([event])
    assert payload["data"]["metadata"] == {"Booking": "1"}
    assert str(payload).count("metadata") == 1
    history = as_admin.get(f"/bookings/{rows['bookings'].pk}/history").content.decode()
    assert "metadata" not in history
    assert "metadata" not in str(event.data)


def test_public_responses_match_the_document_with_and_without_metadata(
    api,
    people,
    paths,
    document,  # noqa: F811 - the imported fixture
):
    schema = document["components"]["schemas"]["Service"]
    texts = contract.resolve(document, schema["properties"]["metadata"])["additionalProperties"]
    assert texts["type"] == "string"
    request = document["components"]["schemas"]["PatchedServiceRequest"]
    values = contract.resolve(document, request["properties"]["metadata"])["additionalProperties"]
    assert values["type"] == ["string", "null"]
    for client, is_shown in ((api, False), (api.as_(people["admin"]), True)):
        content = client.get(paths["services"]).json()
        assert ("metadata" in content) == is_shown
        contract.validator(document, schema).validate(content)


# --- refused values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        (None, "metadata"),
        ([], "metadata"),
        ("text", "metadata"),
        (5, "metadata"),
        ({"": "1"}, "metadata"),
        ({"k" * 41: "1"}, "metadata"),
        ({"a\0": "1"}, "metadata"),
        ({**FULL, "more": "1"}, "metadata"),
        ({f"key {number}": None for number in range(2 * MAX_KEYS + 1)}, "metadata"),
        ({"a": "v" * 501}, "metadata.a"),
        ({"a": "\0"}, "metadata.a"),
        ({"a": 1}, "metadata.a"),
        ({"a": True}, "metadata.a"),
        ({"a": []}, "metadata.a"),
        ({"a": {"b": "c"}}, "metadata.a"),
        ({"good": "1", "a": 1, "b": 2}, "metadata.a metadata.b"),
    ],
)
def test_invalid_metadata_is_refused(as_admin, rows, paths, metadata, field):
    for kind in ("users", "services"):
        response = as_admin.patch(paths[kind], {"metadata": metadata})
        problem(response, 400, "validation_error", *field.split())
        assert stored(rows[kind]) == {}


@pytest.mark.parametrize("kind", ["users", "calendars", "services", "bookings"])
def test_the_largest_metadata_is_accepted_and_one_more_key_is_refused(as_admin, rows, paths, kind):
    # PostgreSQL writes each of these control characters as six characters (`\u0001`). It writes no
    # character as more than six, so no other metadata is longer as text.
    ends = [chr(14 + number // 10) + chr(14 + number % 10) for number in range(MAX_KEYS)]
    largest = {"\x01" * 38 + end: "\x01" * 500 for end in ends}
    assert as_admin.patch(paths[kind], {"metadata": largest}).status_code == 200
    refused = as_admin.patch(paths[kind], {"metadata": {"more": "1"}})
    problem(refused, 400, "validation_error", "metadata")
    assert stored(rows[kind]) == largest
    # A key can be replaced by another key in one request.
    replaced = as_admin.patch(paths[kind], {"metadata": {"more": "1", next(iter(largest)): None}})
    assert len(replaced.json()["metadata"]) == MAX_KEYS


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        '"text"',
        "5",
        "null",
        '[{"a": "1"}]',
        '{"a": 1}',
        '{"a": null}',
        '{"a": {"b": "c"}}',
        '{"a": ["b"]}',
        dumps({str(number): "1" for number in range(MAX_KEYS + 1)}),
        dumps({"a": "x" * MAX_LENGTH}),
    ],
)
def test_the_database_refuses_invalid_metadata(rows, value):
    with connection.cursor() as cursor:
        for model in MODELS:
            statement = f"UPDATE {model._meta.db_table} SET metadata = %s::jsonb"
            cursor.execute(statement, ['{"a": "1"}'])
            with pytest.raises(IntegrityError) as refused, transaction.atomic():
                cursor.execute(statement, [value])
            constraint = f"{model._meta.model_name}_metadata_fits"
            assert database_error_facts(refused.value)[1] == constraint


# --- races ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["users", "bookings"])
def test_concurrent_changes_of_different_keys_are_all_kept(as_admin, rows, paths, kind):
    changes = [{f"key {number}": str(number)} for number in range(8)]
    with starting_line(type(rows[kind])._meta.db_table) as start:
        outcomes = start(
            [partial(as_admin.patch, paths[kind], {"metadata": change}) for change in changes]
        )
    assert [outcome.value.status_code for outcome in outcomes] == [200] * 8
    assert stored(rows[kind]) == {f"key {number}": str(number) for number in range(8)}


@pytest.mark.django_db(transaction=True)
def test_changes_are_lost_if_they_are_merged_before_the_write(rows):
    """Control for the test above: each change reads the metadata, merges it and writes it."""

    def change(number):
        user = User.objects.get(pk=rows["users"].pk)
        user.metadata[f"key {number}"] = str(number)
        user.save(update_fields=["metadata"])

    with starting_line("accounts_user") as start:
        start([partial(change, number) for number in range(8)])
    assert len(stored(rows["users"])) < 8


@pytest.mark.django_db(transaction=True)
def test_concurrent_changes_cannot_add_too_many_keys(api, people):
    User.objects.update(metadata={f"key {number}": "x" for number in range(MAX_KEYS - 2)})
    me = api.as_(people["owner"])
    outcomes = at_once(
        [partial(me.patch, "/me", {"metadata": {f"new {number}": "x"}}) for number in range(4)]
    )
    assert sorted(outcome.value.status_code for outcome in outcomes) == [200, 200, 400, 400]
    assert len(stored(people["owner"])) == MAX_KEYS


def test_a_merge_takes_a_single_query(rows, django_assert_num_queries):
    with django_assert_num_queries(1):
        Service.objects.update(metadata=merged({"a": "1", "b": None}))
    assert stored(rows["services"]) == {"a": "1"}
