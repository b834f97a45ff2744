"""The OpenAPI document is valid and complete. `test_fuzzing` compares responses with it."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest
from django.core.management import call_command
from django.utils import timezone
from drf_spectacular.validation import validate_schema
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from accounts.keys.services import create_key
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.events import REPORTED_TYPES, record
from bookings.models import Booking
from bookings.payloads import payloads
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.api import components
from bookit.api.schema import ERRORS_OF_HEADERS
from bookit.errors import problems
from bookit.json import dumps
from bookit.tests import contract
from bookit.tests.routes import every_route
from bookit.web import pages
from catalog.tests.factories import ServiceFactory
from reviews.models import Review
from reviews.tests.factories import ReviewFactory

PROBLEM = "application/problem+json"
METHODS_IN_ORDER = ["get", "post", "patch", "delete"]


@pytest.fixture(scope="module")
def document():
    return json.loads(pages.schema())


@pytest.fixture(scope="module")
def operations(document):
    """Return every operation, by method and path, except health checks."""
    return {
        label: operation
        for label, operation in contract.operations(document).items()
        if operation["tags"] != ["Operations"]
    }


# --- valid ------------------------------------------------------------------------------------


def test_the_document_is_valid_openapi_3_1(document):
    assert document["openapi"].startswith("3.1")
    validate_schema(document)
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("type") or schema.get("enum") or schema.get("oneOf"), name


def test_the_document_is_generated_without_warnings(tmp_path):
    call_command("spectacular", fail_on_warn=True, file=str(tmp_path / "openapi.yaml"))
    assert (tmp_path / "openapi.yaml").stat().st_size > 10_000


def test_every_reference_resolves_and_every_schema_is_used(document):
    text = json.dumps(document)
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert len(references) > 10
    for reference in references:
        assert contract.resolve(document, {"$ref": reference}), reference
    kinds = document["components"].keys() - {"securitySchemes"}
    assert kinds == {"headers", "parameters", "responses", "schemas"}
    for kind in kinds:
        described = {f"#/components/{kind}/{name}" for name in document["components"][kind]}
        assert described <= references, "a component is described but not used"


def test_the_document_is_small(client):
    """It would be almost four times as large if its operations shared no parts.

    A new endpoint or field may raise this limit by its own size.
    """
    assert len(client.get("/openapi.json").content) < 200_000


def flattened(document, schema):
    """Return two sets: all properties, and all required properties, of a schema and its bases."""
    parts = [contract.resolve(document, part) for part in schema.get("allOf", [])]
    inherited = [flattened(document, part) for part in parts]
    return (
        {*schema.get("properties", {})}.union(*(each for each, _ in inherited)),
        {*schema.get("required", [])}.union(*(each for _, each in inherited)),
    )


def test_shared_base_schemas_keep_all_properties_and_required_properties(document, monkeypatch):
    monkeypatch.setattr(components, "_share_pages", lambda schemas: None)
    monkeypatch.setattr(components, "_share_bases", lambda schemas: None)
    complete = components.Generator().get_schema(request=None, public=True)
    schemas = complete["components"]["schemas"]
    assert any("allOf" in schema for schema in document["components"]["schemas"].values())
    for name, schema in schemas.items():
        shared = document["components"]["schemas"][name]
        assert flattened(document, shared) == flattened(complete, schema), name


PRINT = """
import django, sys
django.setup()
from bookit.web import pages
sys.stdout.buffer.write(pages.schema())
"""


def test_every_process_generates_the_same_bytes():
    """DRF keeps the methods of a view in a set, whose order differs from process to process."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "bookit.settings",
        "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0",
    }
    done = subprocess.run([sys.executable, "-c", PRINT], env=environment, capture_output=True)
    assert done.stdout == pages.schema(), done.stderr.decode()


def test_collections_come_before_items_and_methods_have_a_fixed_order(document):
    paths = [*document["paths"]]
    for path, methods in document["paths"].items():
        order = [name for name in ["parameters", *METHODS_IN_ORDER] if name in methods]
        assert [*methods] == order, path
        collection = re.sub(r"/{\w+}$", "", path)
        if collection in paths:
            assert paths.index(collection) <= paths.index(path), path
    assert paths.index("/services/{id}") < paths.index("/services/{id}/availability")


def parts(part, path=""):
    """Yield the path of every object in the document, and the object."""
    if isinstance(part, dict):
        yield path, part
    each = part.items() if isinstance(part, dict) else enumerate(part)
    for name, inner in each:
        if isinstance(inner, dict | list):
            yield from parts(inner, f"{path}/{name}")


def test_choices_and_defaults_have_the_type_of_their_field(document, operations):
    checked = 0
    for path, part in parts(document):
        # Here, `enum` and `default` would be the names of fields or responses.
        if re.search("/(properties|responses)$|/examples?/", path):
            continue
        for value in [*part.get("enum", []), *([part["default"]] if "default" in part else [])]:
            contract.validator(document, part).validate(value)
            checked += 1
    assert checked > 50
    [rating] = [
        each for each in operations["GET /reviews"]["parameters"] if each["name"] == "rating"
    ]
    assert rating["schema"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    [available] = [
        each for each in operations["GET /slots"]["parameters"] if each["name"] == "available"
    ]
    assert available["schema"] == {"type": "boolean"}


# --- complete ---------------------------------------------------------------------------------


def routes():
    """Yield the method, path, view and action of every route of the API."""
    for route, view in every_route():
        for method, action in (getattr(view, "actions", None) or {}).items():
            if method != "head":
                yield method.upper(), contract.path_of(route), view, action


def test_exactly_the_existing_routes_are_documented(operations):
    found = {f"{method} {route}" for method, route, _, _ in routes()}
    assert len(found) > 30
    assert operations.keys() == found


def test_exactly_the_accepted_parameters_are_documented(operations):
    for method, route, callback, action in routes():
        view = callback.cls(**callback.initkwargs)
        view.action = action
        described = {
            parameter["name"]: parameter
            for parameter in operations[f"{method} {route}"].get("parameters", [])
        }
        in_query = {name for name, each in described.items() if each["in"] == "query"}
        assert in_query == view.known_parameters(), f"{method} {route}"
        in_header = {name for name, each in described.items() if each["in"] == "header"}
        taken = {header for header in ERRORS_OF_HEADERS if view.takes(header, method.lower())}
        assert in_header == {"Time-Zone", "X-Request-ID"} | taken
        in_path = {name for name, each in described.items() if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", route))
        # A parameter needs a description, unless its type, its values or its name say enough.
        for name, each in described.items():
            assert (
                each.get("description")
                or each["schema"].get("format") == "uuid"
                or each["schema"].get("enum")
                or name in ("price_min", "price_max", "q")
            ), f"{method} {route}: {name}"


def test_every_operation_has_a_description_and_a_unique_name(document, operations):
    names = Counter(operation["operationId"] for operation in operations.values())
    assert set(names.values()) == {1}
    tags = {tag["name"] for tag in document["tags"]}
    for label, operation in operations.items():
        assert re.fullmatch(r"[a-z_]+", operation["operationId"]), label
        assert operation["summary"], label
        assert operation["description"].endswith("."), label
        [tag] = operation["tags"]
        assert tag in tags, label


@pytest.mark.django_db
def test_the_document_says_which_operations_need_a_token(document, operations, api):
    schemes = document["components"]["securitySchemes"]
    assert {name: each["scheme"] for name, each in schemes.items()} == {
        "bearer": "bearer",
        "key": "bearer",
    }
    for label, operation in operations.items():
        method, path = label.split()
        path = re.sub(r"{\w+}", "01980000-0000-7000-8000-000000000000", path)
        response = api.generic(method, path, b"{}", content_type="application/json")
        needs_token = response.status_code == 401 and response.json()["code"] == "not_authenticated"
        assert needs_token == ({} not in operation["security"]), label
        if needs_token:
            assert {"bearer": []} in operation["security"], label


@pytest.mark.django_db
def test_the_document_says_which_operations_take_api_keys(operations, api):
    """The owner of the key may do everything, so the key is the reason for a 403."""
    _, key = create_key(owner=AdminFactory(), name="Till", at=timezone.now())
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
    taken = set()
    for label, operation in operations.items():
        if operation["security"] == [{}]:
            continue
        method, path = label.split()
        path = re.sub(r"{\w+}", "01980000-0000-7000-8000-000000000000", path)
        response = api.generic(method, path, b"{}", content_type="application/json")
        takes_keys = response.status_code != 403
        assert takes_keys == ({"key": []} in operation["security"]), label
        if takes_keys:
            taken.add(label)
    assert {"GET /bookings", "POST /bookings", "GET /services", "GET /users"} <= taken
    assert not taken & {
        *("GET /me", "DELETE /me", "GET /me/export", "GET /me/sessions", "PATCH /me/provider"),
        *("POST /users", "DELETE /users/{id}", "PATCH /roles/{id}"),
    }


# POST requests without a body: the path and the caller say everything.
WITHOUT_BODY = {
    "POST /auth/verify-email/resend",
    "POST /me/calendar",
    "POST /calendars/{id}/feed",
    "POST /slots/{slot_id}/waitlist",
    "POST /webhooks/{id}/rotate-secret",
    "POST /webhooks/{id}/test",
    "POST /webhooks/{webhook_id}/deliveries/{id}/redeliver",
}


def test_every_body_is_json_and_has_a_valid_example(document, operations):
    """An operation that writes without a body is in `WITHOUT_BODY`."""
    for label, operation in operations.items():
        body = operation.get("requestBody")
        writes = label.split()[0] in ("POST", "PATCH") or label == "DELETE /me"
        assert bool(body) == (writes and label not in WITHOUT_BODY), label
        if not body:
            continue
        assert list(body["content"]) == ["application/json"], label
        schema = body["content"]["application/json"]["schema"]
        examples = contract.resolve(document, schema)["examples"]
        assert examples, f"{label} has no example of a body"
        for example in examples:
            contract.validator(document, schema).validate(example)


@pytest.mark.django_db
def test_every_body_is_required_and_closed(document, operations, api):
    """A body may contain only documented fields. Some of them are ignored."""
    admin = api.as_(AdminFactory())
    # Collect all routes first, because a request changes the `actions` of its route.
    for method, route, callback, action in [*routes()]:
        label = f"{method} {route}"
        body = operations[label].get("requestBody")
        if body is None:
            continue
        assert body["required"] is True
        view = callback.cls(**callback.initkwargs)
        view.action = action
        serializer = view.get_serializer_class()()
        schema = contract.resolve(document, body["content"]["application/json"]["schema"])
        assert schema["additionalProperties"] is False, label
        ignored = {name for name, each in schema["properties"].items() if each.get("readOnly")}
        writable = {name for name, each in serializer.fields.items() if not each.read_only}
        assert schema["properties"].keys() - ignored == writable, label
        assert ignored == {*serializer.fields, *serializer.ignored} - writable, label
        for name in schema.get("required", []):
            assert serializer.fields[name].required, label
        if "{" not in route:
            fields = dict.fromkeys([*ignored, "no_such_field"], "x")
            errors = admin.generic(
                method, route, json.dumps(fields), content_type="application/json"
            ).json()["errors"]
            refused = {each["field"] for each in errors if each["code"] == "unknown"}
            assert refused == {"no_such_field"}, label


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/services", {"title": "Haircut", "price": "25.00", "duration_minutes": 30}),
        ("/calendars", {"name": "Rui's chair"}),
        ("/webhooks", {"url": "https://hooks.example.com/", "events": ["review.created"]}),
        (
            "/auth/register",
            {"name": "Ana", "email": "ana@example.com", "password": "seven quiet otters"},
        ),
    ],
)
def test_a_field_that_a_body_leaves_out_gets_the_documented_default(
    document, operations, api, path, body
):
    content = operations[f"POST {path}"]["requestBody"]["content"]["application/json"]
    schema = contract.resolve(document, content["schema"])
    defaults = {
        name: each["default"]
        for name, each in schema["properties"].items()
        if "default" in each and name not in body
    }
    assert defaults
    created = api.as_(AdminFactory()).post(path, body).json()
    assert {name: created[name] for name in defaults} == defaults


def test_the_body_of_a_change_has_no_defaults(document):
    """A generated client would send the defaults, and so change fields by mistake."""
    changes = [
        schema
        for name, schema in document["components"]["schemas"].items()
        if name.startswith("Patched")
    ]
    assert len(changes) > 5
    for schema in changes:
        assert not [each for each in schema["properties"].values() if "default" in each]


@pytest.mark.django_db
def test_every_message_to_webhooks_is_described(document):
    described = document["webhooks"]
    assert described.keys() == {*REPORTED_TYPES, "test"}
    review = ReviewFactory()
    bookings = [review.booking, BookingFactory()]
    state = {"review_id": str(review.pk), "rating": 5}
    events = [
        record(booking, kind, actor=None, at=TUESDAY, **state)
        for kind in REPORTED_TYPES
        for booking in bookings
    ]
    messages = payloads(events)
    # Messages about deleted reviews and bookings contain less.
    Review.objects.all().delete()
    Booking.objects.all().delete()
    remains = payloads(events)
    for message, remaining in zip(messages, remains, strict=True):
        assert message["data"].keys() > remaining["data"].keys()
    for name in ("BookingMessage", "ReviewMessage", "TestMessage"):
        [example] = document["components"]["schemas"][name]["examples"]
        status = example["data"].get("status")
        assert status is None or example["type"] == f"booking.{status}"
        content = described[example["type"]]["post"]["requestBody"]["content"]["application/json"]
        contract.validator(document, content["schema"]).validate(example)
    for message in json.loads(dumps([*messages, *remains])):
        content = described[message["type"]]["post"]["requestBody"]["content"]["application/json"]
        contract.validator(document, content["schema"]).validate(message)
        other = "booking.created" if message["type"] != "booking.created" else "booking.expired"
        schema = described[other]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert not contract.validator(document, schema).is_valid(message)


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_checks_are_documented(document, client, path):
    operation = contract.operations(document)[f"GET {path}"]
    response = client.get(path)
    content = operation["responses"]["200"]["content"]["application/json"]
    contract.validator(document, content["schema"]).validate(response.json())
    assert [each["value"] for each in content["examples"].values()] == [response.json()]
    headers = operation["responses"]["200"]["headers"]
    assert ("RateLimit" in headers) == (path == "/health/ready")


# Operations whose only effect is an email, which is sent later.
WITHOUT_CONTENT = {"POST /auth/password-reset", "POST /auth/verify-email/resend"}


def test_every_success_is_documented_with_a_valid_example(document, operations):
    for label, operation in operations.items():
        [status] = [status for status in operation["responses"] if status < "300"]
        success = operation["responses"][status]
        if status == "204" or label in WITHOUT_CONTENT:
            assert "content" not in success, label
            continue
        forms = ["text/calendar" if label.endswith(".ics") else "application/json"]
        forms += ["text/csv"] if "/reports/" in label else []
        assert list(success["content"]) == forms, label
        for form in forms[1:]:
            [example] = success["content"][form]["examples"].values()
            assert isinstance(example["value"], str), label
        content = success["content"][forms[0]]
        schema, examples = content["schema"], content.get("examples", {})
        if "$ref" in schema and "Paginated" in schema["$ref"]:
            page = contract.resolve(document, schema)
            [*_, own] = page.get("allOf", [page])
            schema = own["properties"]["results"]["items"]
        values = [each["value"] for each in examples.values()]
        values += contract.resolve(document, schema).get("examples", [])
        assert values, f"{label} has no example of a response"
        for value in values:
            contract.validator(document, schema).validate(value)
        assert ("Location" in success["headers"]) == (status == "201"), label


def test_every_common_error_of_an_operation_is_documented(operations):
    for label, operation in operations.items():
        responses = operation["responses"]
        expected = {"400", "429", "500", "503"}
        assert ("406" in responses) == (not label.endswith(".ics")), label
        if "requestBody" in operation or label.startswith("POST "):
            expected |= {"408", "413", "415"}
        if "{" in label:
            expected |= {"404"}
        if {"bearer": []} in operation["security"]:
            expected |= {"401"}
        if {} not in operation["security"]:
            expected |= {"403"}
        assert expected <= responses.keys(), label
        for status, response in responses.items():
            assert {"X-Request-ID", "RateLimit", "RateLimit-Policy"} <= response["headers"].keys()
            if status < "400":
                continue
            assert list(response["content"]) == [PROBLEM], (label, status)
            content = response["content"][PROBLEM]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            codes = contract.codes(response)
            assert codes, (label, status)
            assert response["description"] == ", ".join(f"`{code}`" for code in codes)
            for code in codes:
                assert problems.catalogue()[code].status == int(status), (label, code)
            if status in ("429", "503"):
                assert "Retry-After" in response["headers"]
            if status == "401":
                assert "WWW-Authenticate" in response["headers"]


@pytest.mark.django_db
def test_an_undocumented_response_fails_the_test_that_receives_it(api, monkeypatch):
    """Control for tests with the fixture `api`, which checks the status and code of responses."""
    path = f"/services/{ServiceFactory().pk}/availability?explain=true"
    label = "GET /services/{id}/availability"
    assert api.as_(UserFactory()).get(path).status_code == 403
    known = contract.documented()[label]
    for lacking in ({**known, "403": {"booking_started"}}, {**known, "403": None}):
        lacking = {status: codes for status, codes in lacking.items() if codes is not None}
        monkeypatch.setitem(contract.documented(), label, lacking)
        with pytest.raises(AssertionError, match=r"does not list the .* for GET"):
            api.as_(UserFactory()).get(path)


# The errors for a time that cannot be booked.
TIME_ERRORS = {
    "booking_conflict",
    "slot_full",
    "outside_opening_hours",
    "service_inactive",
    "too_soon",
    "too_far_ahead",
}
# The errors that each operation can return because of its own rules.
RULES = {
    "POST /auth/register": {"email_taken"},
    "POST /auth/login": {"invalid_credentials"},
    "POST /auth/refresh": {"token_invalid"},
    "POST /auth/logout": {"token_invalid"},
    "POST /auth/password-reset/confirm": {"token_invalid"},
    "POST /auth/verify-email": {"token_invalid", "email_taken"},
    "PATCH /me": {"email_taken"},
    "DELETE /me": {"last_admin"},
    "POST /users": {"email_taken"},
    "PATCH /users/{id}": {"last_admin"},
    "DELETE /users/{id}": {"last_admin"},
    "DELETE /calendars/{id}": {"service_in_use"},
    "PATCH /services/{id}": {"service_in_use"},
    "DELETE /services/{id}": {"service_in_use"},
    "POST /bookings": {*TIME_ERRORS, "too_many_holds", "email_not_verified"},
    "PATCH /bookings/{id}": {
        *TIME_ERRORS,
        *("invalid_transition", "cancellation_too_late", "booking_started"),
        "email_not_verified",
    },
    "PATCH /bookings/{id}/status": {"invalid_transition"},
    "DELETE /bookings/{id}": {"booking_started", "cancellation_too_late"},
    "POST /slots": {"slot_conflict", "service_inactive"},
    "PATCH /slots/{id}": {"slot_conflict", "invalid_transition"},
    "DELETE /slots/{id}": {"slot_conflict"},
    "POST /slots/{slot_id}/waitlist": {
        *TIME_ERRORS - {"booking_conflict", "slot_full"},
        *("slot_not_full", "email_not_verified"),
    },
    "POST /reviews": {"booking_not_completed", "review_exists"},
    "POST /webhooks/{id}/test": {"webhook_inactive"},
    "POST /webhooks/{webhook_id}/deliveries/{id}/redeliver": {"webhook_inactive"},
}
EVERYWHERE = {known.code for known in problems.PLUMBING}


def test_operations_document_exactly_their_own_errors(operations):
    """The codes in `errors(...)` of an action are also in `RULES`."""
    for label, operation in operations.items():
        codes = {
            code
            for response in operation["responses"].values()
            for code in contract.codes(response)
        }
        own = codes - EVERYWHERE
        if operation["security"] == [{}]:
            own |= codes & {"token_invalid"}  # The error is about a token in the body.
        parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
        of_headers = {
            code
            for header, codes in ERRORS_OF_HEADERS.items()
            if header in parameters
            for code in codes
        }
        assert own == RULES.get(label, set()) | of_headers, label


def test_the_document_lists_the_codes_of_the_catalogue(document):
    described = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert described == list(problems.catalogue())
    [example] = document["components"]["schemas"]["Problem"]["examples"]
    contract.validator(document, {"$ref": "#/components/schemas/Problem"}).validate(example)


def test_no_response_contains_a_password(document):
    for name, schema in document["components"]["schemas"].items():
        if not name.endswith("Request"):
            assert not [field for field in schema.get("properties", {}) if "password" in field], (
                name
            )


def test_responses_do_not_promise_the_format_of_email_addresses(document):
    """Strict clients refuse the domain `.invalid`, which customers without an address have."""
    with_format = {
        name
        for name, schema in document["components"]["schemas"].items()
        if any(part.get("format") == "email" for _, part in parts(schema))
    }
    assert {name for name in with_format if not name.endswith("Request")} == set()
    assert "RegisterRequest" in with_format


def test_the_document_contains_no_url_of_another_host(document):
    assert [server["url"] for server in document["servers"]] == ["/"]
    assert not re.search(r"https?://(?!(bookit|hooks)\.example\.com)", json.dumps(document))
