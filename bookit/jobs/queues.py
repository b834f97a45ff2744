"""How workers connect to the queues, which are tables in the same PostgreSQL, and their upkeep."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

from django.conf import settings
from procrastinate import App, RetryStrategy
from procrastinate.connector import BaseAsyncConnector, BaseConnector
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.contrib.django.utils import connector_params
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Status
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.signals import on_stop
from procrastinate.sql import queries
from psycopg import InterfaceError, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import scalar_row

from bookit.database.batches import BATCH
from bookit.database.postgresql.connections import AsyncConnection
from bookit.database.rows import fetch

# A worker that has reported nothing for this many seconds counts as dead. Live workers report every
# 10 seconds.
SILENCE = 30
# If this many attempts ended in an error or in the death of their worker, the job is to blame.
MAX_ATTEMPTS = 10
# How long jobs that did not succeed are kept, so that people can look at them.
KEPT = timedelta(days=30)

# Deletes a batch of the jobs that ended before a given time, in the order of their ids.
#
# procrastinate's own statement deletes all of them at once, so all jobs would have to be deleted
# within one time limit.
#
# Parameters: after bigint (the last id of the previous batch), before timestamptz, batch int.
# Columns: id bigint of each deleted job.
# Invariant: SKIP LOCKED leaves out rows that another transaction has locked, so no delete waits.
_PRUNE = """
DELETE FROM procrastinate_jobs WHERE id = ANY(ARRAY(
    SELECT id FROM procrastinate_jobs AS job
    WHERE id > %(after)s AND status IN ('succeeded', 'failed', 'cancelled', 'aborted')
      AND NOT EXISTS (
        SELECT FROM procrastinate_events WHERE job_id = job.id AND at >= %(before)s
      )
    ORDER BY id LIMIT %(batch)s
    FOR UPDATE SKIP LOCKED
))
RETURNING id
"""

# Jobs that send emails or webhooks have their own queues, because they wait for other people's
# servers.
MAILS, WEBHOOKS = "mails", "webhooks"
# Retries after 4, 16 and 64 seconds, and so on, for a day in total.
PATIENT = RetryStrategy(max_attempts=8, exponential_wait=4)
# A webhook job mostly waits for another server, so many of them can run at a time. Receivers notice
# a late message, so the queue is polled twice a second.
WEBHOOKS_AT_A_TIME = 200
WEBHOOK_OPTIONS: dict[str, Any] = {
    "concurrency": WEBHOOKS_AT_A_TIME,
    "fetch_job_polling_interval": 0.5,
}

# A worker need not wait for the disk before it begins a job. If PostgreSQL crashes, the job is done
# again, as it is when a worker dies.
WHAT_MAY_BE_LOST = "-c synchronous_commit=off"


def _durable(query: str) -> str:
    """Change a statement of procrastinate so that its effect is on disk before it returns."""
    return f"""
WITH durable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'on', true))
{query.rstrip().removesuffix(";")} FROM durable
"""  # noqa: S608 - a statement of procrastinate


# procrastinate's statements that write the outcome of a job, each with its replacement. The outcome
# must be on disk: if a crash undid it, the job would seem to be running for as long as its worker
# lives, and other jobs with the same lock would wait.
_OUTCOMES: dict[str, Any] = {
    query: _durable(query) for query in (queries["finish_job"], queries["retry_job"])
}


class UnknownQueue(Exception):
    """A worker was told to serve a queue that does not exist."""


class WorkerConnection(AsyncConnection):
    """A connection that gives up when other workers begin to regard this worker as dead.

    The worker then exits, and the program that started it starts it again. If PostgreSQL freezes
    for a shorter time, the worker waits, because exiting would repeat the jobs that it has begun.
    """

    patience = SILENCE


class Connector(DjangoConnector):
    """Enqueues jobs in the transaction of Django's connection; workers have other connections."""

    def get_worker_connector(self) -> BaseAsyncConnector:
        """Return the connections of a worker, which bypass a pooler."""
        parameters = connector_params(self.alias)
        if settings.DATABASE_DIRECT_URL:
            parameters = {"connect_timeout": 2, **conninfo_to_dict(settings.DATABASE_DIRECT_URL)}
        options = parameters.get("options", "")
        parameters["options"] = f"{options} {WHAT_MAY_BE_LOST}".strip()
        return WorkerConnector(self, kwargs=parameters, connection_class=WorkerConnection)


class WorkerConnector(PsycopgConnector):
    """Fetches jobs over its own connections.

    A job that enqueues other jobs does so in its own transaction, over Django's connection.
    """

    def __init__(self, django: Connector, **options: Any) -> None:
        super().__init__(**options)
        self._django = django

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        """Run a statement, for example the heartbeat, and count it as a sign of life."""
        if query in _OUTCOMES:
            await self._until_written(_OUTCOMES[query], arguments)
        else:
            await super().execute_query_async(query, **arguments)
        _show_life()

    async def execute_query_one_async(
        self, query: LiteralString, **arguments: Any
    ) -> dict[str, Any]:
        """Run a query, for example for the next job, and count it as a sign of life."""
        row = await super().execute_query_one_async(query, **arguments)
        _show_life()
        return row

    async def _until_written(self, query: LiteralString, arguments: dict[str, Any]) -> None:
        """Write the outcome of a job, however long PostgreSQL is down.

        procrastinate would ignore an error in this statement, and the job would stay `doing` for as
        long as its worker lives.
        """
        was_tried = False
        while True:
            try:
                return await super().execute_query_async(query, **arguments)
            except ConnectorException as error:
                if not isinstance(error.__cause__, OperationalError | InterfaceError):
                    if was_tried:  # An earlier attempt wrote it, but the reply was lost.
                        return None
                    raise
            was_tried = True
            await asyncio.sleep(1)

    def get_sync_connector(self) -> BaseConnector:
        """Return Django's connection, for jobs that enqueue other jobs."""
        return self._django


def _show_life() -> None:
    if settings.WORKER_HEARTBEAT_FILE:
        Path(settings.WORKER_HEARTBEAT_FILE).touch()


async def run_workers(app: App, *, queues: Sequence[str] | None = None, **options: Any) -> None:
    """Run the jobs of all queues, or of the given `queues`, until a signal arrives.

    Emails, webhooks and all other jobs each have their own limit on concurrent jobs, because emails
    and webhooks wait for other people's servers. So none of these three waits for another.

    Args:
        options: see `App.run_worker_async`. They do not change the limit for webhooks.

    Raises:
        UnknownQueue: one of `queues` is not the queue of any task.
    """
    app.perform_import_paths()
    known = {task.queue for task in app.tasks.values()}
    if unknown := {*(queues or ())} - known:
        raise UnknownQueue(
            f"There is no queue {min(unknown)}. The queues are {', '.join(sorted(known))}."
        )
    groups = {"worker": known - {MAILS, WEBHOOKS}, MAILS: {MAILS}, WEBHOOKS: {WEBHOOKS}}
    chosen = {
        name: sorted(group & {*(queues or known)})
        for name, group in groups.items()
        if group & {*(queues or known)}
    }
    # Python's default number of threads depends on the number of cores, not on the number of jobs.
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(
            len(chosen) * options.get("concurrency", settings.WORKER_CONCURRENCY) + 1
        )
    )
    workers = [
        asyncio.create_task(
            app.run_worker_async(
                queues=group,
                name=name,
                install_signal_handlers=False,
                **{**options, **(WEBHOOK_OPTIONS if name == WEBHOOKS else {})},
            )
        )
        for name, group in chosen.items()
    ]

    def stop() -> None:
        for worker in workers:
            if not worker.cancelling():  # Told twice, it would not wait for its jobs to end.
                worker.cancel()

    # A worker that ends of its own accord has failed, unless it is to end when no jobs are left.
    until = asyncio.FIRST_COMPLETED if options.get("wait", True) else asyncio.FIRST_EXCEPTION
    with on_stop(stop):
        await asyncio.wait(workers, return_when=until)
        stop()
        await asyncio.wait(workers)
    for worker in workers:
        if not worker.cancelled():
            worker.result()


def prepare(app: App) -> None:
    """Give the app its connector. procrastinate calls this once the app is ready."""
    connector = Connector(alias=app.connector.alias)  # type: ignore[attr-defined]
    app.connector = app.job_manager.connector = connector


async def retry_stalled_jobs(*, at: datetime) -> int:
    """Put the jobs of dead workers back in their queues, and return how many were put back.

    A job that has been attempted `MAX_ATTEMPTS` times is marked as failed instead. A job is deleted
    if another one that does the same is already waiting. Neither of these is counted.
    """
    retried = 0
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=SILENCE):
        with suppress(ConnectorException):  # Another process has already retried or ended it.
            if job.attempts >= MAX_ATTEMPTS:
                await app.job_manager.finish_job(job, status=Status.FAILED, delete_job=False)
                continue
            try:
                await app.job_manager.retry_job(job, retry_at=at)
                retried += 1
            except UniqueViolation:
                # Another job that does the same is already waiting.
                await app.job_manager.finish_job(job, status=Status.ABORTED, delete_job=True)
    return retried


def prune_jobs(*, at: datetime) -> int:
    """Delete the jobs that ended longer than `KEPT` ago, and return how many were deleted.

    Jobs that succeed are usually deleted as soon as they end.
    """
    deleted, after = 0, 0
    while True:
        values = {"after": after, "before": at - KEPT, "batch": BATCH}
        ids = fetch(_PRUNE, values, scalar_row)
        deleted += len(ids)
        if len(ids) < BATCH:
            return deleted
        after = max(ids)
