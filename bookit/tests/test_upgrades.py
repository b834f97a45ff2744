"""Upgrades: the demo town of each release can be restored, migrated and used.

`bookit/tests/releases` has a backup of the demo town for each release, which `manage.py backup` of
that release wrote. `.github/CONTRIBUTING.md` says how to add a backup.
"""

import json
import re
import subprocess
from dataclasses import MISSING, fields
from datetime import timedelta
from inspect import signature
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from django.utils import timezone
from procrastinate.contrib.django import app
from rest_framework_simplejwt.tokens import AccessToken

from accounts.models import User
from bookings.mails.composition import Mail
from bookings.models import Booking
from bookings.tests.workers import database_url
from bookit.runtime import servers
from bookit.runtime.embedded_postgres import binary, running
from bookit.runtime.servers import connected_to
from bookit.runtime.startup import BASE_DIR
from bookit.tests.plugin import THROWAWAY

# The tests use a database of another server, and compare its schema with that of the test database.
pytestmark = pytest.mark.django_db(transaction=True)

RELEASES = sorted((Path(__file__).parent / "releases").glob("*.dump"))
# The main tables. The demo town fills each of them.
TABLES = [
    *("accounts_user", "catalog_calendar", "catalog_service", "bookings_slot", "bookings_booking"),
    *("bookings_bookingevent", "bookings_occupancy", "reviews_review"),
    *("catalog_openinghours", "catalog_timeoff"),
]


@pytest.fixture(scope="module")
def other_database(tmp_path_factory):
    """Return the URL of a database on another PostgreSQL server."""
    with running(tmp_path_factory.mktemp("upgrades") / "postgres", settings=THROWAWAY) as url:
        yield url


@pytest.fixture(params=RELEASES, ids=lambda file: file.stem)
def restored(request, other_database):
    """Restore the backup of a release, and return the URL of the database."""
    with connected_to(other_database):
        call_command("restore", str(request.param), clean=True)
    return other_database


@pytest.fixture
def upgraded(restored):
    """Restore and migrate the backup of a release, and return the URL of the database."""
    with connected_to(restored):
        call_command("migrate", verbosity=0)
    return restored


def rows():
    """Return the number of rows of each of `TABLES`, and a digest of their ids."""
    with connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            ids = "md5(string_agg(id::text, ',' ORDER BY id))"
            cursor.execute(f"SELECT count(*), {ids} FROM {table}")
            [found[table]] = cursor.fetchall()
    return found


def schema(url):
    """Return the statements that define everything in the schema `public` of a database."""
    options = ["--schema-only", "--no-owner", "--no-privileges", "--no-comments"]
    command = [binary("pg_dump"), *options, "--schema", "public", url]
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    # Remove comments, lines with a random key, and CREATE SCHEMA, which `pg_dump` writes only for
    # the restored database, because the restore has created `public` anew.
    text = re.sub(r"^(--|\\(un)?restrict |CREATE SCHEMA ).*\n", "", text, flags=re.MULTILINE)
    # A restore moves the casts to text within a condition, but does not change its meaning.
    statements = re.split(r";\n+", text)
    return [re.sub(r"::(text|character varying)(\[\])?|[()\s]", "", each) for each in statements]


def test_the_fixture_migrate_has_the_same_result_as_the_command_migrate(tmp_path, migrate):
    """The fixture in `bookit/tests/plugin.py` copies the tables, which is quicker."""
    found = []
    for name, create in {"quick": migrate, "usual": servers.migrate}.items():
        with running(tmp_path / name, settings=THROWAWAY) as url:
            create(url)
            with psycopg.connect(url) as session:
                applied = session.execute("SELECT app, name FROM django_migrations ORDER BY 1, 2")
                permissions = session.execute("SELECT codename FROM auth_permission ORDER BY 1")
                found.append((sorted(schema(url)), applied.fetchall(), permissions.fetchall()))
    quick, usual = found
    assert quick == usual


# The jobs that released versions enqueue, with the names of their arguments. They can wait during
# an upgrade, and the new version then runs them.
RELEASED_JOBS = {
    "accounts.erase_again": ["user_id"],
    "accounts.send_mail": ["kind", "email", "user_id"],
    "bookings.deliver": ["webhook_id"],
    "bookings.follow_up": ["calendar_ids", "event_ids"],
    "bookings.offer_seats": ["slot_ids"],
    "bookings.send_composed_mail": ["mail", "user_id"],
    "bookings.send_mail": ["calendar_id", "event_id", "audience", "copy"],
    "bookings.send_queue_mail": ["entry_id"],
}
# The content of a job `bookings.send_composed_mail`.
RELEASED_MAIL = {
    *("to", "subject", "text", "html", "calendar", "method", "message_id"),
    *("booking_id", "audience", "is_verified"),
}


def test_jobs_of_earlier_releases_can_be_run():
    for name, arguments in RELEASED_JOBS.items():
        signature(app.tasks[name].func).bind(**dict.fromkeys(arguments))
    assert {field.name for field in fields(Mail) if field.default is MISSING} <= RELEASED_MAIL
    assert {field.name for field in fields(Mail)} >= RELEASED_MAIL


def test_every_release_has_a_backup():
    changelog = (BASE_DIR / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\d+\.\d+\.\d+) - ", changelog, re.MULTILINE)
    assert [file.stem for file in RELEASES] == sorted(released)


def test_an_upgrade_keeps_every_row_of_the_main_tables(restored):
    with connected_to(restored):
        before = rows()
        call_command("migrate", verbosity=0)
        assert rows() == before
    assert all(count for count, _digest in before.values())


def test_restore_says_that_a_backup_comes_from_a_newer_version(other_database, tmp_path, capsys):
    backup, newer = tmp_path / "newer.dump", ("catalog", "9999_from_the_future")
    MigrationRecorder(connection).record_applied(*newer)
    try:
        call_command("backup", str(backup))
    finally:
        MigrationRecorder(connection).record_unapplied(*newer)
    with connected_to(other_database):
        # Control: the backup of an older version.
        call_command("restore", str(RELEASES[0]), clean=True)
        assert "newer version" not in capsys.readouterr().err
        call_command("restore", str(backup), clean=True)
    assert "does not know catalog.9999_from_the_future." in capsys.readouterr().err


def test_an_upgraded_database_has_the_schema_of_a_new_one(upgraded):
    assert schema(upgraded) == schema(database_url())


def test_control_a_missing_index_is_a_difference(upgraded):
    with psycopg.connect(upgraded, autocommit=True) as session:
        session.execute("DROP INDEX service_by_price")
    assert schema(upgraded) != schema(database_url())


def test_an_upgraded_site_lists_and_makes_bookings(upgraded):
    with connected_to(upgraded):
        user = User.objects.filter(role="user", is_active=True, bookings__isnull=False).first()
        token = AccessToken()
        token["user_id"] = str(user.pk)
        client = Client(headers={"authorization": f"Bearer {token}"})
        assert client.get("/bookings").json()["count"] > 0
        service_id, start = free_time(client)
        body = json.dumps({"service_id": service_id, "start_time": start})
        made = client.post("/bookings", body, content_type="application/json")
        assert made.status_code == 201
        again = client.post("/bookings", body, content_type="application/json")
        assert again.status_code == 409
        # PostgreSQL itself still refuses the same seat.
        booking = Booking.objects.get(pk=made.json()["id"])
        booking.pk = uuid4()
        with pytest.raises(IntegrityError, match="booking_seat_free"):
            booking.save(force_insert=True)
        history = client.get(f"/bookings/{made.json()['id']}/history").json()["results"]
        assert [event["type"] for event in history] == ["booking.created"]


def free_time(client):
    """Return the id of a service with one seat, and a free time of this service next week."""
    day = timezone.now().date() + timedelta(days=7)
    for service in client.get("/services?limit=100&mode=open").json()["results"]:
        if service["capacity"] == 1:
            period = f"from={day}&to={day + timedelta(days=6)}"
            found = client.get(f"/services/{service['id']}/availability?{period}").json()
            for each in found["times"]:
                return service["id"], each["start_time"]
    raise AssertionError("no service has a free time")
