"""Many at once: threads with connections of their own, and what PostgreSQL says of them afterwards.

Tests that use it need `@pytest.mark.django_db(transaction=True)`: what one client does, the others
see.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any, NamedTuple

from django.db import OperationalError, connection, transaction

# Seconds after which a test that hangs is a test that fails.
PATIENCE = 30


class Outcome(NamedTuple):
    """What became of one client's call: what it returned or raised, and after how many seconds."""

    value: Any
    error: Exception | None
    seconds: float


def at_once(
    calls: Sequence[Callable[[], Any]],
    *,
    first: Callable[[], Any] = lambda: None,
    meanwhile: Callable[[], Any] = lambda: None,
) -> list[Outcome]:
    """Set off all calls at the same moment, each on a connection of its own.

    Args:
        first: done on each connection before anybody sets off.
        meanwhile: done here, once they have.
    """
    gate = threading.Barrier(len(calls) + 1, timeout=PATIENCE)

    def run(call: Callable[[], Any]) -> Outcome:
        try:
            _connect()
            first()
            gate.wait()
            started = perf_counter()
            try:
                return Outcome(call(), None, perf_counter() - started)
            except Exception as error:
                return Outcome(None, error, perf_counter() - started)
        finally:
            _leave()

    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(run, call) for call in calls]
        gate.wait()
        meanwhile()
        return [future.result(PATIENCE) for future in running]


def behind_a_rival(
    calls: Sequence[Callable[[], Any]], *, rival: Callable[[], Any]
) -> list[Outcome]:
    """Let all calls wait for `rival`, which then comes to nothing.

    That is the one moment at which clients of an exclusion constraint can begin to wait for each
    other; left to chance it comes once in some hundred races.
    """
    transaction.set_autocommit(False)
    try:
        rival()

        def give_up() -> None:
            try:
                until_waiting(len(calls))
            finally:
                transaction.rollback()

        return at_once(calls, meanwhile=give_up)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@contextmanager
def starting_line(table: str) -> Iterator[Callable[[Sequence[Callable[[], Any]]], list[Outcome]]]:
    """Give an `at_once` whose calls all stand before their write to `table` when they set off.

    Threads of one process take turns, so few of them are ever between looking and writing at the
    same time. Here all are: each waits in front of the row it would write (or, queueing as it
    should, for somebody who does) until the last one has come.
    """
    run(
        "CREATE FUNCTION wait_at_line() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " PERFORM pg_advisory_lock_shared(1); PERFORM pg_advisory_unlock_shared(1);"
        " RETURN NEW; END $$"
    )
    run(
        f"CREATE TRIGGER starting_line BEFORE INSERT OR UPDATE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION wait_at_line()"
    )

    def from_the_line(calls: Sequence[Callable[[], Any]], **options: Any) -> list[Outcome]:
        def set_off() -> None:
            try:
                until_waiting(len(calls))
            finally:
                ask("SELECT pg_advisory_unlock(1)")

        ask("SELECT pg_advisory_lock(1)")
        return at_once(calls, meanwhile=set_off, **options)

    try:
        yield from_the_line
    finally:
        run("DROP FUNCTION wait_at_line CASCADE")


def tally(outcomes: Sequence[Outcome]) -> Counter[type[Exception] | None]:
    """Count the outcomes by what was raised; None stands for success."""
    return Counter(type(outcome.error) if outcome.error else None for outcome in outcomes)


def until_waiting(sessions: int) -> None:
    """Return once so many sessions of this database wait for another one."""
    deadline = monotonic() + PATIENCE
    waiting = None
    while waiting != sessions:
        assert monotonic() < deadline, f"{waiting} sessions wait, not {sessions}"
        # Inside of a transaction PostgreSQL would show the same picture again and again.
        waiting = ask(
            "SELECT count(*) FROM pg_stat_activity, pg_stat_clear_snapshot()"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )


def deadlocks() -> int:
    """Return how often PostgreSQL has ended a deadlock in this database so far."""
    ask("SELECT pg_stat_clear_snapshot()")
    return ask("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def ask(sql: str, parameters: Sequence[Any] = ()) -> Any:
    """Return the single value that `sql` asks for."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


def run(sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run `sql` and return how many rows it touched."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


def _connect() -> None:
    deadline = monotonic() + PATIENCE
    while True:
        try:
            return connection.ensure_connection()
        except OperationalError:
            # A pool that has to make forty connections first can be slower than its own patience.
            if monotonic() > deadline:
                raise


def _leave() -> None:
    try:
        # Counts of deadlocks are published about once a second, or when asked for.
        ask("SELECT pg_stat_force_next_flush()")
    finally:
        connection.close()
