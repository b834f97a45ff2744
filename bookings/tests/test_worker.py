"""Real workers run every job, even after a crash, a disconnection or a restart."""

import asyncio
import os
import re
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import standardwebhooks
from django.core.management import call_command
from procrastinate.contrib.django import app
from procrastinate.sql import queries

from bookings.models import Booking, BookingEvent
from bookings.tests.factories import TUESDAY, BookingFactory, WebhookFactory
from bookings.tests.workers import PATIENCE, Worker, database_url, until
from bookings.webhooks.models import Attempt, Delivery
from bookit.jobs import failures, queues
from bookit.runtime.embedded_postgres import running
from bookit.tests.receiver import answer, receiver

LONG_AGO = TUESDAY.replace(year=2020)
COMPLETE = "bookings.complete"


@pytest.fixture
def table_lock(transactional_db):
    """Lock the bookings table; yield the connection, whose rollback releases the lock.

    Tests use `getfixturevalue`, because they must store a booking before the lock.
    """
    with psycopg.connect(database_url()) as rival:
        rival.execute("LOCK TABLE bookings_booking")
        yield rival


def die():
    """Let the worker of the only job die; return the status and the attempts of the job."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute("UPDATE procrastinate_jobs SET status = 'doing'")
        call_command("retry_stalled_jobs")
        [job] = session.execute("SELECT status, attempts FROM procrastinate_jobs").fetchall()
    return job


def fail_often(job_id, error, status="todo"):
    """Let a job have been attempted twenty times, the last time with this error."""
    with psycopg.connect(database_url(), autocommit=True) as session:
        session.execute("UPDATE procrastinate_jobs SET attempts = 20, status = %s", [status])
        session.execute("INSERT INTO bookit_jobfailure VALUES (%s, now(), %s)", [job_id, error])


def status_of(booking):
    return Booking.objects.get(pk=booking.pk).status


@pytest.mark.django_db(transaction=True)
class TestOneWorker:
    def test_the_jobs_of_an_event_run_within_ten_seconds(self, worker):
        running_worker = worker()
        until(lambda: running_worker.ask("SELECT id FROM procrastinate_workers"))
        booking = BookingFactory(status="confirmed", start_time=LONG_AGO)
        WebhookFactory()
        call_command("complete_bookings")
        # The command skips the booking if the worker has just begun to complete it.
        until(lambda: status_of(booking) == "completed")
        until(lambda: Delivery.objects.filter(event__booking=booking).exists(), seconds=10)
        assert running_worker.end() == 0

    def test_only_a_running_worker_updates_its_heartbeat_file(self, worker, tmp_path):
        file = tmp_path / "heartbeat"
        running_worker = worker(WORKER_HEARTBEAT_FILE=str(file))
        until(file.exists)
        os.utime(file, (0, 0))
        until(lambda: file.stat().st_mtime > 0)
        running_worker.process.send_signal(signal.SIGSTOP)  # The process exists but does nothing.
        os.utime(file, (0, 0))
        time.sleep(3)  # A running worker polls for jobs, and so updates the file, every second.
        assert file.stat().st_mtime == 0

    def test_a_worker_with_a_bad_heartbeat_file_does_not_start(self, worker, tmp_path):
        refused = worker(WORKER_HEARTBEAT_FILE=str(tmp_path / "missing" / "heartbeat"))
        assert refused.process.wait(20) == 1
        [line] = refused.output.read_text().splitlines()
        assert line.startswith("bookit: WORKER_HEARTBEAT_FILE: ")
        assert line.endswith("cannot be written: No such file or directory.")

    def test_a_worker_finishes_its_job_before_it_stops(self, worker, request):
        booking = BookingFactory(status="confirmed", start_time=LONG_AGO)
        rival = request.getfixturevalue("table_lock")
        job = app.configure_task(COMPLETE).defer(timestamp=0)
        stopped = worker()
        until(lambda: stopped.state(job) == "doing")
        stopped.process.terminate()
        time.sleep(0.5)
        assert stopped.process.poll() is None
        rival.rollback()
        assert stopped.process.wait(20) == 0
        assert status_of(booking) == "completed"
        assert stopped.state(job) is None

    def test_a_job_of_a_killed_worker_is_done_by_another_worker(self, worker, request, capsys):
        booking = BookingFactory(status="confirmed", start_time=LONG_AGO)
        rival = request.getfixturevalue("table_lock")
        # This job has a queueing lock of its own. With the lock of the task, the job would be
        # dropped if the periodic job of the next minute held that lock.
        job = app.configure_task(COMPLETE, queueing_lock="of this test").defer(timestamp=0)
        killed = worker()
        until(lambda: killed.state(job) == "doing")
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        rival.rollback()

        call_command("retry_stalled_jobs")
        assert capsys.readouterr().out == "Jobs put back in their queues: 0.\n"
        assert killed.state(job) == "doing"

        # Make the heartbeats so old that the worker counts as stalled.
        with psycopg.connect(database_url(), autocommit=True) as session:
            session.execute(
                "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '31 s'"
            )
        call_command("retry_stalled_jobs")
        # There is at least one job. The killed worker may also have begun periodic jobs.
        assert re.fullmatch(r"Jobs put back in their queues: [1-9]\.\n", capsys.readouterr().out)
        assert killed.state(job) == "todo"
        following = worker()
        until(lambda: following.state(job) is None)
        assert status_of(booking) == "completed"
        assert BookingEvent.objects.count() == 1

    def test_a_job_that_kills_every_worker_fails_in_its_eleventh_attempt(self):
        app.configure_task(COMPLETE).defer(timestamp=0)
        assert [die() for _ in range(11)] == [
            *(("todo", number) for number in range(1, 11)),
            ("failed", 11),
        ]

    def test_a_job_that_has_failed_often_is_retried_if_its_worker_dies_once(self):
        """For example, because of a deployment while a mail server is down."""
        job_id = app.configure_task(COMPLETE).defer(timestamp=0)
        fail_often(job_id, "ConnectionRefusedError")
        assert die() == ("todo", 21)
        # Control: if its worker dies again in the next attempt, the job is probably the cause.
        assert die() == ("failed", 22)

    def test_one_death_of_a_worker_that_two_processes_find_counts_once(self):
        job_id = app.configure_task(COMPLETE).defer(timestamp=0)
        # Another process has recorded the death, but not put the job back yet.
        fail_often(job_id, failures.WORKER_DIED, "doing")
        call_command("retry_stalled_jobs")
        with psycopg.connect(database_url()) as session:
            [job] = session.execute("SELECT status FROM procrastinate_jobs").fetchall()
        assert job == ("todo",)


@pytest.mark.django_db(transaction=True)
def test_a_stalled_job_is_dropped_if_a_job_with_the_same_queueing_lock_waits(capsys):
    with psycopg.connect(database_url(), autocommit=True) as session:
        app.configure_task(COMPLETE, queueing_lock="twin").defer(timestamp=0)
        app.configure_task(COMPLETE, queueing_lock="other").defer(timestamp=0)
        session.execute("UPDATE procrastinate_jobs SET status = 'doing'")
        app.configure_task(COMPLETE, queueing_lock="twin").defer(timestamp=0)
        call_command("retry_stalled_jobs")
        assert capsys.readouterr().out == "Jobs put back in their queues: 1.\n"
        left = session.execute("SELECT queueing_lock, status FROM procrastinate_jobs ORDER BY id")
        assert left.fetchall() == [("other", "todo"), ("twin", "todo")]


def store_overdue_booking(url):
    """Store a confirmed booking that has ended, so that a worker has to complete it."""
    with psycopg.connect(url, autocommit=True) as filling:
        filling.execute(
            """
            WITH person AS (
                INSERT INTO accounts_user (id, password, name, email, role, timezone, is_active)
                VALUES (gen_random_uuid(), '', 'Ana', 'ana@example.com', 'user', 'UTC', true)
                RETURNING id
            ), calendar AS (
                INSERT INTO catalog_calendar (id, name, timezone)
                VALUES (gen_random_uuid(), 'Chair', 'UTC') RETURNING id
            ), service AS (
                INSERT INTO catalog_service (
                    id, calendar_id, title, description, category, price, currency,
                    duration_minutes, capacity, mode, requires_confirmation,
                    buffer_before_minutes, buffer_after_minutes, min_notice_minutes,
                    cancellation_notice_minutes, is_active, rating_sum, rating_count
                ) SELECT gen_random_uuid(), id, 'Cut', '', '', 25, 'USD', 60, 1, 'open', true,
                    0, 0, 0, 0, true, 0, 0 FROM calendar RETURNING id, calendar_id
            )
            INSERT INTO bookings_booking (
                id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
                attendee_name, attendee_email, notes, price, currency
            ) SELECT gen_random_uuid(), person.id, service.id, calendar_id, 1, '2020-01-01 10:00Z',
                '2020-01-01 11:00Z', '[2020-01-01 10:00Z, 2020-01-01 11:00Z)', 'confirmed',
                '', '', '', 25, 'USD' FROM service, person
            """
        )


def defer(url, task):
    with psycopg.connect(url, autocommit=True) as queue:
        queue.execute(
            "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW('default', %s, 0, NULL, NULL,"
            """ '{"timestamp": 0}', NULL)::procrastinate_job_to_defer_v1])""",
            [task],
        )


@pytest.fixture
def serve(tmp_path):
    """Return a function that runs `manage.py serve` on the database at a URL."""
    started = []

    def start(url):
        started.append(Worker(tmp_path / "output", url=url, command=["serve", "--port", "0"]))
        return started[-1]

    yield start
    for each in started:
        each.end()


def test_jobs_are_done_after_postgresql_restarts(serve, tmp_path, migrate):
    """The jobs are done by the same worker or, if the restart ended it, by the next worker."""
    directory = tmp_path / "postgres"
    with running(directory) as url:
        migrate(url)
        store_overdue_booking(url)
        server = serve(url)
        until(lambda: server.ask("SELECT id FROM procrastinate_workers"))
    with running(directory) as url:
        defer(url, COMPLETE)
        until(lambda: server.ask("SELECT status FROM bookings_booking") == [("completed",)])
        until(lambda: server.jobs("bookings.follow_up") == [])
        assert server.end() == 0


def crash(url):
    """Kill a PostgreSQL process, so that the server recovers as after a power failure."""
    witness = psycopg.connect(url, autocommit=True)
    with psycopg.connect(url, autocommit=True) as doomed:
        os.kill(doomed.info.backend_pid, signal.SIGKILL)

    def accepts_queries(session):
        try:
            return session.execute("SELECT 1").fetchone()
        except psycopg.OperationalError:
            return None

    def has_recovered():
        try:
            with psycopg.connect(url) as session:
                return accepts_queries(session)
        except psycopg.OperationalError:
            return None

    # The server first ends all sessions. Until it has ended them, it still accepts new sessions.
    until(lambda: accepts_queries(witness) is None)
    witness.close()
    until(has_recovered)


async def retry_later(url, job):
    """Put a job back in its queue, as a worker does after a failed attempt."""
    options = {"conninfo": url, "kwargs": {"options": queues.ASYNCHRONOUS_COMMIT}}
    connector = queues.WorkerConnector(app.connector, **options)
    await connector.open_async()
    arguments = dict.fromkeys(["new_priority", "new_queue_name", "new_lock"])
    at = datetime.now(UTC) + timedelta(hours=1)
    await connector.execute_query_async(queries["retry_job"], job_id=job, retry_at=at, **arguments)
    await connector.close_async()


def test_a_finished_or_retried_job_keeps_its_state_when_postgresql_crashes(
    serve, tmp_path, migrate
):
    """If the crash made the job `doing` again, nothing would retry it while its worker is alive."""
    # Commits that do not wait for the disk are written to it only every ten seconds.
    with running(tmp_path / "postgres", settings={"wal_writer_delay": "10s"}) as url:
        migrate(url)
        store_overdue_booking(url)
        server = serve(url)
        until(lambda: server.ask("SELECT id FROM procrastinate_workers"))
        defer(url, COMPLETE)
        until(lambda: server.ask("SELECT status FROM bookings_booking") == [("completed",)])
        until(lambda: server.jobs(COMPLETE) == [])
        crash(url)
        assert server.ask("SELECT status FROM bookings_booking") == [("completed",)]
        until(lambda: server.jobs(COMPLETE) == [], seconds=10)

        with psycopg.connect(url, autocommit=True) as session:
            [job] = session.execute(
                "INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)"
                " SELECT 'any', 'any', 'doing', min(id) FROM procrastinate_workers RETURNING id"
            ).fetchone()
        asyncio.run(retry_later(url, job))
        assert server.state(job) == "todo"
        crash(url)
        assert server.state(job) == "todo"

        # Control: a commit that does not wait for the disk is lost. The worker is stopped first,
        # because its commits would also write this commit to the disk.
        assert server.end() == 0
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("UPDATE bookings_booking SET notes = 'on disk'")
            session.execute("SET synchronous_commit = off")
            session.execute("UPDATE bookings_booking SET notes = 'not on disk'")
        crash(url)
        assert server.ask("SELECT notes FROM bookings_booking") == [("on disk",)]


@pytest.mark.django_db(transaction=True)
def test_a_failing_webhook_does_not_delay_other_webhooks(worker):
    stop = threading.Event()

    def hang(handler):
        stop.wait(PATIENCE)

    with (
        receiver() as listens,
        receiver(answer(500)) as fails,
        receiver(hang) as hangs,
        receiver(answer(302, Location=listens.url + "/elsewhere")) as redirects,
        receiver(answer(410)) as is_gone,
    ):
        receivers = [fails, hangs, redirects, is_gone, listens]
        hooks = {each: WebhookFactory(url=each.url) for each in receivers}
        running_worker = worker(WEBHOOK_ALLOW_PRIVATE="true")
        BookingFactory(status="confirmed", start_time=LONG_AGO)
        call_command("complete_bookings")

        def attempts(server):
            made = Attempt.objects.filter(delivery__webhook=hooks[server])
            return [(each.status_code, each.error) for each in made]

        until(lambda: attempts(listens))
        assert attempts(hangs) == []  # The attempt has not timed out yet.
        # The first retry comes after five seconds. An attempt at a receiver that hangs fails after
        # ten seconds.
        until(lambda: len(attempts(fails)) == len(attempts(redirects)) == 2 and attempts(hangs))
        stop.set()
        assert running_worker.end() == 0
    assert attempts(fails) == [(500, "")] * 2
    assert attempts(hangs)[0] == (None, "No response within 10 seconds.")
    assert attempts(redirects) == [(302, "")] * 2
    assert attempts(is_gone) == [(410, "")]
    assert attempts(listens) == [(204, "")]
    [message] = listens.messages
    event = standardwebhooks.Webhook(hooks[listens].secret).verify(message.body, message.headers)
    assert (event["type"], event["data"]["status"]) == ("booking.completed", "completed")
    for hook in hooks.values():
        hook.refresh_from_db()
    assert [each for each in receivers if not hooks[each].is_active] == [is_gone]
    assert "410" in hooks[is_gone].disabled_reason


@pytest.mark.django_db(transaction=True)
def test_servers_that_hang_do_not_delay_other_jobs(worker):
    stop = threading.Event()

    def hang(handler):
        stop.wait(PATIENCE)

    with receiver(hang) as hangs:
        for _ in range(6):
            WebhookFactory(url=hangs.url)
        BookingFactory(status="confirmed", start_time=LONG_AGO)
        call_command("complete_bookings")
        running_worker = worker(WEBHOOK_ALLOW_PRIVATE="true", WORKER_CONCURRENCY="2")
        until(lambda: hangs.messages)
        BookingFactory(status="confirmed", start_time=LONG_AGO)
        call_command("complete_bookings")
        # Each of the six webhooks gets two events. Six seconds are less than the ten seconds after
        # which the first delivery times out.
        until(lambda: Delivery.objects.count() == 12, seconds=6)
        assert not Attempt.objects.exists()
        stop.set()
        assert running_worker.end() == 0
