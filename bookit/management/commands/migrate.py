"""`manage.py migrate`, which waits for other migrations and for transactions that block it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import sleep
from typing import Any, NamedTuple

import psycopg
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import InternalError, OperationalError, connections
from django.db.migrations import Migration
from psycopg.rows import class_row

from bookit.database.citus import conversion
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import database_error_facts

# deadlock_detected and lock_not_available
_LOCK_ERRORS = {"40P01", "55P03"}
# dependent_objects_still_exist
_DEPENDENT_OBJECTS = "2BP01"

# The number of tries of a command, for all its migrations together.
TRIES = 40
# Seconds between two tries. In the meantime, requests use the tables.
PAUSE = 5.0
# Seconds between two checks whether another process still migrates the database.
POLL = 0.5

# Describes the oldest transactions that have locked a table. A backup appears as "pg_dump".
#
# Parameters: none.
# Columns: description text.
_OLDEST_TRANSACTIONS = """
SELECT concat(
    'process ', pid, ' (', coalesce(nullif(application_name, ''), usename, backend_type, '?'), ')',
    -- Null if this role may not see when the transactions of other roles began. Such a transaction
    -- may be the oldest, so it comes first.
    ', open for ' || round(extract(epoch FROM clock_timestamp() - xact_start)) || ' s'
) AS description
FROM pg_stat_activity
WHERE datname = current_database()
  AND pid <> pg_backend_pid()
  AND pid IN (SELECT pid FROM pg_locks WHERE locktype = 'relation' AND granted)
ORDER BY xact_start NULLS FIRST
LIMIT 3
"""

# Describes a database that has no tables yet.
#
# Parameters: none.
# Columns: name, role and schema text (quoted for SQL; the schema in which tables are created),
# encoding text, may_create boolean (whether the role may create tables in the schema). `schema` and
# `may_create` are null if no schema of the search path exists.
_NEW_DATABASE = """
SELECT quote_ident(current_database()) AS name, quote_ident(current_user) AS role,
    quote_ident(current_schema()) AS schema, current_setting('server_encoding') AS encoding,
    has_schema_privilege(current_schema(), 'CREATE') AS may_create
"""


class _NewDatabase(NamedTuple):
    """A row of the statement above."""

    name: str
    role: str
    schema: str | None
    encoding: str
    may_create: bool | None


# Takes the lock for migrating this database, unless another process holds it. The number is
# arbitrary.
#
# Parameters: none.
# Columns: is_locked boolean.
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(7042026) AS is_locked"


class Command(migrate.Command):
    """Django's own command, which waits for other migrations and for transactions that block it.

    If several hosts migrate the same database at the same time, each waits for the one before it,
    and then finds little or nothing to do.

    An atomic migration waits only briefly for a lock, because all later statements on the same
    table wait behind it (`bookit.database.postgresql.base.LOCK_TIMEOUT`). A request may also lock
    two tables in another order than the migration; PostgreSQL then aborts the request's transaction
    or the migration. If an atomic migration fails for one of these reasons, it is tried again.
    """

    migration: Migration | None = None

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Report progress as Django does, and remember the current migration."""
        self.migration = migration if action in ("apply_start", "unapply_start") else None
        super().migration_progress_callback(action, migration, fake)

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate as Django does.

        Raises:
            CommandError: other transactions have blocked migrations `TRIES` times, a view of
                another program needs a column that goes, there is a problem with the servers of a
                distributed database, or a new database is not suitable.
        """
        if options["check_unapplied"] or options["plan"]:
            super().handle(*args, **options)
        else:
            if is_distributed() and (found := conversion.cluster_problems()):
                raise CommandError("\n".join([*found, "Nothing was migrated."]))
            if not connections[options["database"]].introspection.table_names():
                _check_new_database(options["database"])
            with self._alone(options["database"]):
                self._migrate(*args, **options)

    @contextmanager
    def _alone(self, database: str) -> Iterator[None]:
        """Wait for the lock that lets only one process migrate this database, and hold the lock.

        The lock belongs to the transaction of a separate connection. So it also works behind
        PgBouncer, and ends with this process. The process polls, because a statement that waits in
        PostgreSQL has a snapshot: CREATE INDEX CONCURRENTLY of the other process would wait until
        this snapshot is released.
        """
        wrapper = connections[database]
        wrapper.ensure_connection()
        with (
            wrapper.wrap_database_errors,
            closing(psycopg.connect(**wrapper.get_connection_params())) as separate,
        ):
            # A stricter level would keep a snapshot until the transaction ends.
            separate.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            separate.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            has_said = False
            while not (separate.execute(_TRY_LOCK).fetchone() or [False])[0]:
                if not has_said:
                    self.stderr.write(
                        "Another process migrates this database. Waiting until it ends."
                    )
                has_said = True
                sleep(POLL)
            yield

    def _migrate(self, *args: Any, **options: Any) -> None:
        for tries_left in reversed(range(TRIES)):
            try:
                super().handle(*args, **options)
                break
            except InternalError as error:
                if not self.migration or database_error_facts(error)[0] != _DEPENDENT_OBJECTS:
                    raise
                cause: Any = error.__cause__
                found = "; ".join((cause.diag.message_detail or "").splitlines())
                raise CommandError(
                    f"Migration {self.migration} cannot change a column that something else in the"
                    f" database needs: {found}. Drop it, run migrate again, and create it again."
                ) from error
            except OperationalError as error:
                migration = self.migration
                is_lock_error = database_error_facts(error)[0] in _LOCK_ERRORS
                if migration is None or not (migration.atomic and is_lock_error):
                    raise
                message = (
                    f"Migration {migration} needs a table that other transactions use."
                    f" The oldest transactions: {_oldest_transactions(options['database'])}."
                )
                if not tries_left:
                    raise CommandError(
                        f"{message} Nothing of this migration was applied."
                        " Run migrate again when these transactions have ended."
                    ) from error
            if options["verbosity"]:
                self.stdout.write(" waiting")  # Completes the line of the migration.
            self.stderr.write(f"{message} Trying again in {PAUSE:g} seconds.")
            sleep(PAUSE)


def _check_new_database(database: str) -> None:
    [new] = fetch(_NEW_DATABASE, {}, class_row(_NewDatabase), using=database)
    if new.encoding != "UTF8":
        raise CommandError(
            f"The database has the encoding {new.encoding}, but BookIt needs UTF8. Drop it, and"
            f" create it again: CREATE DATABASE {new.name} OWNER {new.role} ENCODING 'UTF8'"
            " LOCALE 'C.UTF-8' TEMPLATE template0;"
        )
    if new.may_create is None:
        raise CommandError(
            "The database has no schema for the tables. Create one:"
            f" CREATE SCHEMA public AUTHORIZATION {new.role};"
        )
    if not new.may_create:
        raise CommandError(
            f"The role {new.role} may not create tables. Allow it:"
            f" GRANT CREATE ON SCHEMA {new.schema} TO {new.role};"
        )


def _oldest_transactions(database: str) -> str:
    with connections[database].cursor() as cursor:
        cursor.execute(_OLDEST_TRANSACTIONS)
        return ", ".join(text for (text,) in cursor.fetchall()) or "none that this role can see"
