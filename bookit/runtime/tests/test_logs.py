"""The log has everything that operators need to find the cause of a problem, but no secrets."""

import io
import json
import logging
import re
import time
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from procrastinate.contrib.django import app

from accounts.models import User
from accounts.tests.factories import PASSWORD, AdminFactory, UserFactory
from bookit.runtime import logs
from bookit.runtime.arrivals import TooLarge
from bookit.tests.crowd import at_once
from bookit.tests.expect import problem
from bookit.web import pages
from catalog import services as catalog

pytestmark = pytest.mark.django_db

LINE = {"time", "level", "logger", "message", "request_id"}
REQUEST_LINE = LINE | {"method", "path", "route", "status", "duration_ms", "user_id", "client"}
ANY_ID = "01980000-0000-7000-8000-000000000000"


@pytest.fixture
def console(monkeypatch):
    """The stream to which log lines are written."""
    [handler] = [
        each
        for each in logging.getLogger().handlers
        if isinstance(each.formatter, logs.JSONFormatter)
    ]
    stream = io.StringIO()
    monkeypatch.setattr(handler, "stream", stream)
    return stream


@pytest.fixture
def browser():
    return Client(raise_request_exception=False)


def bug(*args, **kwargs):
    raise RuntimeError("something is wrong")


# --- the line of a request --------------------------------------------------------------------


def test_a_request_is_logged_in_one_line(api, log_lines):
    user = UserFactory()
    response = api.as_(user).get(
        f"/bookings/{ANY_ID}?tz=UTC",
        headers={"x-request-id": "mine"},
        REMOTE_ADDR="192.0.2.7",
    )
    problem(response, 404, "not_found")
    [line] = log_lines()
    assert line.keys() == REQUEST_LINE
    assert 0 < line.pop("duration_ms") < 10_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", line.pop("time"))
    assert line == {
        "level": "INFO",
        "logger": "bookit.request",
        "message": f"GET /bookings/{ANY_ID} 404",
        "request_id": "mine",
        "method": "GET",
        "path": f"/bookings/{ANY_ID}",
        "route": "bookings/<id:pk>",
        "status": 404,
        "user_id": str(user.pk),
        "client": "192.0.2.7",
    }


@pytest.mark.parametrize(
    ("method", "path", "status", "route"),
    [
        ("GET", "/services", 200, "services"),
        ("HEAD", "/services", 200, "services"),
        ("OPTIONS", "/services", 204, "services"),
        ("GET", "/docs", 200, "docs"),
        ("GET", "/", 302, ""),
        ("GET", "/nothing", 404, None),
        ("GET", "/services/nothing", 404, None),
        ("GET", "/static/nothing", 404, None),
        ("GET", "/bookings", 401, "bookings"),
        ("GET", "/services?colour=red", 400, "services"),
        ("PUT", "/services", 405, "services"),
        ("BREW", "/services", 405, "services"),
        ("POST", "/auth/login", 400, "auth/login"),
        ("GET", "/admin/login/", 200, "admin/login/"),
    ],
)
def test_a_request_is_logged_whatever_its_outcome(browser, log_lines, method, path, status, route):
    assert browser.generic(method, path).status_code == status
    [line] = log_lines()
    assert line.keys() == REQUEST_LINE
    assert (line["method"], line["path"]) == (method, path.split("?")[0])
    assert (line["status"], line["route"]) == (status, route)
    assert line["user_id"] is None


def test_the_line_names_the_user_even_if_the_request_is_refused(api, log_lines, settings):
    user = UserFactory()
    client = api.as_(user)
    problem(client.get("/users"), 403, "permission_denied")
    problem(client.get("/bookings?colour=red"), 400, "validation_error")
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "user": "1/hour"}
    client.get("/bookings")
    problem(client.get("/bookings"), 429, "throttled")
    lines = log_lines()
    assert [line["status"] for line in lines] == [403, 400, 200, 429]
    assert {line["user_id"] for line in lines} == {str(user.pk)}


def test_the_line_names_the_user_of_the_admin_site(browser, log_lines):
    admin = AdminFactory()
    browser.force_login(admin)
    assert browser.get("/admin/").status_code == 200
    [line] = log_lines()
    assert line["user_id"] == str(admin.pk)


@pytest.mark.parametrize(("hops", "client"), [(0, "192.0.2.7"), (1, "203.0.113.9")])
def test_the_line_names_the_client_reported_by_a_trusted_proxy(
    api, log_lines, settings, hops, client
):
    settings.NUM_PROXIES = hops
    api.get(
        "/errors",
        headers={"x-forwarded-for": "198.51.100.1, 203.0.113.9"},
        REMOTE_ADDR="192.0.2.7",
    )
    assert log_lines()[0]["client"] == client


def test_the_line_has_the_duration_of_the_request(api, log_lines, monkeypatch):
    # The sleep must be part of the duration. After it, the request may fail.
    monkeypatch.setattr(catalog, "create_calendar", lambda **kwargs: time.sleep(0.05) or bug())
    client = api.as_(AdminFactory())
    client.raise_request_exception = False
    client.post("/calendars", {"name": "Chair"})
    assert 50 <= log_lines()[-1]["duration_ms"] < 5000


# --- warnings and errors ----------------------------------------------------------------------


def test_a_bug_is_logged_with_its_traceback_and_the_request_id(api, log_lines, monkeypatch):
    monkeypatch.setattr(catalog, "create_calendar", bug)
    client = api.as_(AdminFactory())
    client.raise_request_exception = False
    response = client.post("/calendars", {"name": "Chair"}, headers={"x-request-id": "mine"})
    problem(response, 500, "internal_error")
    lines = log_lines()
    assert [line["level"] for line in lines] == ["ERROR", "INFO"]
    assert {line["request_id"] for line in lines} == {"mine"}
    assert "RuntimeError: something is wrong" in lines[0]["exc_info"]
    assert "test_logs.py" in lines[0]["exc_info"]
    assert lines[1]["status"] == 500
    assert lines[0].keys() <= LINE | {"exc_info", "status_code"}


@pytest.mark.django_db(databases=[])
def test_an_unavailable_database_is_logged_as_an_error_with_the_request_id(
    no_database, browser, log_lines
):
    for path in ("/services", "/admin/"):
        browser.cookies["sessionid"] = "0123456789abcdef0123456789abcdef"
        browser.get(path, headers={"x-request-id": "mine"})
        lines = [line for line in log_lines() if line["request_id"]]
        assert [line["level"] for line in lines] == ["ERROR", "INFO"], path
        assert {line["request_id"] for line in lines} == {"mine"}
        assert "database unavailable" in lines[0]["message"]
        assert lines[1]["status"] == 503


def test_a_value_refused_by_the_database_is_logged_as_a_warning(api, log_lines, monkeypatch):
    def overflow(**kwargs):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT 2147483647::int + %s", [1])

    monkeypatch.setattr(catalog, "create_calendar", overflow)
    api.as_(AdminFactory()).post("/calendars", {"name": "Chair"}, headers={"x-request-id": "mine"})
    lines = log_lines()
    assert [line["level"] for line in lines] == ["WARNING", "INFO"]
    assert {line["request_id"] for line in lines} == {"mine"}


def test_mistakes_of_clients_are_not_logged_as_errors(browser, api, log_lines):
    browser.get("/nothing")
    browser.get("/services", headers={"host": "elsewhere.example"})
    browser.get("/services?" + "a=1&" * 2000)
    browser.get("/services?limit=0")
    api.as_(UserFactory()).get("/users")
    browser.post("/auth/login", b"{", content_type="application/json")
    browser.post("/auth/login", b" " * 2**21, content_type="application/json")
    # In production, BookIt's worker does not read such a body to its end.
    unread = {"wsgi.input": TooLarge()}
    browser.post("/auth/login", b"{}", content_type="application/json", **unread)
    form = "application/x-www-form-urlencoded"
    browser.post("/admin/login/", b"a" * 2**21, content_type=form)
    browser.post("/admin/login/", b"a=1&" * 2000, content_type=form)
    lines = log_lines()
    requests = [line for line in lines if "status" in line]
    assert [line["level"] for line in requests] == ["INFO"] * 10
    assert {line["status"] for line in requests} == {400, 403, 404, 413}
    # Only one line is not about a request: a warning about the wrong host.
    assert [line["level"] for line in lines if "status" not in line] == ["WARNING"]


def test_a_line_outside_of_a_request_has_no_request_id(log_lines, api):
    api.get("/errors")
    logging.getLogger("bookit.worker").warning("on its own")
    assert [line["request_id"] is None for line in log_lines()] == [False, True]


def test_concurrent_requests_log_their_own_ids(log_lines, transactional_db):
    names = [f"request-{number}" for number in range(20)]
    at_once(
        [
            lambda name=name: Client().get(f"/services/{name}", headers={"x-request-id": name})
            for name in names
        ]
    )
    lines = log_lines()
    assert sorted(line["request_id"] for line in lines) == sorted(names)
    for line in lines:
        assert line["path"] == f"/services/{line['request_id']}"


# --- secrets ----------------------------------------------------------------------------------

EMAIL_ADDRESSES = [
    "ada@example.com",
    "Ada.Lovelace+x@Sub.Example.co.uk",
    "o'neil_99@example.com",
    "#!$%&'*+-/=?^_`{}|~@example.org",
    "jösé@example.com",
    "ada@bücher.example",
    "ада@пример.рф",
    "ada@xn--bcher-kva.example",
    "ada@localhost",
    "ada@[192.168.0.1]",
    '"ada"@example.com',
    '"Ada L."@example.com',
    '"a\\"b"@example.com',
    "ada%40example.com",
]


def parts(address):
    """Return the parts of an email address that must not be logged."""
    local, _, domain = address.replace("%40", "@").rpartition("@")
    return [local.strip('"'), domain]


@pytest.mark.parametrize("address", EMAIL_ADDRESSES)
@pytest.mark.parametrize(
    "around", ["{}", "mail to {} failed", "<{}>", "({})", "/users/{}/x", "email={}&a=b", "a,{};b"]
)
def test_email_addresses_are_redacted_in_messages_members_and_tracebacks(console, address, around):
    logger = logging.getLogger("bookit.test")
    logger.warning(around.format("%s"), address)
    logger.warning("in another member", extra={"whose": around.format(address)})
    logger.warning("nested", extra={"whose": {"list": [address], address: 1}})
    try:
        raise ValueError(around.format(address))
    except ValueError:
        logger.exception("in an exception")
    logged = console.getvalue()
    assert logged.count("[redacted]") >= 5
    for line in logged.splitlines():
        content = json.dumps(json.loads(line), ensure_ascii=False)
        for secret in parts(address):
            # A short text can occur by chance, and `localhost` is no secret.
            if len(secret) > 3 and secret != "localhost":
                assert secret not in content
        assert "@" not in content


def test_a_text_line_is_redacted_and_stays_one_line():
    formatter = logs.TextFormatter()
    for address in EMAIL_ADDRESSES:
        record = logging.makeLogRecord(
            {"msg": "mail to %s failed\r\n2026 INFO forged \x1b[2J", "args": (address,)}
        )
        record.request_id = "mine"
        line = formatter.format(record)
        assert "[redacted]" in line
        assert "\n" not in line
        assert "\x1b" not in line
        assert "[mine]" in line


@pytest.mark.parametrize(
    "text", ["/x\n@b", "/x\n@b.com ada@b.com", "a\n%40b", "\x01@b", "\t@b ada@b.com", "\ud800\n@b"]
)
def test_a_line_with_a_control_character_before_an_at_sign_is_valid_json(text):
    record = logging.makeLogRecord({"msg": text, "request_id": None, "path": text})
    record.errors = [text, {"notes": text}]
    line = logs.JSONFormatter().format(record)
    assert json.loads(line).keys() == LINE | {"path", "errors"}
    assert "\n" not in line
    assert "ada" not in line


def test_a_path_with_a_line_break_before_an_at_sign_is_logged_as_valid_json(browser, console):
    browser.get("/x%0A@b")
    [line] = console.getvalue().split("\n")[:-1]
    assert json.loads(line)["path"] == "/x\n@b"


def test_values_of_other_types_are_written_as_text():
    record = logging.makeLogRecord(
        {"msg": "", "error": ValueError("no ada@b.com"), "id": UUID(ANY_ID)}
    )
    record.numbers = (1, 0.5, None, True, 2**70)
    line = json.loads(logs.JSONFormatter().format(record))
    assert (line["error"], line["id"]) == ("no [redacted]", ANY_ID)
    # orjson refuses an integer as large as 2**70, so the numbers are written as text, too.
    assert line["numbers"] == str([1, 0.5, None, True, 2**70])


def test_a_path_cannot_forge_a_line(browser, console):
    forged = '{"level":"ERROR","message":"forged"}'
    for path in (f"/a%0A{forged}", f"/a%0D%0A{forged}%0A", '/","level":"ERROR', "/%E2%80%A8x"):
        browser.get(path)
    lines = console.getvalue().split("\n")[:-1]
    assert len(lines) == 4
    assert {json.loads(line)["level"] for line in lines} == {"INFO"}


def test_email_addresses_and_tokens_in_paths_are_redacted(api, browser, console):
    token = api.as_(UserFactory())._credentials["HTTP_AUTHORIZATION"].split()[1]
    for path in (
        "/users/ada@example.com",
        "/users/ada%40example.com",
        "/users/ada%2540example.com",
        f"/auth/{token}",
        f"/auth/x{token}",
        "/services?q=ada@example.com",
        f"/services?token={token}",
        f"/errors/{token}",
    ):
        assert browser.get(path).status_code in (400, 404, 200)
    logged = console.getvalue()
    assert "example" not in logged
    for part in token.split("."):
        assert part not in logged
    assert logged.count("\n") == 8


@pytest.mark.real_passwords
def test_signing_in_and_changing_an_account_logs_no_secret(api, browser, console):
    new_password = "another good password"
    secrets = [
        PASSWORD,
        new_password,
        "wrong password",
        "wrong%20password",
        "ada@example.com",
        "new@example",
    ]
    body = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD}
    session = api.post("/auth/register", body).json()
    assert api.post("/auth/register", body).status_code == 409
    for password in (PASSWORD, "wrong password"):
        response = api.post("/auth/login", {"email": body["email"], "password": password})
        secrets += [response.json().get(name) for name in ("access_token", "refresh_token")]
    for _ in range(2):
        response = api.post("/auth/refresh", {"refresh_token": session["refresh_token"]})
        secrets += [response.json().get(name) for name in ("access_token", "refresh_token")]
    me = api.as_(User.objects.get())
    me.patch("/me", {"email": "new@example.com"})
    me.post("/me/password", {"current_password": PASSWORD, "new_password": new_password})
    api.post("/auth/logout", {"refresh_token": session["refresh_token"]})
    api.get("/me", headers={"authorization": f"Bearer {session['access_token']}x"})
    api.post("/auth/login?email=ada@example.com&password=wrong%20password", body)
    browser.post("/admin/login/", {"username": "ada@example.com", "password": "wrong password"})
    secrets += [session["access_token"], session["refresh_token"], User.objects.get().password]
    logged = console.getvalue()
    assert logged.count("\n") >= 12
    for secret in filter(None, secrets):
        assert secret not in logged


def violate(user, **fields):
    """Violate a constraint, so that the database raises an error that quotes the row."""
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(**fields)


@pytest.mark.real_passwords
@pytest.mark.parametrize(
    "fields",
    [{"role": "emperor"}, {"email": "taken@example.com"}, {"email": "UPPER@example.com"}],
)
def test_database_errors_that_quote_values_log_no_secret(api, console, monkeypatch, fields):
    user = UserFactory(email="ada.l@example.com")
    UserFactory(email="taken@example.com")
    monkeypatch.setattr(catalog, "create_calendar", lambda **kwargs: violate(user, **fields))
    client = api.as_(AdminFactory())
    client.raise_request_exception = False
    problem(client.post("/calendars", {"name": "Chair"}), 500, "internal_error")
    logged = console.getvalue()
    assert "IntegrityError" in logged
    assert "[redacted]" in logged
    for secret in ("@", "ada.l", "taken", "UPPER@", "argon2id$", user.password):
        assert secret not in logged, secret


def test_redacting_takes_linear_time():
    """A search that takes quadratic time would need minutes for 100,000 characters."""
    for hostile in (
        "x",
        "%40",
        "x@",
        "eyJ",
        "eyJ.",
        "eyJa.a.",
        '"',
        '"a',
        '\\"',
        "argon2$",
        "(@",
        "a.eyJ",
    ):
        long = f'"{hostile * (100_000 // len(hostile))} @'
        began = time.process_time()
        logs.redact(long)
        assert time.process_time() - began < 1, hostile


# --- unusual messages -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"level": "ERROR", "request_id": "forged", "status": 200, "exc_info": "forged"},
        ["a", "list"],
        None,
        5,
        b"bytes",
        ValueError("an exception"),
        object(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_that_is_not_text_sets_no_members_of_the_line(log_lines, message):
    logging.getLogger("bookit.test").info(message)
    [line] = log_lines()
    assert line.keys() == LINE
    assert (line["level"], line["request_id"]) == ("INFO", None)
    assert line["message"] == str(message)


def test_a_message_with_control_characters_stays_one_line():
    # Format the record directly. pytest captures the records of loggers, and fails on a lone
    # surrogate.
    record = logging.makeLogRecord(
        {"msg": "a\r\nb\x00\x1b\u2028c\ud800", "levelname": "INFO", "request_id": None}
    )
    line = logs.JSONFormatter().format(record)
    assert len(line.split("\n")) == 1
    assert json.loads(line).keys() == LINE


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
def test_the_log_level_decides_whether_requests_are_logged(api, log_lines, level):
    logger = logging.getLogger("bookit.request")
    logger.setLevel(level)
    try:
        api.get("/errors")
        assert len(log_lines()) == (1 if level in ("DEBUG", "INFO") else 0)
    finally:
        logger.setLevel(logging.NOTSET)


def test_health_checks_are_logged_only_if_they_fail(browser, log_lines, monkeypatch):
    for path in ("/health", "/health/ready"):
        assert browser.get(path).status_code == 200
    assert log_lines() == []
    monkeypatch.setattr(pages, "_migrated", False)
    MigrationRecorder.Migration.objects.filter(app="bookings").delete()
    assert browser.get("/health/ready").status_code == 503
    assert [line["status"] for line in log_lines()] == [503]


def test_only_the_first_refused_host_causes_a_warning(log_lines):
    # A new client has its own middleware, which has not refused a host yet.
    browser = Client(raise_request_exception=False)
    for host in ("a.example", "b.example", "c.example"):
        assert browser.get("/services", headers={"host": host}).status_code == 400
    warning, *requests = log_lines()
    assert warning["level"] == "WARNING"
    assert warning["message"].startswith(
        "refused a request to host 'a.example', which is not in ALLOWED_HOSTS (localhost, 127."
    )
    assert [line["status"] for line in requests] == [400, 400, 400]


@pytest.fixture
def run_job(log_lines):
    """Return a function that runs a job in a worker, and returns what is logged about the job."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs")

    def run(name, **arguments):
        app.configure_task(name).defer(**arguments)
        with app.replace_connector(app.connector.get_worker_connector()):
            app.run_worker(wait=False, install_signal_handlers=False)
        lines = [line["message"] for line in log_lines()]
        # Before the worker ends, it may log that it waits for this job. Leave this line out.
        return [line for line in lines if f"{name}[" in line and not line.startswith("Waiting")]

    return run


@pytest.mark.django_db(transaction=True)
def test_periodic_jobs_are_logged_only_if_they_fail(run_job):
    """Many periodic jobs run each minute, even if there is nothing to do."""
    assert run_job("bookit.retry_stalled_jobs", timestamp=0) == []
    [failed] = run_job("bookit.prune_jobs", timestamp=0, unknown_argument=1)
    assert "ended with status: Error" in failed


@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_not_periodic_is_logged_in_one_line(run_job):
    [done] = run_job("bookings.follow_up", calendar_ids=[], event_ids=[])
    assert "ended with status: Success" in done


@pytest.mark.django_db(transaction=True)
def test_all_jobs_are_logged_at_level_debug(run_job, log_lines):
    logging.getLogger("procrastinate").setLevel(logging.DEBUG)
    try:
        lines = run_job("bookit.retry_stalled_jobs", timestamp=0)
    finally:
        logging.getLogger("procrastinate").setLevel(logging.NOTSET)
    assert any(line.startswith("Starting job") for line in lines)
    assert any("ended with status: Success" in line for line in lines)


@pytest.mark.parametrize(("successes", "expected"), [(True, True), (False, False)])
def test_the_job_filter_can_drop_successful_jobs(successes, expected):
    record = logging.makeLogRecord(
        {
            "name": "procrastinate.worker",
            "levelno": logging.INFO,
            "msg": "Job bookings.send_mail[7](event_id=1) ended with status: Success",
            "action": "job_success",
            "job": {"id": 7, "task_name": "bookings.send_mail", "task_kwargs": {"event_id": 1}},
        }
    )
    assert logs.JobFilter(successes=successes).filter(record) is expected


def test_a_line_on_a_terminal_names_its_request_if_it_has_one():
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", "name": "bookit"})
    record.request_id = None
    assert logs.TextFormatter().format(record).endswith(" INFO    bookit: hello")
    record.request_id = "mine"
    assert logs.TextFormatter().format(record).endswith(" INFO    bookit: hello [mine]")


@pytest.mark.django_db(transaction=True)
def test_a_worker_logs_the_names_of_jobs_without_their_arguments(console):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM procrastinate_jobs")
    # The job fails because of an unknown argument, and its failure is logged.
    app.configure_task("bookit.prune_jobs").defer(timestamp=0, who="Ana (Lisbon), a\nbroken knee")
    with app.replace_connector(app.connector.get_worker_connector()):
        app.run_worker(wait=False, install_signal_handlers=False)
    lines = [json.loads(line) for line in console.getvalue().splitlines()]
    messages = [line["message"] for line in lines]
    assert "Deferred 1 job" in messages
    [ended] = [line for line in lines if line["message"].startswith("Job bookit.prune_jobs")]
    assert re.match(r"Job bookit\.prune_jobs\[\d+\] ended with status: Error", ended["message"])
    assert ended["job"].keys() == {"id", "task_name", "attempts"}
    assert "Ana" not in console.getvalue()
    assert "knee" not in console.getvalue()
