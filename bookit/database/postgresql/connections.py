"""Connections that do not wait for ever for a PostgreSQL that has stopped."""

from typing import Any

import psycopg
from psycopg import capabilities
from psycopg.errors import OperationalError, QueryCanceled, _WaitTimeout

from bookit import deadlines

# psycopg's own: how often, in seconds, a wait lets Ctrl-C through.
INTERVAL = 0.1
# How long, in seconds, PostgreSQL is asked to cancel a statement.
CANCEL_TIMEOUT = 0.3


class Connection(psycopg.Connection[Any]):
    """Waits for as long as a statement, and the current request, may take; then it is closed.

    What was asked of PostgreSQL may still happen: after a commit that was not answered, nobody
    knows whether it did.
    """

    #: How long to wait for one answer, in seconds; None: for ever.
    patience = deadlines.STATEMENT_LIMIT

    def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait for PostgreSQL as psycopg does, for all that is executed, committed or fetched."""
        if timeout is None:
            timeout = deadlines.remaining(self.patience)
        try:
            return super().wait(gen, interval, timeout)
        except _WaitTimeout:
            is_cancelled = self._cancelled()
            # Closed without another word: a rollback would wait again.
            self.pgconn.finish()
            error = QueryCanceled if is_cancelled else OperationalError
            raise error("PostgreSQL did not answer in time.") from None

    def _cancelled(self) -> bool:
        """Tell PostgreSQL to end the statement, and return whether it was there to be told.

        Nobody waits for the statement any more, but it would go on until its own time limit.
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

    #: How long to wait for one answer, in seconds; None: for ever.
    patience: float | None = None

    async def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait for PostgreSQL as psycopg does."""
        try:
            return await super().wait(gen, interval, timeout or self.patience)
        except _WaitTimeout:
            self.pgconn.finish()
            raise OperationalError("PostgreSQL did not answer in time.") from None
