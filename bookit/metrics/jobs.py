"""The metrics of the job queue and of the workers, from PostgreSQL."""

from collections.abc import Iterator
from itertools import groupby

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString
from psycopg.rows import dict_row

from bookit.database.rows import fetch
from bookit.jobs import tally
from bookit.jobs.queues import MAILS, SILENCE, WEBHOOKS

# Jobs are counted up to this number, over all queues. A longer queue is far too long, whatever its
# exact length is.
MAX_COUNTED = 10_000

# Counts, for each queue, the jobs that are due, the jobs that are scheduled for later, and the jobs
# that run. A due job waits for a worker or, if it has a lock, for a running job with this lock.
#
# Parameters: most bigint.
# Columns: queue text, waiting bigint (the due jobs), scheduled bigint, running bigint, oldest
# float8 (how many seconds ago the oldest due job should have run or, if it has no scheduled time,
# was enqueued; NULL if no job is due).
# Invariant: the query finds jobs through procrastinate's indexes, whose order begins with the
# priority; all jobs have the same priority. The query counts the `most` due jobs with the lowest
# ids, the scheduled jobs among the `most` due and scheduled jobs with the lowest ids, and at most
# `most` running jobs. A long queue can therefore hide another queue. To find the due jobs, the
# query may read all scheduled jobs, like a worker that looks for its next job.
_OPEN = """
WITH due AS MATERIALIZED (
    SELECT id, queue_name, scheduled_at, true AS is_due FROM procrastinate_jobs
    WHERE status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now())
    ORDER BY priority DESC, id LIMIT %(most)s
), later AS MATERIALIZED (
    SELECT id, queue_name, scheduled_at, false AS is_due FROM (
        SELECT id, queue_name, scheduled_at FROM procrastinate_jobs
        WHERE status = 'todo' ORDER BY priority DESC, id LIMIT %(most)s
    ) AS first WHERE scheduled_at > now()
), todo AS (
    SELECT * FROM due UNION ALL SELECT * FROM later
), doing AS MATERIALIZED (
    SELECT queue_name FROM procrastinate_jobs WHERE status = 'doing' LIMIT %(most)s
), queue AS (
    SELECT queue_name, count(*) FILTER (WHERE is_due) AS waiting,
        count(*) FILTER (WHERE NOT is_due) AS scheduled,
        min(scheduled_at) FILTER (WHERE is_due) AS due,
        min(id) FILTER (WHERE scheduled_at IS NULL) AS first
    FROM todo GROUP BY queue_name
), running AS (
    SELECT queue_name, count(*) AS jobs FROM doing GROUP BY queue_name
)
SELECT coalesce(queue.queue_name, running.queue_name) AS queue,
    coalesce(waiting, 0) AS waiting, coalesce(scheduled, 0) AS scheduled,
    coalesce(running.jobs, 0) AS running,
    extract(epoch FROM now() - least(due, (
        SELECT min(at) FROM procrastinate_events WHERE job_id = queue.first AND type = 'deferred'
    )))::float8 AS oldest
FROM queue FULL JOIN running USING (queue_name)
"""

# Counts the failed jobs of each task, but at most `most` jobs in total.
#
# Parameters: most bigint.
# Columns: task text, jobs bigint.
_FAILED = """
SELECT task_name AS task, count(*) AS jobs FROM (
    SELECT task_name FROM procrastinate_jobs WHERE status = 'failed' LIMIT %(most)s
) AS failed GROUP BY task_name
"""

# Counts the procrastinate workers that have recently sent a heartbeat.
#
# Parameters: silence float8 (seconds).
# Columns: workers bigint.
_WORKERS = """
SELECT count(*) AS workers FROM procrastinate_workers
WHERE last_heartbeat > now() - make_interval(secs => %(silence)s)
"""


def collect() -> Iterator[Metric]:
    """Yield the metrics of the job queue and of the workers."""
    yield from _open()
    failed = GaugeMetricFamily(
        "bookit_jobs_failed",
        "Jobs that have failed and are kept for an operator, by task, "
        f"counted up to {MAX_COUNTED}.",
        labels=["task"],
    )
    for row in fetch(_FAILED, {"most": MAX_COUNTED}, dict_row):
        failed.add_metric([row["task"]], row["jobs"])
    yield failed
    [[workers]] = fetch(_WORKERS, {"silence": float(SILENCE)})
    yield GaugeMetricFamily(
        "bookit_workers",
        "Live procrastinate workers; a worker process has up to three.",
        value=workers,
    )
    yield from _ended()


def _open() -> Iterator[Metric]:
    waiting = GaugeMetricFamily(
        "bookit_jobs_waiting",
        f"Jobs that are due but do not run yet, counted up to {MAX_COUNTED} over all queues.",
        labels=["queue"],
    )
    scheduled = GaugeMetricFamily(
        "bookit_jobs_scheduled",
        f"Jobs that run later, among the first {MAX_COUNTED} jobs that wait or run later.",
        labels=["queue"],
    )
    running = GaugeMetricFamily(
        "bookit_jobs_running",
        f"Jobs that are running, counted up to {MAX_COUNTED} over all queues.",
        labels=["queue"],
    )
    oldest = GaugeMetricFamily(
        "bookit_jobs_oldest_waiting_seconds",
        "How long the oldest waiting job has waited.",
        labels=["queue"],
    )
    rows = {row["queue"]: row for row in fetch(_OPEN, {"most": MAX_COUNTED}, dict_row)}
    # An alert can compare only samples that exist, so an empty queue has samples, too.
    for queue in {"default", MAILS, WEBHOOKS} - rows.keys():
        for each in (waiting, scheduled, running, oldest):
            each.add_metric([queue], 0)
    for row in rows.values():
        waiting.add_metric([row["queue"]], row["waiting"])
        scheduled.add_metric([row["queue"]], row["scheduled"])
        running.add_metric([row["queue"]], row["running"])
        oldest.add_metric([row["queue"]], max(0.0, row["oldest"] or 0.0))
    yield from (waiting, scheduled, running, oldest)


def _ended() -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "bookit_jobs_total", "Runs of jobs, by task and outcome.", labels=["task", "outcome"]
    )
    duration = HistogramMetricFamily(
        "bookit_job_duration_seconds", "Duration of a run of a job, by task.", labels=["task"]
    )
    for task, rows_of_task in groupby(tally.totals(), lambda row: row["task"]):
        buckets = dict.fromkeys(tally.BUCKETS, 0)
        outcomes: dict[str, int] = {}
        seconds = 0.0
        for row in rows_of_task:
            outcomes[row["outcome"]] = outcomes.get(row["outcome"], 0) + row["jobs"]
            seconds += row["seconds"]
            buckets[row["bucket"]] = buckets.get(row["bucket"], 0) + row["jobs"]
        for outcome, jobs in outcomes.items():
            ended.add_metric([task, outcome], jobs)
        total, limits = 0, []
        for bucket, jobs in sorted(buckets.items()):
            total += jobs
            limits.append((floatToGoString(bucket), total))
        duration.add_metric([task], limits, seconds)
    yield from (ended, duration)
