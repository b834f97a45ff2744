"""Commands may take longer than requests, for which STATEMENT_TIMEOUT_MS is meant."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from bookit.deadlines import STATEMENT_LIMIT


def lift_time_limit(using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Let statements of this connection take any time."""
    with connections[using].cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        connections[using].connection.patience = None


def restore_time_limit(using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Limit statements of this connection as usual."""
    with connections[using].cursor() as cursor:
        cursor.execute("RESET statement_timeout")
        connections[using].connection.patience = STATEMENT_LIMIT


@contextmanager
def no_time_limit(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Let statements of this connection take any time until the end of a `with` block.

    If the block fails, the connection is closed, because it may be in any state.
    """
    lift_time_limit(using)
    try:
        yield
    except BaseException:
        connections[using].close()
        raise
    restore_time_limit(using)
