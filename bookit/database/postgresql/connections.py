"""Connections that do not wait forever for a PostgreSQL that has stopped responding."""

from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.errors import OperationalError, QueryCanceled, _WaitTimeout

from bookit import deadlines

# psycopg's own default: a wait lets Ctrl-C through after this many seconds.
INTERVAL = 0.1
# How many seconds to wait until PostgreSQL has accepted the request to cancel a statement.
CANCEL_TIMEOUT = 0.3


class Connection(psycopg.Connection[Any]):
    """Closes itself when a wait exceeds the time limit of statements or of the current request.

    PostgreSQL may still do what it was asked to do. After a commit without an answer, it is unknown
    whether the transaction was committed.
    """

    #: How many seconds to wait for one answer; None means forever.
    patience = deadlines.STATEMENT_LIMIT

    def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but not forever. All executes, commits and fetches use this."""
        if timeout is None:
            timeout = deadlines.remaining(self.patience)
        try:
            return super().wait(gen, interval, timeout)
        except _WaitTimeout:
            is_cancelled = self._cancelled()
            # Close without a rollback, which would have to wait again.
            self.pgconn.finish()
            error = QueryCanceled if is_cancelled else OperationalError
            raise error("PostgreSQL did not answer in time.") from None

    def _cancelled(self) -> bool:
        """Tell PostgreSQL to cancel the statement, and return whether PostgreSQL responded.

        No client waits for the statement any longer, but it would run until its own time limit.
        """
        if not capabilities.has_cancel_safe():
            return False  # An older libpq would wait for a PostgreSQL that has stopped.
        try:
            self.cancel_safe(timeout=CANCEL_TIMEOUT)
        except psycopg.Error:
            return False
        return True


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """The same for the workers of the queue."""

    #: How many seconds to wait for one answer; None means forever.
    patience: float | None = None

    async def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait for PostgreSQL as psycopg does."""
        try:
            return await super().wait(gen, interval, timeout or self.patience)
        except _WaitTimeout:
            self.pgconn.finish()
            raise OperationalError("PostgreSQL did not answer in time.") from None
