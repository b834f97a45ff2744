"""Measures the work outside requests: emails, webhooks, and completing bookings."""

import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from uuid import UUID

import psutil
from django.db import connection
from django.db.models import Max, Min, QuerySet
from django.utils import timezone
from procrastinate.contrib.django.models import ProcrastinateJob

from accounts.models import User
from bookings.events import state
from bookings.models import Booking, BookingEvent
from bookings.webhooks import services as webhook_services
from bookings.webhooks.models import Attempt, Delivery, Webhook
from bookit.runtime.servers import production
from bookit.runtime.startup import BASE_DIR
from bookit.tools.benchmark.fill import Size, booked, key, store, vacuum
from catalog.models import Service

# The number of bookings whose confirmation events are added at once. Each event causes two emails:
# one to the customer and one to the provider.
CONFIRMED = 2_000
# The number of events that are sent to one endpoint.
EVENTS = 2_000
# The number of bookings that ended while no worker ran.
OVERDUE = 100_000
# The start of the first overdue booking, long before all other bookings.
LONG_AGO = datetime(2010, 1, 1, tzinfo=UTC)
# The targets: emails per second, deliveries per second, MiB of memory of a worker, seconds for all
# overdue bookings, and the longest time in seconds for which locks are held.
MIN_MAILS, MIN_DELIVERIES, MAX_MEMORY, MAX_SECONDS, LONGEST_LOCK = 150, 100, 120, 30, 1
TIMEOUT = 120.0

# Finds the age of the oldest transaction on other connections. No transaction has held a lock for
# longer than this.
#
# Parameters: none.
# Columns: age numeric, in seconds; null if there is no other transaction.
OLDEST_TRANSACTION = """
SELECT extract(epoch FROM max(clock_timestamp() - xact_start)) AS age FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""

# Deletes all jobs. The ORM cannot delete them, because procrastinate's model is read-only.
#
# Parameters: none.
# Columns: none.
DELETE_JOBS = "DELETE FROM procrastinate_jobs"

# A function that is called with lines about the progress.
Say = Callable[[str], None]


class JobsError(Exception):
    """The jobs were not done."""


@dataclass(frozen=True)
class JobsDone:
    """The number of jobs or bookings that were done, and the time and resources they took."""

    name: str
    count: int
    seconds: float
    memory_mib: float | None = None
    longest_lock_s: float | None = None

    @property
    def rate(self) -> float:
        """The number of jobs or bookings per second."""
        return self.count / self.seconds

    def missed(self) -> list[str]:
        """Return the targets that were missed."""
        missed = []
        if self.name == "mails" and self.rate < MIN_MAILS:
            missed.append(f"mails: {self.rate:.1f} a second (target: at least {MIN_MAILS})")
        if self.name == "webhooks" and self.rate < MIN_DELIVERIES:
            missed.append(f"webhooks: {self.rate:.1f} a second (target: at least {MIN_DELIVERIES})")
        if self.name == "overdue" and self.seconds > MAX_SECONDS:
            missed.append(f"overdue: {self.seconds:.1f} s (target: at most {MAX_SECONDS})")
        if self.memory_mib is not None and self.memory_mib > MAX_MEMORY:
            missed.append(f"worker: {self.memory_mib:.1f} MiB (target: at most {MAX_MEMORY})")
        if self.longest_lock_s is not None and self.longest_lock_s > LONGEST_LOCK:
            missed.append(
                f"overdue: a lock of {self.longest_lock_s:.2f} s (target: at most {LONGEST_LOCK})"
            )
        return missed

    def text(self) -> str:
        """Return the outcome as a line for people."""
        line = f"{self.name}: {self.count:,} in {self.seconds:.1f} s, {self.rate:,.0f} a second"
        if self.memory_mib is not None:
            line += f", {self.memory_mib:.0f} MiB resident"
        if self.longest_lock_s is not None:
            line += f", locks held for {self.longest_lock_s * 1000:.0f} ms at most"
        return line


def mails(url: str, size: Size, say: Say) -> JobsDone:
    """Add the events of confirmations, and let one worker on one core write the emails.

    The emails are discarded.
    """
    say(f"The mails of {CONFIRMED:,} bookings.")
    delete_jobs()
    at = timezone.now()
    # Only bookings of customers, so that the emails go to many addresses. All bookings in Lisbon
    # belong to their provider.
    upcoming = Booking.objects.filter(
        status=Booking.Status.CONFIRMED, start_time__gt=at, user__role=User.Role.USER
    )
    BookingEvent.objects.bulk_create(
        BookingEvent(
            calendar_id=booking.calendar_id,
            booking=booking,
            type=BookingEvent.Type.CONFIRMED,
            at=at,
            data=state(booking),
        )
        for booking in upcoming.order_by("id")[:CONFIRMED]
    )
    waiting = _jobs_of("send_mail")
    with _command_running(url, "procrastinate", "worker") as worker:
        _wait_until(lambda: waiting.exists() and not _jobs_of("follow_up").exists())
        count, begun = waiting.count(), time.monotonic()
        _wait_until(lambda: not waiting.exists())
        seconds = time.monotonic() - begun
        memory = worker.memory_info().rss / 2**20
    return JobsDone("mails", count, seconds, memory_mib=memory)


def webhooks(url: str, size: Size, say: Say) -> JobsDone:
    """Let one worker on one core send events to one endpoint, which responds at once."""
    say(f"{EVENTS:,} events for a webhook.")
    delete_jobs()
    with _endpoint() as endpoint_url:
        webhook = _webhook(endpoint_url)
        pending = Delivery.objects.filter(status=Delivery.Status.PENDING)
        with _command_running(
            url, "procrastinate", "worker", WEBHOOK_ALLOW_PRIVATE="true"
        ) as worker:
            _wait_until(lambda: not pending.exists())
            memory = worker.memory_info().rss / 2**20
    seen = Attempt.objects.aggregate(first=Min("at"), last=Max("at"))
    seconds = (seen["last"] - seen["first"]).total_seconds()
    webhook_services.delete_webhook(webhook_id=webhook.pk)
    User.objects.filter(pk=webhook.owner_id).delete()
    return JobsDone("webhooks", EVENTS, seconds, memory_mib=memory)


def _webhook(url: str) -> Webhook:
    """Return a new webhook with deliveries of the oldest events. New events are not sent to it."""
    at = timezone.now()
    kind = BookingEvent.Type.CREATED
    webhook = Webhook.objects.create(
        owner=User.objects.create_superuser("admin@example.com", "Admin"),
        url=url,
        events=[kind],
        since={kind: str(UUID(int=2**128 - 1))},
        secret=f"whsec_{b64encode(bytes(32)).decode()}",
    )
    Delivery.objects.bulk_create(
        Delivery(
            webhook=webhook,
            calendar_id=event.calendar_id,
            event=event,
            type=event.type,
            next_attempt_at=at,
            created_at=at,
        )
        for event in BookingEvent.objects.order_by("id")[:EVENTS]
    )
    webhook_services.wake(webhook_ids=[webhook.pk])
    return webhook


def overdue(url: str, size: Size, say: Say) -> JobsDone:
    """Let a command complete bookings that ended while no worker ran."""
    say(f"{OVERDUE:,} overdue bookings.")
    store(_overdue(size))
    vacuum()
    longest, begun = 0.0, time.monotonic()
    with _command_running(url, "complete_bookings") as command, connection.cursor() as cursor:
        while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
            cursor.execute(OLDEST_TRANSACTION)
            [(age,)] = cursor.fetchall()
            longest = max(longest, float(age or 0))
            time.sleep(0.02)
    seconds = time.monotonic() - begun
    completed = Booking.objects.filter(
        status=Booking.Status.COMPLETED,
        start_time__lte=_start_of_overdue(OVERDUE - 1, len(_quiet_services(size))),
    ).count()
    if completed < OVERDUE:
        raise JobsError(f"Only {completed:,} of {OVERDUE:,} overdue bookings are completed.")
    return JobsDone("overdue", OVERDUE, seconds, longest_lock_s=longest)


def _overdue(size: Size) -> Iterator[Booking]:
    numbers = _quiet_services(size)
    services = [Service.objects.get(pk=key("service", number)) for number in numbers]
    for n in range(OVERDUE):
        yield booked(
            services[n % len(services)],
            _start_of_overdue(n, len(services)),
            id=key("overdue", n),
            user_id=key("user", 1 + n % size.customers),
        )


def _quiet_services(size: Size) -> list[int]:
    """Return the numbers of the services with overdue bookings."""
    return size.quiet_services(400)


def _start_of_overdue(n: int, services: int) -> datetime:
    """Return the start of overdue booking `n`. The bookings of a service are two hours apart."""
    return LONG_AGO + timedelta(hours=2 * (n // services))


#: The measurements by their names on the command line.
MEASURES: dict[str, Callable[[str, Size, Say], JobsDone]] = {
    "mails": mails,
    "webhooks": webhooks,
    "overdue": overdue,
}


def _jobs_of(task: str) -> QuerySet[Any]:
    return ProcrastinateJob.objects.filter(task_name__endswith=f".{task}")


def delete_jobs() -> None:
    """Delete all jobs."""
    with connection.cursor() as cursor:
        cursor.execute(DELETE_JOBS)


class _EndpointHandler(BaseHTTPRequestHandler):
    """Responds to every request at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()

    def log_request(self, *args: Any) -> None:
        pass


@contextmanager
def _endpoint() -> Iterator[str]:
    """Serve a webhook endpoint inside a `with` block, and yield its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EndpointHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _command_running(url: str, *command: str, **variables: str) -> Iterator[psutil.Process]:
    """Run a command of `manage.py` inside a `with` block, and yield its process.

    On Linux, the process uses only one core.
    """
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=BASE_DIR,
        env={**production(url), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        watched = psutil.Process(process.pid)
        if hasattr(watched, "cpu_affinity"):
            watched.cpu_affinity(watched.cpu_affinity()[-1:])
        yield watched
    finally:
        process.terminate()
        process.wait()


def _wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise JobsError(f"The jobs were not done within {TIMEOUT:.0f} s.")
        time.sleep(0.05)
