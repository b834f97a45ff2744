"""The metrics from PostgreSQL, with those of jobs and of other apps, and the metrics of replicas.

No query counts all rows of a table that grows.
"""

import logging
from collections.abc import Iterator

from django.db import DatabaseError, InterfaceError, ProgrammingError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from psycopg.rows import dict_row

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
    replicas.
    """
    up = GaugeMetricFamily("bookit_database_up", "Whether PostgreSQL responds to this process.")
    collectors = [_activity, jobs.collect, *COLLECTORS.values()]
    found: list[Metric] = []
    try:
        for each in collectors:
            found.extend(each())
    except ProgrammingError as error:
        # PostgreSQL responds, but it lacks something, for example a column of a pending migration.
        logger.error("not all metrics from PostgreSQL: %s", str(error).partition("\n")[0])
        up.add_metric([], 1)
    except (DatabaseError, InterfaceError) as error:
        logger.error("no metrics from PostgreSQL: %s", str(error).partition("\n")[0])
        found = []
        up.add_metric([], 0)
    else:
        up.add_metric([], 1)
    yield up
    yield from found
    yield from replicas.collect()


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
