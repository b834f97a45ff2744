"""Relays jobs from the servers of calendars to the queue, if the database is distributed.

The queue and the rows of a calendar can be on different servers. The transaction that changes such
rows, for example bookings, stores each resulting job in the outbox, on the server of the calendar.
Every worker process relays the rows of the outbox: it enqueues the job and commits, and then
deletes the row. If the process dies in between, or another process reads the row in between, the
job is enqueued twice. Therefore, tasks that are enqueued this way must be safe to run twice.
"""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error, connection, transaction
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb

from bookit.database.citus.lookups import fetch_from_shards
from bookit.database.citus.nodes import is_distributed
from bookit.database.rows import fetch
from bookit.errors import is_database_unavailable

logger = logging.getLogger(__name__)

# Seconds between two queries for the rows of the outbox.
PAUSE = 0.5
# The maximum number of rows of a shard that are relayed at a time.
BATCH = 200

# Lets only one process at a time enqueue the jobs of the outbox. The number is arbitrary.
#
# Parameters: none.
# Columns: is_locked boolean.
_LOCK = "SELECT pg_try_advisory_xact_lock(7042025) AS is_locked"

# Reads the oldest rows of a shard.
#
# Parameters: most bigint (how many rows).
# Columns: calendar_id uuid, id uuid, queue text, task text, args jsonb.
_ROWS = """
SELECT calendar_id, id, queue, task, args FROM bookit_outbox ORDER BY id LIMIT %(most)s
"""

# Enqueues a job.
#
# Parameters: queue text, task text, args jsonb.
# Columns: one, without a value.
_ENQUEUE = "SELECT enqueue_job(%(queue)s, %(task)s, %(args)s)"

# Deletes a row that was relayed.
#
# Parameters: calendar_id uuid, id uuid.
# Columns: none.
_DELETE = "DELETE FROM bookit_outbox WHERE calendar_id = %(calendar_id)s AND id = %(id)s"


def relay() -> int:
    """Move up to `BATCH` rows of each shard to the queue, and return how many rows were moved.

    If another process is doing this, return 0 at once.
    """
    with transaction.atomic():
        if not fetch(_LOCK, {}, scalar_row)[0]:
            return 0
        found = fetch_from_shards(_ROWS, {"most": BATCH}, tables=["bookit_outbox"])
        for row in found:
            with connection.cursor() as cursor:
                values: Any = {**row, "args": Jsonb(row["args"])}
                cursor.execute(_ENQUEUE, values)
    # The jobs are committed. A row that has not been deleted when the next worker reads the outbox,
    # for example because its server has stopped, is relayed once more.
    for row in found:
        with connection.cursor() as cursor:
            cursor.execute(_DELETE, {"calendar_id": row["calendar_id"], "id": row["id"]})
    return len(found)


async def relay_regularly(stopping: asyncio.Event) -> None:
    """Relay the rows of the outbox until the worker stops, if the database is distributed."""
    while await sync_to_async(_relay)() and not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), PAUSE)


def _relay() -> bool:
    """Relay the rows of the outbox. Return False if the database is not distributed."""
    try:
        if not is_distributed():
            return False
        relay()
    except Error as error:
        if is_database_unavailable(error):
            logger.warning("the outbox could not be relayed: %s", type(error).__name__)
        else:
            logger.exception("the outbox could not be relayed")
    finally:
        connection.close()
    return True
