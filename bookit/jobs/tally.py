"""Counts the runs of jobs in a worker process, and adds the numbers to a table.

The table contains the numbers of all workers on all hosts. Any web process can show these numbers,
so workers need no port. Many workers write to the same row, so a write for each job would make the
workers wait for each other. Instead, each worker adds its numbers every few seconds. A worker that
is killed loses the numbers of the last few seconds.
"""

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any

from procrastinate import App
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from psycopg.rows import dict_row

from bookit.database.rows import fetch

logger = logging.getLogger(__name__)

# Seconds between two writes.
PAUSE = 5.0
# Jobs are counted by their duration. The upper bounds of these buckets, in seconds.
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, inf)

SUCCEEDED, RETRIED, FAILED = "succeeded", "retried", "failed"

# Adds the numbers of a worker to the table.
#
# Parameters: tasks text[], outcomes text[], buckets float8[], jobs bigint[], seconds float8[].
# Columns: none.
# Invariant: rows are written in the order of the unique key, so two workers never deadlock.
_ADD = """
INSERT INTO bookit_jobtally AS tally (task, outcome, bucket, jobs, seconds)
SELECT * FROM unnest(
    %(tasks)s::text[], %(outcomes)s::text[], %(buckets)s::float8[], %(jobs)s::bigint[],
    %(seconds)s::float8[]
) AS added ORDER BY 1, 2, 3
ON CONFLICT (task, outcome, bucket) DO UPDATE
SET jobs = tally.jobs + excluded.jobs, seconds = tally.seconds + excluded.seconds
"""

# Reads the numbers of all workers: one row for each combination of a task, an outcome and a bucket
# that has occurred.
#
# Parameters: none.
# Columns: task text, outcome text, bucket float8, jobs bigint, seconds float8.
_TOTALS = """
SELECT task, outcome, bucket, jobs, seconds FROM bookit_jobtally ORDER BY task, outcome, bucket
"""


class Tally:
    """The numbers of this worker that are not in the table yet.

    Only the event loop uses this object, so it needs no lock.
    """

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str, float], tuple[int, float]] = {}

    async def middleware(
        self, call_next: Callable[[], Awaitable[Any]], context: JobContext, worker: Any
    ) -> Any:
        """Run a job and count it. procrastinate calls this for every job of a known task."""
        started = monotonic()
        task = context.app.tasks[context.job.task_name]
        # A job that is cancelled because its worker stops has no outcome. It will run again, or a
        # later job will do its work.
        outcome = None
        try:
            result = await call_next()
            outcome = SUCCEEDED
            return result
        except Exception as error:
            will_run_again = task.get_retry_exception(exception=error, job=context.job)
            outcome = RETRIED if will_run_again else FAILED
            raise
        finally:
            if outcome:
                self.count(task.name, outcome, monotonic() - started)

    def count(self, task: str, outcome: str, seconds: float) -> None:
        """Count a run of a job that took `seconds`."""
        key = (task, outcome, BUCKETS[bisect_left(BUCKETS, seconds)])
        jobs, total = self._jobs.get(key, (0, 0.0))
        self._jobs[key] = (jobs + 1, total + seconds)

    async def write(self, app: App) -> None:
        """Add the numbers to the table, or keep them while PostgreSQL is unavailable."""
        added, self._jobs = self._jobs, {}
        if not added:
            return
        rows = [(*key, *numbers) for key, numbers in added.items()]
        names = ("tasks", "outcomes", "buckets", "jobs", "seconds")
        columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        try:
            await app.connector.execute_query_async(_ADD, **columns)
        except ConnectorException:
            logger.warning("The numbers of jobs could not be written; they are kept.")
            for key, (jobs, seconds) in added.items():
                more, longer = self._jobs.get(key, (0, 0.0))
                self._jobs[key] = (jobs + more, seconds + longer)

    async def write_regularly(self, app: App, stopping: asyncio.Event) -> None:
        """Add the numbers to the table every few seconds, and once more when the worker stops."""
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), PAUSE)
            await self.write(app)
        await self.write(app)  # the jobs that ended during the last write


def totals() -> list[dict[str, Any]]:
    """Return the numbers of all workers, as rows with the columns of `_TOTALS`."""
    return fetch(_TOTALS, {}, dict_row)
