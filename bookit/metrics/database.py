"""The metrics from PostgreSQL, with those of jobs and of other apps, and the metrics of replicas.

No query counts all rows of a table that grows.
"""

import logging
from collections.abc import Iterator

from django.db import DatabaseError, InterfaceError, ProgrammingError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from psycopg.rows import dict_row

from bookit.database.citus.nodes import is_server_down
from bookit.database.rows import fetch
from bookit.metrics import jobs, replicas
from bookit.metrics.extensions import COLLECTORS

logger = logging.getLogger(__name__)

# Reads the activity of this database: one row for each state of its connections.
#
# Parameters: none.
# Columns: state text, connections bigint, most int (the maximum number of connections to
# all databases of the server), committed bigint, rolled_back bigint, deadlocks bigint.
ACTIVITY = """
SELECT coalesce(activity.state, 'other') AS state, count(*) AS connections,
    current_setting('max_connections')::int AS most,
    min(total.xact_commit) AS committed, min(total.xact_rollback) AS rolled_back,
    min(total.deadlocks) AS deadlocks
FROM pg_stat_database AS total JOIN pg_stat_activity AS activity USING (datname)
WHERE datname = current_database()
GROUP BY 1
"""


def collect() -> Iterator[Metric]:
    """Yield the metrics from PostgreSQL, and the metrics of replicas.

    If PostgreSQL does not respond in time, yield only `bookit_database_up` and the metrics of
    replicas. If PostgreSQL responds but a statement fails, the rest of its collector's metrics are
    missing.
    """
    found: list[Metric] = []
    is_up = 1
    for collector in [_activity, jobs.collect, *COLLECTORS.values()]:
        try:
            found.extend(collector())
        except (DatabaseError, InterfaceError) as error:
            reason = str(error).partition("\n")[0]
            if not _responds(error):
                logger.error("no metrics from PostgreSQL: %s", reason)
                found, is_up = [], 0
                break
            logger.error("not all metrics from PostgreSQL: %s", reason)
    yield GaugeMetricFamily(
        "bookit_database_up", "Whether PostgreSQL responds to this process.", value=is_up
    )
    yield from found
    yield from replicas.collect()


def _responds(error: Exception) -> bool:
    """Return whether PostgreSQL responds although a statement failed.

    It may lack something, for example a column of a pending migration. If it is distributed, one of
    its other servers may be down.
    """
    if isinstance(error, ProgrammingError):
        return True
    return isinstance(error, DatabaseError) and is_server_down(error)


def _activity() -> Iterator[Metric]:
    rows = fetch(ACTIVITY, {}, dict_row)
    connections = GaugeMetricFamily(
        "bookit_database_connections",
        "Connections of all processes to the database, by state.",
        labels=["state"],
    )
    for row in rows:
        connections.add_metric([row["state"]], row["connections"])
    yield connections
    first = rows[0]  # There is at least one row, because this connection is counted, too.
    yield GaugeMetricFamily(
        "bookit_database_connections_max",
        "The maximum number of connections of the PostgreSQL server.",
        value=first["most"],
    )
    transactions = CounterMetricFamily(
        "bookit_database_transactions_total", "Transactions, by outcome.", labels=["outcome"]
    )
    transactions.add_metric(["committed"], first["committed"])
    transactions.add_metric(["rolled_back"], first["rolled_back"])
    yield transactions
    yield CounterMetricFamily(
        "bookit_database_deadlocks_total",
        "Deadlocks that PostgreSQL ended.",
        value=first["deadlocks"],
    )
