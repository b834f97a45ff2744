"""Requests that need a pending migration get a 503, and the log says what to do."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from django.db import OperationalError, connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from accounts.tests.factories import AdminFactory
from bookit.errors import pending
from bookit.runtime import startup
from bookit.runtime.startup import BASE_DIR
from bookit.tests.expect import page, problem

LINE = "1 migration is pending. Run: python manage.py migrate"


def execute(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.fixture
def missing_table(transactional_db, monkeypatch):
    """Rename the table of services, which every list of services needs."""
    # The usual watch may still remember that no migration was pending.
    monkeypatch.setattr(pending, "_watch", pending._Watch())
    execute("ALTER TABLE catalog_service RENAME TO elsewhere")
    yield
    execute("ALTER TABLE elsewhere RENAME TO catalog_service")


@pytest.fixture
def one_pending(missing_table):
    """Make the last migration of the catalog pending, as if it created the missing table."""
    last = MigrationRecorder.Migration.objects.filter(app="catalog").order_by("id").last()
    MigrationRecorder.Migration.objects.filter(pk=last.pk).delete()
    yield
    last.save(force_insert=True)


@pytest.fixture
def browser():
    """Return a client that turns a bug in a page into a response instead of an exception."""
    return Client(raise_request_exception=False)


def test_a_request_that_needs_a_missing_table_is_a_503(browser, one_pending):
    content = problem(browser.get("/services"), 503, "service_unavailable")
    assert content["detail"] == "BookIt is being updated. Try again shortly."
    assert browser.get("/services")["Retry-After"] == "2"
    assert browser.get("/health").status_code == 200


def test_a_page_of_the_admin_site_that_needs_a_missing_table_is_a_503(browser, one_pending):
    browser.force_login(AdminFactory())
    assert "is being updated" in page(browser.get("/admin/catalog/service/"), 503)


def test_several_failed_requests_cause_one_log_line_and_one_check(
    browser, one_pending, log_lines, monkeypatch
):
    checks = []
    check = pending.pending_migrations
    monkeypatch.setattr(pending, "pending_migrations", lambda: checks.append(1) or check())
    for _ in range(3):
        browser.get("/services")
    errors = [line["message"] for line in log_lines() if line["level"] != "INFO"]
    assert errors == [f"{LINE}. Requests are answered with 503."]
    assert len(checks) == 1


def test_several_checks_with_the_same_result_cause_one_log_line(
    browser, one_pending, log_lines, monkeypatch
):
    monkeypatch.setattr(pending, "_PAUSE", 0)
    for _ in range(3):
        browser.get("/services")
    errors = [line["message"] for line in log_lines() if line["level"] != "INFO"]
    assert errors == [f"{LINE}. Requests are answered with 503."]


def test_a_check_that_fails_is_not_repeated_by_the_next_request(monkeypatch):
    checks = []

    def gone():
        checks.append(1)
        raise OperationalError

    monkeypatch.setattr(pending, "pending_migrations", gone)
    watch = pending._Watch()
    assert [watch.count(), watch.count()] == [0, 0]
    assert len(checks) == 1


def test_a_missing_table_without_a_pending_migration_is_still_a_bug(browser, missing_table):
    problem(browser.get("/services"), 500, "internal_error")


@pytest.mark.django_db
def test_requests_that_do_not_need_the_pending_migration_succeed(browser):
    MigrationRecorder.Migration.objects.filter(app="bookings").order_by("id").last().delete()
    assert browser.get("/services").status_code == 200


# --- commands and processes -------------------------------------------------------------------


def environment_with_empty_database():
    """Return environment variables that select an empty database.

    Nothing is stored in this database. The test databases have other names, derived from its name.
    """
    return {**os.environ, "DATABASE_URL": os.environ["BOOKIT_TEST_DATABASE_URL"]}


@pytest.mark.parametrize(
    "command",
    [
        ["procrastinate", "worker"],
        ["complete_bookings"],
        ["retry_stalled_jobs"],
        ["createsuperuser", "--noinput"],
    ],
    ids=" ".join,
)
def test_a_command_fails_with_one_line_of_explanation(command):
    account = {"EMAIL": "ada@example.com", "NAME": "Ada", "PASSWORD": "seven quiet otters"}
    program = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=BASE_DIR,
        env=environment_with_empty_database()
        | {f"DJANGO_SUPERUSER_{name}": value for name, value in account.items()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert program.returncode == 1
    assert program.stderr.startswith("bookit: ")
    assert program.stderr.endswith(" migrations are pending. Run: python manage.py migrate\n")
    assert program.stderr.count("\n") == 1


@pytest.mark.django_db(transaction=True)
def test_a_database_lost_while_migrations_are_counted_is_reported_in_one_line(monkeypatch):
    def gone():
        raise OperationalError("connection timeout expired\nIs the server running?")

    monkeypatch.setattr(startup, "why_unreachable", lambda: None)
    monkeypatch.setattr(pending, "pending_migrations", gone)
    reason = startup.why_not_ready()
    assert reason == "PostgreSQL cannot be reached: connection timeout expired"


def test_a_web_process_reports_pending_migrations_and_still_starts(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output = tmp_path / "output"
    with output.open("w") as file:
        web = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "python:bookit.runtime.gunicorn"],
            cwd=BASE_DIR,
            env=environment_with_empty_database() | {"PORT": str(port), "WEB_CONCURRENCY": "1"},
            stdout=file,
            stderr=file,
        )
    try:
        deadline = time.monotonic() + 120
        while "Run: python manage.py migrate" not in output.read_text():
            assert web.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.1)
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    finally:
        web.send_signal(signal.SIGTERM)
        assert web.wait(60) == 0
    assert output.read_text().count("are pending") == 1


def test_the_check_before_the_fork_starts_no_thread(transactional_db, monkeypatch):
    """A thread that ends at the moment of the fork can leave a lock of OpenSSL held for ever."""
    started = []
    usual = connections["default"]
    assert usual.settings_dict["OPTIONS"]["pool"]
    usual.close()
    usual.close_pool()  # A pool that is opened again starts threads.

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
        assert startup.why_not_ready() is None

    assert started == []
    assert connections["default"] is usual
