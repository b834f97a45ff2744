"""Runs many calls at once, in threads with their own connections, and counts deadlocks.

Tests that use several connections need `@pytest.mark.django_db(transaction=True)`, because the
connections must see each other's changes.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import psycopg
import pytest
from django.db import OperationalError, connection, transaction

from bookit.tests.cluster import WORKERS, Cluster

# A test that waits longer than this number of seconds fails.
PATIENCE = 30

# The sessions on the workers of a Citus cluster that keep the line of `starting_line` closed.
_closed: "list[psycopg.Connection[Any]]" = []


class Outcome(NamedTuple):
    """The result of one call: its return value or exception, and its duration in seconds."""

    value: Any
    error: Exception | None
    seconds: float


def at_once(
    calls: Sequence[Callable[[], Any]],
    *,
    first: Callable[[], Any] = lambda: None,
    meanwhile: Callable[[], Any] = lambda: None,
) -> list[Outcome]:
    """Start all calls at the same moment, each on its own connection, and return their outcomes.

    Args:
        first: called on each connection before any call starts.
        meanwhile: called in this thread after the calls have started.
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
            _disconnect()

    with ThreadPoolExecutor(len(calls)) as threads:
        running = [threads.submit(run, call) for call in calls]
        gate.wait()
        meanwhile()
        return [future.result(PATIENCE) for future in running]


def behind_a_rival(
    calls: Sequence[Callable[[], Any]],
    *,
    rival: Callable[[], Any],
    end: Callable[[], Any] = transaction.rollback,
) -> list[Outcome]:
    """Return the outcomes of calls that wait for the changes of `rival` to be rolled back.

    At the moment of the rollback, clients that an exclusion constraint blocks can start to wait for
    each other. Without this function, they wait for each other in about one of a hundred races.

    Args:
        end: `transaction.commit` to commit the changes of `rival` instead.
    """
    transaction.set_autocommit(False)
    try:
        rival()

        def end_rival() -> None:
            try:
                until_waiting(len(calls))
            finally:
                end()

        return at_once(calls, meanwhile=end_rival)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@contextmanager
def starting_line(table: str) -> Iterator[Callable[[Sequence[Callable[[], Any]]], list[Outcome]]]:
    """Yield a function like `at_once` whose calls write to `table` at the same moment.

    Threads of one process take turns, so few calls are between reading and writing at the same
    time. This function brings all calls to this point: each call waits just before it writes its
    row, or waits for a lock of a waiting call, until the last call has arrived.
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
        def unlock() -> None:
            try:
                until_waiting(len(calls))
            finally:
                open_line()

        try:
            close_line()
            return at_once(calls, meanwhile=unlock, **options)
        finally:
            open_line()

    try:
        yield from_the_line
    finally:
        run("DROP FUNCTION wait_at_line CASCADE")


def close_line() -> None:
    """Make writers wait at the starting line, until `open_line` is called."""
    ask("SELECT pg_advisory_lock(1)")
    if cluster := Cluster.running():
        # Triggers run on the servers of the rows, and each server has locks of its own.
        for name in WORKERS:
            url = cluster.url(name, connection.settings_dict["NAME"])
            _closed.append(psycopg.connect(url, autocommit=True))
            _closed[-1].execute("SELECT pg_advisory_lock(1)")


def open_line() -> None:
    """Let the writers at the starting line continue, if the line is closed."""
    ask("SELECT pg_advisory_unlock_all()")
    while _closed:
        _closed.pop().close()


def tally(outcomes: Sequence[Outcome]) -> Counter[type[Exception] | None]:
    """Count the outcomes by the type of their exception; None stands for success."""
    return Counter(type(outcome.error) if outcome.error else None for outcome in outcomes)


def until_waiting(sessions: int) -> None:
    """Wait until exactly this number of sessions of this database wait for a lock."""
    deadline = monotonic() + PATIENCE
    waiting = None
    while waiting != sessions:
        assert monotonic() < deadline, f"{waiting} sessions wait, not {sessions}"
        # In a transaction, pg_stat_activity shows the same sessions until its snapshot is cleared.
        waiting = _on_all_servers(
            "SELECT count(*) FROM pg_stat_activity, pg_stat_clear_snapshot()"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )


def deadlocks() -> int:
    """Return the number of deadlocks that PostgreSQL has ended in this database so far."""
    ask("SELECT pg_stat_clear_snapshot()")
    return _on_all_servers(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )


def _on_all_servers(sql: str) -> int:
    """Return the number that `sql` selects. On a Citus cluster, add the numbers of all servers."""
    if not Cluster.running():
        return ask(sql)
    return ask("SELECT sum(result::int) FROM run_command_on_all_nodes(%s)", [sql])


def ask(sql: str, parameters: Sequence[Any] = ()) -> Any:
    """Return the single value that `sql` selects."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchone()[0]


def run(sql: str, parameters: Sequence[Any] = ()) -> int:
    """Run `sql` and return the number of affected rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.rowcount


@contextmanager
def disabled_trigger(table: str, trigger: str) -> Iterator[None]:
    """Disable a trigger, so that tests can write what the trigger would refuse or change."""
    if Cluster.running() and connection.in_atomic_block:
        pytest.skip("On a Citus cluster, a transaction cannot alter a table that it has changed.")
    # A table cannot be altered while checks of its foreign keys are deferred.
    run("SET CONSTRAINTS ALL IMMEDIATE")
    run(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
    try:
        yield
    finally:
        run(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}")


def _connect() -> None:
    deadline = monotonic() + PATIENCE
    while True:
        try:
            return connection.ensure_connection()
        except OperationalError:
            # Opening forty connections can take longer than the pool's own timeout.
            if monotonic() > deadline:
                raise


def _disconnect() -> None:
    try:
        # PostgreSQL publishes deadlock counts about once a second, or on request.
        ask("SELECT pg_stat_force_next_flush()")
    finally:
        connection.close()
