"""Jobs are enqueued in the current transaction, and operators can retry failed jobs."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.test import Client
from django.utils.timezone import now
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob
from procrastinate.exceptions import ConnectorException
from procrastinate.psycopg_connector import PsycopgConnector
from procrastinate.sql import queries

from accounts.tests.factories import AdminFactory
from bookings.tests.workers import database_url
from bookit.jobs import queues
from bookit.jobs.models import JobFailure
from bookit.jobs.tests.test_tally import run_workers
from bookit.tests.crowd import run

pytestmark = pytest.mark.django_db

TASK = "bookit.retry_stalled_jobs"
PAGE = "/admin/procrastinate/procrastinatejob/"


def failed_job(**options):
    job_id = app.configure_task(TASK, **options).defer(timestamp=0)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = %s", [job_id])
    return ProcrastinateJob.objects.get(pk=job_id)


@pytest.fixture
def admin_site():
    client = Client()
    client.force_login(AdminFactory())
    return client


def retry(client, *jobs):
    return client.post(
        PAGE,
        {"action": "retry_failed", "_selected_action": [job.pk for job in jobs]},
        follow=True,
    )


def test_a_job_is_enqueued_in_the_current_transaction():
    with transaction.atomic():
        app.configure_task(TASK).defer(timestamp=0)
        transaction.set_rollback(True)
    assert not ProcrastinateJob.objects.exists()


def test_a_job_enqueues_other_jobs_in_its_transaction():
    """Workers fetch jobs on connections of their own, but enqueue jobs on Django's connection."""
    with app.replace_connector(app.connector.get_worker_connector()):
        with transaction.atomic():
            app.configure_task(TASK).defer(timestamp=0)
            transaction.set_rollback(True)
        assert not ProcrastinateJob.objects.exists()
        app.configure_task(TASK).defer(timestamp=0)
    assert ProcrastinateJob.objects.count() == 1


def test_failed_jobs_are_listed_and_retried(admin_site):
    job, other = failed_job(), app.configure_task(TASK, queueing_lock="other").defer(timestamp=0)
    page = admin_site.get(f"{PAGE}?status=failed").content.decode()
    assert f"{PAGE}{job.pk}/" in page
    assert f"{PAGE}{other}/" not in page
    response = retry(admin_site, job)
    assert "1 job will run again now." in response.content.decode()
    job.refresh_from_db()
    assert job.status == "todo"


def test_a_waiting_job_is_not_retried(admin_site):
    waiting = ProcrastinateJob.objects.get(pk=app.configure_task(TASK).defer(timestamp=0))
    assert (
        "Only jobs that have failed can be retried." in retry(admin_site, waiting).content.decode()
    )
    waiting.refresh_from_db()
    assert (waiting.status, waiting.attempts) == ("todo", 0)


def test_an_operator_cannot_retry_a_failed_job_while_the_same_job_waits(admin_site):
    job = failed_job(queueing_lock="one")
    app.configure_task(TASK, queueing_lock="one").defer(timestamp=0)
    page = retry(admin_site, job).content.decode()
    assert "The same job is already waiting" in page
    job.refresh_from_db()
    assert job.status == "failed"


def failing_job(attempts):
    """Let a worker run a job that fails, after a number of failed attempts, and return the job."""
    job_id = app.configure_task("bookings.follow_up").defer(event_ids=7)
    run("UPDATE procrastinate_jobs SET attempts = %s WHERE id = %s", [attempts, job_id])
    run_workers()
    return ProcrastinateJob.objects.get(pk=job_id)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("attempts", "seconds"), [(0, 4), (3, 256), (5, 3600), (28, 3600)])
def test_a_job_that_fails_is_retried_within_an_hour(attempts, seconds):
    began = now()
    job = failing_job(attempts)
    assert (job.status, job.attempts) == ("todo", attempts + 1)
    pause = timedelta(seconds=seconds)
    assert began + pause <= job.scheduled_at <= now() + pause


@pytest.mark.django_db(transaction=True)
def test_a_job_that_has_failed_for_a_day_is_not_retried():
    assert sum(queues.PAUSES) >= 24 * 3600
    assert failing_job(attempts=len(queues.PAUSES)).status == "failed"


def test_old_failed_jobs_are_pruned(capsys):
    old, young = failed_job(), failed_job()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE procrastinate_events SET at = at - interval '31 days' WHERE job_id = %s",
            [old.pk],
        )
    for job in (old, young):
        JobFailure.objects.create(job=job, at=now(), error="ValueError: Ana")
    call_command("prune")
    assert " 1 jobs " in capsys.readouterr().out
    assert [job.pk for job in ProcrastinateJob.objects.all()] == [young.pk]
    assert [failure.job_id for failure in JobFailure.objects.all()] == [young.pk]


@pytest.mark.parametrize(
    ("query", "times"), [("finish_job", 3), ("retry_job", 3), ("update_heartbeat", 1)]
)
def test_the_outcome_of_a_job_is_written_when_postgresql_is_back(monkeypatch, query, times):
    """BookIt repeats the first two statements, because procrastinate ignores their errors.

    The third statement is the control: it is not repeated.
    """
    executed = []

    async def execute(connector, statement, **arguments):
        executed.append(statement)
        if len(executed) < 3:
            raise ConnectorException from psycopg.OperationalError("the server is away")

    async def write():
        await queues.WorkerConnector(app.connector).execute_query_async(queries[query])

    monkeypatch.setattr(PsycopgConnector, "execute_query_async", execute)
    with suppress(ConnectorException):
        asyncio.run(write())
    assert len(executed) == times


@pytest.mark.django_db(transaction=True)
def test_a_worker_deletes_a_job_that_fails_while_the_same_job_waits():
    """The failed job must not stay `doing`, because no worker runs it."""
    failed = app.configure_task(TASK, queueing_lock="one").defer(timestamp=0)
    ProcrastinateJob.objects.filter(pk=failed).update(status="doing")
    waiting = app.configure_task(TASK, queueing_lock="one").defer(timestamp=0)

    async def retry_later():
        connector = app.connector.get_worker_connector()
        await connector.open_async()
        try:
            unchanged = dict.fromkeys(["new_priority", "new_queue_name", "new_lock"])
            await connector.execute_query_async(
                queries["retry_job"], job_id=failed, retry_at=now(), **unchanged
            )
        finally:
            await connector.close_async()

    asyncio.run(retry_later())
    [job] = ProcrastinateJob.objects.all()
    assert (job.pk, job.status) == (waiting, "todo")


@pytest.mark.parametrize("direct", [False, True], ids=["usual", "with a direct URL"])
def test_postgresql_ends_the_sessions_of_an_unreachable_worker_within_a_minute(settings, direct):
    settings.DATABASE_DIRECT_URL = database_url() if direct else ""

    async def keepalives():
        connector = app.connector.get_worker_connector()
        await connector.open_async()
        try:
            row = await connector.execute_query_one_async("""
                SELECT current_setting('tcp_keepalives_idle')::int AS idle,
                    current_setting('tcp_keepalives_interval')::int AS interval,
                    current_setting('tcp_keepalives_count')::int AS count
            """)
        finally:
            await connector.close_async()
        return row

    found = asyncio.run(keepalives())
    assert 0 < found["idle"] + found["interval"] * found["count"] <= 60
