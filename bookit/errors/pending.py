"""Detects pending migrations, which this version needs but the database does not have yet."""

import logging
import time
from threading import Lock

from django.db import DatabaseError, InterfaceError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

from bookit.errors import database_error_facts

logger = logging.getLogger(__name__)

# PostgreSQL's error codes for an unknown table, column, function and type.
_UNDEFINED = {"42P01", "42703", "42883", "42704"}
# The fewest seconds between two checks. While migrations are pending, many requests fail at once.
_PAUSE = 5.0


def pending_migrations() -> int:
    """Return the number of pending migrations.

    Raises:
        DatabaseError, InterfaceError: the database does not respond.
    """
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def unknown_migrations() -> list[str]:
    """Return the migrations that a newer version has applied, and that this version lacks."""
    loader = MigrationExecutor(connection).loader
    unknown = loader.applied_migrations.keys() - loader.disk_migrations.keys()
    return sorted(f"{app}.{name}" for app, name in unknown if app in loader.migrated_apps)


def explanation(count: int) -> str:
    """Return a message that reports `count` pending migrations and how to run them."""
    migrations = "1 migration is" if count == 1 else f"{count} migrations are"
    return f"{migrations} pending. Run: python manage.py migrate"


class _Watch:
    """Remembers how many migrations are pending, and checks again at most every few seconds."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._checked_at = float("-inf")
        self._count = 0

    def count(self) -> int:
        """Return the number of pending migrations; log an error if it has changed and is not 0.

        If the database does not respond, return the number that the last successful check found.
        """
        with self._lock:
            if time.monotonic() - self._checked_at < _PAUSE:
                return self._count
            before = self._count
            try:
                self._count = pending_migrations()
            except (DatabaseError, InterfaceError):
                return before
            finally:
                self._checked_at = time.monotonic()
            if self._count and self._count != before:
                logger.error("%s. Requests are answered with 503.", explanation(self._count))
            return self._count


_watch = _Watch()


def is_cause(error: BaseException) -> bool:
    """Return whether pending migrations are the cause of `error`; if so, log their number once."""
    return _is_undefined_object(error) and _watch.count() > 0


def explain(error: BaseException) -> str | None:
    """Return the message to print if pending migrations are the cause of `error`, or None."""
    count = pending_migrations() if _is_undefined_object(error) else 0
    return explanation(count) if count else None


def _is_undefined_object(error: BaseException) -> bool:
    return isinstance(error, ProgrammingError) and database_error_facts(error)[0] in _UNDEFINED
