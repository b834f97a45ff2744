"""A restore brings back all data except admin sessions, and clients of `/events` miss nothing."""

import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
import pytest
from django.contrib.sessions.models import Session as AdminSession
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone
from psycopg.conninfo import conninfo_to_dict

from accounts.tests.factories import AdminFactory
from bookings import events
from bookings.models import Booking, BookingEvent
from bookings.tally import services as tally
from bookings.tests.factories import BookingFactory
from bookings.tests.workers import database_url, until
from bookings.webhooks.tests.test_events import settle
from bookit.database.rows import fetch
from bookit.restores import positions
from bookit.restores.models import Server
from bookit.restores.positions import Horizon, Step
from bookit.runtime import dumps
from bookit.runtime.embedded_postgres import binary, running
from bookit.runtime.servers import connected_to
from bookit.runtime.startup import BASE_DIR
from bookit.tests.plugin import THROWAWAY

# /events hides the events of open transactions, so a test must not run in a transaction.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def other_server(tmp_path_factory):
    """Return the URL of a database on another PostgreSQL server, with its own transaction ids."""
    with running(tmp_path_factory.mktemp("other_server") / "postgres", settings=THROWAWAY) as url:
        yield url


@pytest.fixture
def other_database(other_server):
    """Empty the database on the other server, and return its URL."""
    with psycopg.connect(other_server, autocommit=True) as session:
        session.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return other_server


def record_events(count=1):
    booking = Booking.objects.get()
    return [
        events.record(booking, BookingEvent.Type.CREATED, actor=None, at=timezone.now()).pk
        for _ in range(count)
    ]


def poll(client, cursor="", limit=100):
    page = client.get("/events", {"cursor": cursor, "limit": limit}).json()
    return [UUID(each["id"]) for each in page["results"]], page["cursor"]


def boundary():
    """Return the boundary of the last restore. All positions in the backup were below it."""
    return Server.objects.latest("id").boundary


def contents():
    """Return, by table, the number of rows and a digest of the data that a restore keeps."""
    found = {}
    for table in connection.introspection.table_names():
        # A restore moves positions, adds a server, and deletes the workers.
        if table in {"bookit_server", "bookings_bookingtally", "procrastinate_workers"}:
            continue
        row = "to_jsonb(each) - 'transaction' - 'worker_id'"
        [found[table]] = fetch(
            f"SELECT count(*), md5(string_agg(({row})::text, '' ORDER BY ({row})::text))"
            f" FROM {table} AS each",
            {},
        )
    return found


# --- the data ---------------------------------------------------------------------------------


def test_the_demo_data_is_the_same_after_a_restore(tmp_path, other_database):
    call_command("seed_demo", verbosity=0)
    before, file = contents(), tmp_path / "town.dump"
    assert before["bookings_booking"][0] > 500
    call_command("backup", file)
    with connected_to(other_database):
        call_command("restore", file)
        assert contents() == before
        # The triggers work, and no migration is missing.
        with pytest.raises(Exception, match="append-only"):
            BookingEvent.objects.update(type="booking.held")
        call_command("migrate", "--check")


def test_a_restore_with_clean_replaces_all_data(tmp_path, other_database):
    BookingFactory()
    file = tmp_path / "backup"
    call_command("backup", file)
    with connected_to(other_database):
        call_command("restore", file)
        before = contents()
        Booking.objects.update(notes="after the backup")
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE of_a_newer_version (id integer)")
        with pytest.raises(CommandError, match=r"not empty.*--clean"):
            call_command("restore", file)
        assert Booking.objects.get().notes == "after the backup"
        call_command("restore", file, clean=True)
        assert contents() == before


def test_what_other_programs_keep_in_the_database_is_neither_backed_up_nor_restored(
    tmp_path, other_database
):
    BookingFactory()
    call_command("backup", tmp_path / "first")
    with (
        connected_to(other_database),
        psycopg.connect(other_database, autocommit=True) as other_program,
    ):
        call_command("restore", tmp_path / "first")
        before = contents()
        try:
            other_program.execute("""
                CREATE SCHEMA "Other program";
                CREATE TABLE "Other program".notes AS SELECT 'before' AS note;
                CREATE VIEW "Other program".bookings AS SELECT id FROM bookings_booking;
                CREATE PUBLICATION others FOR TABLE bookings_booking;
            """)
            call_command("backup", tmp_path / "second")
            other_program.execute("""UPDATE "Other program".notes SET note = 'after'""")

            call_command("restore", tmp_path / "second", clean=True)

            assert contents() == before
            assert fetch('SELECT note FROM "Other program".notes', {}) == [("after",)]
            assert fetch("SELECT pubname FROM pg_publication", {}) == [("others",)]
        finally:
            other_program.execute("""
                DROP SCHEMA IF EXISTS "Other program" CASCADE;
                DROP PUBLICATION IF EXISTS others;
            """)


def test_a_restore_that_fails_changes_nothing(tmp_path, other_database):
    BookingFactory()
    file, half = tmp_path / "backup", tmp_path / "half"
    call_command("backup", file)
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with connected_to(other_database):
        with pytest.raises(CommandError, match="The backup cannot be read"):
            call_command("restore", half)
        assert connection.introspection.table_names() == []
        call_command("restore", file)
        before = contents()
        for broken in (half, __file__):
            with pytest.raises(CommandError, match="The backup cannot be read"):
                call_command("restore", broken, clean=True)
        assert contents() == before


def test_a_restore_fails_if_another_session_keeps_the_tables_locked(
    tmp_path, other_database, monkeypatch
):
    BookingFactory()
    file = tmp_path / "backup"
    call_command("backup", file)
    monkeypatch.setattr(dumps, "_BEGIN", dumps._BEGIN.replace(b"10s", b"100ms"))
    with connected_to(other_database):
        call_command("restore", file)
        with psycopg.connect(other_database) as session:
            session.execute("SELECT FROM bookings_booking")
            with pytest.raises(CommandError, match=r"not restored: .*lock timeout"):
                call_command("restore", file, clean=True)
        assert Booking.objects.count() == 1


def test_a_restore_brings_back_no_sessions_of_the_admin_site(tmp_path, other_database, client):
    client.force_login(AdminFactory())
    assert client.get("/admin/").status_code == 200
    file = tmp_path / "backup"
    call_command("backup", file)
    with connected_to(other_database):
        call_command("restore", file)
        assert "accounts_user" in connection.introspection.table_names()
        assert AdminSession.objects.count() == 0
    assert AdminSession.objects.count() == 1


# --- the file ---------------------------------------------------------------------------------


def test_only_its_owner_can_read_a_backup(tmp_path):
    file = tmp_path / "backup"
    usual = os.umask(0)
    try:
        call_command("backup", file)
    finally:
        os.umask(usual)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [file]


def test_a_backup_never_replaces_a_file(tmp_path, monkeypatch):
    file = tmp_path / "backup"
    file.write_text("mine")
    with pytest.raises(CommandError, match="exists"):
        call_command("backup", file)
    # Another process creates the file while pg_dump runs.
    file.unlink()
    monkeypatch.setattr(dumps, "_dump", lambda *arguments: file.write_text("theirs"))
    with pytest.raises(CommandError, match="cannot be written: File exists"):
        call_command("backup", file)
    assert [*tmp_path.iterdir()] == [file]
    assert file.read_text() == "theirs"


def test_a_backup_that_fails_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(dumps, "_PORTABLE", ("--table=missing",))
    with pytest.raises(CommandError, match=r"pg_dump failed: .*no matching tables"):
        call_command("backup", tmp_path / "backup")
    assert [*tmp_path.iterdir()] == []
    with pytest.raises(CommandError, match="cannot be written: No such file"):
        call_command("backup", tmp_path / "missing" / "backup")
    with pytest.raises(CommandError, match="cannot be written: File name too long"):
        call_command("backup", tmp_path / ("x" * 300))


def test_the_signal_that_ended_pg_dump_is_named():
    """SIGPIPE ends pg_dump if the program that reads its output has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    with (
        open(writing, "wb") as output,
        pytest.raises(dumps.DumpError, match=r"ended by signal 13 \(Broken pipe\)"),
    ):
        dumps.dump(output)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_backup_that_is_stopped_leaves_neither_a_file_nor_its_pg_dump(tmp_path, number):
    (folder := tmp_path / "folder").mkdir()
    (programs := tmp_path / "programs").mkdir()
    version = connection.pg_version // 10_000
    pid = tmp_path / "pid"
    slow = programs / "pg_dump"
    slow.write_text(
        f"#!/bin/sh\n[ $1 = --version ] && exec echo 'pg_dump (PostgreSQL) {version}.0'\n"
        f"echo $$ >{pid}.new && mv {pid}.new {pid} && exec sleep 60\n"
    )
    slow.chmod(0o755)
    backup = subprocess.Popen(
        [sys.executable, "manage.py", "backup", str(folder / "backup")],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "DATABASE_URL": database_url(),
            "PATH": f"{programs}:{os.environ['PATH']}",
        },
        # If this test runs under `nohup`, its children ignore SIGHUP.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    until(pid.exists)
    assert [*folder.iterdir()] != []

    backup.send_signal(number)

    assert backup.wait(20) == 128 + number
    assert [*folder.iterdir()] == []
    assert not psutil.pid_exists(int(pid.read_text()))


def test_a_pooler_is_never_used(tmp_path, other_database, settings):
    call_command("backup", tmp_path / "first")
    # Without a pool of its own, BookIt assumes that DATABASE_URL leads to a pooler.
    settings.DATABASE_POOL_SIZE = 0

    with pytest.raises(CommandError, match="set DATABASE_DIRECT_URL"):
        call_command("backup", tmp_path / "second")
    with connected_to(other_database):
        with pytest.raises(CommandError, match="set DATABASE_DIRECT_URL"):
            call_command("restore", tmp_path / "first")
        assert connection.introspection.table_names() == []
    assert [each.name for each in tmp_path.iterdir()] == ["first"]

    settings.DATABASE_DIRECT_URL = database_url()
    call_command("backup", tmp_path / "second")
    settings.DATABASE_DIRECT_URL = other_database
    with connected_to(other_database):
        call_command("restore", tmp_path / "second")


def test_a_direct_url_that_leads_to_another_database_is_refused(tmp_path, other_database, settings):
    """Somebody has copied `.env` from another machine, and has changed only DATABASE_URL."""
    BookingFactory()
    file = tmp_path / "backup"
    call_command("backup", file)
    settings.DATABASE_DIRECT_URL = other_database
    refused = pytest.raises(ImproperlyConfigured, match=r"^DATABASE_DIRECT_URL leads to another")
    with refused:
        call_command("backup", tmp_path / "second")
    assert [*tmp_path.iterdir()] == [file]

    settings.DATABASE_DIRECT_URL = database_url()
    with connected_to(other_database), refused:
        call_command("restore", file, clean=True)
    assert Booking.objects.count() == 1

    with connected_to(other_database), refused:
        call_command("procrastinate", "worker")


def test_a_direct_url_that_cannot_be_reached_is_named(tmp_path, settings):
    settings.DATABASE_DIRECT_URL = "postgresql://postgres@127.0.0.1:1/bookit"
    for command in [["backup", tmp_path / "file"], ["procrastinate", "worker"]]:
        with pytest.raises(ImproperlyConfigured, match=r"^DATABASE_DIRECT_URL: .* refused"):
            call_command(*command)


def test_a_database_without_bookits_tables_is_not_backed_up(tmp_path, other_database, capsysbinary):
    """`backup` ran without its usual settings, for example, so it used another database."""
    with connected_to(other_database):
        for name in [tmp_path / "backup", "-"]:
            with pytest.raises(CommandError, match=r"no tables of BookIt.*DATABASE_URL"):
                call_command("backup", name)
    assert [*tmp_path.iterdir()] == []
    assert capsysbinary.readouterr().out == b""


def test_a_backup_can_be_restored_through_a_pipe(other_database):
    BookingFactory()
    before = contents()

    def manage(url, *arguments, **pipes):
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=BASE_DIR,
            env={**os.environ, "DATABASE_URL": url, "DATABASE_POOL_SIZE": ""},
            **pipes,
        )

    with manage(database_url(), "backup", "-", stdout=subprocess.PIPE) as writer:
        reader = manage(other_database, "restore", "-", stdin=writer.stdout, stdout=subprocess.PIPE)
        output, _ = reader.communicate()
    assert (writer.returncode, reader.returncode) == (0, 0)
    assert output == b"The backup is restored.\n"
    with connected_to(other_database):
        assert contents() == before


# The tests that use this fixture expect that their server is PostgreSQL 18.
@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs scripts in a new folder, where BookIt looks for programs."""
    folders = []
    monkeypatch.setattr(dumps, "_folders", lambda version: folders)

    def _install(version, *names):
        folder = tmp_path / f"folder {len(folders)}"
        folder.mkdir()
        for name in names:
            program = folder / name
            program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'")
            program.chmod(0o755)
        folders.append(folder)
        return folder

    return _install


def test_older_programs_are_never_used_and_newer_programs_are_not_used_by_default(install):
    install("9.6.24", "pg_dump")
    with pytest.raises(dumps.DumpError, match="postgresql-client-18"):
        dumps._programs("pg_dump", newer=True)
    install("19.0", "pg_dump")
    with pytest.raises(dumps.DumpError, match="postgresql-client-18"):
        dumps._programs("pg_dump")


def test_a_newer_pg_dump_is_used_only_if_no_pg_dump_has_the_servers_version(install):
    install("20.1", "pg_dump")
    newer = install("19.0", "pg_dump")
    assert dumps._programs("pg_dump", newer=True) == {"pg_dump": str(newer / "pg_dump")}
    same = install("18.2", "pg_dump")
    assert dumps._programs("pg_dump", newer=True) == {"pg_dump": str(same / "pg_dump")}


def test_a_folder_that_lacks_one_of_the_programs_is_not_used(install):
    install("18.2", "pg_restore")
    with pytest.raises(dumps.DumpError, match="pg_restore and psql of PostgreSQL 18"):
        dumps._programs("pg_restore", "psql")
    both = install("18.2", "pg_restore", "psql")
    assert dumps._programs("pg_restore", "psql")["psql"] == str(both / "psql")


def test_a_program_that_cannot_be_started_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(
        dumps, "_programs", lambda *names, newer=False: dict.fromkeys(names, "/no/such")
    )
    with pytest.raises(CommandError, match=r"^/no/such cannot be started: No such file"):
        call_command("backup", tmp_path / "backup")
    assert [*tmp_path.iterdir()] == []
    source = tmp_path / "backup"
    source.touch()
    monkeypatch.setattr(connection.introspection, "table_names", list)
    with pytest.raises(CommandError, match=r"^/no/such cannot be started: No such file"):
        call_command("restore", source)
    with pytest.raises(CommandError, match="missing cannot be read: No such file"):
        call_command("restore", tmp_path / "missing")


# --- the documentation ------------------------------------------------------------------------

# A replacement for `docker`. It runs PostgreSQL's programs on this machine instead of in the
# container `db`, and records all its arguments.
DOCKER = """#!/bin/sh
echo "$*" >>"$COMMANDS"
case "$*" in
  "compose exec -T db "*) shift 4; program=$1; shift; exec "$PROGRAMS/$program" "$@" ;;
esac
"""


def test_the_documented_commands_for_docker_compose_restore_a_backup(tmp_path, other_database):
    """A script replaces Docker. Unlike `docker compose up`, the script does not run `migrate`."""
    text = (
        (BASE_DIR / "docs" / "operations.md").read_text().partition("\n## Backup and restore\n")[2]
    )
    save, load = re.findall(r"```sh\n([^`]*docker compose exec[^`]*)```", text)[:2]
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    server = conninfo_to_dict(other_database)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PROGRAMS": str(Path(binary("psql")).parent),
        "COMMANDS": str(tmp_path / "commands"),
        "PGHOST": server["host"],
        "PGPORT": server["port"],
        "PGPASSWORD": server["password"],
    }

    def run(script):
        subprocess.run(["sh", "-euc", script], cwd=tmp_path, env=environment, check=True)

    BookingFactory()
    call_command("backup", tmp_path / "first")
    with connected_to(other_database):
        call_command("restore", tmp_path / "first")
        before = contents()
        run(save)
        assert stat.S_IMODE((tmp_path / "backup.dump").stat().st_mode) == 0o600
        Booking.objects.update(notes="after the backup")
        assert contents() != before
        connection.close()
        run(load)
        assert contents() == before
    assert (tmp_path / "commands").read_text().splitlines()[-1] == "compose up --detach"


# --- jobs -------------------------------------------------------------------------------------


def test_jobs_that_ran_during_the_backup_run_again(tmp_path, other_database):
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH worker AS (INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id)"
            " INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)"
            " SELECT 'default', 'bookings.complete', 'doing', id FROM worker"
        )
    call_command("backup", tmp_path / "backup")
    with connected_to(other_database):
        call_command("restore", tmp_path / "backup")
        call_command("retry_stalled_jobs")
        assert fetch("SELECT status FROM procrastinate_jobs", {}) == [("todo",)]


# --- /events ----------------------------------------------------------------------------------


def test_clients_of_events_miss_nothing_after_a_restore(api, tmp_path, other_database):
    admin = api.as_(AdminFactory())
    BookingFactory()
    saved = record_events(5)
    settle()
    first, within = poll(admin, limit=2)
    seen, at_the_end = poll(admin)
    assert (first, seen) == (saved[:2], saved)
    call_command("backup", tmp_path / "backup")
    lost = record_events(3)
    settle()
    assert poll(admin, at_the_end)[0] == lost
    after_the_loss = poll(admin, at_the_end)[1]
    with connected_to(other_database):
        call_command("restore", tmp_path / "backup")
        new = record_events(2)
        # Control: this server has its own transaction ids, which have not reached the boundary.
        assert positions.horizon(using="default").position < boundary()
        for cursor, expected in (
            ("", saved + new),
            (within, saved[2:] + new),
            (at_the_end, new),
            (after_the_loss, new),
        ):
            polled, following = poll(admin, cursor, limit=1)
            while (more := poll(admin, following, limit=1))[0]:
                polled, following = polled + more[0], more[1]
            assert polled == expected
        latest = record_events()
        assert poll(admin, following)[0] == latest


# The id of the last row that a client has read.
READ = "0199d3a5-6b1c-7e40-a3d2-8f4c1b7e9d05"


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        # The step begins below the boundary of 500. Its end is, in this order, not known yet, above
        # the boundary, and below the boundary.
        (Step(300, 0, None, 1), Step(200, 0, None, 2)),
        (Step(300, 900, READ, 1), Step(200, 400, READ, 2)),
        (Step(300, 400, READ, 1), Step(200, 300, READ, 2)),
        # The reader has read rows that the restore has lost.
        (Step(700, 0, None, 1), Step(400, 0, None, 2)),
        (Step(700, 900, READ, 1), Step(400, 0, None, 2)),
        # The positions are those of this server.
        (Step(700, 900, READ, 2), Step(700, 900, READ, 2)),
    ],
)
def test_a_step_continues_at_the_same_rows_after_a_restore(step, expected):
    assert Horizon(1000, [(1, None, 0), (2, 500, 100)]).translate(step) == expected


def test_a_step_continues_after_two_restores():
    moves = [(1, None, 0), (2, 500, 100), (3, 450, 50)]
    assert Horizon(1000, moves).translate(Step(700, 0, None, 1)) == Step(350, 0, None, 3)
    assert Horizon(1000, moves).translate(Step(430, 0, None, 2)) == Step(380, 0, None, 3)


def test_migrate_moves_positions_after_a_restore_with_another_program(
    api, tmp_path, other_database, monkeypatch
):
    admin = api.as_(AdminFactory())
    BookingFactory()
    saved = record_events(5)
    call_command("backup", tmp_path / "backup")
    with connected_to(other_database):
        with monkeypatch.context() as patch:
            patch.setattr(positions, "notice_new_server", lambda: False)
            call_command("restore", tmp_path / "backup")
        # Control: the positions of the events are still in the future, so clients miss the events.
        assert poll(admin)[0] == []
        call_command("migrate", verbosity=0)
        assert poll(admin)[0] == saved
        assert Server.objects.count() == 2
        call_command("migrate", verbosity=0)
        assert Server.objects.count() == 2


def test_totals_stay_exact_after_a_restore(tmp_path, other_database):
    BookingFactory()
    record_events(4)
    settle()
    tally.count_events()
    record_events(2)
    before = tally.totals()
    call_command("backup", tmp_path / "backup")
    with connected_to(other_database):
        call_command("restore", tmp_path / "backup")
        assert tally.totals() == before
        record_events()
        tally.count_events()
        assert sum(tally.totals().values()) == sum(before.values()) + 1
