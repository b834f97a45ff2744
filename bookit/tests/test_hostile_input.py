"""Hostile requests to every operation get a documented response; refused requests write nothing.

The tests take the operations, their parameters and the fields of their bodies from the OpenAPI
document, so a new endpoint needs no code here. `bookit.tests.corpus` has the values.
"""

import json
import re
import time
from dataclasses import replace
from functools import cache
from itertools import cycle
from urllib.parse import unquote, unquote_to_bytes

import pytest
from django.db import connection, transaction
from rest_framework import serializers

from bookit.tests import contract
from bookit.tests.corpus import (
    ALMOST_JSON,
    ANY_ID,
    BODIES,
    FORMS,
    HEADERS,
    INVALID_JSON,
    JSON,
    MEBIBYTE,
    NESTED,
    TEXTS,
    TIMES,
    TYPES,
    encoded_values,
)
from bookit.tests.expect import problem
from bookit.tests.valid_requests import BODIES as VALID_BODIES
from bookit.tests.valid_requests import HOURS, callers, in_process, valid_requests

pytestmark = pytest.mark.django_db

OPERATIONS = contract.documented_operations
# These operations need no body, and ignore a body that is sent.
IGNORE_BODY = {
    "POST /auth/verify-email/resend",
    "POST /me/calendar",
    "POST /calendars/{id}/feed",
}

# The names of the values in `BODIES` that are JSON, but not an object with known fields.
VALID_JSON = {
    *("a list", "a list of bodies", "a text", "an empty text", "a number", "null", "true"),
    *("a null character in a name", "a name of 900,000 letters", "many unknown fields"),
}

TOO_LONG = "x" * 10_001
# Values that no field accepts, except that metadata accepts `{}`. `REFUSED` has more values, by the
# kind of field that refuses them.
NEVER_VALID = [
    "a\x00b",
    "\x00",
    TOO_LONG,
    "x" * 500_000,
    {},
    {"a": {"b": [1]}},
    [[[]]],
    "[" * 10_001,
]
INVALID_CHOICES = ["nonsense", "", " ", 5, -1, 1.5, 10**18, 1e300, True, None, "\u202e", "'; --"]
REFUSED = {
    "metadata": [
        *(None, True, 5, "", "text", [], [None], {"": "1"}, {"k" * 41: "1"}, {"a\0": "1"}),
        *({"a": 1}, {"a": True}, {"a": {}}, {"a": "v" * 501}, {"a": "\0"}),
        {str(number): "1" for number in range(51)},
        {str(number): None for number in range(20_000)},
    ],
    "text": [None, True, False, 0, 5, 1.5],
    "email": [None, True, "nonsense", "@", "a@b", "a b@example.com", "a@example.com\nCc: b@c.d", 5],
    "phone": [
        *(None, True, "nonsense", "-1", "+", "12", "1" * 33, "+351\n912", "\uff11\uff12\uff13")
    ],
    "choice": INVALID_CHOICES,
    "choice or nothing": [each for each in INVALID_CHOICES if each not in ("", " ")],
    "ids": [True, 5, "", "x", [], [None], [5], ["x"], [[]], [{}], {}, [ANY_ID] * 21, ["\0"]],
    "id": ["nonsense", "", 5, -1, 1.5, 10**18, 2**63, 1e300, True, ANY_ID, "0" * 33],
    "flag": [
        *("nonsense", "", 2, -1, 1.5, 10**18, 1e300, None, "truely"),
        *(0, 1, 0.0, "true", "false", "1", "0", "null"),
    ],
    "number": [
        *("nonsense", "", " ", -1, 1.5, 2**31, 2**63, 2**64, 10**18, 1e300, True, "NaN", "1e5"),
        *("0x10", "9" * 5000, "-1", "1_0_0_0_0_0_0_0", "5", "5.0", " 5", False),
    ],
    "money": [
        *("nonsense", "", None, True, -1, 0.001, 10**12, 2**63, 1e300, 1e-300, "NaN", "sNaN"),
        *("Infinity", "-Infinity", "1e400", "1e999999999", "9" * 5000, "-0.01"),
    ],
    "time": [
        *("nonsense", "", None, True, 5, 10**18, 1e300, "2999-02-01", "2999-02-01T10:00:00"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z"),
        *("1900-01-01T00:00:00Z", "3000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"),
        *("\uff12999-02-01T10:00:00Z", "-2999-02-01T10:00:00Z", "12999-02-01T10:00:00Z"),
    ],
    "rule": [
        *(None, True, 5, "", " ", "nonsense", "FREQ=DAILY", "FREQ=HOURLY;COUNT=2", "RRULE:", ";=;"),
        *("FREQ=DAILY;COUNT=0", "FREQ=DAILY;COUNT=-1", "FREQ=DAILY;COUNT=367", "COUNT=2"),
        *("FREQ=DAILY;COUNT=\uff12", "FREQ=DAILY;COUNT=2;UNTIL=29990101", "FREQ=DAILY;COUNT=2;"),
        *("FREQ=DAILY;COUNT=2\0", "FREQ=DAILY;COUNT=2\nEXDATE:20270101", "DTSTART:20270101"),
        *("FREQ=DAILY;INTERVAL=999999999;COUNT=2", "FREQ=DAILY;UNTIL=99991231T235959Z"),
        *("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30;COUNT=2", "FREQ=YEARLY;BYDAY=99MO;COUNT=2"),
        *("FREQ=DAILY;COUNT=" + "9" * 400, "FREQ=DAILY;COUNT=2" + ";" * 400, "FREQ=\U0001f488"),
    ],
    "url": [
        *(None, True, 5, "", " ", "x", "//x", "/x", "http:", "http://", "http:///x", "a\0"),
        *("ftp://8.8.8.8", "javascript:alert(1)", "file:///etc/passwd", "mailto:a@b.c"),
        *("http://a:0", "http://a:-1", "http://a:99999", "http://a b", "http://a..b"),
        *("http://u:p@8.8.8.8", "http://[::1", "http://\uff11.1.1.1", "http://127.0.0.1"),
        *("http://8.8.8.8/" + "x" * 2000, "http://" + "a" * 64 + ".com"),
    ],
    "picture": [
        *(True, 5, "", " ", "x", "//x", "/x", "https:", "https://", "https:///x", "a\0"),
        *("http://example.com/x", "ftp://example.com", "javascript:alert(1)", "data:,x"),
        *("https://a b.example/", "https://u:p@example.com", "https://[::1", "https://x.y/<b>"),
        "https://example.com/" + "x" * 500,
    ],
    "types": [
        *(None, True, 5, "", "booking.created", [], [None], [5], ["x"], [[]], [{}], {}),
        ["booking.created", 0],
        *(["booking.held"], ["booking.created", "test"], ["booking.created"] * 101, ["\0"]),
    ],
    "expiry": [
        *("nonsense", "", True, 5, 10**18, 1e300, "2999-02-01", "2999-02-01T10:00:00"),
        *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-00-00T00:00:00Z"),
        *("1900-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "12999-02-01T10:00:00Z"),
    ],
    "permissions": [
        *(True, 5, "", "bookings.view_booking", [None], [5], ["x"], [[]], [{}], {}, ["\0"], ["."]),
        *([".view_booking"], ["bookings."], ["a.b.c"], ["x" * 151], ["x"] * 101),
    ],
    "hours": [
        *(None, True, 5, "always", [None], [5], ["x"], [{}], [[]], [HOURS], HOURS * 101),
        [{**HOURS[0], "weekday": 7}],
        [{**HOURS[0], "weekday": "0"}],
        [{**HOURS[0], "weekday": False}],
        [{**HOURS[0], "opens": 9}],
        [{**HOURS[0], "weekday": 10**18}],
        [{**HOURS[0], "opens": "\uff10\uff19:00"}],
        [{**HOURS[0], "opens": "-1:00"}],
        [{**HOURS[0], "closes": "24:01"}],
        [{**HOURS[0], "closes": "00:00"}],
        [{**HOURS[0], "closes": None}],
        [{**HOURS[0], "closes": 10**18}],
        [{**HOURS[0], "x" * 10_001: 1}],
    ],
}  # fmt: skip


# The kinds of fields by their names. The kind of any other field follows from its schema.
KINDS = {
    **dict.fromkeys(("timezone", "language", "currency", "mode", "role", "status"), "choice"),
    **dict.fromkeys(("start_time", "end_time"), "time"),
    "attendee_email": "email",
    "attendee_phone": "phone",
    "events": "types",
    "expires_at": "expiry",
    "metadata": "metadata",
    "opening_hours": "hours",
    "permissions": "permissions",
    "picture_url": "picture",
    "price": "money",
    "roles": "permissions",
    "rrule": "rule",
    "service_ids": "ids",
    "url": "url",
}


# Fields of these kinds refuse a value before the request does anything else.
CHECKED_FIRST = {"choice", "choice or nothing", "email", "phone", "picture"}


def kind_of_field(name, schema):
    """Return the kind of a field of a body, which is a key of `REFUSED`."""
    by_type = {"integer": "number", "boolean": "flag", "string": "text"}
    by_format = {"email": "email", "uuid": "id"}
    types = schema.get("type", "string")
    [type_] = [each for each in ([types] if isinstance(types, str) else types) if each != "null"]
    may_be_empty = any(each.get("maxLength") == 0 for each in schema.get("oneOf", []))
    if KINDS.get(name) == "choice" and may_be_empty:
        return "choice or nothing"
    return KINDS.get(name) or by_format.get(schema.get("format")) or by_type[type_]


def table_hashes():
    """Return a hash of each table's rows."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}', md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM {table} t"
                for table in tables
            )
        )
        return dict(cursor.fetchall())


class World:
    """Sends requests, and collects descriptions of the responses that are wrong."""

    def __init__(self, everybody, wsgi):
        self.everybody = everybody
        self.wsgi = wsgi
        self.failures = []
        self.sent = 0

    def valid(self, label, who="admin"):
        return valid_requests(label, self.everybody[who])

    def send(self, request, who="admin", *, content=None, target=None, **environ):
        """Send a request, and undo its changes.

        Changes of a refused request are not undone, so that the fixture `world` notices them.
        """
        path, _, query = (target or request.target).partition("?")
        content = request.content if content is None else content
        environ = {
            # As servers do, decode the path and pass each byte as a Latin-1 character (PEP 3333).
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            **self.everybody[who].headers,
            **environ,
        }
        self.sent += 1
        if request.method == "GET":
            return self.wsgi(request.method, f"/?{query}", content, **environ)
        with transaction.atomic():
            response = self.wsgi(request.method, f"/?{query}", content, **environ)
            transaction.set_rollback(response.status_code < 400)
        return response

    def expect(self, where, shown, response, *, label=None, statuses=None, fields=None, codes=None):
        """Record a failure if the response is not documented or not as expected.

        Args:
            where: the operation, and other details that a failure should show.
            shown: the name of the value that was sent.
            label: the operation, if `where` contains other details.
            fields: the names of the fields that the errors must list.
        """
        try:
            check(label or where, response)
            if statuses is not None:
                assert response.status_code in statuses, f"not one of {statuses}"
            named = names_in(response)
            if codes is not None:
                assert json.loads(response.content)["code"] in codes, f"not one of {codes}"
            if fields is not None:
                assert named == fields, f"the errors name {named}, not {fields}"
        except AssertionError as error:
            [message, *_] = str(error).splitlines()
            content = response.content[:200]
            self.failures.append(
                f"{where}, {shown}: {response.status_code} {content!r}: {message[:300]}"
            )


def check(label, response):
    """Check that a response is documented, and that it cannot harm the clients that read it."""
    assert response.status_code < 500
    if response.status_code < 400:
        contract.check_form(label, response)
    else:
        contract.check_listed(label, response)
    for name, value in response.headers.items():
        assert re.fullmatch(r"[\x20-\x7e]*", value), f"the header {name} is {value!r}"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    if response.status_code >= 400:
        code = json.loads(response.content)["code"]
        problem(response, response.status_code, code)
        assert len(response.content) < 20_000, "the response is too long"


def names_in(response):
    """Return the names of the top-level fields in the errors of a response."""
    if response.headers.get("Content-Type") != "application/problem+json":
        return set()
    errors = json.loads(response.content).get("errors", [])
    return {error["field"].split(".")[0] for error in errors}


@pytest.fixture
def everybody(api):
    """Return every kind of caller by name."""
    return callers(api)


@pytest.fixture
def world(everybody, wsgi):
    """Yield a `World`. After the test, fail if a response was wrong or a table has changed."""
    before = table_hashes()
    assert before["accounts_user"]
    world = World(everybody, wsgi)
    with in_process():
        yield world
    assert world.sent > 5
    if world.failures:
        pytest.fail("\n".join([f"{len(world.failures)} failures", *world.failures[:30]]))
    assert table_hashes() == before, "a request that was refused has changed a table"


def takes_body(label):
    """Return whether an operation reads a body."""
    method = label.split()[0]
    return "requestBody" in OPERATIONS()[label] or (
        method in ("POST", "PATCH") and label not in IGNORE_BODY
    )


def with_bodies():
    return [label for label in OPERATIONS() if takes_body(label)]


def fields_of(label):
    """Return the schema of each field that the body of an operation can have."""
    body = OPERATIONS()[label].get("requestBody")
    if body is None:
        return {}
    document = contract.document()
    schema = contract.resolve(document, body["content"]["application/json"]["schema"])
    return {
        name: contract.resolve(document, each)
        for name, each in schema["properties"].items()
        if not each.get("readOnly")
    }


def parameters_of(label, place):
    return [each for each in OPERATIONS()[label]["parameters"] if each["in"] == place]


def base_of(requests, name):
    """Return the first request whose body has the field `name`, or else the first request."""
    return next((each for each in requests if name in (each.body or {})), requests[0])


def test_the_valid_requests_of_an_operation_send_each_of_its_fields():
    """The tests below spoil only fields that are sent. Add a new field to `VALID_BODIES`."""
    missing = {}
    for label, operation in contract.documented_operations().items():
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            schema = contract.resolve(contract.document(), schema)
            fields = {
                name for name, each in schema["properties"].items() if not each.get("readOnly")
            }
            bodies = VALID_BODIES.get(label) or schema["examples"]
            if unsent := fields.difference(*bodies):
                missing[label] = unsent
    # A valid `slot_id` would be that of a slot of the booking's own service.
    assert missing == {"PATCH /bookings/{id}": {"slot_id"}}


def test_each_valid_request_is_accepted(world):
    """Control for the tests below: their requests are valid before a value is replaced.

    All requests except GET requests also change the database.
    """
    for label in OPERATIONS():
        for request in world.valid(label):
            response = world.send(request)
            world.expect(label, request.body, response, statuses={200, 201, 202, 204})
    before = table_hashes()
    for label in OPERATIONS():
        if label.startswith("GET"):
            continue
        for request in world.valid(label):
            with transaction.atomic():
                world.wsgi(
                    request.method,
                    request.target,
                    request.content,
                    **world.everybody["admin"].headers,
                )
                # The row that the path names must be in a state that the request can change; see
                # `IN_PATH` in `valid_requests.py`.
                assert table_hashes() != before, f"{label} changed nothing"
                transaction.set_rollback(True)


def test_an_invalid_body_is_refused(world):
    for label in with_bodies():
        [request, *_] = world.valid(label)
        for name, (body, status) in BODIES.items():
            response = world.send(request, content=body)
            code = "validation_error" if name in VALID_JSON else "parse_error"
            code = "payload_too_large" if status == 413 else code
            world.expect(label, name, response, statuses={status}, codes={code})


def test_a_body_of_another_type_is_refused(world):
    for number, label in enumerate(with_bodies()):
        [request, *_] = world.valid(label)
        for name in TYPES:
            response = world.send(request, content=request.content or b"{}", CONTENT_TYPE=name)
            world.expect(label, name, response, statuses={415}, codes={"unsupported_media_type"})
        # Some of these types are JSON, so some of the bodies are accepted.
        for name in ALMOST_JSON[number % 4 :: 4]:
            response = world.send(request, CONTENT_TYPE=name)
            world.expect(label, name[:60], response, statuses={200, 201, 202, 204, 400, 415})


def refused_values(label, name, schema):
    """Return values that a field never accepts."""
    kind = kind_of_field(name, schema)
    if name == "email" and label in ("POST /auth/login", "POST /auth/password-reset"):
        kind = "text"  # These operations do not check the format.
    values = [*NEVER_VALID, *REFUSED[kind]]
    if "null" in schema.get("type", ""):
        values = [value for value in values if value is not None]
    if kind == "metadata":
        values.remove({})  # An empty object is valid, and changes nothing.
    return values


def test_an_invalid_field_is_named(world):
    for label in with_bodies():
        requests = world.valid(label)
        rounds = []
        for name, schema in fields_of(label).items():
            checker = contract.validator(contract.document(), schema)
            values = refused_values(label, name, schema)
            # Values of several fields are sent together in one body if their errors do not depend
            # on other fields. But the error of a price depends on the currency.
            is_first = kind_of_field(name, schema) in CHECKED_FIRST
            together = [value for value in values if is_first or not checker.is_valid(value)]
            together = [] if name == "price" else together
            rounds += [{} for _ in together[len(rounds) :]]
            for fields, value in zip(rounds, together, strict=False):
                fields[name] = value
            for value in [value for value in values if value not in together]:
                response = world.send(base_of(requests, name).with_body(**{name: value}))
                # An invalid start time can cause an error about the end time.
                other = name == "start_time" and names_in(response) == {"end_time"}
                world.expect(
                    label,
                    f"{name} {str(value)[:60]!r}",
                    response,
                    statuses={400},
                    fields={"end_time"} if other else {name},
                )
        for fields in rounds:
            texts = {name: json.dumps(value) for name, value in fields.items()}
            for part in small_parts(texts):
                response = world.send(requests[0], content=with_raw(requests[0], part))
                world.expect(label, str(part)[:200], response, statuses={400}, fields={*part})


def hostile_values():
    """Return the JSON texts of all hostile values of fields, by name."""
    texts = {name: json.dumps(value) for name, value in {**TEXTS, **TIMES}.items()}
    found = {**texts, **JSON}
    assert len(found) == len(TEXTS) + len(TIMES) + len(JSON), "a name stands for two values"
    return found


def with_raw(request, fields):
    """Return the body of a request, with the JSON texts in `fields` as values of these fields."""
    others = {name: value for name, value in request.body.items() if name not in fields}
    items = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in others.items()]
    items += [f"{json.dumps(name)}: {text}" for name, text in fields.items()]
    return ("{" + ", ".join(items) + "}").encode()


def is_tolerated(name, value):
    """Return whether a field may accept a value that its schema does not describe.

    Blanks around a text are removed, so blanks count as an empty text. A price may also be a
    number, and an id may have any of the forms that Python reads.
    """
    if isinstance(value, str):
        return value.strip() == "" or value in ID_FORMS
    return name == "price" and isinstance(value, int | float)


def takes_texts(schema):
    """Return whether a schema accepts at least some texts."""
    kinds = [each.get("type", "string") for each in schema.get("oneOf", [schema])]
    return any("string" in kind for kind in kinds)


def small_parts(fields):
    """Split the fields into dictionaries, each of which fits into one body."""
    if sum(map(len, fields.values())) < MEBIBYTE // 2:
        return [fields] if fields else []
    return [{name: text} for name, text in fields.items()]


def groups(requests, schemas, names):
    """Yield pairs: a request, and the fields of its body in which to send a value.

    Text fields get the value together, because all of them accept most texts. Fields of the kinds
    in `CHECKED_FIRST` also get it together, because they refuse a value before the request does
    anything else. Every other field gets the value alone.
    """
    kinds = {name: kind_of_field(name, schemas[name]) for name in names}
    for request in requests:
        for together in ({"text"}, CHECKED_FIRST):
            found = sorted(name for name in names if kinds[name] in together)
            if found := [name for name in found if base_of(requests, name) is request]:
                yield request, found
    for name in sorted(names):
        if kinds[name] != "text" and kinds[name] not in CHECKED_FIRST:
            yield base_of(requests, name), [name]


def send_hostile_fields(world, labels):
    """Send each hostile value in each field.

    If the schemas of some fields refuse a value, one request sends it in all these fields, and its
    error must name all of them. The remaining fields may accept the value.
    """
    for label in labels:
        requests = world.valid(label)
        schemas = fields_of(label)
        checkers = {
            name: contract.validator(contract.document(), schema)
            for name, schema in schemas.items()
        }
        for index, (shown, text) in enumerate(hostile_values().items()):
            value = json.loads(text)
            refused = {
                name: text
                for name, checker in checkers.items()
                if not checker.is_valid(value) and not is_tolerated(name, value)
                # Fields that accept no texts get only every eighth text.
                if not isinstance(value, str) or index % 8 == 0 or takes_texts(schemas[name])
            }
            for part in small_parts(refused):
                response = world.send(requests[0], content=with_raw(requests[0], part))
                world.expect(label, shown, response, statuses={400}, fields={*part})
            names = {name for name in schemas if name not in refused}
            if isinstance(value, str):
                names = {name for name in names if takes_texts(schemas[name])}
            if shown in TIMES:
                names = {each for each in names if KINDS.get(each) in ("time", "expiry")}
            for request, together in groups(requests, schemas, names):
                content = with_raw(request, dict.fromkeys(together, text))
                response = world.send(request, content=content)
                where = f"{label}, {' and '.join(together)}"
                world.expect(where, shown, response, label=label)
                if response.status_code == 400 and not names_in(response) <= {*together, *RELATED}:
                    world.failures.append(f"{where}: {shown}: {response.content[:300]!r}")


ID_FORMS = [TEXTS[f"an id {form}"] for form in ("in braces", "as a URN", "without dashes")]
# Another field can cause an error about one of these fields, or about the whole body ("").
RELATED = {"end_time", "slot_id", "service_id", "start_time", ""}


def test_hostile_values_of_fields_get_documented_responses(world):
    send_hostile_fields(world, [label for label in with_bodies() if fields_of(label)])


def test_a_field_that_is_not_valid_json_is_refused(world):
    for label in with_bodies():
        [request, *_] = world.valid(label)
        # One field is enough, because its value makes the whole body invalid.
        for name in [*fields_of(label)][:1]:
            for shown, text in INVALID_JSON.items():
                response = world.send(request, content=with_raw(request, {name: text}))
                world.expect(label, shown, response, statuses={400}, codes={"parse_error"})
            # If the field is in the body twice, its last value counts.
            doubled = with_raw(request, {name: "[[]]"})[:-1] + b"," + request.content[1:]
            response = world.send(request, content=doubled)
            statuses = {200, 201, 202, 204} if name in request.body else {400}
            world.expect(label, "a field twice", response, statuses=statuses)


def a_part(values, number, name):
    """Return all values, or a fifth of them for a parameter of more than ten operations.

    The same code reads such a parameter for all operations, so it is enough to send each value to
    a fifth of the operations.
    """
    is_shared = sum(name in names_of(label) for label in OPERATIONS()) > 10
    return {
        shown: value
        for index, (shown, value) in enumerate(values.items())
        if not is_shared or index % 5 == number % 5
    }


@cache
def names_of(label):
    return {each["name"] for each in OPERATIONS()[label]["parameters"]}


TIME_PARAMETERS = {"from", "to", "date", "available_from", "available_to"}


def must_refuse(parameter, encoded):
    """Return whether an encoded value of a parameter must be refused.

    Cursors and tokens are opaque, so any response that is documented is right. Every other
    parameter refuses empty texts and null characters. The schema says the rest.
    """
    schema = parameter.get("schema", {})
    if parameter["name"] in ("cursor", "token"):
        return False
    # As in Django, bytes that are not UTF-8 become a replacement character.
    text = unquote(encoded)
    if "\0" in text or text.replace("+", " ").strip() == "":
        return True
    if schema.get("type") == "integer":
        return not re.fullmatch(r"\+?[0-9]{1,9}", text.strip())
    if schema.get("type") == "number":
        return not re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text.strip())
    if schema.get("type") == "boolean":
        return text not in ("true", "false")
    if schema.get("format") == "uuid":
        return not re.search("[0-9a-f]{12}", text) or not text.isascii()
    return "enum" in schema and text not in map(str, schema["enum"])


def test_hostile_parameters_get_documented_responses(world):
    for number, label in enumerate(OPERATIONS()):
        who = "nobody" if is_public(label) else "admin"
        [request, *_] = world.valid(label, who)
        for parameter in parameters_of(label, "query"):
            name = parameter["name"]
            query = {each: value for each, value in request.query.items() if each != name}
            bare = replace(request, query=query).target
            bare += "&" if query else "?"
            values = encoded_values(with_times=name in TIME_PARAMETERS)
            for shown, value in a_part(values, number, name).items():
                response = world.send(request, who, target=f"{bare}{name}={value}")
                statuses = {400} if must_refuse(parameter, value) else None
                world.expect(f"{label}, {name}", shown, response, label=label, statuses=statuses)
                expect_name(world, label, name, shown, response)
            for form in FORMS:
                target = f"{bare}{form.format(name)}"
                world.expect(label, form, world.send(request, who, target=target))


def expect_name(world, label, name, shown, response):
    """Record a failure if a 400 names anything other than the parameter.

    One of the two parameters in `pair` may be named in place of the other.
    """
    pair = ("available_from", "available_to")
    allowed = [{each} for each in (pair if name in pair else [name])]
    if response.status_code == 400 and names_in(response) not in allowed:
        world.failures.append(f"{label}, {name}={shown}: {response.content[:300]!r}")


def test_invalid_queries_are_refused(world):
    for label in OPERATIONS():
        if "Operations" in OPERATIONS()[label]["tags"]:
            continue  # Health checks ignore queries.
        [request, *_] = world.valid(label)
        for query in QUERIES:
            target = f"{request.target}{'&' if request.query else '?'}{query}"
            response = world.send(request, target=target)
            world.expect(label, query[:60], response, statuses={400}, codes={"validation_error"})


QUERIES = [
    "colour=red",
    "a[b][c][d]=1",
    "a" + "[a]" * 1000 + "=1",
    "&".join(f"a{number}=1" for number in range(999)),
    "&".join(f"a{number}=1" for number in range(1001)),
    "&".join(["tz=UTC"] * 1001),
    "x" * 50_000 + "=1",
    "tz=" + "x" * 50_000,
    "tz=%00",
    "tz=UTC%00",
    "tz=Mars",
    "%00",
    "%00=1",
    "%FF%FE=%FF%FE",
    "%ED%A0%80=1",
    "__proto__=1",
    "limit[$gt]=0",
    "tz=UTC;SELECT%201",
    "?",
    "=",
]


def test_hostile_ids_in_paths_are_not_found(world):
    values = encoded_values(with_times=False)
    for label in OPERATIONS():
        [request, *_] = world.valid(label)
        for name in request.path_parameters:
            for shown, value in values.items():
                target = request.path.replace(f"{{{name}}}", value)
                for other, right in request.path_parameters.items():
                    target = target.replace(f"{{{other}}}", right)
                response = world.send(request, target=target)
                world.expect(
                    label, f"{name}: {shown}", response, statuses={404}, codes={"not_found"}
                )


def test_hostile_headers_get_documented_responses(world):
    for number, label in enumerate(OPERATIONS()):
        [request, *_] = world.valid(label)
        for name in [each["name"] for each in parameters_of(label, "header")]:
            if name == "X-Request-ID":
                continue  # No endpoint reads it.
            for shown, value in a_part(HEADERS, number, name).items():
                response = world.send(request, **{environ_name(name): value})
                world.expect(f"{label}, {name}", shown, response, label=label)
                expect_name(world, label, name, shown, response)
        for index, (shown, value) in enumerate(HEADERS.items()):
            if index % 3 == number % 3:
                response = world.send(request, HTTP_AUTHORIZATION=value)
                statuses = None if is_public(label) else {400, 401}
                world.expect(label, f"Authorization: {shown}", response, statuses=statuses)


def is_public(label):
    return {} in OPERATIONS()[label]["security"]


def environ_name(header):
    return "HTTP_" + header.upper().replace("-", "_")


# Headers that servers, middleware or views read. No operation has them as parameters, except
# `X-Request-ID`, which only middleware reads.
PLUMBING = [
    *("Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Content-Encoding"),
    *("Cookie", "Expect", "Forwarded", "Host", "If-Modified-Since", "If-None-Match", "Origin"),
    *("Range", "Referer", "Transfer-Encoding", "X-Forwarded-For", "X-Forwarded-Host"),
    *("X-Forwarded-Proto", "X-HTTP-Method-Override", "X-Request-ID"),
]


def test_hostile_headers_that_are_not_parameters_get_documented_responses(world):
    """Each header is sent with every value. The operations take turns."""
    pairs = [(name, *value) for value in HEADERS.items() for name in PLUMBING]
    for label, (name, shown, value) in zip(cycle(OPERATIONS()), pairs, strict=False):
        [request, *_] = world.valid(label)
        response = world.send(request, **{environ_name(name): value})
        world.expect(label, f"{name}: {shown}", response)


def test_reads_ignore_bodies(world):
    for label in OPERATIONS():
        if not label.startswith("GET"):
            continue
        [request, *_] = world.valid(label)
        for body in (b"[" * NESTED, b"\xff", b'{"limit": 0}'):
            world.expect(label, body[:9], world.send(request, content=body), statuses={200})


def test_a_field_that_breaks_on_one_value_is_noticed(everybody, wsgi, monkeypatch):
    """Control for `send_hostile_fields`: it reports each field that a bug in `CharField` breaks."""
    convert = serializers.CharField.to_internal_value

    def break_on_template(self, data):
        if data == TEXTS["a template"]:
            raise ZeroDivisionError
        return convert(self, data)

    monkeypatch.setattr(serializers.CharField, "to_internal_value", break_on_template)
    world = World(everybody, wsgi)
    with in_process():
        send_hostile_fields(world, ["POST /calendars", "PATCH /reviews/{id}"])
    found = {failure.partition(", a template: 500")[0] for failure in world.failures}
    assert found == {
        "POST /calendars, name",
        "POST /calendars, timezone",
        "PATCH /reviews/{id}, comment",
    }


def test_the_most_expensive_invalid_bodies_are_refused_quickly(world):
    """Every body is smaller than the size limit of one mebibyte."""
    [request, *_] = world.valid("POST /calendars")
    for body in (
        {f"f{number}": 0 for number in range(60_000)},
        {"name": "x", "opening_hours": [{f"f{n}": 0 for n in range(1000)}] * 90},
        {"name": "x", "opening_hours": [{}] * 100},
        {"name": "x", "opening_hours": [HOURS[0]] * 15_000},
        {"name": "x", "timezone": "x" * 1_000_000},
        {"name": "x", "provider_id": "1" * 1_000_000},
    ):
        encoded = json.dumps(body).encode()
        assert len(encoded) <= MEBIBYTE
        began = time.process_time()
        response = world.send(request, content=encoded)
        problem(response, 400, "validation_error")
        assert time.process_time() - began < 1, encoded[:60]
        assert len(response.content) < 20_000
    [request, *_] = world.valid("POST /services")
    body = {"title": "x", "duration_minutes": "9" * 900_000, "price": "9" * 100_000}
    began = time.process_time()
    response = world.send(request, content=json.dumps(body).encode())
    problem(response, 400, "validation_error", "duration_minutes", "price")
    assert time.process_time() - began < 1
