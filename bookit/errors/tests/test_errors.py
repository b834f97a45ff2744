"""Errors of every layer are problem documents."""

import json
import re
import time
from datetime import timedelta

import pytest
from django.conf import settings as configured
from django.core.management import call_command
from django.db import DataError, IntegrityError, InternalError, connection, transaction
from django.test import Client
from rest_framework_simplejwt.tokens import AccessToken

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.tests.factories import TUESDAY, BookingFactory
from bookit.errors import is_database_unavailable, problems
from bookit.tests.expect import page, problem
from bookit.web import pages
from catalog import services as catalog
from catalog.models import Calendar
from catalog.tests.factories import ServiceFactory

pytestmark = pytest.mark.django_db

# Every error code of the API, with its status.
CODES = {
    "validation_error": 400,
    "parse_error": 400,
    "not_authenticated": 401,
    "invalid_credentials": 401,
    "token_invalid": 401,
    "permission_denied": 403,
    "booking_started": 403,
    "email_not_verified": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "booking_conflict": 409,
    "slot_full": 409,
    "outside_opening_hours": 409,
    "too_many_holds": 409,
    "too_soon": 409,
    "too_far_ahead": 409,
    "cancellation_too_late": 409,
    "service_inactive": 409,
    "invalid_transition": 409,
    "booking_not_completed": 409,
    "review_exists": 409,
    "email_taken": 409,
    "service_in_use": 409,
    "slot_conflict": 409,
    "webhook_inactive": 409,
    "slot_not_full": 409,
    "idempotency_in_progress": 409,
    "last_admin": 409,
    "request_timeout": 408,
    "precondition_failed": 412,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "idempotency_key_reused": 422,
    "throttled": 429,
    "internal_error": 500,
    "service_unavailable": 503,
}
ANY_ID = "01980000-0000-7000-8000-000000000000"
MEBIBYTE = 1024 * 1024


@pytest.fixture
def browser():
    """Return a client that turns a bug in a page into a response instead of an exception."""
    return Client(raise_request_exception=False)


@pytest.fixture
def admin(api):
    client = api.as_(AdminFactory())
    client.raise_request_exception = False
    return client


# --- routing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/services/",
        "/services//",
        f"/services/{ANY_ID}/nothing",
        f"/calendars/{ANY_ID}/",
        "/errors/no_such_error",
        "/errors/",
        "/health/",
        "/static/nothing.css",
        "/favicon.ico",
        "/%00",
        "/%FF%FE",
        "/services/%E2%98%83",
        "/" + "x" * 4000,
    ],
)
def test_an_unknown_url_is_a_404(browser, path):
    problem(browser.get(path), 404, "not_found")


@pytest.mark.parametrize("path", ["services", "calendars", "reviews", "services/{}/reviews"])
def test_a_row_that_does_not_exist_is_a_404(api, path):
    path = path.format(ANY_ID) if "{" in path else f"{path}/{ANY_ID}"
    problem(api.get(f"/{path}"), 404, "not_found")


@pytest.mark.parametrize("path", ["/bookings", "/users"])
def test_a_private_row_that_does_not_exist_is_a_404(admin, path):
    problem(admin.get(f"{path}/{ANY_ID}"), 404, "not_found")
    problem(admin.patch(f"{path}/{ANY_ID}", {}), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/services", "GET, POST, HEAD, OPTIONS"),
        ("PUT", f"/services/{ANY_ID}", "GET, PATCH, DELETE, HEAD, OPTIONS"),
        ("DELETE", "/bookings", "GET, POST, HEAD, OPTIONS"),
        ("PATCH", "/users", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/auth/login", "POST, OPTIONS"),
        ("TRACE", "/services", "GET, POST, HEAD, OPTIONS"),
        ("BREW", "/services", "GET, POST, HEAD, OPTIONS"),
        # Names of methods of the view class that are not HTTP methods.
        ("LIST", "/users", "GET, HEAD, OPTIONS, POST"),
        ("DISPATCH", "/services", "GET, POST, HEAD, OPTIONS"),
        ("POST", "/health", "GET, HEAD"),
        ("POST", "/health/ready", "GET, HEAD"),
        ("DELETE", "/errors", "GET, HEAD"),
        ("PATCH", "/errors/throttled", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
        ("POST", "/docs", "GET, HEAD"),
        ("PUT", "/redoc", "GET, HEAD"),
        ("POST", "/static/bookit/forms.js", "GET, HEAD"),
    ],
)
def test_a_wrong_method_is_a_405_that_lists_allowed_methods(api, browser, method, path, allowed):
    for client in (browser, api.as_(AdminFactory())):
        response = client.generic(method, path)
        problem(response, 405, "method_not_allowed")
        assert sorted(response["Allow"].split(", ")) == sorted(allowed.split(", "))


# --- reading the request ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "body", [b"{", b"", b" ", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1e400}', b'{"a": "\xff"}', b"{}x"]
)
def test_a_body_that_is_not_json_is_a_400(api, body):
    response = api.generic("POST", "/auth/login", body, content_type="application/json")
    if body:
        assert "errors" not in problem(response, 400, "parse_error")
    else:  # An empty body is an object without fields.
        problem(response, 400, "validation_error", "email", "password")


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/merge-patch+json",
        "application",
        ";",
        "",
        "x" * 5000,
        # Django refuses the invented encoding when it creates the request, before any view runs.
        "text/plain; name*=made-up''x",
        "application/x-www-form-urlencoded; charset*=made-up''x",
        "multipart/form-data; boundary*=made-up''x",
    ],
)
def test_a_body_that_is_not_declared_as_json_is_a_415(wsgi, content_type):
    response = wsgi("POST", "/auth/login", b'{"email": "a"}', CONTENT_TYPE=content_type)
    problem(response, 415, "unsupported_media_type")
    assert b"Content-Type: application/json" in response.content, "what to send instead"


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8"],
)
def test_the_content_type_of_json_can_be_written_in_several_ways(wsgi, content_type):
    response = wsgi("POST", "/auth/login", b'{"email": "a"}', CONTENT_TYPE=content_type)
    problem(response, 400, "validation_error", "password")


# Django closes the connection when a request begins, and with it a transaction of the test.
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("charset", ["hex", "undefined", "utf-16"])
def test_parameters_are_in_utf_8_whatever_charset_the_content_type_names(wsgi, charset):
    ServiceFactory(title="Café")
    content_type = f"application/json; charset={charset}"
    response = wsgi("GET", "/services?q=Caf%C3%A9", CONTENT_TYPE=content_type)
    assert response.status_code == 200, response.content
    assert [each["title"] for each in json.loads(response.content)["results"]] == ["Café"]
    wrong = wsgi("POST", "/auth/login?colour=red", b"{}", CONTENT_TYPE=content_type)
    problem(wrong, 400, "validation_error", "colour")


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_too_many_parameters_are_refused_whatever_the_content_type(wsgi, content_type):
    problem(
        wsgi("GET", "/services?" + "q&" * 2000, CONTENT_TYPE=content_type),
        400,
        "validation_error",
        "",
    )


def test_only_a_body_of_more_than_a_mebibyte_is_a_413(api):
    def send(length):
        body = b'{"email": "a"' + b" " * (length - 14) + b"}"
        assert len(body) == length
        return api.generic("POST", "/auth/login", body, content_type="application/json")

    problem(send(MEBIBYTE + 1), 413, "payload_too_large")
    problem(send(8 * MEBIBYTE), 413, "payload_too_large")
    problem(send(MEBIBYTE), 400, "validation_error", "password")


def chunked(wsgi, body, **environ):
    """Send a chunked body as a WSGI server passes it on: without a Content-Length."""
    return wsgi(
        "POST",
        "/auth/login",
        body,
        CONTENT_LENGTH="",
        HTTP_TRANSFER_ENCODING="chunked",
        **{"wsgi.input_terminated": True},
        **environ,
    )


@pytest.mark.django_db(transaction=True)
def test_a_chunked_body_is_read_like_any_other_body(wsgi):
    body = b'{"email": "ada@example.com", "password": "wrong"}'
    problem(chunked(wsgi, body), 401, "invalid_credentials")
    problem(chunked(wsgi, b"{"), 400, "parse_error")
    problem(chunked(wsgi, b" " * (MEBIBYTE + 1)), 413, "payload_too_large")
    problem(chunked(wsgi, b""), 400, "validation_error", "email", "password")
    response = chunked(wsgi, body, CONTENT_TYPE="text/plain")
    problem(response, 415, "unsupported_media_type")


def test_forms_of_the_admin_site_have_a_maximum_size_and_number_of_fields(browser):
    form = "application/x-www-form-urlencoded"
    big = browser.post("/admin/login/", b"username=" + b"x" * MEBIBYTE, content_type=form)
    assert "larger than 1 MiB" in page(big, 413)
    page(browser.post("/admin/login/", b"a=1&" * 2000, content_type=form), 400)


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/xml",
        "image/*",
        "nonsense",
        ";;;",
        "application/json;x*=made-up''x",
    ],
)
def test_a_client_that_does_not_accept_json_gets_a_406(api, accept):
    problem(api.get("/services", headers={"accept": accept}), 406, "not_acceptable")


@pytest.mark.parametrize("path", ["/services", f"/services/{ANY_ID}", "/health", "/openapi.json"])
@pytest.mark.parametrize("method", ["get", "post", "patch", "delete"])
def test_a_trailing_slash_is_a_404_that_names_the_url_without_the_slash(api, method, path):
    for slashes, query in (("/", ""), ("//", "?limit=1"), ("/", "?colour=red")):
        content = problem(getattr(api, method)(path + slashes + query), 404, "not_found")
        assert content["detail"].endswith(f" Send the request to {path}.")


@pytest.mark.parametrize("path", ["/nothing", "/nothing/", "/services/5/", "/services/%00/"])
def test_a_404_suggests_no_url_that_does_not_exist(api, path):
    content = problem(api.get(path), 404, "not_found")
    assert "Send" not in content["detail"]


@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "application/*", "text/html, */*;q=0.1", "application/json; q=0.5"],
)
def test_a_client_that_accepts_json_gets_json(api, accept):
    response = api.get("/services", headers={"accept": accept})
    assert response.status_code == 200
    assert response["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_errors_of_the_documentation_pages_are_problems(browser, path):
    problem(browser.get(path, headers={"accept": "application/json"}), 406, "not_acceptable")
    problem(browser.post(path), 405, "method_not_allowed")


@pytest.mark.parametrize("host", ["evil.example", "a b", "testserver:port", "testserver, other"])
def test_an_unknown_host_is_refused_before_any_view_runs(admin, host):
    response = admin.post("/calendars", {"name": "Chair"}, headers={"host": host})
    problem(response, 400, "validation_error", "Host")
    assert not Calendar.objects.exists()
    for path in ("/services", "/docs", "/openapi.json", "/admin/", "/static/x", "/nothing"):
        response = admin.get(path, headers={"host": host})
        content = problem(response, 400, "validation_error", "Host")
        assert "ALLOWED_HOSTS" in content["detail"]


# --- fields -----------------------------------------------------------------------------------


def test_field_errors_are_listed_and_names_of_nested_fields_are_dotted(admin):
    response = admin.post(
        "/calendars",
        {
            "name": "",
            "timezone": "Mars/Olympus",
            "opening_hours": [
                {"weekday": 0, "opens": "09:00", "closes": "10:00"},
                {"weekday": 7, "opens": "9", "closes": "25:00", "lunch": True},
            ],
        },
    )
    fields = ["name", "timezone"]
    fields += [f"opening_hours.1.{name}" for name in ("weekday", "opens", "closes", "lunch")]
    problem(response, 400, "validation_error", *fields)


def test_an_error_of_a_whole_list_has_the_name_of_the_list(admin):
    span = {"weekday": 0, "opens": "09:00", "closes": "12:00"}
    response = admin.post("/calendars", {"name": "Chair", "opening_hours": [span, span]})
    problem(response, 400, "validation_error", "opening_hours")
    response = admin.post("/calendars", {"name": "Chair", "opening_hours": "always"})
    problem(response, 400, "validation_error", "opening_hours")
    response = admin.post("/calendars", {"name": "Chair", "opening_hours": ["always"]})
    problem(response, 400, "validation_error", "opening_hours.0")


@pytest.mark.parametrize("body", ["[]", '"text"', "5", "true", "null", "[{}]"])
def test_an_error_of_the_whole_body_names_no_field(admin, body):
    response = admin.generic("POST", "/calendars", body, content_type="application/json")
    problem(response, 400, "validation_error", "")


def test_conflicting_changes_are_an_error_of_the_whole_body(admin):
    booking = BookingFactory()
    changes = {"start_time": (TUESDAY + timedelta(hours=1)).isoformat(), "status": "cancelled"}
    problem(admin.patch(f"/bookings/{booking.pk}", changes), 400, "validation_error", "")


def test_a_field_error_of_a_domain_call_has_the_form_of_a_serializer_error(admin):
    response = admin.post("/bookings", {"service_id": ANY_ID, "start_time": TUESDAY.isoformat()})
    content = problem(response, 400, "validation_error", "service_id")
    assert content["errors"][0]["code"] == "invalid"


def test_each_field_error_has_its_own_code(api):
    content = problem(
        api.post("/auth/register", {"email": "nonsense", "name": "x" * 201, "colour": "red"}),
        400,
        "validation_error",
        *("email", "name", "password", "colour"),
    )
    assert {error["field"]: error["code"] for error in content["errors"]} == {
        "email": "invalid",
        "name": "max_length",
        "password": "required",
        "colour": "unknown",
    }


# --- authentication and permissions -----------------------------------------------------------


@pytest.mark.parametrize("path", ["/me", "/bookings", "/users", f"/bookings/{ANY_ID}"])
def test_an_anonymous_client_gets_a_401(api, path):
    problem(api.get(path), 401, "not_authenticated")


@pytest.mark.parametrize("path", ["/me", "/services", "/reviews", "/calendars"])
def test_an_invalid_token_is_a_401_even_at_public_endpoints(api, path):
    api.credentials(HTTP_AUTHORIZATION="Bearer nonsense")
    problem(api.get(path), 401, "token_invalid")


def test_another_authentication_scheme_is_ignored(api):
    api.credentials(HTTP_AUTHORIZATION="Basic YTpi")
    problem(api.get("/me"), 401, "not_authenticated")
    assert api.get("/services").status_code == 200


def test_an_expired_token_is_a_401(api):
    token = AccessToken()
    token["user_id"] = str(UserFactory().pk)
    token.set_exp(lifetime=-timedelta(seconds=1))
    api.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    problem(api.get("/me"), 401, "token_invalid")


def test_a_user_without_permission_gets_a_403(api):
    user = api.as_(UserFactory())
    problem(user.get("/users"), 403, "permission_denied")
    problem(user.post("/services", {}), 403, "permission_denied")
    problem(user.get(f"/bookings/{BookingFactory().pk}"), 403, "permission_denied")


def test_too_many_requests_are_a_429(api, settings):
    settings.RATE_LIMITS = {**configured.RATE_LIMITS, "anon": "1/minute"}
    assert api.get("/services").status_code == 200
    response = api.get("/services")
    problem(response, 429, "throttled")
    # The wait lasts until the minute ends, and is rounded up after `counting.MARGIN` is added.
    assert 1 <= int(response["Retry-After"]) <= 61


def test_a_broken_rule_is_a_409(api):
    booking = BookingFactory()
    again = {"service_id": str(booking.service_id), "start_time": booking.start_time.isoformat()}
    response = api.as_(UserFactory()).post("/bookings", again)
    content = problem(response, 409, "booking_conflict")
    assert content["detail"] == "This time is already booked."
    assert "errors" not in content


# --- bugs -------------------------------------------------------------------------------------


def bug(*args, **kwargs):
    raise RuntimeError("the launch code is 0000")


def test_a_bug_is_a_500_without_details(admin, monkeypatch):
    monkeypatch.setattr(catalog, "create_calendar", bug)
    response = admin.post("/calendars", {"name": "Chair"}, headers={"x-request-id": "found-by-me"})
    content = problem(response, 500, "internal_error")
    assert content["request_id"] == "found-by-me"
    assert b"launch" not in response.content
    assert b"RuntimeError" not in response.content


def test_a_bug_in_a_page_is_also_a_500_problem(browser, monkeypatch):
    monkeypatch.setattr(problems, "catalogue", bug)
    response = browser.get("/errors")
    problem(response, 500, "internal_error")
    assert b"launch" not in response.content


def test_a_bug_while_rendering_is_also_a_500_problem(admin, monkeypatch):
    monkeypatch.setattr("bookit.api.renderers.dumps", bug)
    problem(admin.get("/services"), 500, "internal_error")


def test_a_bug_rolls_everything_back(admin, monkeypatch):
    monkeypatch.setattr(catalog, "set_opening_hours", bug)
    problem(admin.post("/calendars", {"name": "Chair"}), 500, "internal_error")
    assert not Calendar.objects.exists()


def test_an_unknown_constraint_is_a_500_that_does_not_quote_the_row(admin, monkeypatch):
    def violate(**kwargs):
        with transaction.atomic():
            User.objects.filter(email=UserFactory(email="secret@example.com").email).update(
                role="emperor"
            )

    with pytest.raises(IntegrityError, match="user_role_known"):
        violate()
    monkeypatch.setattr(catalog, "create_calendar", violate)
    response = admin.post("/calendars", {"name": "Chair"})
    problem(response, 500, "internal_error")
    assert b"secret" not in response.content
    assert b"emperor" not in response.content


def test_a_value_that_the_database_refuses_is_a_400(admin, monkeypatch):
    def overflow(**kwargs):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 2147483647::int + %s", [1])

    monkeypatch.setattr(catalog, "create_calendar", overflow)
    problem(admin.post("/calendars", {"name": "Chair"}), 400, "validation_error")


@pytest.mark.made_up_errors
@pytest.mark.parametrize("constraint", ["booking_seat_free", "booking_calendar_free"])
def test_a_known_constraint_has_its_own_error(admin, monkeypatch, constraint):
    """The error is right even if the code that writes does not catch the `IntegrityError`."""
    taken = BookingFactory()
    service = taken.service
    if constraint == "booking_calendar_free":
        service = ServiceFactory(calendar=taken.calendar)

    def insert_booking(**kwargs):
        with transaction.atomic():
            BookingFactory(service=service, attendee_name="Somebody Else")

    with pytest.raises(IntegrityError, match=constraint):
        insert_booking()
    monkeypatch.setattr(catalog, "create_calendar", insert_booking)
    response = admin.post("/calendars", {"name": "Chair"})
    problem(response, 409, "booking_conflict")
    assert b"Somebody" not in response.content


# --- without PostgreSQL -----------------------------------------------------------------------


@pytest.mark.django_db(databases=[])
@pytest.mark.parametrize("path", ["/services", f"/services/{ANY_ID}", "/reviews?cursor="])
def test_without_postgresql_a_request_quickly_gets_a_503(no_database, api, path):
    began = time.monotonic()
    problem(api.get(path), 503, "service_unavailable")
    assert time.monotonic() - began < 2


@pytest.mark.django_db(databases=[])
def test_without_postgresql_signing_in_is_a_503(no_database, api):
    account = {"email": "ada@example.com", "password": "correct horse battery"}
    problem(api.post("/auth/login", account), 503, "service_unavailable")
    problem(api.post("/auth/register", {**account, "name": "Ada"}), 503, "service_unavailable")


@pytest.mark.django_db(databases=[])
def test_without_postgresql_a_request_with_a_token_is_a_503(no_database, api):
    client = api.as_(User(email="ada@example.com"))
    problem(client.get("/me"), 503, "service_unavailable")


@pytest.mark.django_db(databases=[])
def test_without_postgresql_the_admin_site_is_a_503(no_database, browser):
    browser.cookies["sessionid"] = "0123456789abcdef0123456789abcdef"
    assert "Try again in a few seconds" in page(browser.get("/admin/"), 503)
    form = {"username": "ada@example.com", "password": "correct horse battery"}
    page(browser.post("/admin/login/", form), 503)


LOST = InternalError("failure on connection marked as essential: one:5432")


def test_a_lost_server_of_a_distributed_database_counts_as_unavailable():
    assert is_database_unavailable(LOST)
    assert not is_database_unavailable(InternalError("unexpected chunk number"))
    assert not is_database_unavailable(DataError("failure on connection"))


def test_a_page_that_loses_a_server_of_a_distributed_database_is_a_503(browser, monkeypatch):
    def lost(*arguments):
        raise LOST

    browser.force_login(AdminFactory())
    monkeypatch.setattr("django.contrib.auth.middleware.get_user", lost)
    for response in (browser.get("/admin/"), browser.post("/admin/login/")):
        assert "Try again in a few seconds" in page(response, 503)
    monkeypatch.undo()
    monkeypatch.setattr("bookings.desk.admin.BookingAdmin.get_queryset", lost)
    assert "Try again in a few seconds" in page(browser.get("/admin/bookings/booking/"), 503)


@pytest.mark.django_db(databases=[])
def test_without_postgresql_pages_that_need_no_database_work(no_database, browser):
    for path in ("/health", "/errors", "/docs", "/redoc", "/openapi.json"):
        assert browser.get(path).status_code == 200, path
    problem(browser.get("/health/ready"), 503, "service_unavailable")


def test_waiting_for_a_connection_is_limited():
    options = configured.DATABASES["default"]["OPTIONS"]
    assert options["connect_timeout"] <= 2
    assert options["pool"]["timeout"] <= 2


# --- pages ------------------------------------------------------------------------------------


def test_the_catalogue_has_exactly_the_codes_of_the_api():
    """A new error code is also in `CODES`, with its status."""
    assert {code: known.status for code, known in problems.catalogue().items()} == CODES


@pytest.mark.parametrize("code", CODES)
def test_every_error_has_a_page_that_explains_it(client, code):
    response = client.get(f"/errors/{code}")
    assert response.status_code == 200
    assert response["Content-Type"] == "text/html; charset=utf-8"
    assert response["X-Request-ID"]
    page = response.content.decode()
    assert code in page
    assert str(CODES[code]) in page
    meaning = problems.catalogue()[code].meaning
    assert len(meaning) > 20, "the explanation is too short"
    # The page shows text in backticks as <code>, and escapes apostrophes.
    assert meaning.split("`")[0].split("'")[0] in page


def test_one_page_lists_and_links_all_errors(client):
    page = client.get("/errors").content.decode()
    assert re.findall(r'href="/errors/(\w+)"', page) == list(problems.catalogue())


def test_error_pages_load_nothing_from_other_hosts(client):
    for path in ("/errors", "/errors/throttled"):
        assert not re.search(rb"(src|href)=.https?:", client.get(path).content)


def test_the_root_redirects_to_the_documentation(client):
    assert client.get("/").headers["Location"] == "/docs"


@pytest.mark.parametrize(
    "path", ["/", "/services", "/nothing", "/health", "/errors", "/docs", "/static/no", "/admin/"]
)
def test_every_response_has_a_request_id(browser, path):
    assert browser.get(path, headers={"x-request-id": "mine"})["X-Request-ID"] == "mine"
    first, second = (browser.get(path)["X-Request-ID"] for _ in range(2))
    assert first != second
    assert re.fullmatch(r"[0-9a-f-]{36}", first)


def test_a_pending_migration_is_a_503(browser, monkeypatch):
    monkeypatch.setattr(pages, "_migrated", False)
    monkeypatch.setattr(pages, "_pending_migrations", lambda: True)
    content = problem(browser.get("/health/ready"), 503, "service_unavailable")
    assert "migrate" in content["detail"]
    # Control: in fact, no migration is pending.
    monkeypatch.undo()
    call_command("migrate", "--check", verbosity=0)


@pytest.mark.parametrize(
    "path", ["/", "/health", "/health/ready", "/errors", "/openapi.json", "/docs"]
)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_a_wrong_method_of_a_page_is_a_405(path, method):
    # Requests of browsers get CSRF checks. Even then, the response is a 405, and not a 403.
    response = Client(enforce_csrf_checks=True).generic(method.upper(), path)
    assert "GET" in response["Allow"]
    problem(response, 405, "method_not_allowed")


def test_explanations_of_errors_contain_no_markdown(browser):
    for path in ("/errors", "/errors/validation_error"):
        page = browser.get(path).content.decode()
        assert "`" not in page
        assert "<code>errors</code> names the fields" in page
