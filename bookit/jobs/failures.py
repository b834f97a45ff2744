"""Stores the last error of each job, so that operators see why a job failed.

procrastinate itself only logs the error. The row of an error refers to its job, and PostgreSQL
deletes the row with the job: when a retry succeeds, or after 30 days. Erasing an account also
deletes the errors that can contain data of the account.
"""

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from django.utils import timezone
from procrastinate import App
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext

logger = logging.getLogger(__name__)

# A stored error has at most this many characters.
MAX_LENGTH = 500
WORKER_DIED = "The worker died or lost its connection while it ran the job."
# Matches email addresses, which a mail server's reply can contain. They must not be stored.
_ADDRESS = re.compile(r"[^\s<>()\[\]{}'\",;:=]+@[^\s<>()\[\]{}'\",;:=]+")

# Stores the last error of a job that still exists.
#
# Parameters: job_id bigint, at timestamptz, error text.
# Columns: none.
# Invariant: FOR KEY SHARE keeps the job from being deleted before the row that refers to it is
#   committed.
_RECORD = """
INSERT INTO bookit_jobfailure AS failure (job_id, at, error)
SELECT job.id, %(at)s::timestamptz, %(error)s::text FROM procrastinate_jobs AS job
WHERE job.id = %(job_id)s::bigint
FOR KEY SHARE
ON CONFLICT (job_id) DO UPDATE SET at = excluded.at, error = excluded.error
"""

# Reads the last error of a job from before its present attempt.
#
# Parameters: job_id bigint.
# Columns: error text; no row if no error is stored, or only that of the present attempt.
_EARLIER = """
SELECT error FROM bookit_jobfailure
WHERE job_id = %(job_id)s::bigint AND at < (
    SELECT max(at) FROM procrastinate_events
    WHERE job_id = %(job_id)s::bigint AND type = 'started'
)
"""


async def middleware(
    call_next: Callable[[], Awaitable[Any]], context: JobContext, worker: Any
) -> Any:
    """Run a job. If it fails, store the error.

    procrastinate calls this for every job of a known task.
    """
    try:
        return await call_next()
    except Exception as error:
        if context.job.id is not None:
            at = timezone.now()
            await record(context.app, job_id=context.job.id, error=in_one_line(error), at=at)
        raise


async def record(app: App, *, job_id: int, error: str, at: datetime) -> None:
    """Store the last error of a job, unless PostgreSQL is unavailable."""
    try:
        await app.connector.execute_query_async(_RECORD, job_id=job_id, at=at, error=error)
    except ConnectorException:
        # The worker must go on, because it still has to write the outcome of the job.
        logger.warning("The error of job %s could not be stored.", job_id)


async def earlier_error(app: App, *, job_id: int) -> str:
    """Return the last error of a job from before its present attempt, or an empty text.

    Another process may already have recorded that the worker of the present attempt has died.
    """
    rows = await app.connector.execute_query_all_async(_EARLIER, job_id=job_id)
    return rows[0]["error"] if rows else ""


def in_one_line(error: Exception) -> str:
    """Return the class and the first line of an error, without email addresses.

    The other lines of a database error can contain a whole row.
    """
    name = type(error).__name__
    # The search for addresses takes quadratic time in long words, so the line is cut first.
    first = next(iter(str(error).strip().splitlines()), "")
    if len(first) > 4 * MAX_LENGTH:
        # The last word may be a part of an address.
        first = first[: 4 * MAX_LENGTH].rpartition(" ")[0]
    line = _ADDRESS.sub("…@…", f"{name}: {first}" if first else name)
    # PostgreSQL cannot store a null character.
    return line.replace("\0", "")[:MAX_LENGTH]
