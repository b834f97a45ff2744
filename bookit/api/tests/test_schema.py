"""The OpenAPI document is valid and complete, and describes what the API really does."""

import json
import logging
import re
from collections import Counter

import pytest
import schemathesis
from django.core.management import call_command
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.urls import URLPattern, get_resolver
from django.utils import timezone
from drf_spectacular.validation import validate_schema
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from accounts.keys.services import create_key
from accounts.tests.factories import AdminFactory, ProviderFactory, staff
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, DeliveryFactory, SlotFactory
from bookings.waitlist.models import WaitlistEntry
from bookit.errors import problems
from bookit.web import pages
from bookit.wsgi import application
from catalog.tests.factories import TimeOffFactory
from reviews.tests.factories import ReviewFactory

PROBLEM = "application/problem+json"
METHODS = {"get", "post", "patch", "delete", "put"}


@pytest.fixture(scope="module")
def document():
    return json.loads(pages.schema())


@pytest.fixture(scope="module")
def operations(document):
    """Return every operation, by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def resolve(document, schema):
    """Return the schema to which a reference leads."""
    while "$ref" in schema:
        part = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            part = part[name]
        schema = part
    return schema


def validator(document, schema):
    """Return a validator for a schema of the document."""
    return Draft202012Validator(
        {**schema, "components": document["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


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
        assert resolve(document, {"$ref": reference}), reference
    named = {reference.rsplit("/", 1)[1] for reference in references}
    assert document["components"]["schemas"].keys() == named, "a schema is described but not used"


# --- complete ---------------------------------------------------------------------------------


def routes(patterns=None, prefix="/"):
    """Yield the method, path, view and action of every route of the API."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + re.sub(
            r"<\w+:pk>", "{id}", re.sub(r"<\w+:(\w+_id)>", r"{\1}", str(pattern.pattern))
        )
        if not isinstance(pattern, URLPattern):
            yield from routes(pattern.url_patterns, route)
        for method, action in (getattr(pattern.callback, "actions", None) or {}).items():
            if method != "head":
                yield method.upper(), route, pattern.callback, action


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
        takes_key = view.takes_idempotency_key(method.lower())
        assert in_header == {"Time-Zone", "X-Request-ID"} | (
            {"Idempotency-Key"} if takes_key else set()
        )
        in_path = {name for name, each in described.items() if each["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", route))
        for name, each in described.items():
            assert (
                each.get("description")
                or each["schema"].get("format") == "uuid"
                or (each["schema"].get("enum") or name.startswith(("price_", "category", "q")))
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
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for label, operation in operations.items():
        method, path = label.split()
        path = re.sub(r"{\w+}", "01980000-0000-7000-8000-000000000000", path)
        response = api.generic(method, path, b"{}", content_type="application/json")
        needs_token = response.status_code == 401 and response.json()["code"] == "not_authenticated"
        assert needs_token == (operation["security"] == [{"bearer": []}]), label
        if not needs_token:
            assert {} in operation["security"], label


# Operations that write but have no body, because their paths contain everything.
WITHOUT_BODY = {
    "POST /me/calendar",
    "POST /calendars/{id}/feed",
    "POST /slots/{slot_id}/waitlist",
    "POST /webhooks/{id}/rotate-secret",
    "POST /webhooks/{id}/test",
    "POST /webhooks/{webhook_id}/deliveries/{id}/redeliver",
}


def test_every_body_is_json_and_has_a_valid_example(document, operations):
    for label, operation in operations.items():
        body = operation.get("requestBody")
        writes = label.split()[0] in ("POST", "PATCH")
        assert bool(body) == (writes and label not in WITHOUT_BODY), label
        if not body:
            continue
        assert list(body["content"]) == ["application/json"], label
        content = body["content"]["application/json"]
        examples = content.get("examples", {})
        assert examples, f"{label} has no example of a body"
        for example in examples.values():
            validator(document, content["schema"]).validate(example["value"])


def test_every_success_is_documented_with_a_valid_example(document, operations):
    for label, operation in operations.items():
        [status] = [status for status in operation["responses"] if status < "300"]
        success = operation["responses"][status]
        if status == "204":
            assert "content" not in success, label
            continue
        form = "text/calendar" if label.endswith(".ics") else "application/json"
        assert list(success["content"]) == [form], label
        content = success["content"][form]
        assert content.get("examples"), f"{label} has no example of a response"
        for example in content["examples"].values():
            validator(document, content["schema"]).validate(example["value"])
        assert ("Location" in success["headers"]) == (status == "201"), label


def test_every_common_error_of_an_operation_is_documented(document, operations):
    for label, operation in operations.items():
        responses = operation["responses"]
        expected = {"400", "406", "429", "500", "503"}
        if "requestBody" in operation:
            expected |= {"413", "415"}
        if "{" in label:
            expected |= {"404"}
        if {"bearer": []} in operation["security"]:
            expected |= {"401"}
        if operation["security"] == [{"bearer": []}]:
            expected |= {"403"}
        assert expected <= responses.keys(), label
        for status, response in responses.items():
            assert {"X-Request-ID", "RateLimit", "RateLimit-Policy"} <= response["headers"].keys()
            if status < "400":
                continue
            assert list(response["content"]) == [PROBLEM], (label, status)
            content = response["content"][PROBLEM]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["examples"], (label, status)
            for code, example in content["examples"].items():
                assert problems.catalogue()[code].status == int(status), (label, code)
                assert example["value"]["code"] == code
                assert code in response["description"]
                validator(document, content["schema"]).validate(example["value"])
            if status in ("429", "503"):
                assert "Retry-After" in response["headers"]
            if status == "401":
                assert "WWW-Authenticate" in response["headers"]


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
    "PATCH /me": {"email_taken"},
    "PATCH /users/{id}": {"last_admin"},
    "DELETE /calendars/{id}": {"service_in_use"},
    "PATCH /services/{id}": {"service_in_use"},
    "DELETE /services/{id}": {"service_in_use"},
    "POST /bookings": {*TIME_ERRORS, "too_many_holds"},
    "PATCH /bookings/{id}": {*TIME_ERRORS, "invalid_transition", "cancellation_too_late"},
    "PATCH /bookings/{id}/status": {"invalid_transition"},
    "DELETE /bookings/{id}": {"booking_started", "cancellation_too_late"},
    "POST /slots": {"slot_conflict", "service_inactive"},
    "PATCH /slots/{id}": {"slot_conflict", "invalid_transition"},
    "DELETE /slots/{id}": {"slot_conflict"},
    "POST /slots/{slot_id}/waitlist": {
        *TIME_ERRORS - {"booking_conflict", "slot_full"},
    },
    "POST /reviews": {"booking_not_completed", "review_exists"},
    "POST /webhooks/{id}/test": {"webhook_inactive"},
    "POST /webhooks/{webhook_id}/deliveries/{id}/redeliver": {"webhook_inactive"},
}
OF_KEYS = {"idempotency_in_progress", "idempotency_key_reused"}
EVERYWHERE = {known.code for known in problems.PLUMBING}


def test_operations_document_exactly_their_own_errors(operations):
    for label, operation in operations.items():
        codes = {
            code
            for status, response in operation["responses"].items()
            if status >= "400"
            for code in response["content"][PROBLEM]["examples"]
        }
        own = codes - EVERYWHERE
        if operation["security"] == [{}]:
            own |= codes & {"token_invalid"}  # The body contains a refresh token.
        parameters = {parameter["name"] for parameter in operation.get("parameters", [])}
        key = OF_KEYS if "Idempotency-Key" in parameters else set()
        assert own == RULES.get(label, set()) | key, label


def test_the_document_lists_the_codes_of_the_catalogue(document):
    described = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert described == list(problems.catalogue())


def test_no_response_contains_a_password(document):
    for name, schema in document["components"]["schemas"].items():
        if not name.endswith("Request"):
            assert not [field for field in schema.get("properties", {}) if "password" in field], (
                name
            )


def test_the_document_contains_no_url_of_another_host(document):
    assert [server["url"] for server in document["servers"]] == ["/"]
    assert not re.search(
        r"https?://(?!json-schema|tools\.ietf|bookit\.example\.com|hooks\.example\.com)",
        json.dumps(document),
    )


# --- accurate ---------------------------------------------------------------------------------

# The number of requests that are generated for each operation and mode. It is small enough for
# every run. For a thorough search by hand, use a thousand.
EXAMPLES = 6
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]


@pytest.fixture
def in_process():
    """Return a client of the whole application, on the connection of the test's transaction."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    logging.disable(logging.INFO)
    yield schemathesis.openapi.from_wsgi("/openapi.json", application)
    logging.disable(logging.NOTSET)
    for signal in signals:
        signal.connect(close_old_connections)


@pytest.fixture
def ids(api):
    """Return ids of existing rows, so that not every generated request is a 404."""
    provider, admin = ProviderFactory(), AdminFactory()
    found = {"users": [provider.pk, admin.pk], "provider": provider, "admin": admin}
    for user in (provider, admin):
        review = ReviewFactory(
            user=user,
            booking__user=user,
            booking__start_time=TUESDAY,
            booking__service__calendar__provider=provider,
            booking__service__rating_sum=5,
            booking__service__rating_count=1,
        )
        booking = BookingFactory(user=user, service__calendar__provider=provider)
        completed = BookingFactory(
            user=user, service=booking.service, status=Booking.Status.COMPLETED, seat=2
        )
        slot = SlotFactory(service__calendar__provider=provider)
        delivery = DeliveryFactory()
        for kind, row in (
            ("slots", slot),
            ("waitlist", WaitlistEntry.objects.create(slot=slot, user=user)),
            ("services", slot.service),
            ("reviews", review),
            ("bookings", booking),
            ("bookings", completed),
            ("services", booking.service),
            ("calendars", booking.calendar),
            ("webhooks", delivery.webhook),
            ("deliveries", delivery),
            ("time-off", TimeOffFactory(calendar=booking.calendar)),
            ("api-keys", create_key(owner=user, name="Till", at=timezone.now())[0]),
            ("roles", staff([]).groups.get().role),
        ):
            found.setdefault(kind, []).append(row.pk)
    return found


REFERENCES = {
    "service_id": "services",
    "calendar_id": "calendars",
    "booking_id": "bookings",
    "user_id": "users",
    "slot_id": "slots",
    "provider_id": "users",
    "webhook_id": "webhooks",
}


def insert_existing_ids(case, ids, draw):
    """Replace some of the generated ids of a case with ids of existing rows."""
    kind = case.path.partition("/{id}")[0].rpartition("/")[2]
    for holder in (case.path_parameters, case.query, case.body):
        for name in list(holder) if isinstance(holder, dict) else []:
            known = kind if name == "id" else REFERENCES.get(name)
            if known and draw(st.booleans()):
                holder[name] = str(draw(st.sampled_from(ids[known])))


@pytest.mark.django_db
@pytest.mark.parametrize("tag", ["Accounts", "Users", "Catalog", "Bookings", "Reviews", "Webhooks"])
def test_the_api_behaves_as_documented(tag, in_process, ids, api):
    """Generated requests, valid or not, cause only documented responses and no server error."""
    tokens = {who: api.as_(ids[who])._credentials for who in ("provider", "admin")}
    headers = {
        "nobody": {},
        **{who: {"Authorization": each["HTTP_AUTHORIZATION"]} for who, each in tokens.items()},
    }
    seen = {who: Counter() for who in headers}
    for found in in_process.get_all_operations():
        operation = found.ok()
        if tag not in operation.tags:
            continue
        for mode in GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
            def run(case, data):
                insert_existing_ids(case, ids, data.draw)
                # Generating a request takes longer than sending it, so send it as every user.
                for who in headers:
                    response = case.call(headers=headers[who])
                    seen[who][response.status_code] += 1
                    case.validate_response(response, checks=CHECKS)

            run()
    for who, statuses in seen.items():
        assert sum(statuses.values()) >= 10
        if who == "admin" and tag != "Accounts":
            assert statuses[200] > 0, "no request found a row"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("status", lambda operation: operation["responses"].pop("200")),
        (
            "type",
            lambda operation: operation["responses"]["200"].update(
                content={"text/html": {"schema": {"type": "string"}}}
            ),
        ),
        (
            "form",
            lambda operation: operation["responses"]["200"].update(
                content={"application/json": {"schema": {"type": "array"}}}
            ),
        ),
    ],
)
def test_an_undocumented_response_is_noticed(document, in_process, part, change):
    """Control for the test above: the document lacks the status, type or form of the response."""
    other = json.loads(json.dumps(document))
    change(other["paths"]["/services"]["get"])
    schema = schemathesis.openapi.from_dict(other)
    schema.app = application
    case = schema["/services"]["GET"].Case()
    response = case.call()
    assert response.status_code == 200
    with pytest.raises(FailureGroup):
        case.validate_response(response, checks=CHECKS)
