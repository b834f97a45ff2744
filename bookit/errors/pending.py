"""Migrations that this version of BookIt needs and the database does not have yet."""

import logging
import time
from threading import Lock

from django.db import DatabaseError, InterfaceError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

from bookit.errors import database_error_facts

logger = logging.getLogger(__name__)

# PostgreSQL's codes for a table, a column, a function and a type that it does not know.
_UNDEFINED = {"42P01", "42703", "42883", "42704"}
# While migrations are pending, many requests fail at once: seconds between two looks.
_PAUSE = 5.0


def pending_migrations() -> int:
    """Return how many migrations the database lacks.

    Raises:
        DatabaseError, InterfaceError: it does not answer.
    """
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def explanation(count: int) -> str:
    """Return the line about `count` pending migrations that says what to do."""
    migrations = "1 migration is" if count == 1 else f"{count} migrations are"
    return f"{migrations} pending. Run: python manage.py migrate"


class _Watch:
    """Knows whether failing statements fail because of pending migrations."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._looked_at = float("-inf")
        self._count = 0

    def count(self) -> int:
        """Return how many are pending; log it when it changes."""
        with self._lock:
            if time.monotonic() - self._looked_at < _PAUSE:
                return self._count
            before = self._count
            try:
                self._count = pending_migrations()
            except (DatabaseError, InterfaceError):
                return before
            self._looked_at = time.monotonic()
            if self._count and self._count != before:
                logger.error("%s. Requests are answered with 503.", explanation(self._count))
            return self._count


_watch = _Watch()


def is_cause(error: BaseException) -> bool:
    """Return whether a request fails because migrations are pending; log it, but only once."""
    return _misses_something(error) and _watch.count() > 0


def explain(error: BaseException) -> str | None:
    """Return the line about the pending migrations that a command fails because of, if it does."""
    count = pending_migrations() if _misses_something(error) else 0
    return explanation(count) if count else None


def _misses_something(error: BaseException) -> bool:
    return isinstance(error, ProgrammingError) and database_error_facts(error)[0] in _UNDEFINED
