"""The database from which a thread reads: the primary or, for catalog reads, a replica."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS

# The permissions of staff roles are stored in these apps. They decide who may do what, so they are
# always read from the primary. The user of a request is read before a view reads from a replica.
DECISIONS = frozenset({"auth", "contenttypes"})


class _Current(threading.local):
    """The alias of the database from which this thread reads."""

    alias = DEFAULT_DB_ALIAS


_current = _Current()


def alias() -> str:
    """Return the alias of the database from which this thread reads."""
    return _current.alias


@contextmanager
def reading_from(alias: str) -> Iterator[None]:
    """Let this thread read from the database `alias` during a `with` block.

    This applies to `fetch` and to the ORM. The ORM still writes to the primary.
    """
    _current.alias = alias
    try:
        yield
    finally:
        _current.alias = DEFAULT_DB_ALIAS


class Router:
    """Tells the ORM where to read and write. It is installed only if there are replicas."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return the database of this thread's reads.

        For rows that are related to an instance, return None: Django uses the instance's database.
        """
        if "instance" in hints:
            return None
        return DEFAULT_DB_ALIAS if model._meta.app_label in DECISIONS else _current.alias

    def db_for_write(self, model: Any, **hints: Any) -> str:
        """Return the primary."""
        return DEFAULT_DB_ALIAS

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool:
        """Allow all relations, because a replica has the same rows as the primary."""
        return True

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        """Allow migrations only on the primary."""
        return db == DEFAULT_DB_ALIAS
