"""Migrations: they have no time limit, and run one at a time.

Atomic migrations do not block requests for long.
"""

import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import StringIO
from time import monotonic

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.core.management.commands.migrate import Command as DjangoMigrate
from django.core.management.sql import emit_post_migrate_signal, emit_pre_migrate_signal
from django.db import OperationalError, connection, transaction
from django.db.migrations.recorder import MigrationRecorder

from bookings.tests.workers import database_url
from bookit.database.postgresql import base
from bookit.deadlines import STATEMENT_LIMIT
from bookit.management.commands import migrate
from bookit.restores import migrations
from bookit.runtime.servers import connected_to
from bookit.tests.crowd import PATIENCE, ask, deadlocks, run, until_waiting


@pytest.mark.django_db
def test_migrations_may_take_longer_than_a_request():
    def limit():
        return ask("SHOW statement_timeout")

    assert limit() == "5s"
    # Usually, PostgreSQL ends a statement. BookIt stops waiting for PostgreSQL a second later.
    assert connection.connection.patience == STATEMENT_LIMIT == 6

    emit_pre_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "0"
    assert connection.connection.patience is None

    emit_post_migrate_signal(verbosity=0, interactive=False, db="default")
    assert limit() == "5s"
    assert connection.connection.patience == STATEMENT_LIMIT


LOCKS_TWO_TABLES = """
from django.db import migrations

class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = [("restores", "{last}")]
    operations = [
        migrations.RunSQL("CREATE TABLE half_done ()"),
        migrations.RunSQL("ALTER TABLE catalog_service ALTER COLUMN title SET NOT NULL"),
        migrations.RunSQL("ALTER TABLE bookings_booking ALTER COLUMN status SET NOT NULL"),
    ]
"""


@pytest.fixture
def write_migration(transactional_db, tmp_path, monkeypatch, settings):
    """Yield a function that adds a migration to the app `restores`.

    By default, the migration locks the table of services, and then the table of bookings.
    """
    package = tmp_path / "more_migrations"
    package.mkdir()
    # Python also finds the real migrations of `restores` in this package.
    (package / "__init__.py").write_text(f"__path__ += {[*migrations.__path__]}")
    monkeypatch.syspath_prepend(tmp_path)
    settings.MIGRATION_MODULES = {"restores": "more_migrations"}
    applied = MigrationRecorder(connection).applied_migrations()
    last = max(name for app, name in applied if app == "restores")

    def write(migration=LOCKS_TWO_TABLES, *, atomic=True):
        content = migration.format(last=last, atomic=atomic)
        (package / "locks_two_tables.py").write_text(content)

    yield write
    for name in [name for name in sys.modules if name.startswith("more_migrations")]:
        del sys.modules[name]
    connection.close()  # A failed migration leaves the connection without time limits.
    forget_migration()


def forget_migration():
    run("DROP TABLE IF EXISTS half_done")
    MigrationRecorder(connection).record_unapplied("restores", "locks_two_tables")


def is_applied():
    done = ("restores", "locks_two_tables") in MigrationRecorder(connection).applied_migrations()
    assert (ask("SELECT to_regclass('half_done')") is not None) == done
    return done


def run_migrate(*options):
    output = StringIO()
    call_command("migrate", "restores", *options, stdout=output, stderr=output)
    return output.getvalue()


@contextmanager
def reading(then):
    """Read the bookings in another thread, and keep the transaction open.

    Once the event that this function yields is set, the thread calls `then`, and the transaction
    ends.
    """
    has_read, may_go_on = threading.Event(), threading.Event()

    def read():
        try:
            with transaction.atomic():
                run("SET LOCAL application_name = 'a long report'")
                ask("SELECT count(*) FROM bookings_booking")
                has_read.set()
                assert may_go_on.wait(PATIENCE)
                then()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as thread:
        reader = thread.submit(read)
        assert has_read.wait(PATIENCE)
        try:
            yield may_go_on
        finally:
            may_go_on.set()
            reader.result()


def test_migrate_waits_briefly_and_tries_again(write_migration, monkeypatch):
    write_migration()
    monkeypatch.setattr(base, "LOCK_TIMEOUT", "100ms")
    pauses = []
    with reading(then=lambda: None) as may_go_on:
        # Control: Django's own command does not try again.
        with pytest.raises(OperationalError, match="lock timeout"):
            call_command(DjangoMigrate(), "restores", verbosity=0)
        assert not is_applied()

        def sleep(seconds):
            # Between two tries, the migration does not block other statements.
            with psycopg.connect(**connection.get_connection_params()) as session:
                session.execute("SELECT count(*) FROM catalog_service, bookings_booking")
            pauses.append(seconds)
            if len(pauses) == 3:
                monkeypatch.setattr(base, "LOCK_TIMEOUT", "1min")
                may_go_on.set()
                until_unlocked()

        monkeypatch.setattr(migrate, "sleep", sleep)
        output = run_migrate()
    assert pauses == [migrate.PAUSE] * 3
    assert is_applied()
    assert "Migration restores.locks_two_tables needs a table that other transactions" in output
    assert re.search(r"process \d+ \(a long report\), open for \d+ s", output)
    assert "Trying again in 5 seconds." in output


def until_unlocked():
    """Return when no other session has a lock on the bookings."""
    held = """
        SELECT count(*) FROM pg_locks
        WHERE relation = 'bookings_booking'::regclass AND pid <> pg_backend_pid()
    """
    deadline = monotonic() + PATIENCE
    while ask(held):
        assert monotonic() < deadline


def test_migrate_gives_up_and_names_the_transaction_in_its_way(write_migration, monkeypatch):
    write_migration()
    monkeypatch.setattr(base, "LOCK_TIMEOUT", "100ms")
    monkeypatch.setattr(migrate, "TRIES", 2)
    monkeypatch.setattr(migrate, "PAUSE", 0)
    with reading(then=lambda: None), pytest.raises(CommandError) as caught:
        run_migrate()
    message = str(caught.value)
    assert re.search(r"process \d+ \(a long report\), open for \d+ s", message)
    assert message.endswith("Run migrate again when these transactions have ended.")
    assert not is_applied()


def test_migrate_tries_again_after_a_deadlock(write_migration, monkeypatch):
    write_migration()
    monkeypatch.setattr(migrate, "PAUSE", 0)
    monkeypatch.setattr(base, "LOCK_TIMEOUT", "1min")
    before = deadlocks()

    def read_the_services():
        with suppress(OperationalError):
            ask("SELECT count(*) FROM catalog_service")

    outputs = []
    # PostgreSQL aborts the transaction that notices the deadlock first, usually the migration.
    for _ in range(5):
        with reading(then=read_the_services) as may_go_on, ThreadPoolExecutor(1) as thread:
            migrating = thread.submit(in_thread, run_migrate)
            until_waiting(1)
            may_go_on.set()
            outputs.append(migrating.result())
        assert is_applied()
        if "Trying again" in outputs[-1]:
            break
        forget_migration()
    assert "Trying again" in outputs[-1]
    run("SELECT pg_stat_force_next_flush()")
    assert deadlocks() == before + len(outputs)


def in_thread(function):
    try:
        return function()
    finally:
        connection.close()


def test_a_migration_that_is_not_one_transaction_is_not_tried_again(write_migration, monkeypatch):
    write_migration(atomic=False)
    monkeypatch.setattr(migrate, "PAUSE", 0)
    run("SET lock_timeout = '100ms'")
    try:
        # A second try would fail with another error, because the table `half_done` exists.
        with reading(then=lambda: None), pytest.raises(OperationalError, match="lock timeout"):
            run_migrate()
    finally:
        run("RESET lock_timeout")


def test_a_migration_that_is_not_one_transaction_waits_without_a_limit(
    write_migration, monkeypatch
):
    write_migration(atomic=False)
    monkeypatch.setattr(base, "LOCK_TIMEOUT", "100ms")
    with reading(then=lambda: None) as may_go_on, ThreadPoolExecutor(1) as thread:
        migrating = thread.submit(in_thread, run_migrate)
        until_waiting(1)
        # The migration waits longer than LOCK_TIMEOUT, because it could not be tried again.
        time.sleep(0.5)
        until_waiting(1)
        may_go_on.set()
        assert "Trying again" not in migrating.result()
    assert is_applied()


CHANGES_A_COLUMN = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("restores", "{last}")]
    operations = [
        migrations.RunSQL("CREATE TABLE half_done ()"),
        migrations.RunSQL("ALTER TABLE catalog_service DROP COLUMN search"),
    ]
"""


def test_migrate_names_the_views_that_need_a_column(write_migration):
    write_migration(CHANGES_A_COLUMN)
    run("CREATE VIEW titles AS SELECT * FROM catalog_service")
    run("CREATE VIEW words AS SELECT search FROM titles")
    try:
        message = "view titles depends on column search of table catalog_service; view words.*Drop"
        with pytest.raises(CommandError, match=message):
            run_migrate()
        assert not is_applied()
    finally:
        run("DROP VIEW words, titles")


def test_a_second_migrate_waits_for_the_first(write_migration, monkeypatch):
    write_migration()
    polls = threading.Event()
    monkeypatch.setattr(migrate, "sleep", lambda seconds: polls.set() or time.sleep(0.05))
    with psycopg.connect(**connection.get_connection_params()) as first:
        first.execute(migrate._TRY_LOCK)
        with ThreadPoolExecutor(1) as thread:
            second = thread.submit(in_thread, run_migrate)
            assert polls.wait(PATIENCE)
            assert not is_applied()
            # Commands that change nothing do not wait.
            assert "locks_two_tables" in run_migrate("--plan")
            # Control: Django's own command does not wait either.
            call_command(DjangoMigrate(), "restores", verbosity=0)
            assert is_applied()
            first.rollback()
            output = second.result()
    assert output.count("Another process migrates this database. Waiting until it ends.") == 1
    assert "No migrations to apply." in output


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("encoding", "command", "message"),
    [
        (
            "LATIN1",
            "SELECT",
            r"has the encoding LATIN1.* (CREATE DATABASE \w+ .* ENCODING 'UTF8' .*;)$",
        ),
        (
            "UTF8",
            "REVOKE ALL ON SCHEMA public FROM pg_database_owner",
            r"may not create tables.* (GRANT CREATE ON SCHEMA public TO \w+;)$",
        ),
        ("UTF8", "DROP SCHEMA public", r"has no schema.* (CREATE SCHEMA public .*;)$"),
    ],
)
def test_a_new_database_that_is_not_suitable_is_not_migrated(encoding, command, message):
    # Each pytest process has its own database, so two of these tests can run at the same time.
    name = f"{connection.settings_dict['NAME']}_unsuitable"
    url = re.sub(r"/[^/]*$", f"/{name}", database_url())
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
        try:
            with psycopg.connect(url) as unsuitable:
                unsuitable.execute(command)
            with connected_to(url), pytest.raises(CommandError, match=message) as refusal:
                call_command("migrate")
            # The statement that the message shows makes the database suitable.
            remedy = re.search(message, str(refusal.value))[1]
            if remedy.startswith("CREATE DATABASE"):
                session.execute(f"DROP DATABASE {name} WITH (FORCE)")
                session.execute(remedy)
            else:
                with psycopg.connect(url) as unsuitable:
                    unsuitable.execute(remedy)
            with connected_to(url):
                call_command("migrate", "contenttypes", verbosity=0)
        finally:
            session.execute(f"DROP DATABASE {name} WITH (FORCE)")
