"""The time limits of requests, and of a connection's wait for PostgreSQL.

PostgreSQL cancels statements that take too long. A PostgreSQL whose processes are frozen, or whose
disk hangs, cancels nothing. No network error occurs either, because the kernel of its machine still
acknowledges received data. Therefore BookIt, as the client, has its own limits. They take effect
when a request begins, and whenever it waits for PostgreSQL.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

# Seconds that PostgreSQL has, after its own limit, to report that it cancelled a statement.
GRACE = 1.0

#: Seconds that a connection waits for the result of one statement; None means no limit.
STATEMENT_LIMIT = (
    settings.STATEMENT_TIMEOUT_MS / 1000 + GRACE if settings.STATEMENT_TIMEOUT_MS else None
)
#: Seconds that a request may take, counted from its arrival; None means no limit.
REQUEST_LIMIT = 2 * settings.STATEMENT_TIMEOUT_MS / 1000 or None
#: Seconds that a read without a token may take, counted from the start of its view; None means that
#: only REQUEST_LIMIT applies.
ANON_LIMIT = settings.ANON_TIMEOUT_MS / 1000 or None


class _Current(threading.local):
    """The arrival and the deadline of the request that this thread handles."""

    arrived: float | None = None
    deadline: float | None = None
    is_refused = False


_current = _Current()


def arrived(at: float) -> None:
    """Record the time on the monotonic clock at which this thread's next request arrived.

    The web server calls this function, because a request may wait for a thread after it arrives.
    """
    _current.arrived = at


def refuse() -> None:
    """Let no time be left for this thread's next request, because the server is too busy."""
    _current.is_refused = True


def queued() -> float:
    """Return how many seconds ago this thread's request arrived; 0 if that is not recorded."""
    arrived = _current.arrived
    return 0.0 if arrived is None else monotonic() - arrived


def begin() -> bool:
    """Start the time limit of a request, and return whether any time is left."""
    if _current.is_refused:
        return False
    if REQUEST_LIMIT is None:
        return True
    now = monotonic()
    _current.deadline = (_current.arrived or now) + REQUEST_LIMIT
    return now < _current.deadline


def shorten(limit: float | None) -> None:
    """Give the request at most `limit` more seconds; None changes nothing."""
    if limit is not None:
        deadline = monotonic() + limit
        _current.deadline = min(_current.deadline or deadline, deadline)


@contextmanager
def within(limit: float) -> Iterator[None]:
    """Give a `with` block at most `limit` seconds. Afterwards, the request has its usual limit."""
    usual = _current.deadline
    shorten(limit)
    try:
        yield
    finally:
        _current.deadline = usual


def extend(seconds: float) -> None:
    """Give the request `seconds` more."""
    if _current.deadline is not None:
        _current.deadline += seconds


def end() -> None:
    """Forget the time limit of the request."""
    _current.arrived = _current.deadline = None
    _current.is_refused = False


def remaining(limit: float | None) -> float | None:
    """Return `limit` or the remaining time of the request, whichever is shorter."""
    deadline = _current.deadline
    if deadline is None:
        return limit
    left = max(0.0, deadline - monotonic())
    return left if limit is None else min(limit, left)


def is_near() -> bool:
    """Return whether the request has at most a fifth of REQUEST_LIMIT left.

    That is enough to end what the request is doing, and to respond.
    """
    left = remaining(None)
    return left is not None and REQUEST_LIMIT is not None and left <= REQUEST_LIMIT / 5


# --- Commands, which may take longer than requests ----------------------------------------------


def lift_time_limit(using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Let statements of this connection take any time.

    Args:
        kwargs: ignored; what else the signal `pre_migrate` passes.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
        connections[using].connection.patience = None


def restore_time_limit(using: str = DEFAULT_DB_ALIAS, **kwargs: Any) -> None:
    """Limit statements of this connection as usual.

    Args:
        kwargs: ignored; what else the signal `post_migrate` passes.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("RESET statement_timeout")
        connections[using].connection.patience = STATEMENT_LIMIT


@contextmanager
def no_time_limit_in_transaction() -> Iterator[None]:
    """Let statements in a `with` block take any time. The block must be in a transaction."""
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        # SET without LOCAL, as above, would outlast the transaction on a connection that PgBouncer
        # shares.
        cursor.execute("SET LOCAL statement_timeout = 0")
    found: Any = connections[DEFAULT_DB_ALIAS].connection
    usual, found.patience = found.patience, None
    try:
        yield
    finally:
        found.patience = usual


@contextmanager
def no_time_limit(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Let statements of this connection take any time until the end of a `with` block.

    If the block fails, the limits cannot be restored, because the connection may be in any state.
    So the connection is closed. A pool would keep it, without limits: use this only in commands,
    which end if the block fails.
    """
    lift_time_limit(using)
    try:
        yield
    except BaseException:
        connections[using].close()
        raise
    restore_time_limit(using)
