"""`manage.py migrate`, which tries again if other transactions are in its way."""

import time
from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError, connections
from django.db.migrations import Migration

from bookit.errors import database_error_facts

# deadlock_detected and lock_not_available
_IN_THE_WAY = {"40P01", "55P03"}

TRIES = 40
# Seconds between two tries. In the meantime, requests use the tables.
PAUSE = 5.0

# The transactions that are most likely to hold the lock. The name of a backup is "pg_dump".
_OLDEST_TRANSACTIONS = """
SELECT format(
    'process %s (%s), open for %s s',
    pid,
    coalesce(nullif(application_name, ''), usename),
    round(extract(epoch FROM clock_timestamp() - xact_start))
)
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
ORDER BY xact_start
LIMIT 3
"""


class Command(migrate.Command):
    """Django's own command, which tries again if other transactions are in its way.

    A migration waits only briefly for a lock (`bookit.database.postgresql.base.LOCK_TIMEOUT`),
    because all later statements on the same table wait behind it. Transactions of requests may also
    lock two tables in another order than the migration; PostgreSQL then aborts one of them.
    """

    migration: Migration | None = None

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Report progress as Django does, and remember the current migration."""
        self.migration = migration or self.migration
        super().migration_progress_callback(action, migration, fake)

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate as Django does.

        Raises:
            CommandError: other transactions were in the way at each try.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                super().handle(*args, **options)
                break
            except OperationalError as error:
                migration = self.migration
                is_in_the_way = database_error_facts(error)[0] in _IN_THE_WAY
                if migration is None or not (migration.atomic and is_in_the_way):
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
            time.sleep(PAUSE)


def _oldest_transactions(database: str) -> str:
    with connections[database].cursor() as cursor:
        cursor.execute(_OLDEST_TRANSACTIONS)
        return ", ".join(text for (text,) in cursor.fetchall()) or "none; they have just ended"
