"""Generated requests of every caller get only responses that the OpenAPI document describes.

To search thoroughly, set FUZZ_EXAMPLES to a hundred or more. With this variable, each run tries
different requests.
"""

import json
import os
from collections import Counter, defaultdict

import pytest
import schemathesis
from django.db import transaction
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.openapi import checks as failures
from schemathesis.specs.openapi import checks

from bookit.tests import contract
from bookit.tests.valid_requests import (
    REFERENCES,
    callers,
    in_process,
    kind_of,
    valid_requests,
)
from bookit.wsgi import application

pytestmark = pytest.mark.django_db

# The number of requests that are generated for each operation and mode. The default of four keeps
# the usual run short. Without FUZZ_EXAMPLES, every run generates the same requests.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
TAGS = [
    *("Accounts", "Users", "Catalog", "Bookings", "Reviews"),
    *("Webhooks", "Reports", "Operations"),
]
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]

# The operations that only some callers may use. All signed-in users may use the other operations.
# Which operations take API keys is in the document.
PROVIDERS_MAY = {
    *("POST /calendars", "PATCH /calendars/{id}", "DELETE /calendars/{id}"),
    *("GET /calendars/{id}/feed", "POST /calendars/{id}/feed"),
    *("GET /calendars/{calendar_id}/time-off", "POST /calendars/{calendar_id}/time-off"),
    "DELETE /calendars/{calendar_id}/time-off/{id}",
    *("POST /services", "PATCH /services/{id}", "DELETE /services/{id}"),
    *("POST /slots", "PATCH /slots/{id}", "DELETE /slots/{id}"),
    "PATCH /me/provider",
}
RECEPTIONISTS_MAY = {"PATCH /bookings/{id}/status"}
ADMINS_MAY = {
    f"{method} {path}"
    for path, methods in {
        "/users": ("GET", "POST"),
        "/users/{id}": ("GET", "PATCH", "DELETE"),
        "/roles": ("GET", "POST"),
        "/roles/{id}": ("GET", "PATCH", "DELETE"),
        "/webhooks": ("GET", "POST"),
        "/webhooks/{id}": ("GET", "PATCH", "DELETE"),
        "/webhooks/{id}/rotate-secret": ("POST",),
        "/webhooks/{id}/test": ("POST",),
        "/webhooks/{webhook_id}/deliveries": ("GET",),
        "/webhooks/{webhook_id}/deliveries/{id}/redeliver": ("POST",),
        "/events": ("GET",),
        "/reports/{name}": ("GET",),
    }.items()
    for method in methods
}
MAY_NOT = {
    "customer": PROVIDERS_MAY | RECEPTIONISTS_MAY | ADMINS_MAY,
    "receptionist": PROVIDERS_MAY | ADMINS_MAY,
    "provider": ADMINS_MAY,
    "key of provider": ADMINS_MAY,
    "admin": set(),
    "key of admin": set(),
}


def may(who, label, operation):
    """Return whether a kind of caller may use an operation."""
    if {} in operation["security"]:
        return True
    scheme = {"key": []} if who.startswith("key") else {"bearer": []}
    return who != "nobody" and scheme in operation["security"] and label not in MAY_NOT[who]


@pytest.fixture
def everybody(api):
    """Return every kind of caller by name."""
    return callers(api)


@pytest.fixture
def application_schema(everybody):
    """Return the schema of the application. All requests run in the transaction of the test."""
    with in_process():
        yield schemathesis.openapi.from_wsgi("/openapi.json", application)


def insert_existing_ids(case, ids, draw):
    """Replace some of the generated ids of a case with ids of existing rows."""
    for holder in (case.path_parameters, case.query, case.body):
        for name in list(holder) if isinstance(holder, dict) else []:
            kind = (
                kind_of(case.path, name) if name in case.path_parameters else REFERENCES.get(name)
            )
            if kind in ids and draw(st.booleans()):
                holder[name] = draw(st.sampled_from(ids[kind]))


def call(case, caller):
    """Send a case as a caller, compare its response with the document, and undo its changes."""
    # schemathesis asks a WSGI application for compressed responses, but cannot read them.
    headers = {"Accept-Encoding": "identity"}
    if "HTTP_AUTHORIZATION" in caller.headers:
        headers["Authorization"] = caller.headers["HTTP_AUTHORIZATION"]
    with transaction.atomic():
        response = case.call(headers=headers)
        transaction.set_rollback(True)
    case.validate_response(response, checks=CHECKS)
    return response.status_code


def generated(operation, mode, ids, everybody):
    """Send generated requests of an operation as every caller; return the statuses by caller."""
    seen = defaultdict(Counter)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="FUZZ_EXAMPLES" not in os.environ,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def run(case, data):
        insert_existing_ids(case, ids, data.draw)
        # Generating a request takes longer than sending it, so send it as every caller.
        for who, caller in everybody.items():
            seen[who][call(case, caller)] += 1

    run()
    return seen


def valid(operation, label, caller):
    """Send valid requests of an operation, and return the set of their statuses."""
    return {
        call(
            operation.Case(
                path_parameters=request.path_parameters,
                query=request.query,
                body=schemathesis.core.NOT_SET if request.body is None else request.body,
                media_type=None if request.body is None else "application/json",
            ),
            caller,
        )
        for request in valid_requests(label, caller)
    }


@pytest.mark.parametrize("tag", TAGS)
def test_the_api_behaves_as_documented(tag, application_schema, everybody):
    """Requests, valid or not, cause only documented responses and no server error."""
    ids = {
        kind: sorted({caller.rows[kind] for caller in everybody.values()})
        for kind in everybody["admin"].rows
    }
    operations = contract.documented_operations()
    for found in application_schema.get_all_operations():
        operation = found.ok()
        if tag not in operation.tags:
            continue
        label = f"{operation.method.upper()} {operation.path}"
        permitted = {who for who in everybody if may(who, label, operations[label])}
        for who, caller in everybody.items():
            statuses = valid(operation, label, caller)
            shown = (label, who, statuses)
            if who in permitted:
                assert min(statuses) < 300, shown
            else:
                assert statuses <= ({401} if who == "nobody" else {403, 404}), shown
        varies = operations[label]["parameters"] or "requestBody" in operations[label]
        for mode in GenerationMode if varies else [GenerationMode.POSITIVE]:
            seen = generated(operation, mode, ids, everybody)
            assert seen.keys() == everybody.keys(), (label, mode)
            for who, statuses in seen.items():
                # Not even a 400: permission is checked before the content of the request.
                if who not in permitted:
                    assert min(statuses) > 400, (label, who, statuses)


def test_no_operation_is_left_out():
    operations = contract.documented_operations()
    assert {tag for each in operations.values() for tag in each["tags"]} == {*TAGS}
    assert len(operations) > 80
    assert operations.keys() >= RECEPTIONISTS_MAY | PROVIDERS_MAY | ADMINS_MAY


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        (
            failures.UndefinedStatusCode,
            lambda operation: operation["responses"].pop("200"),
        ),
        (
            failures.UndefinedContentType,
            lambda operation: operation["responses"]["200"].update(
                content={"text/html": {"schema": {"type": "string"}}}
            ),
        ),
        (
            failures.JsonSchemaError,
            lambda operation: operation["responses"]["200"].update(
                content={"application/json": {"schema": {"type": "array"}}}
            ),
        ),
    ],
)
def test_an_undocumented_response_is_found(application_schema, everybody, expected, change):
    """Control for `test_the_api_behaves_as_documented`: a part of the document is wrong."""
    other = json.loads(json.dumps(contract.document()))
    change(other["paths"]["/services"]["get"])
    schema = schemathesis.openapi.from_dict(other)
    schema.app = application
    with pytest.raises(FailureGroup) as found:
        call(schema["/services"]["GET"].Case(), everybody["nobody"])
    assert [type(each) for each in found.value.exceptions] == [expected]
