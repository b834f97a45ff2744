"""Connections that do not wait forever for a PostgreSQL server that has stopped responding."""

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import psycopg
from psycopg import capabilities
from psycopg._preparing import Prepare, PrepareManager
from psycopg.errors import OperationalError, QueryCanceled, _WaitTimeout
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from bookit import deadlines
from bookit.database.usage import usage

# A wait checks for Ctrl-C each time this many seconds have passed. This is psycopg's own default.
INTERVAL = 0.1
# How many seconds to wait for PostgreSQL to accept the request to cancel a statement.
CANCEL_TIMEOUT = 0.3


class KeptStatements(PrepareManager):
    """The prepared statements of a connection, which outlive a rollback.

    psycopg drops all prepared statements at each ROLLBACK, even to a savepoint, because the
    transaction may have created or dropped tables. PostgreSQL itself keeps the statements, and
    plans them again if their tables have changed. Without this class, each booking that is refused
    within a transaction would make the next requests on its connection parse and plan their
    statements again.
    """

    def _should_discard(self, prep: Prepare, results: Sequence[PGresult], *args: Any) -> bool:
        others = [each for each in results if each.command_status != b"ROLLBACK"]
        return super()._should_discard(prep, others, *args)


class Connection(psycopg.Connection[Any]):
    """Closes itself when a wait exceeds the time limit of statements or of the current request.

    PostgreSQL may still execute the statement. If the statement is a COMMIT, it is unknown whether
    the transaction was committed.
    """

    #: How many seconds to wait for one response; None means that only the request has a limit.
    patience = deadlines.STATEMENT_LIMIT

    def __init__(self, pgconn: Any, *args: Any, **options: Any) -> None:
        super().__init__(pgconn, *args, **options)
        self._prepared = KeptStatements()
        #: Whether PostgreSQL has refused to run a prepared statement whose result has another type
        #: than before. If so, the next rollback drops all prepared statements.
        self.has_outdated_statements = False

    def rollback(self) -> None:
        """Roll back the transaction, and keep the prepared statements unless they are outdated."""
        if self.info.transaction_status != TransactionStatus.IDLE:
            self.execute("ROLLBACK", prepare=False)
        if self.has_outdated_statements:
            self.has_outdated_statements = False
            self._prepared.clear()

    def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but only within the time limits.

        Everything that waits for a response on an open connection calls this.
        """
        if timeout is None:
            timeout = deadlines.remaining(self.patience)
        started = perf_counter()
        try:
            return super().wait(gen, interval, timeout)
        except _WaitTimeout:
            is_cancelled = self._cancel()
            # Close without a rollback, which would have to wait again.
            self.pgconn.finish()
            error = QueryCanceled if is_cancelled else OperationalError
            raise error("PostgreSQL did not answer in time.") from None
        finally:
            usage.waits += 1
            usage.seconds += perf_counter() - started

    def _cancel(self) -> bool:
        """Tell PostgreSQL to cancel the statement, and return whether PostgreSQL responded.

        The client no longer waits for the statement. Without a cancellation, PostgreSQL would run
        the statement until its own time limit.
        """
        if not capabilities.has_cancel_safe():
            return False  # An older libpq would wait forever for a server that does not respond.
        try:
            self.cancel_safe(timeout=CANCEL_TIMEOUT)
        except psycopg.Error:
            return False
        return True


class AsyncConnection(psycopg.AsyncConnection[Any]):
    """A connection of the job queue's workers. It closes itself if a wait exceeds `patience`."""

    #: How many seconds to wait for one response; None means forever.
    patience: float | None = None

    async def wait(self, gen: Any, interval: float = INTERVAL, timeout: float | None = None) -> Any:
        """Wait as psycopg does, but without a `timeout` at most `patience` seconds."""
        try:
            return await super().wait(gen, interval, self.patience if timeout is None else timeout)
        except _WaitTimeout:
            self.pgconn.finish()
            raise OperationalError("PostgreSQL did not answer in time.") from None
