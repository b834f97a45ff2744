"""The metrics of jobs. Beyond a limit, more due or failed jobs do not increase their cost."""

from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from procrastinate.contrib.django import app

from bookit.jobs.tally import FAILED, RETRIED, SUCCEEDED
from bookit.metrics import jobs
from bookit.metrics.tests.scraping import scrape

pytestmark = pytest.mark.django_db

TASK = "bookit.prune_jobs"


def add(count, status="todo", queue="default", scheduled_at=None, task=TASK):
    """Add jobs that differ only in their ids."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, status, scheduled_at)"
            " SELECT %s, %s, %s::procrastinate_job_status, %s FROM generate_series(1, %s)",
            [queue, task, status, scheduled_at, count],
        )


def test_jobs_are_counted_by_state_and_by_queue_or_task(api):
    now = timezone.now()
    add(3)
    add(2, scheduled_at=now - timedelta(minutes=5))
    add(4, queue="mails", scheduled_at=now + timedelta(hours=1))
    add(1, "doing", "webhooks")
    add(6, "failed")
    add(5, "failed", task="bookings.follow_up")
    add(7, "cancelled")
    found = scrape(api)
    waiting, scheduled = "bookit_jobs_waiting", "bookit_jobs_scheduled"
    assert [found[waiting, name] for name in ("default", "mails", "webhooks")] == [5, 0, 0]
    assert [found[scheduled, name] for name in ("default", "mails", "webhooks")] == [0, 4, 0]
    assert found["bookit_jobs_running", "webhooks"] == 1
    assert found["bookit_jobs_failed", TASK] == 6
    assert found["bookit_jobs_failed", "bookings.follow_up"] == 5
    assert 300 <= found["bookit_jobs_oldest_waiting_seconds", "default"] < 330
    assert found["bookit_jobs_oldest_waiting_seconds", "mails"] == 0


def test_jobs_that_wait_for_a_retry_do_not_hide_newer_jobs_that_are_due(api, monkeypatch):
    monkeypatch.setattr(jobs, "MAX_COUNTED", 5)
    add(10, queue="mails", scheduled_at=timezone.now() + timedelta(hours=1))
    add(2)
    found = scrape(api)
    assert found["bookit_jobs_waiting", "default"] == 2
    assert found["bookit_jobs_scheduled", "mails"] == 5


def test_the_wait_of_a_job_without_a_scheduled_time_is_measured(api):
    # `timestamp` is an argument of the task, not the time at which the job should run.
    app.configure_task(TASK).defer(timestamp=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_events SET at = at - interval '10 minutes'")
    assert 600 <= scrape(api)["bookit_jobs_oldest_waiting_seconds", "default"] < 630


def test_an_empty_queue_has_samples(api):
    found = scrape(api)
    for name in ("waiting", "scheduled", "running", "oldest_waiting_seconds"):
        assert found[f"bookit_jobs_{name}", "mails"] == 0
    assert found["bookit_workers",] == 0


@pytest.mark.parametrize("status", ["todo", "failed"])
def test_jobs_of_a_long_queue_are_counted_only_up_to_a_limit(api, status):
    with connection.cursor() as cursor:
        # Each new job causes a check of a foreign key. PostgreSQL plans this check with the
        # statistics of the last ANALYZE. A plan for an empty table reads the whole table each time.
        add(1000, "todo")
        cursor.execute("ANALYZE procrastinate_jobs")
        add(3 * jobs.MAX_COUNTED - 1000, "todo")
        add(jobs.MAX_COUNTED + 1, status)
        cursor.execute("ANALYZE procrastinate_jobs")
        for statement in (jobs._OPEN, jobs._FAILED):
            cursor.execute(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", {"most": jobs.MAX_COUNTED}
            )
            [[[explained]]] = cursor.fetchall()
            assert _rows_read(explained["Plan"]) <= jobs.MAX_COUNTED
    found = scrape(api)
    assert found["bookit_jobs_waiting", "default"] == jobs.MAX_COUNTED
    assert found.get(("bookit_jobs_failed", TASK), 0) == (
        jobs.MAX_COUNTED if status == "failed" else 0
    )


def _rows_read(plan):
    """Return the largest number of jobs that a scan has read."""
    own = 0
    if "Scan" in plan["Node Type"] and plan.get("Relation Name") == "procrastinate_jobs":
        own = plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    return max([own, *map(_rows_read, plan.get("Plans", []))])


def test_runs_of_jobs_are_shown_by_outcome_and_duration(api):
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO bookit_jobtally (task, outcome, bucket, jobs, seconds) VALUES"
            " (%(task)s, %(succeeded)s, 0.01, 5, 0.02), (%(task)s, %(succeeded)s, 60, 1, 42),"
            " (%(task)s, %(retried)s, 0.5, 2, 0.6), (%(task)s, %(failed)s, 'Infinity', 1, 100)",
            {"task": TASK, "succeeded": SUCCEEDED, "retried": RETRIED, "failed": FAILED},
        )
    found = scrape(api)
    counts = {key[1]: value for key, value in found.items() if key[0] == "bookit_jobs_total"}
    assert counts == {SUCCEEDED: 6, RETRIED: 2, FAILED: 1}
    name = "bookit_job_duration_seconds"
    counts_up_to = {key[1]: value for key, value in found.items() if key[0] == f"{name}_bucket"}
    assert (counts_up_to["0.01"], counts_up_to["0.1"], counts_up_to["0.5"]) == (5, 5, 7)
    assert (counts_up_to["60.0"], counts_up_to["+Inf"]) == (8, 9)
    assert found[f"{name}_count", TASK] == 9
    assert found[f"{name}_sum", TASK] == pytest.approx(142.62)
