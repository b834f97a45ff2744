"""What a worker does by itself: mails, webhooks, and the bookings that are over."""

import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import psutil
import psycopg

from bookit.runtime.startup import BASE_DIR
from bookit.tools.benchmark.fill import Size, key
from bookit.tools.benchmark.servers import production

# Bookings that are confirmed at once: each is told to the customer and to the provider.
CONFIRMED = 2_000
FOLLOW_UP, MAIL = "%.follow_up", "%.send_mail"
# Events that one endpoint is sent.
EVENTS = 2_000
# Bookings that have ended while no worker ran.
OVERDUE = 100_000
# The targets.
LEAST_MAILS, LEAST_DELIVERIES, MOST_MEMORY, MOST_SECONDS, LONGEST_LOCK = 150, 100, 120, 30, 1
TIMEOUT = 120.0

CONFIRM = """
INSERT INTO bookings_bookingevent (booking_id, type, at, data)
SELECT id, 'booking.confirmed', now(), jsonb_build_object(
    'status', 'confirmed', 'start_time', start_time, 'end_time', end_time, 'seat', seat,
    'slot_id', slot_id, 'hold_expires_at', NULL
) FROM bookings_booking
WHERE status = 'confirmed' AND start_time > now() AND user_id = ANY(
    SELECT benchmark.key('user', n) FROM generate_series(1, %(users)s) AS n
)
ORDER BY id LIMIT %(confirmed)s
"""
# An admin, and what waits for a webhook of theirs, which is sent nothing else meanwhile.
WEBHOOK = """
WITH owner AS (
    INSERT INTO accounts_user (id, password, name, email, role, timezone, is_active, created_at)
    VALUES (benchmark.key('admin', 1), '', '', 'admin@example.com', 'admin', 'UTC', true, now())
    RETURNING id
), webhook AS (
    INSERT INTO bookings_webhook (
        id, owner_id, url, events, since, secret, previous_secret, is_active, disabled_reason
    )
    SELECT benchmark.key('webhook', 1), id, %(url)s, '{booking.created}',
        jsonb_build_object('booking.created', %(last)s::bigint), %(secret)s, '',
        true, ''
    FROM owner RETURNING id
), delivery AS (
    INSERT INTO bookings_delivery (id, webhook_id, event_id, type, status, next_attempt_at)
    SELECT gen_random_uuid(), webhook.id, event.id, event.type, 'pending', now()
    FROM webhook CROSS JOIN (
        SELECT id, type FROM bookings_bookingevent ORDER BY id LIMIT %(events)s
    ) AS event
)
INSERT INTO procrastinate_jobs (queue_name, task_name, priority, lock, queueing_lock, args)
SELECT 'webhooks', 'bookings.deliver', 0, 'webhook-' || id, 'webhook-' || id,
    jsonb_build_object('webhook_id', id)
FROM webhook
"""
# Long before all others, so that no two meet.
FORGET = """
INSERT INTO bookings_booking (
    id, user_id, service_id, calendar_id, seat, start_time, end_time, blocked, status,
    attendee_name, attendee_email, notes, price, currency
)
SELECT benchmark.key('overdue', n), benchmark.key('user', 1 + n %% %(users)s), service.id,
    service.calendar_id, 1, start_time, start_time + interval '1 hour',
    tstzrange(start_time, start_time + interval '1 hour'), 'confirmed', '', '', '', 25, 'USD'
FROM generate_series(0, %(overdue)s - 1) AS n
JOIN catalog_service AS service
    ON service.id = (%(services)s::uuid[])[1 + n %% cardinality(%(services)s::uuid[])]
CROSS JOIN LATERAL (
    SELECT timestamptz '2010-01-01 UTC'
        + n / cardinality(%(services)s::uuid[]) * interval '1 hour' AS start_time
) AS begins
"""


class JobsError(Exception):
    """Jobs are not done."""


@dataclass(frozen=True)
class JobsDone:
    """How many jobs, or bookings, were done in how many seconds, and what that took."""

    name: str
    count: int
    seconds: float
    memory_mib: float | None = None
    longest_lock_s: float | None = None

    @property
    def rate(self) -> float:
        """How many were done in a second."""
        return self.count / self.seconds

    def missed(self) -> list[str]:
        """Return the targets that were not reached."""
        missed = []
        if self.name == "mails" and self.rate < LEAST_MAILS:
            missed.append(f"mails: {self.rate:.0f} a second, not {LEAST_MAILS}")
        if self.name == "webhooks" and self.rate < LEAST_DELIVERIES:
            missed.append(f"webhooks: {self.rate:.0f} a second, not {LEAST_DELIVERIES}")
        if self.name == "overdue" and self.seconds > MOST_SECONDS:
            missed.append(f"overdue: {self.seconds:.0f} s, not {MOST_SECONDS}")
        if self.memory_mib is not None and self.memory_mib > MOST_MEMORY:
            missed.append(f"worker: {self.memory_mib:.0f} MiB, not {MOST_MEMORY}")
        if self.longest_lock_s is not None and self.longest_lock_s > LONGEST_LOCK:
            missed.append(f"overdue: a lock of {self.longest_lock_s:.1f} s, not {LONGEST_LOCK}")
        return missed

    def text(self) -> str:
        """Return what was found, for people."""
        said = f"{self.name}: {self.count:,} in {self.seconds:.1f} s, {self.rate:,.0f} a second"
        if self.memory_mib is not None:
            said += f", {self.memory_mib:.0f} MiB resident"
        if self.longest_lock_s is not None:
            said += f", locks held for {self.longest_lock_s * 1000:.0f} ms at most"
        return said


def mails(url: str, size: Size, say: Callable[[str], None]) -> JobsDone:
    """Confirm bookings, and let one worker on one core write the mails, to nowhere."""
    say(f"The mails of {CONFIRMED:,} bookings.")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM procrastinate_jobs")
        connection.execute(CONFIRM, {"users": size.users, "confirmed": CONFIRMED})

        def waiting(task: str) -> int:
            row = connection.execute(
                "SELECT count(*) FROM procrastinate_jobs WHERE task_name LIKE %s", [task]
            ).fetchone()
            return int(row[0]) if row else 0

        with _running(url, "procrastinate", "worker") as worker:
            _until(lambda: waiting(MAIL) and not waiting(FOLLOW_UP))
            count, begun = waiting(MAIL), time.monotonic()
            _until(lambda: not waiting(MAIL))
            seconds = time.monotonic() - begun
            memory = worker.memory_info().rss / 2**20
    return JobsDone("mails", count, seconds, memory_mib=memory)


def webhooks(url: str, size: Size, say: Callable[[str], None]) -> JobsDone:
    """Let one worker on one core send events to one endpoint, which answers at once."""
    say(f"{EVENTS:,} events for a webhook.")
    secret = f"whsec_{b64encode(bytes(32)).decode()}"
    with psycopg.connect(url, autocommit=True) as connection, _endpoint(EVENTS) as endpoint:
        connection.execute("DELETE FROM procrastinate_jobs")
        address = f"http://127.0.0.1:{int(endpoint.readline())}/"
        connection.execute(
            WEBHOOK, {"url": address, "secret": secret, "events": EVENTS, "last": 2**63 - 1}
        )

        def waiting() -> bool:
            row = connection.execute(
                "SELECT EXISTS (SELECT FROM bookings_delivery WHERE status = 'pending')"
            ).fetchone()
            return bool(row and row[0])

        allowed = {"WEBHOOK_ALLOW_PRIVATE": "true"}
        with _running(url, "procrastinate", "worker", **allowed) as worker:
            _until(lambda: not waiting())
            memory = worker.memory_info().rss / 2**20
        seconds = float(endpoint.readline())
        connection.execute("TRUNCATE bookings_webhook, bookings_delivery, bookings_attempt")
        connection.execute("DELETE FROM accounts_user WHERE id = benchmark.key('admin', 1)")
    return JobsDone("webhooks", EVENTS, seconds, memory_mib=memory)


def overdue(url: str, size: Size, say: Callable[[str], None]) -> JobsDone:
    """Complete bookings that have ended while no worker ran."""
    say(f"{OVERDUE:,} overdue bookings.")
    services = [key("service", number) for number in size.quiet_services(400)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FORGET, {"users": size.users, "overdue": OVERDUE, "services": services})
        connection.execute("VACUUM (ANALYZE) bookings_booking")
        longest, begun = 0.0, time.monotonic()
        with _running(url, "complete_bookings") as command:
            while command.is_running() and command.status() != psutil.STATUS_ZOMBIE:
                row = connection.execute(
                    "SELECT extract(epoch FROM max(clock_timestamp() - xact_start))"
                    " FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                    " AND backend_type = 'client backend'"
                ).fetchone()
                longest = max(longest, float(row[0] or 0) if row else 0)
                time.sleep(0.02)
        seconds = time.monotonic() - begun
        row = connection.execute(
            "SELECT count(*) FROM bookings_booking WHERE status = 'completed' AND start_time <"
            " '2025-01-01'"
        ).fetchone()
        if row is None or row[0] < OVERDUE:
            raise JobsError(f"Of {OVERDUE:,} overdue bookings {row and row[0]:,} are completed.")
    return JobsDone("overdue", OVERDUE, seconds, longest_lock_s=longest)


#: By the name of what is measured.
MEASURES: dict[str, Callable[[str, Size, Callable[[str], None]], JobsDone]] = {
    "mails": mails,
    "webhooks": webhooks,
    "overdue": overdue,
}


@contextmanager
def _endpoint(messages: int) -> Iterator[IO[str]]:
    """Run an endpoint of webhooks, for the length of a `with` block; return what it writes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bookit.tools.benchmark.endpoint", str(messages)],
        cwd=BASE_DIR,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with cast(IO[str], process.stdout) as said:
            yield said
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _running(url: str, *command: str, **variables: str) -> Iterator[psutil.Process]:
    """Run a command of `manage.py` on one core, for the length of a `with` block."""
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


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise JobsError(f"Jobs are not done after {TIMEOUT:.0f} s.")
        time.sleep(0.05)
