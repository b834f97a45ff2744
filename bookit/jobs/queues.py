"""Connects workers to the job queues, which are in PostgreSQL, and maintains the queues."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from procrastinate import App, BaseRetryStrategy, RetryDecision
from procrastinate.connector import BaseAsyncConnector, BaseConnector
from procrastinate.contrib.django import app
from procrastinate.contrib.django.django_connector import DjangoConnector
from procrastinate.contrib.django.utils import connector_params
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job, Status
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.signals import on_stop
from procrastinate.sql import queries
from psycopg import InterfaceError, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import scalar_row

from bookit.database.batches import BATCH
from bookit.database.postgresql.connections import AsyncConnection
from bookit.database.rows import fetch
from bookit.jobs import failures, outbox
from bookit.jobs.tally import Tally

# The time of a waiting job that is enqueued again, as a fragment of SQL for `DO UPDATE SET`: the
# earlier of its own time and the new time. NULL means immediately.
EARLIER_TIME = """CASE
        WHEN procrastinate_jobs.scheduled_at > excluded.scheduled_at THEN excluded.scheduled_at
        WHEN excluded.scheduled_at IS NOT NULL THEN procrastinate_jobs.scheduled_at
    END"""

# A worker that has sent no heartbeat for this many seconds counts as dead. Live workers send a
# heartbeat every 10 seconds.
SILENCE = 30
# A job that kills each of its workers is marked as failed in the attempt after this many.
MAX_ATTEMPTS = 10
# Jobs that did not succeed are kept for this long, so that operators can look at them.
KEPT = timedelta(days=30)

# Deletes a batch of the jobs that ended before a given time, in the order of their ids.
#
# procrastinate's own statement deletes all these jobs at once, so it could exceed the time limit
# for one statement.
#
# Parameters: after bigint (the last id of the previous batch), before timestamptz, batch int.
# Columns: id bigint of each deleted job.
# Invariant: SKIP LOCKED skips rows that another transaction has locked, so the statement never
# waits for a lock.
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

# Jobs that send emails or webhooks have their own queues, because they wait for external servers.
MAILS, WEBHOOKS = "mails", "webhooks"
# The pauses before the retries of a job that fails, in seconds. Together they last a day. No pause
# is longer than an hour, so emails are sent soon after the mail server works again.
PAUSES = [4, 16, 64, 256, 1024, *[3600] * 24]
# Webhook jobs mostly wait for external servers. Therefore, a worker can run many of them at once.
# Receivers notice a late message, so the queue is polled twice a second.
WEBHOOKS_AT_A_TIME = 200
WEBHOOK_OPTIONS: dict[str, Any] = {
    "concurrency": WEBHOOKS_AT_A_TIME,
    "fetch_job_polling_interval": 0.5,
}

# When a worker stops, it has this many seconds to write how many jobs it has run, and to finish
# relaying the outbox.
LAST_WRITE = 3.0

# With this option, the statements of `WorkerConnector` do not wait for the disk, except those in
# `_OUTCOMES`. If a crash of PostgreSQL undoes the start of a job, the job runs again, as it does
# when a worker dies.
ASYNCHRONOUS_COMMIT = "-c synchronous_commit=off"


def _durable(query: str) -> str:
    """Return a statement of procrastinate, changed to end only when its effect is on disk."""
    return f"""
WITH durable AS MATERIALIZED (SELECT set_config('synchronous_commit', 'on', true))
{query.rstrip().removesuffix(";")} FROM durable
"""  # noqa: S608 - the query is a constant of procrastinate


# The statements with which procrastinate writes the outcome of a job, each with its replacement.
# The outcome must be on disk. If a crash undid it, the job would seem to be running for as long as
# its worker lives, and other jobs with the same lock would wait.
_OUTCOMES: dict[str, Any] = {
    query: _durable(query) for query in (queries["finish_job"], queries["retry_job"])
}


class Patience(BaseRetryStrategy):
    """Retries a job that fails, whatever the error, after the pauses of `PAUSES`."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        """Return when the job runs again, or None if it has been retried for a day."""
        if job.attempts >= len(PAUSES):
            return None
        return RetryDecision(retry_in={"seconds": PAUSES[job.attempts]})


PATIENT = Patience()


class UnknownQueue(Exception):
    """A worker was told to serve a queue that does not exist."""


class WorkerConnection(AsyncConnection):
    """A connection that gives up when other workers begin to regard this worker as dead.

    The worker then exits, and its supervisor restarts it. If PostgreSQL freezes for a shorter time,
    the worker waits, because the jobs that it has begun would run again after an exit.
    """

    patience = SILENCE


class Connector(DjangoConnector):
    """Enqueues jobs on Django's connection, in its transaction. Workers use other connections."""

    def get_worker_connector(self) -> BaseAsyncConnector:
        """Return a worker's connector, which bypasses a pooler if `DATABASE_DIRECT_URL` is set."""
        parameters = connector_params(self.alias)
        options = parameters.get("options", "")
        if settings.DATABASE_DIRECT_URL:
            parameters = {"connect_timeout": 2, **conninfo_to_dict(settings.DATABASE_DIRECT_URL)}
            options = f"{parameters.get('options', '')} {settings.KEEPALIVES}"
        parameters["options"] = f"{options} {ASYNCHRONOUS_COMMIT}".strip()
        return WorkerConnector(self, kwargs=parameters, connection_class=WorkerConnection)


class WorkerConnector(PsycopgConnector):
    """Fetches jobs over its own connections.

    A job that enqueues other jobs does so on Django's connection, in the job's transaction.
    """

    def __init__(self, django: Connector, **options: Any) -> None:
        super().__init__(**options)
        self._django = django

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        """Run a statement, for example the heartbeat, and touch the heartbeat file.

        The outcome of a job is on disk when this function returns.
        """
        if query in _OUTCOMES:
            try:
                await self._until_written(_OUTCOMES[query], arguments)
            except UniqueViolation:
                # The job has failed and would wait for its next attempt, but a job with the same
                # queueing lock is already waiting.
                aborted = {
                    "job_id": arguments["job_id"],
                    "status": Status.ABORTED.value,
                    "delete_job": True,
                }
                await self._until_written(_OUTCOMES[queries["finish_job"]], aborted)
        else:
            await super().execute_query_async(query, **arguments)
        _touch_heartbeat_file()

    async def execute_query_one_async(
        self, query: LiteralString, **arguments: Any
    ) -> dict[str, Any]:
        """Run a query, for example for the next job, and touch the heartbeat file."""
        row = await super().execute_query_one_async(query, **arguments)
        _touch_heartbeat_file()
        return row

    async def _until_written(self, query: LiteralString, arguments: dict[str, Any]) -> None:
        """Write the outcome of a job. While PostgreSQL is down, try again every second.

        procrastinate would ignore an error in this statement, and the job would stay `doing` for as
        long as its worker lives.

        Raises:
            UniqueViolation: the job would wait for its next attempt, but a job with the same
                queueing lock is already waiting.
        """
        was_tried = False
        while True:
            try:
                return await super().execute_query_async(query, **arguments)
            except UniqueViolation:
                raise
            except ConnectorException as error:
                if not isinstance(error.__cause__, OperationalError | InterfaceError):
                    if was_tried:
                        # The reply to a successful attempt was lost, or another worker has put the
                        # job back in its queue.
                        return None
                    raise
            was_tried = True
            await asyncio.sleep(1)

    def get_sync_connector(self) -> BaseConnector:
        """Return Django's connector, for jobs that enqueue other jobs."""
        return self._django


def check_heartbeat_file() -> None:
    """Touch the heartbeat file, so that a worker with a wrong path does not start.

    Raises:
        ImproperlyConfigured: the file cannot be touched.
    """
    try:
        _touch_heartbeat_file()
    except OSError as error:
        path = settings.WORKER_HEARTBEAT_FILE
        raise ImproperlyConfigured(
            f"WORKER_HEARTBEAT_FILE: {path} cannot be written: {error.strerror}."
        ) from None


def _touch_heartbeat_file() -> None:
    if settings.WORKER_HEARTBEAT_FILE:
        Path(settings.WORKER_HEARTBEAT_FILE).touch()


async def run_workers(
    app: App,
    *,
    queues: Sequence[str] | None = None,
    middleware: Sequence[Any] = (),
    **options: Any,
) -> None:
    """Run the jobs of all queues, or of the given `queues`, until a signal arrives.

    With `wait=False`, also stop when no jobs are left.

    Email jobs, webhook jobs and all remaining jobs form three groups, each with its own limit on
    concurrent jobs. Email and webhook jobs wait for external servers. Separate limits ensure that
    they do not delay the jobs of other groups.

    Args:
        middleware: additional procrastinate middleware, which runs around each job.
        options: options for `App.run_worker_async`. `WEBHOOK_OPTIONS` override them for webhooks.

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
    # Python's default thread pool has a size that depends on the number of cores. This thread pool
    # has enough threads for all concurrent jobs that are functions, and one more in which psycopg
    # looks up the host of PostgreSQL. Webhook jobs are coroutines. Their database calls share one
    # other thread (asgiref's), so these calls run one at a time.
    asyncio.get_running_loop().set_default_executor(
        ThreadPoolExecutor(
            len(chosen) * options.get("concurrency", settings.WORKER_CONCURRENCY) + 1
        )
    )
    tally, stopping = Tally(), asyncio.Event()
    relaying = asyncio.create_task(outbox.relay_regularly(stopping))
    writing = asyncio.create_task(tally.write_regularly(app, stopping))
    workers = [
        asyncio.create_task(
            app.run_worker_async(
                queues=group,
                name=name,
                install_signal_handlers=False,
                worker_middleware=[tally.middleware, failures.middleware, *middleware],
                **{**options, **(WEBHOOK_OPTIONS if name == WEBHOOKS else {})},
            )
        )
        for name, group in chosen.items()
    ]

    def stop() -> None:
        for worker in workers:
            # A worker that is cancelled twice does not wait for its jobs to end.
            if not worker.cancelling():
                worker.cancel()

    # A worker that ends without a signal has failed. With `wait=False`, however, a worker also ends
    # when no jobs are left.
    until = asyncio.FIRST_COMPLETED if options.get("wait", True) else asyncio.FIRST_EXCEPTION
    with on_stop(stop):
        await asyncio.wait(workers, return_when=until)
        stop()
        await asyncio.wait(workers)
        stopping.set()
        await asyncio.wait([writing, relaying], timeout=LAST_WRITE)
    for worker in workers:
        if not worker.cancelled():
            worker.result()


def prepare(app: App) -> None:
    """Give the app its connector. procrastinate calls this once the app is ready."""
    connector = Connector(alias=app.connector.alias)  # type: ignore[attr-defined]
    app.connector = app.job_manager.connector = connector


async def retry_stalled_jobs(*, at: datetime) -> int:
    """Put the jobs of dead workers back in their queues, and return how many were put back.

    A job that had been attempted `MAX_ATTEMPTS` times before is marked as failed instead, if its
    worker also died in the attempt before this one. The job itself is then probably the cause. A
    job that had only failed so far, for example because the mail server is down, is put back. A job
    is deleted if a job with the same queueing lock is already waiting. Failed jobs are not counted.
    Deleted jobs are counted only in workers, which do not use the number.
    """
    retried = 0
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=SILENCE):
        # A statement can fail because another process has retried or ended the job in the meantime.
        # After any other error, the next run of this function tries again.
        with suppress(ConnectorException):
            earlier_error = ""
            if job.id is not None:
                earlier_error = await failures.earlier_error(app, job_id=job.id)
                await failures.record(app, job_id=job.id, error=failures.WORKER_DIED, at=at)
            if job.attempts >= MAX_ATTEMPTS and earlier_error == failures.WORKER_DIED:
                await app.job_manager.finish_job(job, status=Status.FAILED, delete_job=False)
                continue
            try:
                await app.job_manager.retry_job(job, retry_at=at)
                retried += 1
            except UniqueViolation:
                # A job with the same queueing lock is already waiting. In workers, this error does
                # not get here, because `WorkerConnector` deletes the job itself.
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
