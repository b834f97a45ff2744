"""The export contains all records that another system can use, and no secrets."""

import json
import os
import re
import signal
import sys
from errno import ENOSPC
from unittest.mock import Mock

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connection

from accounts.models import User
from accounts.tests.factories import staff
from bookings.models import Booking
from bookit.deadlines import STATEMENT_LIMIT
from bookit.tools import records
from catalog.models import Service
from reviews.tests.factories import ReviewFactory

pytestmark = pytest.mark.django_db

# Models that are not exported: their rows are secrets, are computed from other rows, or mean
# nothing in another system.
WITHOUT_RECORDS = {
    *("accounts.Session", "accounts.EmailedLink", "accounts.ApiKey"),
    *("bookings.Feed", "bookings.Webhook", "bookings.Delivery", "bookings.Attempt"),
    *("bookings.Occupancy", "bookings.BookingTally", "bookings.BookedCalendar"),
    *("catalog.Word", "catalog.Category"),
}


@pytest.fixture
def town():
    ReviewFactory()
    staff(["bookings.view_booking"], name="Rui")


def written(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# The export sets the isolation level of its transaction. This is impossible inside the transaction
# of an ordinary test, because that transaction has already begun.
@pytest.mark.django_db(transaction=True)
def test_rows_become_lines_that_refer_only_to_earlier_lines(town, tmp_path, capsys):
    path = tmp_path / "all.jsonl"

    call_command("export_records", str(path))

    lines = written(path)
    assert f"{len(lines)} records." in capsys.readouterr().out
    kinds = [line["record"] for line in lines]
    assert kinds.count("user") == User.objects.count()
    [booking] = [line for line in lines if line["record"] == "booking"]
    stored = Booking.objects.get()
    assert booking["id"] == str(stored.pk)
    assert booking["start_time"] == "2999-01-01T10:00:00Z"
    assert booking["price"] == "25.000"
    [rui] = [line for line in lines if line.get("name") == "Rui"]
    [role] = [line for line in lines if line["record"] == "role"]
    assert rui["roles"] == [role["name"]]
    assert role["permissions"] == ["bookings.view_booking"]
    assert path.stat().st_mode & 0o077 == 0
    # Users refer to roles by name. All other references are ids.
    assert lines.index(role) < kinds.index("user")
    earlier = set()
    for line in lines:
        references = {value for name, value in line.items() if name.endswith("_id") and value}
        assert references <= earlier, line
        earlier.add(line.get("id"))
    assert booking["user_id"] in earlier


def test_no_record_refers_to_a_record_that_is_not_exported():
    models = {model._meta.concrete_model for model in records.MODELS}
    for model in records.MODELS:
        exported = records.columns(model)
        references = {
            field.attname: field.related_model
            for field in model._meta.concrete_fields
            if field.is_relation and field.attname in exported
        }
        assert {*references.values()} <= models, model
        # These columns are not foreign keys, but mean nothing in another system either.
        assert not {"api_key_id", "server", "transaction"}.intersection(exported), model
    # The ratings are computed from the reviews.
    assert not {"rating_sum", "rating_count"}.intersection(records.columns(Service))


@pytest.mark.django_db(transaction=True)
def test_no_password_hash_is_exported(town, tmp_path):
    call_command("export_records", str(tmp_path / "all.jsonl"))

    text = (tmp_path / "all.jsonl").read_text()
    for user in User.objects.all():
        assert user.password not in text


def test_no_column_with_a_secret_is_exported():
    secret = re.compile("password|secret|token|digest|hash")
    for model in records.MODELS:
        assert [name for name in records.columns(model) if secret.search(name)] == [], model


def test_every_model_is_exported_or_listed_as_without_records():
    """A new model is in `MODELS` of `records.py`, or in `WITHOUT_RECORDS`."""
    # The rows of `bookit`'s own models mean nothing outside this installation.
    ours = {
        model._meta.label
        for app in ("accounts", "catalog", "bookings", "reviews")
        for model in apps.get_app_config(app).get_models()
    }
    exported = {model._meta.label for model in records.MODELS}
    assert exported | WITHOUT_RECORDS == ours
    assert not exported & WITHOUT_RECORDS


def test_an_export_that_fails_leaves_no_file(tmp_path, monkeypatch):
    def lines():
        yield b"{}"
        raise DatabaseError

    monkeypatch.setattr(records, "lines", lines)
    with pytest.raises(DatabaseError):
        call_command("export_records", str(tmp_path / "all.jsonl"))
    assert [*tmp_path.iterdir()] == []


def test_an_export_that_is_stopped_leaves_no_file(tmp_path, monkeypatch):
    def lines():
        yield b"{}"
        # Without a handler of the command, the signal would end the tests.
        assert signal.getsignal(signal.SIGTERM) != usual
        os.kill(os.getpid(), signal.SIGTERM)
        yield b"{}"

    usual = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(records, "lines", lines)
    with pytest.raises(SystemExit):
        call_command("export_records", str(tmp_path / "all.jsonl"))
    assert [*tmp_path.iterdir()] == []
    assert signal.getsignal(signal.SIGTERM) == usual


def test_stdout_that_cannot_be_written_is_reported_in_one_line(monkeypatch):
    full = Mock(side_effect=OSError(ENOSPC, os.strerror(ENOSPC)))
    monkeypatch.setattr(sys, "stdout", Mock(buffer=Mock(write=full, writelines=full)))
    with pytest.raises(CommandError, match=r"stdout cannot be written: No space left"):
        call_command("export_records", "-")


@pytest.mark.django_db(transaction=True)
def test_an_export_may_take_longer_than_a_request(town, monkeypatch):
    limits = []

    def rows(model):
        limits.append(connection.connection.patience)
        return iter(())

    monkeypatch.setattr(records, "_rows", rows)
    assert [*records.lines()] == []
    assert {*limits} == {None}
    assert connection.connection.patience == STATEMENT_LIMIT


@pytest.mark.django_db(transaction=True)
def test_behind_a_pooler_an_export_does_not_read_all_rows_at_once(town, monkeypatch):
    """Without a server-side cursor, the client would receive all rows of a model together."""
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    lines = records.lines()
    while json.loads(next(lines))["record"] != "user":
        pass
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_cursors WHERE statement LIKE '%accounts_user%'")
        assert len(cursor.fetchall()) == 1
    assert [*lines]
    assert connection.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] is True


def test_an_existing_file_is_not_overwritten(tmp_path):
    path = tmp_path / "all.jsonl"
    path.write_text("mine")

    with pytest.raises(CommandError, match="exists"):
        call_command("export_records", str(path))

    assert path.read_text() == "mine"
