"""Invalid requests to any endpoint get a 4xx problem, and nothing is written."""

import gzip
import json
import re
import time
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import URLPattern, get_resolver
from django.utils import timezone

from accounts.links.kinds import PASSWORD_RESET, VERIFICATION
from accounts.links.tests.tokens import emailed_token
from accounts.tests.factories import PASSWORD, AdminFactory, ProviderFactory, UserFactory, staff
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, DeliveryFactory, SlotFactory
from bookings.waitlist.models import WaitlistEntry
from bookit.tests.expect import problem
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

MEBIBYTE = 1024 * 1024
ANY_ID = "01980000-0000-7000-8000-000000000000"
HOURS = [{"weekday": 0, "opens": "09:00", "closes": "12:00"}]

# Every write request, with the kind and a valid value of each field. Tests replace these values.
WRITES = {
    "POST /auth/register": {
        "name": ("text", "Ada"),
        "email": ("mail", "new@example.com"),
        "password": ("text", PASSWORD),
        "phone": ("text", "+351 912 345 678"),
        "timezone": ("choice", "UTC"),
        "language": ("choice", "pt-BR"),
    },
    "POST /auth/login": {"email": ("text", "{email}"), "password": ("text", PASSWORD)},
    "POST /auth/refresh": {"refresh_token": ("text", "{token}")},
    "POST /auth/logout": {"refresh_token": ("text", "{token}")},
    "POST /auth/password-reset": {"email": ("text", "{email}")},
    "POST /auth/password-reset/confirm": {
        "token": ("text", "{reset_token}"),
        "password": ("text", "another good password"),
    },
    "POST /auth/verify-email": {"token": ("text", "{verify_token}")},
    "PATCH /me": {
        "name": ("text", "Ada"),
        "email": ("mail", "new@example.com"),
        "current_password": ("text", PASSWORD),
        "phone": ("text", "+351 912 345 678"),
        "timezone": ("choice", "UTC"),
        "language": ("choice", "pt-BR"),
        "metadata": ("metadata", {"a": "1"}),
    },
    "DELETE /me": {"password": ("text", PASSWORD)},
    "POST /me/password": {
        "current_password": ("text", PASSWORD),
        "new_password": ("text", "another good password"),
    },
    "POST /me/api-keys": {
        "name": ("text", "Till"),
        "permissions": ("permissions", ["bookings.view_booking"]),
        "expires_at": ("expiry", "2999-01-31T00:00:00Z"),
    },
    "POST /roles": {
        "name": ("text", "Reception"),
        "description": ("text", "At the door"),
        "permissions": ("permissions", ["bookings.view_booking"]),
    },
    "PATCH /roles/{role}": {
        "name": ("text", "Reception"),
        "description": ("text", "At the door"),
        "permissions": ("permissions", ["bookings.view_booking"]),
    },
    "POST /users": {
        "name": ("text", "Ada"),
        "email": ("mail", "new@example.com"),
        "role": ("choice", "provider"),
        "phone": ("text", "+351 912 345 678"),
        "timezone": ("choice", "UTC"),
        "language": ("choice", "pt-BR"),
    },
    "PATCH /me/provider": {
        "name": ("text", "Ada"),
        "biography": ("text", "Since 1998."),
        "picture_url": ("picture", "https://example.com/ada.jpg"),
    },
    "PATCH /users/{user}": {
        "name": ("text", "Ada"),
        "roles": ("permissions", []),
        "role": ("choice", "provider"),
        "is_active": ("flag", True),
        "metadata": ("metadata", {"a": "1"}),
    },
    "POST /calendars": {
        "name": ("text", "Chair"),
        "timezone": ("choice", "UTC"),
        "provider_id": ("id", "{admin}"),
        "opening_hours": ("list", HOURS),
        "metadata": ("metadata", {"a": "1"}),
    },
    "PATCH /calendars/{calendar}": {
        "name": ("text", "Chair"),
        "timezone": ("choice", "UTC"),
        "provider_id": ("id", "{admin}"),
        "opening_hours": ("list", HOURS),
        "metadata": ("metadata", {"a": "1"}),
    },
    "POST /calendars/{calendar}/time-off": {
        "start_time": ("time", "2999-08-01T00:00:00Z"),
        "end_time": ("time", "2999-09-01T00:00:00Z"),
        "reason": ("text", "Holidays"),
    },
    "POST /services": {
        "title": ("text", "Cut"),
        "price": ("money", "25.00"),
        "duration_minutes": ("number", 30),
        "description": ("text", "Short"),
        "currency": ("choice", "EUR"),
        "capacity": ("number", 2),
        "mode": ("choice", "open"),
        "requires_confirmation": ("flag", False),
        "buffer_before_minutes": ("number", 5),
        "max_advance_days": ("number", 5),
        "step_minutes": ("number", 15),
        "category": ("text", "Hair"),
        "is_active": ("flag", True),
        "calendar_id": ("id", "{calendar}"),
        "metadata": ("metadata", {"a": "1"}),
    },
    "PATCH /services/{service}": {
        "title": ("text", "Cut"),
        "price": ("money", "25.00"),
        "duration_minutes": ("number", 30),
        "capacity": ("number", 2),
        "buffer_after_minutes": ("number", 5),
        "min_notice_minutes": ("number", 5),
        "cancellation_notice_minutes": ("number", 5),
        "requires_confirmation": ("flag", False),
        "calendar_id": ("id", "{calendar}"),
        "metadata": ("metadata", {"a": "1"}),
    },
    "POST /slots": {
        "service_id": ("id", "{service}"),
        "start_time": ("time", "{next_week}"),
        "capacity": ("number", 3),
        "rrule": ("rule", "FREQ=WEEKLY;COUNT=2"),
    },
    "PATCH /slots/{slot}": {"capacity": ("number", 3), "status": ("choice", "cancelled")},
    "POST /slots/{full_slot}/waitlist": {},
    "POST /bookings": {
        "service_id": ("id", "{service}"),
        "start_time": ("time", "2999-02-01T10:00:00Z"),
        "end_time": ("time", "2999-02-01T11:00:00Z"),
        "user_id": ("id", "{user}"),
        "attendee_name": ("text", "Ada"),
        "attendee_email": ("mail", "ada@example.com"),
        "attendee_phone": ("phone", "+351 912 345 678"),
        "notes": ("text", "By the window"),
        "metadata": ("metadata", {"a": "1"}),
    },
    "PATCH /bookings/{booking}": {"start_time": ("time", "2999-02-01T10:00:00Z")},
    "PATCH /bookings/{booking} details": {
        "attendee_name": ("text", "Ada"),
        "attendee_email": ("mail", "ada@example.com"),
        "attendee_phone": ("phone", "+351 912 345 678"),
        "notes": ("text", "By the window"),
    },
    "PATCH /bookings/{booking} cancel": {
        "status": ("choice", "cancelled"),
        "reason": ("text", "I am ill"),
    },
    "PATCH /bookings/{booking}/status": {
        "status": ("choice", "confirmed"),
        "reason": ("text", "Why not"),
    },
    "POST /reviews": {
        "booking_id": ("id", "{completed}"),
        "rating": ("number", 5),
        "comment": ("text", "Fine"),
    },
    "PATCH /reviews/{review}": {"rating": ("number", 4), "comment": ("text", "Fine")},
    "POST /webhooks": {
        "url": ("url", "https://8.8.8.8/hook"),
        "events": ("types", ["booking.created"]),
        "is_active": ("flag", False),
    },
    "PATCH /webhooks/{webhook}": {
        "url": ("url", "https://8.8.8.8/hook"),
        "events": ("types", ["booking.created"]),
        "is_active": ("flag", False),
    },
    "POST /webhooks/{webhook}/rotate-secret": {},
    "POST /webhooks/{webhook}/test": {},
    "POST /webhooks/{webhook}/deliveries/{delivery}/redeliver": {},
}

READS = [
    "/services",
    "/services/{service}",
    "/services/{service}/reviews",
    "/categories",
    "/providers",
    "/providers/{provider}",
    "/calendars",
    "/calendars/{calendar}",
    "/slots",
    "/slots/{slot}",
    "/slots/{full_slot}/waitlist",
    "/calendars/{calendar}/time-off",
    "/reviews",
    "/reviews/{review}",
    "/bookings",
    "/bookings/{booking}",
    "/users",
    "/users/{user}",
    "/me",
    "/me/sessions",
    "/me/export",
    "/me/api-keys",
    "/roles",
    "/roles/{role}",
    "/webhooks",
    "/webhooks/{webhook}",
    "/webhooks/{webhook}/deliveries",
    "/events",
]

NESTED = 100_000
# Raw bodies that no endpoint accepts, and the status of each response.
BODIES = {
    "only blanks": (b"  ", 400),
    "cut short": (b'{"name": "A', 400),
    "two bodies": (b"{}{}", 400),
    "no JSON": (b"name=Ada&price=5", 400),
    "single quotes": (b"{'name': 'Ada'}", 400),
    "a comment": (b"{} // a comment", 400),
    "a trailing comma": (b'{"name": "Ada",}', 400),
    "lists nested deep": (b"[" * NESTED, 400),
    "closed lists nested deep": (b"[" * NESTED + b"]" * NESTED, 400),
    "objects nested deep": (b'{"name":' * NESTED, 400),
    "closed objects nested deep": (b'{"name":' * NESTED + b"1" + b"}" * NESTED, 400),
    "a field nested deep": (b'{"name":' + b"[" * NESTED + b"]" * NESTED + b"}", 400),
    "a list": (b"[]", 400),
    "a list of bodies": (b"[{}, {}]", 400),
    "a text": (b'"name"', 400),
    "an empty text": (b'""', 400),
    "a number": (b"5", 400),
    "null": (b"null", 400),
    "true": (b"true", 400),
    "NaN": (b"NaN", 400),
    "NaN in a field": (b'{"name": NaN}', 400),
    "Infinity in a field": (b'{"price": Infinity}', 400),
    "-Infinity in a field": (b'{"price": -Infinity}', 400),
    "1e400 in a field": (b'{"price": 1e400}', 400),
    "a number of 400 digits": (b'{"price": ' + b"9" * 400 + b"}", 400),
    "a lone surrogate": (b'{"name": "\\ud800"}', 400),
    "a reversed pair of surrogates": (b'{"name": "\\udc00\\ud800"}', 400),
    "a surrogate in UTF-8": (b'{"name": "\xed\xa0\x80"}', 400),
    "a lone surrogate as a name": (b'{"\\ud800": 1}', 400),
    "no UTF-8": (b'{"name": "\xff\xfe"}', 400),
    "overlong UTF-8": (b'{"name": "\xc0\xaf"}', 400),
    "UTF-8 cut short": (b'{"name": "\xe2\x82', 400),
    "Latin-1": ('{"name": "é"}'.encode("latin-1"), 400),
    "UTF-16": ('{"name": "Ada"}'.encode("utf-16"), 400),
    "UTF-32": ('{"name": "Ada"}'.encode("utf-32"), 400),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400),
    "a null character": (b"\x00", 400),
    "a raw null character in a text": (b'{"name": "A\x00da"}', 400),
    "a raw line break in a text": (b'{"name": "A\nda"}', 400),
    "a null character in a name": (b'{"na\\u0000me": "Ada"}', 400),
    "an endless name": (b'{"' + b"x" * 900_000 + b'": 1}', 400),
    "many unknown fields": (json.dumps({f"f{n}": 0 for n in range(60_000)}).encode(), 400),
    "compressed": (gzip.compress(b"{}"), 400),
    "random bytes": (bytes(range(256)) * 4, 400),
    "more than a mebibyte": (b'{"name": "' + b"x" * MEBIBYTE + b'"}', 413),
    "more than a mebibyte of blanks": (b"{}" + b" " * MEBIBYTE, 413),
}

TYPES = [
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/merge-patch+json",
    "application/problem+json",
    "application/xml",
    "application/octet-stream",
    "*/*",
    "json",
    "",
]

TOO_LONG = "x" * 10_001
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
    "mail": [None, True, "nonsense", "@", "a@b", "a b@example.com", "a@example.com\nCc: b@c.d", 5],
    "phone": [
        *(None, True, "nonsense", "-1", "+", "12", "1" * 33, "+351\n912", "\uff11\uff12\uff13")
    ],
    "choice": INVALID_CHOICES,
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
    "list": [
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


@pytest.fixture
def world(api):
    """Create one object of each kind; return their ids by name, and an admin's client."""
    admin, _ = AdminFactory(), AdminFactory()
    review = ReviewFactory(
        user=admin,
        booking__user=admin,
        booking__start_time=TUESDAY - timedelta(days=1),
        booking__service__rating_sum=5,
        booking__service__rating_count=1,
    )
    completed = BookingFactory(
        user=admin, status=Booking.Status.COMPLETED, start_time=TUESDAY - timedelta(days=2)
    )
    session = api.post("/auth/login", {"email": admin.email, "password": PASSWORD}).json()
    full_slot = SlotFactory()
    WaitlistEntry.objects.create(slot=full_slot, user=UserFactory())
    delivery = DeliveryFactory()
    return {
        "client": api.as_(admin),
        "admin": admin.pk,
        "email": admin.email,
        "token": session["refresh_token"],
        "reset_token": emailed_token(PASSWORD_RESET, admin),
        "verify_token": emailed_token(VERIFICATION, admin),
        "user": UserFactory().pk,
        "provider": ProviderFactory().pk,
        "service": review.service_id,
        "calendar": review.service.calendar_id,
        "booking": BookingFactory(user=admin).pk,
        "completed": completed.pk,
        "slot": SlotFactory().pk,
        "full_slot": full_slot.pk,
        "next_week": (timezone.now() + timedelta(days=7)).isoformat(),
        "review": review.pk,
        "webhook": delivery.webhook_id,
        "delivery": delivery.pk,
        "role": staff([]).groups.get().role.pk,
    }


def fill(text, world):
    return re.sub(r"\{(\w+)\}", lambda match: str(world[match[1]]), text)


def send(world, line, body, content_type="application/json"):
    method, path = fill(line, world).split()[:2]
    if not isinstance(body, bytes):
        body = fill(json.dumps(body), world).encode()
    return world["client"].generic(method, path, body, content_type=content_type)


def good(line):
    return {name: value for name, (_, value) in WRITES[line].items()}


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


@pytest.fixture
def nothing_written(world):
    """Check after the test that all tables are unchanged."""
    before = table_hashes()
    assert before["accounts_user"]
    yield
    assert table_hashes() == before


# These write requests have no body.
WITHOUT_BODY = {
    "POST /auth/verify-email/resend",
    "POST /me/calendar",
    "POST /calendars/{}/feed",
}
# These have a body although their method usually has none.
WITH_BODY = {"DELETE /me"}


def test_the_table_lists_every_write_of_the_api():
    def writes(patterns, prefix=""):
        for pattern in patterns:
            route = prefix + str(pattern.pattern)
            if not isinstance(pattern, URLPattern):
                yield from writes(pattern.url_patterns, route)
            for method in getattr(pattern.callback, "actions", None) or {}:
                if method in ("post", "patch", "put"):
                    yield f"{method.upper()} /{route}"

    found = {re.sub(r"<[^>]*>", "{}", line) for line in writes(get_resolver().url_patterns[:4])}
    listed = {" ".join(line.split()[:2]) for line in WRITES}
    assert (found | WITH_BODY) - WITHOUT_BODY == {re.sub(r"\{\w+\}", "{}", line) for line in listed}


@pytest.mark.parametrize("line", WRITES)
def test_each_valid_body_is_accepted(world, line):
    """Control for the tests below: the body is valid, and the request changes a table."""
    before = table_hashes()
    response = send(world, line, good(line))
    assert response.status_code in (200, 201, 202, 204), response.content
    assert table_hashes() != before


@pytest.mark.parametrize("line", WRITES)
def test_an_invalid_body_is_refused(world, nothing_written, line):
    for name, (body, status) in BODIES.items():
        response = send(world, line, body)
        assert response.status_code == status, (name, response.content[:500])
        content = problem(
            response,
            status,
            "payload_too_large"
            if status == 413
            else "validation_error"
            if "errors" in response.json()
            else "parse_error",
        )
        assert len(response.content) < 20_000, (name, "the response is too long")
        assert "surrogate" not in name or content["code"] == "parse_error"


@pytest.mark.parametrize("line", WRITES)
def test_a_body_of_another_type_is_refused(world, nothing_written, line):
    for content_type in TYPES:
        response = send(world, line, good(line), content_type)
        assert response.status_code == 415, content_type
        problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("line", WRITES)
def test_an_invalid_field_is_named(world, nothing_written, line):
    for name, (kind, _) in WRITES[line].items():
        for value in [*NEVER_VALID, *REFUSED[kind]]:
            if value is None and name in ("provider_id", "max_advance_days", "step_minutes"):
                continue  # may be null
            if value == {} and kind == "metadata":
                continue  # changes nothing
            response = send(world, line, {**good(line), name: value})
            shown = f"{name}: {str(value)[:60]!r} {response.status_code} {response.content[:300]!r}"
            assert response.status_code == 400, shown
            content = problem(response, 400, "validation_error")
            fields = {error["field"].split(".")[0] for error in content["errors"]}
            # If the start is invalid, the error may be about the end.
            assert fields == {name} or (name, fields) == ("start_time", {"end_time"}), shown
            assert len(response.content) < 20_000, shown[:200]


@pytest.mark.parametrize("line", WRITES)
def test_invalid_parameters_of_a_write_are_refused(world, nothing_written, line):
    method, path = line.split()[:2]
    for query in ("?colour=red", "?tz=Mars", "?tz=%00", "?%00", "?" + "&".join(["a=1"] * 1001)):
        response = send(world, f"{method} {path}{query}", good(line))
        problem(response, 400, "validation_error")


@pytest.mark.parametrize("line", WRITES)
def test_invalid_headers_of_a_write_are_refused(world, nothing_written, line):
    method, path = fill(line, world).split()[:2]
    body = fill(json.dumps(good(line)), world)

    def send_with(**headers):
        return world["client"].generic(method, path, body, "application/json", **headers)

    problem(send_with(HTTP_TIME_ZONE="Mars"), 400, "validation_error", "Time-Zone")
    problem(send_with(HTTP_TIME_ZONE="../../etc/passwd"), 400, "validation_error", "Time-Zone")
    problem(send_with(HTTP_HOST="elsewhere.example"), 400, "validation_error", "Host")
    problem(send_with(HTTP_ACCEPT="image/png"), 406, "not_acceptable")
    if not path.startswith("/auth"):
        world["client"].credentials(HTTP_AUTHORIZATION="Bearer x")
        problem(send_with(), 401, "token_invalid")


@pytest.mark.parametrize("path", READS)
def test_invalid_queries_are_refused(world, nothing_written, path):
    client = world["client"]
    path = fill(path, world)
    for query in [
        "a[b][c][d]=1",
        "a" + "[a]" * 1000 + "=1",
        "&".join(f"a{number}=1" for number in range(999)),
        "&".join(f"a{number}=1" for number in range(1001)),
        "&".join(["tz=UTC"] * 1001),
        "x" * 50_000 + "=1",
        "tz=" + "x" * 50_000,
        "tz=%00",
        "tz=UTC%00",
        "%00=1",
        "%FF%FE=%FF%FE",
        "%ED%A0%80=1",
        "__proto__=1",
        "limit[$gt]=0",
        "tz=UTC;SELECT%201",
        "?",
        "=",
    ]:
        response = client.get(f"{path}?{query}")
        problem(response, 400, "validation_error")
        assert len(response.content) < 20_000, query[:80]


@pytest.mark.parametrize("path", READS)
def test_reads_ignore_bodies(world, nothing_written, path):
    for body in (b"[" * NESTED, b"\xff", b'{"limit": 0}'):
        response = world["client"].generic(
            "GET", fill(path, world), body, content_type="application/json"
        )
        assert response.status_code == 200


def test_the_most_expensive_invalid_bodies_are_refused_quickly(world):
    """Every body is smaller than the size limit of one mebibyte."""
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
        response = send(world, "POST /calendars", encoded)
        problem(response, 400, "validation_error")
        assert time.process_time() - began < 1, encoded[:60]
        assert len(response.content) < 20_000
    began = time.process_time()
    response = send(
        world,
        "POST /services",
        {"title": "x", "duration_minutes": "9" * 900_000, "price": "9" * 100_000},
    )
    problem(response, 400, "validation_error", "duration_minutes", "price")
    assert time.process_time() - began < 1
