"""How long a request may take, and how long a connection waits for PostgreSQL.

PostgreSQL cancels statements that take too long. But if PostgreSQL itself has stopped (a frozen
machine, a broken disk), it cancels nothing, although its kernel still acknowledges received data.
So BookIt, as the client of PostgreSQL, has its own limits.
"""

import threading
from time import monotonic

from django.conf import settings

# Seconds added to PostgreSQL's own limit, so that it can report a statement that it cancelled.
GRACE = 1.0

#: How long a connection waits for the result of one statement, in seconds; None: forever.
STATEMENT_LIMIT = (
    settings.STATEMENT_TIMEOUT_MS / 1000 + GRACE if settings.STATEMENT_TIMEOUT_MS else None
)
#: How long a request may take from its arrival, in seconds; None: forever.
REQUEST_LIMIT = 2 * settings.STATEMENT_TIMEOUT_MS / 1000 or None
#: How long a read without a token may take, in seconds; None: as long as other requests.
ANON_LIMIT = settings.ANON_TIMEOUT_MS / 1000 or None


class _Current(threading.local):
    """The times of the request that this thread answers."""

    arrived: float | None = None
    deadline: float | None = None


_current = _Current()


def arrived(at: float | None) -> None:
    """Set when the next request of this thread arrived, on the monotonic clock.

    The web server calls this, because requests may wait in it for a thread.
    """
    _current.arrived = at


def begin() -> bool:
    """Start the time limit of a request; return False if it has already passed."""
    if REQUEST_LIMIT is None:
        return True
    now = monotonic()
    _current.deadline = (_current.arrived or now) + REQUEST_LIMIT
    return now < _current.deadline


def shorten(limit: float | None) -> None:
    """Limit the rest of the request to `limit` seconds; None changes nothing."""
    if limit is not None:
        deadline = monotonic() + limit
        _current.deadline = min(_current.deadline or deadline, deadline)


def end() -> None:
    """Forget the time limit of the request."""
    _current.arrived = _current.deadline = None


def remaining(limit: float | None) -> float | None:
    """Return `limit`, or the remaining time of the request if that is shorter."""
    deadline = _current.deadline
    if deadline is None:
        return limit
    left = max(0.0, deadline - monotonic())
    return left if limit is None else min(limit, left)
