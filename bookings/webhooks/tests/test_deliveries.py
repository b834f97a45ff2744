"""Deliveries are fast, in order, and do not delay other jobs. Most tests start real workers."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from datetime import timedelta
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import DataError, InterfaceError, InternalError, OperationalError, transaction
from django.utils import timezone
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.tests.factories import AdminFactory
from bookings import events
from bookings.models import BookingEvent
from bookings.tests.factories import BookingFactory, DeliveryFactory, WebhookFactory
from bookings.tests.jobs import relay_jobs
from bookings.tests.smtp import AnyPort, Mailbox
from bookings.tests.workers import PATIENCE, database_url, until
from bookings.webhooks import deliveries, tasks
from bookings.webhooks import services as webhooks
from bookings.webhooks.deliveries import MAX_SLOW_AT_A_TIME
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.jobs.queues import WEBHOOKS_AT_A_TIME
from bookit.runtime.startup import BASE_DIR
from bookit.tests.crowd import behind_a_rival, run
from bookit.tests.receiver import answer, receiver

pytestmark = pytest.mark.django_db(transaction=True)

# Seconds; fewer than the ten after which a request to a hanging server times out.
SOON = 7
# These tests make this many webhooks more than a limit allows at a time.
MORE = 20
WAKE = "bookings.wake_webhooks"


@pytest.fixture
def hang():
    """Return the behaviour of a server that does not respond until the test ends."""
    stop = threading.Event()
    yield lambda request: stop.wait(PATIENCE)
    stop.set()


@pytest.fixture
def start_worker(worker):
    """Return a function that starts a worker that may send to receivers on this host."""

    def start(*options, **variables):
        command = ("procrastinate", "worker", *options)
        return worker(command=command, WEBHOOK_ALLOW_PRIVATE="true", **variables)

    return start


def make_webhooks(count, **fields):
    """Create some webhooks with one owner."""
    owner = AdminFactory()
    Webhook.objects.bulk_create(WebhookFactory.build_batch(count, owner=owner, **fields))


def happen(count=1):
    """Write some events, which a worker will follow up, and return them."""
    booking = BookingFactory(status="confirmed")
    BookingEvent.objects.bulk_create(
        BookingEvent(
            calendar_id=booking.calendar_id,
            booking_id=booking.pk,
            type=BookingEvent.Type.CONFIRMED,
            at=timezone.now() + timedelta(microseconds=number),
            data={**events.state(booking), "seat": number},
        )
        for number in range(count)
    )
    return [*booking.events.all()]


def enqueue(happened):
    """Enqueue the deliveries of some events, but no emails and no offers to waitlists."""
    relay_jobs()
    run("DELETE FROM procrastinate_jobs WHERE task_name = 'bookings.follow_up'")
    webhooks.enqueue(event_ids=[event.pk for event in happened], at=timezone.now())


def arrivals(server):
    """Return the numbers of the events that have arrived; `happen` stores them as seats."""
    return [json.loads(message.body)["data"]["seat"] for message in server.messages]


def delivered():
    return Delivery.objects.filter(status=Delivery.Status.DELIVERED).count()


# --- speed and order ----------------------------------------------------------------------------


def test_hundreds_of_events_arrive_in_order_before_requests_to_hanging_servers_time_out(
    start_worker, hang
):
    """A worker that sent one message a second would need five minutes for 300 messages."""
    with receiver(hang) as first, receiver(hang) as second, receiver() as other:
        for each in (first, second, other):
            WebhookFactory(url=each.url)
        enqueue(happen(300))
        start_worker("--queues", "webhooks")
        until(lambda: len(other.messages) == 300)
        assert not Attempt.objects.filter(error__contains="No response").exists()
        assert [len(first.messages), len(second.messages)] == [1, 1]
    assert arrivals(other) == [*range(300)]
    # Each job opens one connection, and a few jobs send all 300 messages.
    assert other.connections <= 3


# --- together with emails -----------------------------------------------------------------------


class HangingMailbox(Mailbox):
    """A mail server that accepts connections, but never responds to an email."""

    def __init__(self):
        super().__init__()
        self.begun = 0

    async def handle_MAIL(self, *args):  # noqa: N802 - aiosmtpd requires this name
        self.begun += 1
        await asyncio.sleep(PATIENCE)


@pytest.fixture
def mail_server():
    """Return a function that starts a mail server and returns its URL."""
    started = []

    def start(server):
        started.append(AnyPort(server, hostname="127.0.0.1", port=0))
        started[-1].start()
        return f"smtp://127.0.0.1:{started[-1].port}"

    yield start
    for each in started:
        each.stop()


def test_a_hanging_mail_server_does_not_delay_webhooks(start_worker, mail_server):
    mailbox = HangingMailbox()
    with receiver() as other:
        WebhookFactory(url=other.url)
        happen(5)
        worker = start_worker(EMAIL_URL=mail_server(mailbox), WORKER_CONCURRENCY="2")
        until(lambda: mailbox.begun == 2 and len(other.messages) == 5)
        happen(1)
        until(lambda: len(other.messages) == 6, seconds=SOON)
        assert mailbox.begun == 2
        assert worker.jobs("bookings.send_mail").count("doing") == 2


def test_hanging_webhook_servers_do_not_delay_emails(start_worker, mail_server, hang):
    mailbox = Mailbox()
    with receiver(hang) as hangs:
        make_webhooks(MAX_SLOW_AT_A_TIME, url=hangs.url)
        enqueue(happen(1))
        start_worker(EMAIL_URL=mail_server(mailbox))
        until(lambda: len(hangs.messages) == MAX_SLOW_AT_A_TIME)
        happen(1)
        until(lambda: mailbox.mails, seconds=SOON)
        assert not Attempt.objects.exists()


def test_servers_that_begin_to_hang_together_do_not_delay_other_webhooks(start_worker, hang):
    """A worker waits for at most `MAX_SLOW_AT_A_TIME` late responses at a time."""
    with receiver(hang) as hangs, receiver() as other:
        make_webhooks(WEBHOOKS_AT_A_TIME + MORE, url=hangs.url)
        happened = happen(1)
        enqueue(happened)
        WebhookFactory(url=other.url)
        enqueue(happened)
        start_worker("--queues", "webhooks")
        until(lambda: other.messages)
        cut_off = Attempt.objects.filter(error__startswith="No response within 1 second ").count()
        assert MORE <= cut_off <= len(hangs.messages) - MAX_SLOW_AT_A_TIME
        assert not Attempt.objects.filter(error__contains="10 seconds").exists()


def test_failing_webhooks_do_not_delay_other_webhooks(start_worker, hang):
    with receiver(hang) as hangs, receiver() as other:
        make_webhooks(MAX_SLOW_AT_A_TIME + MORE, url=hangs.url, failing_since=timezone.now())
        enqueue(happen(1))
        start_worker("--queues", "webhooks")
        until(lambda: len(hangs.messages) == MAX_SLOW_AT_A_TIME)
        WebhookFactory(url=other.url)
        enqueue(happen(1))
        until(lambda: other.messages, seconds=SOON)
        assert len(hangs.messages) == MAX_SLOW_AT_A_TIME
        assert not Attempt.objects.exclude(delivery__status="delivered").exists()


# --- interrupted workers ------------------------------------------------------------------------


def test_messages_that_a_killed_worker_had_not_recorded_are_sent_again_with_the_same_ids(
    start_worker, capsys
):
    def kill(request):
        if len(other.messages) == 30:
            killed.process.kill()
        answer()(request)

    with receiver(kill) as other:
        WebhookFactory(url=other.url)
        enqueue(happen(60))
        killed = start_worker("--queues", "webhooks")
        killed.process.wait(PATIENCE)
        assert len(other.messages) == 30
        assert delivered() < 30

        # Pretend that the worker has sent no heartbeat for more than 30 seconds, so it is dead.
        run("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '31 s'")
        call_command("retry_stalled_jobs")
        assert capsys.readouterr().out == "Jobs put back in their queues: 1.\n"
        start_worker("--queues", "webhooks")
        until(lambda: delivered() == 60)
    arrived = arrivals(other)
    assert len(arrived) > 60
    assert [*dict.fromkeys(arrived)] == [*range(60)]
    ids = {
        (number, message.headers["webhook-id"])
        for number, message in zip(arrived, other.messages, strict=True)
    }
    assert len(ids) == 60


def test_deliveries_whose_job_was_lost_are_sent_within_a_minute(start_worker):
    periodic = {each.task.name: each.cron for each in app.periodic_registry.periodic_tasks.values()}
    assert periodic[WAKE] == "* * * * *"
    with receiver() as deleted, receiver() as failed:
        WebhookFactory(url=failed.url)
        enqueue(happen(1))
        run("UPDATE procrastinate_jobs SET status = 'failed'")
        WebhookFactory(url=deleted.url)
        enqueue(happen(1))
        run("DELETE FROM procrastinate_jobs WHERE status = 'todo'")
        app.configure_task(WAKE).defer(timestamp=0)
        start_worker()
        until(lambda: delivered() == Delivery.objects.count())
    assert [len(failed.messages), len(deleted.messages)] == [2, 1]


def test_a_webhook_that_waits_for_a_retry_is_not_woken():
    later = timezone.now() + timedelta(hours=1)
    waiting = DeliveryFactory(next_attempt_at=later).webhook
    webhooks.wake(webhook_ids=[waiting.pk], at=later)
    webhooks.wake_forgotten()
    [job] = ProcrastinateJob.objects.filter(task_name="bookings.deliver")
    assert job.scheduled_at == later


# --- webhooks that are switched off -------------------------------------------------------------


def test_a_message_that_arrives_while_deliveries_are_marked_as_failed_stays_delivered():
    webhook = WebhookFactory(is_active=False)
    DeliveryFactory.create_batch(3, webhook=webhook)
    arrived = webhook.deliveries.order_by("pk")[1]

    [outcome] = behind_a_rival(
        [lambda: deliveries._due(webhook.pk, at=timezone.now())],
        rival=lambda: Delivery.objects.filter(pk=arrived.pk).update(status="delivered"),
        end=transaction.commit,
    )

    assert outcome.error is None
    assert [*webhook.deliveries.order_by("pk").values_list("status", flat=True)] == [
        "failed",
        "delivered",
        "failed",
    ]


def test_new_deliveries_stay_pending_if_a_webhook_is_switched_on_while_old_ones_are_marked(
    monkeypatch,
):
    webhook = WebhookFactory(is_active=False)
    DeliveryFactory.create_batch(2, webhook=webhook)
    lock = deliveries._locked_deliveries

    def lock_and_switch_on(ids):
        if Webhook.objects.filter(pk=webhook.pk, is_active=False).update(is_active=True):
            DeliveryFactory(webhook=webhook)
        return lock(ids)

    monkeypatch.setattr(deliveries, "GIVE_UP_BATCH", 1)
    monkeypatch.setattr(deliveries, "_locked_deliveries", lock_and_switch_on)
    deliveries._due(webhook.pk, at=timezone.now())
    statuses = [*webhook.deliveries.values_list("status", flat=True)]
    assert sorted(statuses) == ["failed", "pending", "pending"]
    assert webhook.deliveries.latest("created_at", "id").status == Delivery.Status.PENDING


# --- queues -------------------------------------------------------------------------------------


def test_a_worker_serves_all_queues_or_only_the_queues_in_its_options(start_worker, mail_server):
    mailbox = Mailbox()
    variables = {"EMAIL_URL": mail_server(mailbox)}
    with receiver() as other:
        WebhookFactory(url=other.url)
        enqueue(happen(1))
        happen(1)
        only = start_worker("--queues", "webhooks", **variables)
        until(lambda: delivered() == 1)
        assert only.jobs("bookings.follow_up") == ["todo"]
        assert only.end() == 0
        start_worker(**variables)
        until(lambda: delivered() == 2 and mailbox.mails)


def test_a_worker_with_an_unknown_queue_fails_with_a_one_line_message():
    done = subprocess.run(
        [sys.executable, "manage.py", "procrastinate", "worker", "--queues", "webhoks"],
        cwd=BASE_DIR,
        env={**os.environ, "DATABASE_URL": database_url()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode != 0
    [line] = (done.stdout + done.stderr).strip().splitlines()
    assert "webhoks" in line
    assert "default, mails, webhooks" in line


# --- jobs that end in an error ------------------------------------------------------------------


# Citus raises this error when it loses its connection to a server.
LOST = InternalError("failure on connection marked as essential: one:5432")


@pytest.mark.parametrize(
    "error", [OperationalError("gone"), InterfaceError("closed"), LOST], ids=str
)
def test_a_job_does_not_fail_because_the_database_is_unavailable(error, monkeypatch, caplog):
    async def fail(**options):
        raise error

    monkeypatch.setattr(deliveries, "deliver", fail)
    asyncio.run(tasks.deliver(webhook_id=str(uuid4())))
    assert "deliveries to a webhook were interrupted" in caplog.text


def test_a_job_fails_because_of_a_bug(monkeypatch):
    async def fail(**options):
        raise DataError("no such type")

    monkeypatch.setattr(deliveries, "deliver", fail)
    with pytest.raises(DataError):
        asyncio.run(tasks.deliver(webhook_id=str(uuid4())))
