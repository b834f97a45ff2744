"""The servers of a distributed database."""

from functools import cache
from typing import Any

import psycopg
from django.db import DatabaseError, OperationalError, connections
from psycopg.rows import dict_row, scalar_row

from bookit.database import reading
from bookit.database.rows import fetch
from bookit.errors import database_error_facts, is_database_unavailable

# `distribute` sets this setting of the database.
SETTING = "bookit.distributed"

# Tells whether the database is distributed.
#
# Parameters: none.
# Columns: is_distributed boolean.
_IS_DISTRIBUTED = f"""
SELECT coalesce(current_setting('{SETTING}', true), '') = 'on' AS is_distributed
"""

# The id of the oldest open transaction of a server or, if none is open, the next id, as a fragment
# of SQL. A transaction gets its id when it first writes. Only the id's text can be cast to bigint.
OLDEST_OPEN = "pg_snapshot_xmin(pg_current_snapshot())::text"

# Reads the id of the oldest open transaction of the only server.
#
# Parameters: none.
# Columns: position bigint.
_POSITION = f"SELECT {OLDEST_OPEN}::bigint AS position"

# Reads the id of the oldest open transaction of every server.
#
# Parameters: none. The statement needs Citus.
# Columns: server int, has_answered boolean, position text (an error message if has_answered is
#   false).
_POSITIONS = f"""
SELECT 0 AS server, true AS has_answered, {OLDEST_OPEN} AS position
UNION ALL
SELECT groupid, success, result FROM run_command_on_workers('SELECT {OLDEST_OPEN}')
JOIN pg_dist_node USING (nodename, nodeport)
ORDER BY 1
"""  # noqa: S608 - the inserted text is a constant


class ServerDown(OperationalError):
    """A server of a distributed database does not answer."""


def open_positions(*, using: str) -> dict[int, int]:
    """Return the id of the oldest open transaction, by server.

    The coordinator is server 0. So is the only server, if the database is not distributed.

    Raises:
        ServerDown: a server does not answer.
    """
    if not is_distributed():
        return {0: fetch(_POSITION, {}, scalar_row, using=using)[0]}
    rows = fetch(_POSITIONS, {}, dict_row, using=using)
    for row in rows:
        if not row["has_answered"]:
            raise ServerDown(f"Server {row['server']} does not answer: {row['position']}")
    return {row["server"]: int(row["position"]) for row in rows}


@cache
def is_distributed() -> bool:
    """Return whether the rows of calendars are spread over several servers.

    A process asks once, because its sessions keep the settings with which they began. It asks the
    database from which the thread reads: while the primary is down, a replica answers.
    """
    database: Any = connections[reading.alias()]
    database.ensure_connection()
    with database.wrap_database_errors:
        # Use psycopg's own cursor to avoid tracing: the statement belongs to no request or job.
        rows = psycopg.Cursor(database.connection).execute(_IS_DISTRIBUTED).fetchall()
    return bool(rows[0][0])


def is_server_down(error: DatabaseError) -> bool:
    """Return whether a statement failed because a server of a distributed database is down.

    A statement that exceeded its time limit is no proof: it may have waited for a lock.
    """
    if isinstance(error, ServerDown):
        return True
    sqlstate, _constraint = database_error_facts(error)
    # The classes of lost connections and, from Citus, of internal errors.
    is_connection_lost = is_database_unavailable(error) and (sqlstate or "")[:2] in ("08", "XX")
    return is_connection_lost and is_distributed()
