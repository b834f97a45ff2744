"""Permission is checked first: users without permission always get the same response.

This response does not depend on the body, the parameters or the state of the object. Otherwise, the
response would reveal something about the object.
"""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from accounts.models import User
from bookings.models import Booking, Slot
from bookings.tests import test_permissions as table
from bookings.tests.test_permissions import (
    BODIES,
    PEOPLE,
    ROWS,
    api_routes,
    created,
    nowhere,
    people,
    route_of,
    world,
)
from bookings.waitlist.models import WaitlistEntry
from bookings.webhooks.models import Webhook
from bookit.tests.crowd import disabled_trigger
from catalog.models import Service

__all__ = ["created", "people", "world"]  # pytest finds these fixtures in this module.

pytestmark = pytest.mark.django_db


# The rows of the permission table, by endpoint.
ENDPOINTS: dict[tuple[str, str], list[Any]] = {}
for row in ROWS:
    ENDPOINTS.setdefault((row[0], route_of(row[1])), []).append(row)

# Endpoints whose permission depends on the object that a field of the body names. The values are
# the name of the field and the variant of the row in the permission table.
NAMED = {
    "POST calendars": ("provider_id", "for-the-provider"),
    "PATCH calendars/<id:pk>": ("provider_id", "to-the-other"),
    "POST services": ("calendar_id", "on-the-calendar"),
    "PATCH services/<id:pk>": ("calendar_id", "to-the-other"),
    "POST slots": ("service_id", ""),
    "POST bookings": ("user_id", "for-the-owner"),
    "POST reviews": ("booking_id", ""),
}

# The kinds of users whom these two endpoints refuse, whatever object the body names. The bodies in
# the table name only one object, so the table also refuses users who do not own this object.
ALWAYS_REFUSED = {
    ("POST", "slots"): ["anonymous", "user", "owner", "staff"],
    ("POST", "reviews"): ["anonymous"],
}

# Bodies, headers and states of objects that must not change the response to `strangers`.
OTHER_BODIES = [
    *(b"", b"{", b"null", b"[]", b"7", b"\xff", b'{"x": NaN}', b"[" * 2000),
    json.dumps({"unknown_field": 1}).encode(),
    json.dumps({"status": "confirmed", "start_time": "2999-02-01T10:00:00Z"}).encode(),
    json.dumps({"status": "pending"}).encode(),
    json.dumps({"notes": "x", "attendee_phone": "x", "reason": "x"}).encode(),
    json.dumps({"status": 1, "start_time": "x", "name": None, "events": {}, "url": []}).encode(),
]
OTHER_HEADERS = [
    {"HTTP_IF_MATCH": '"x"'},
    {"HTTP_IDEMPOTENCY_KEY": "x" * 300},
    {"CONTENT_TYPE": "text/csv"},
]
STATES = [
    *((Booking, {"status": status}) for status in Booking.Status.values if status != "held"),
    (Booking, {"status": "held", "hold_expires_at": timezone.now() + timedelta(minutes=5)}),
    (Slot, {"status": "cancelled"}),
    (WaitlistEntry, {"status": "left"}),
    (Service, {"is_active": False}),
    (Webhook, {"is_active": False}),
]


def ask(client, method, path, body=b"", query="", **headers):
    """Send a request, and roll back its changes.

    Returns:
        the status and the content of the response, without its request id.
    """
    form = headers.pop("CONTENT_TYPE", "application/json")
    separator = "&" if "?" in path else "?"
    url = f"{path}{separator}{query}" if query else path
    with transaction.atomic():
        response = client.generic(method, url, body, content_type=form, **headers)
        transaction.set_rollback(True)
    content = response.json()
    del content["request_id"]
    return response.status_code, content


def body_of(row, world):
    filled = {
        name: value.format(**world) if isinstance(value, str) else value
        for name, value in BODIES.get(f"{row[1]} {row[2]}".strip(), {}).items()
    }
    return json.dumps(filled).encode()


def strangers(key):
    """Return the kinds of users whom an endpoint refuses, whatever they send."""
    refused = [who for who in PEOPLE if all(row[3][who] in (401, 403) for row in ENDPOINTS[key])]
    return ALWAYS_REFUSED.get(key, refused)


GUARDED = [key for key in ENDPOINTS if strangers(key)]


def test_the_table_lists_every_endpoint():
    assert set(ENDPOINTS) == set(api_routes())
    assert len(GUARDED) > 30


@pytest.mark.parametrize("key", GUARDED, ids=" ".join)
def test_the_response_to_strangers_does_not_depend_on_the_request(api, people, world, key):
    method, rows = key[0], ENDPOINTS[key]
    for who in strangers(key):
        client = api if who == "anonymous" else api.as_(people[who])
        for path in {row[1].format(**world) for row in rows}:
            right = body_of(rows[0], world)
            responses = [
                ask(client, method, path, right),
                *(ask(client, method, path, body) for body in OTHER_BODIES),
                *(ask(client, method, path, right, **headers) for headers in OTHER_HEADERS),
                ask(client, method, path, right, query="unknown_parameter=1"),
                ask(client, method, path, right, query="tz=Nowhere/At/All&limit=x"),
            ]
            assert responses[0][0] == (401 if who == "anonymous" else 403), (who, path)
            assert all(response == responses[0] for response in responses), (who, path, responses)


@pytest.mark.parametrize("key", GUARDED, ids=" ".join)
def test_the_response_to_strangers_does_not_depend_on_the_object(api, people, world, key):
    method, rows = key[0], ENDPOINTS[key]
    clients = {who: api if who == "anonymous" else api.as_(people[who]) for who in strangers(key)}
    paths = {row[1].format(**world) for row in rows}
    # The last bodies contain fields whose change the state of an object can forbid.
    bodies = [body_of(row, world) for row in rows] + OTHER_BODIES[-3:]
    before = {
        (who, path): ask(client, method, path, bodies[0])
        for who, client in clients.items()
        for path in paths
    }
    for model, changes in STATES:
        with transaction.atomic():
            objects = model.objects.filter(pk__in=[each for path in paths for each in ids_in(path)])
            # If no path names an object of this model, there is no state to change.
            if objects.exists():
                with disabled_trigger("bookings_booking", "booking_transition"):
                    objects.update(**changes)
                for (who, path), expected in before.items():
                    for body in bodies:
                        response = ask(clients[who], method, path, body)
                        assert response == expected, (who, path, changes)
            transaction.set_rollback(True)


def test_the_paths_name_an_object_of_each_model_whose_state_is_changed(world):
    """Control: the test above would notice a change of an object of each model."""
    paths = [row[1].format(**world) for key in GUARDED for row in ENDPOINTS[key]]
    named = [each for path in paths for each in ids_in(path)]
    for model, _ in STATES:
        assert model.objects.filter(pk__in=named).exists(), model


def ids_in(path):
    """Return the parts of a path that have the length of a UUID."""
    return (
        part for part in path.replace("?", "/").replace(".ics", "").split("/") if len(part) == 36
    )


@pytest.mark.parametrize("name", NAMED)
def test_permission_for_the_named_object_is_checked_before_other_fields(api, people, world, name):
    field, variant = NAMED[name]
    method, route = name.split()
    [row] = [row for row in ENDPOINTS[method, route] if row[2] == variant]
    path, right = row[1].format(**world), json.loads(body_of(row, world))
    wrong = {other: {"not": "that"} for other in right if other != field}
    refused = [who for who in PEOPLE if row[3][who] in (401, 403)]
    assert refused
    for who in refused:
        client = api if who == "anonymous" else api.as_(people[who])
        responses = [
            ask(client, method, path, json.dumps(body).encode())
            for body in (
                right,
                {field: right[field]},
                {**right, "unknown_field": 1},
                {**right, **wrong},
            )
        ]
        assert responses[0][0] == row[3][who]
        assert all(response == responses[0] for response in responses), (who, responses)


@pytest.mark.parametrize("name", NAMED)
def test_a_malformed_id_of_the_named_object_is_a_validation_error(api, people, world, name):
    field, variant = NAMED[name]
    method, route = name.split()
    [row] = [row for row in ENDPOINTS[method, route] if row[2] == variant]
    right = json.loads(body_of(row, world))
    body = json.dumps({**right, field: "no id"}).encode()
    status, content = ask(api.as_(people["admin"]), method, row[1].format(**world), body)
    assert status == 400
    assert field in [error["field"] for error in content["errors"]]


@pytest.mark.parametrize(
    "key", [key for key in ENDPOINTS if "<id:" in key[1] and key[0] != "GET"], ids=" ".join
)
def test_a_missing_object_is_not_found_whatever_the_body(api, people, key):
    path = nowhere(ENDPOINTS[key][0][1])
    for body in (b"{", *OTHER_BODIES[-2:]):
        response = ask(api.as_(people["admin"]), key[0], path, body)
        assert response[0] == 404, response


@pytest.mark.parametrize("row", ROWS, ids=table.NAMES)
def test_demoted_providers_and_admins_have_the_rights_of_a_user(api, people, world, row):
    expected = row[3]["user"]
    if "{names_token}" in row[1]:
        expected = 404  # The token works only while the provider may see the names.
    if "/providers/{provider}" in row[1]:
        expected = 404  # The user is no longer in the list of providers.
    for who in ("provider", "admin"):
        client = api.as_(people[who])
        with transaction.atomic():
            User.objects.filter(pk=people[who].pk).update(role="user")
            status = table.send(client, row, world).status_code
            transaction.set_rollback(True)
        assert status == (expected if who == "provider" else row[3]["user"]), who
