"""Runs a whole day: start everything, let the clients act, then check the outcome."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bookings.tests.smtp import AnyPort, Mailbox
from bookit.runtime.embedded_postgres import running
from bookit.runtime.startup import BASE_DIR
from bookit.tests.chaos import checker
from bookit.tests.chaos.actors import (
    Actor,
    Admin,
    Poller,
    Provider,
    Troublemaker,
    User,
    Visitor,
)
from bookit.tests.chaos.faults import Faults
from bookit.tests.chaos.ledger import Ledger
from bookit.tests.chaos.town import PASSWORD, Town, build
from bookit.tests.receiver import Receiver, receiver

CHIEF = "chief@example.com"
# Seconds to wait for BookIt or PostgreSQL to start, and for the remaining jobs at the end.
START_TIMEOUT, DRAIN_TIMEOUT = 60.0, 180.0
EVENTS = [
    *("booking.created", "booking.confirmed", "booking.rescheduled", "booking.cancelled"),
    *("booking.completed", "booking.expired", "booking.no_show", "review.created"),
]
# The errors that faults cause. When a frozen PostgreSQL runs again, it cancels the statements whose
# time limit has passed (QueryCanceled). A worker that was taken for dead meanwhile cannot write the
# outcome of its job (RaiseException in a function of procrastinate).
ERRORS_OF_FAULTS = re.compile(
    r"psycopg\.OperationalError|InterfaceError|PoolTimeout"
    r"|AdminShutdown|CrashShutdown|CannotConnectNow|ConnectionTimeout|QueryCanceled"
    r"|RaiseException: Job was not found"
)
# Counts the jobs that are due or running. Reminders, retries and offers of seats do not count while
# they are scheduled for later.
JOBS_LEFT = """
SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'
    OR (status = 'todo' AND coalesce(scheduled_at, now()) <= now())
"""


@dataclass
class Day:
    """The outcome of a day."""

    seed: int
    seconds: float
    ledger: Ledger
    faults: Counter[str]
    bookings: int
    events: int
    mails: int
    messages: int
    violations: list[str]

    def report(self) -> str:
        """Return the outcome as readable text."""
        ledger = self.ledger
        by_status = Counter[int]()
        for (_, status), number in ledger.statuses.items():
            by_status[status] += number
        statuses = ", ".join(
            f"{number:,} x {status}" for status, number in sorted(by_status.items())
        )
        lines = [
            f"Seed {self.seed}, {self.seconds:.0f} seconds.",
            f"{ledger.requests:,} requests: {statuses}; {ledger.broken:,} without a response.",
            "Faults: "
            + (", ".join(f"{n} x {fault}" for fault, n in self.faults.items()) or "none")
            + ".",
            f"The slowest response took {ledger.slowest[0]:.1f} s ({ledger.slowest[1]}).",
            (
                f"{ledger.acknowledged:,} acknowledged changes, {self.bookings:,} bookings,"
                f" {self.events:,} events, {self.mails:,} emails,"
                f" {self.messages:,} webhook messages."
            ),
        ]
        if not self.violations:
            return "\n".join([*lines, "No check found a violation.", ""])
        shown = [f"  - {violation[:300]}" for violation in self.violations[:50]]
        more = len(self.violations) - len(shown)
        shown += [f"({more} more)"] if more else []
        return "\n".join([*lines, "Violations:", *shown, ""])


def play(
    directory: Path,
    *,
    seconds: float,
    seed: int,
    calm: bool = False,
    migrate: Callable[[str], None] | None = None,
) -> Day:
    """Run a day in `directory`, check for violations at the end, and return the outcome.

    Args:
        seed: determines the choices of actors and faults, but not their timing.
        calm: run without faults.
        migrate: creates the tables in the database at a URL; None to run `manage.py migrate`.
    """
    ledger = Ledger()
    mailbox = Mailbox()
    with ExitStack() as stack:
        url = stack.enter_context(running(directory / "postgres"))
        hook = stack.enter_context(receiver())
        smtp = AnyPort(mailbox, hostname="127.0.0.1", port=0)
        smtp.start()
        stack.callback(smtp.stop)
        environment = _environment(url, smtp.port)
        if migrate is None:
            _manage(environment, "migrate", "--no-input", "--verbosity=0")
        else:
            migrate(url)
        _manage(environment, "createsuperuser", "--no-input")
        serve, base = stack.enter_context(_serving(directory / "output", environment))
        town = build(base, CHIEF)
        chief = town.people["admin"][-1]
        admin = Admin(base, town, ledger, chief, seed)
        body = {"url": hook.url, "events": EVENTS}
        admin.send("POST", "/webhooks", body, allowed={201})
        actors = _actors(base, town, ledger, seed)
        faults = Faults(psutil.Process(serve.pid), directory / "postgres", seed)
        with _running([*actors] if calm else [*actors, faults]):
            time.sleep(seconds)
        undone = _drain(url, environment)
        with psycopg.connect(url, autocommit=True) as connection:
            poller = next(actor for actor in actors if isinstance(actor, Poller))
            found = [
                *undone,
                *checker.violations(connection),
                *ledger.violations(connection),
                *_missed_by_the_poller(connection, poller),
                *_missed_by_the_webhook(connection, hook),
                *_tracebacks(directory / "output", calm=calm),
            ]
            return Day(
                seed=seed,
                seconds=seconds,
                ledger=ledger,
                faults=faults.done,
                bookings=_count(connection, "bookings_booking"),
                events=_count(connection, "bookings_bookingevent"),
                mails=len(mailbox.mails),
                messages=len(hook.messages),
                violations=found,
            )


@contextmanager
def _running(threads: list[Actor | Faults]) -> Iterator[None]:
    """Run threads until the end of a `with` block, and wait until they have ended."""
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for thread in threads:
            thread.stopping.set()
        for thread in threads:
            if thread.is_alive():
                thread.join()


def _actors(base: str, town: Town, ledger: Ledger, seed: int) -> list[Actor]:
    cast: list[tuple[type[Actor], Any]] = [
        *((User, person) for person in town.people["user"]),
        *((Provider, person) for person in town.people["provider"]),
        *((Admin, person) for person in town.people["admin"]),
        *((kind, None) for kind in (Visitor, Visitor, Troublemaker)),
        (Poller, town.people["admin"][-1]),
    ]
    return [
        kind(base, town, ledger, person, seed + number)
        for number, (kind, person) in enumerate(cast, 1)
    ]


def _environment(url: str, smtp_port: int) -> dict[str, str]:
    return {
        **os.environ,
        "DATABASE_URL": url,
        "DATABASE_POOL_SIZE": "",
        "EMAIL_URL": f"smtp://127.0.0.1:{smtp_port}",
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WEB_CONCURRENCY": "2",
        "WEB_THREADS": "4",
        "HOLD_MINUTES": "1",
        "WAITLIST_OFFER_MINUTES": "1",
        "ACCESS_TOKEN_EXPIRE_MINUTES": "1440",
        "RATE_LIMIT_AUTH": "",
        "RATE_LIMIT_PASSWORD": "",
        "RATE_LIMIT_ANON": "",
        "RATE_LIMIT_USER": "",
        "RATE_LIMIT_KEY": "",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "INFO",
        "DJANGO_SUPERUSER_EMAIL": CHIEF,
        "DJANGO_SUPERUSER_NAME": "The chief",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
    }


def _manage(environment: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=BASE_DIR, env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _serving(
    output: Path, environment: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `manage.py serve`, and yield its process and the URL of its API."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "serve", "--port", "0"],
            cwd=BASE_DIR,
            env=environment,
            stdout=file,
            stderr=file,
        )
        try:
            yield process, _api_url(output, process)
        finally:
            process.terminate()
            process.wait(60)


def _api_url(output: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"API +(http://127\.0\.0\.1:\d+)", output.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"BookIt does not start: {output.read_text()[-2000:]}")


def _connect(url: str) -> psycopg.Connection[Any]:
    """Connect to PostgreSQL, which may still be recovering from the last fault."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            return psycopg.connect(url, autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _drain(url: str, environment: dict[str, str]) -> list[str]:
    """Retry the jobs of dead workers, and wait until the worker has run all jobs that are due.

    Return a violation if jobs are still due or running after `DRAIN_TIMEOUT`.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT
    quiet = 0
    with _connect(url) as connection:
        # Let workers that have sent no heartbeat for 15 seconds count as dead at once.
        connection.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'"
            " WHERE last_heartbeat < now() - interval '15 seconds'"
        )
        _manage(environment, "retry_stalled_jobs")
        while quiet < 5 and time.monotonic() < deadline:
            row = connection.execute(JOBS_LEFT).fetchone()
            quiet = quiet + 1 if row == (0,) else 0
            time.sleep(0.5)
    return [] if quiet == 5 else [f"the worker has not run all jobs within {DRAIN_TIMEOUT:.0f} s"]


def _missed_by_the_poller(connection: psycopg.Connection[Any], poller: Poller) -> list[str]:
    """Read `/events` to the end, and report events that are missing, repeated or unordered.

    `/events` does not contain the end of a hold (cancelled or expired).
    """
    # The poller's thread has closed its client.
    with poller.client.__class__(
        base_url=poller.base, headers=poller.client.headers, timeout=30
    ) as poller.client:
        caught_up = 0
        deadline = time.monotonic() + DRAIN_TIMEOUT
        while caught_up < 3 and time.monotonic() < deadline:
            poller.poll()
            caught_up = caught_up + 1 if poller.has_all else 0
    rows = connection.execute(
        "SELECT id::text, booking_id::text FROM bookings_bookingevent WHERE type = ANY (%s)"
        " AND NOT (type IN ('booking.cancelled', 'booking.expired')"
        " AND data->'was'->>'status' IS NOT DISTINCT FROM 'held') ORDER BY id",
        [EVENTS],
    ).fetchall()
    found = []
    if caught_up < 3:
        found.append(f"/events could not be read to its end within {DRAIN_TIMEOUT:.0f} s")
    missing = {event for event, _ in rows} - {*poller.seen}
    if missing:
        found.append(f"/events has not shown {len(missing)} events: {sorted(missing)[:3]} ...")
    if len(poller.seen) != len({*poller.seen}):
        found.append("/events has shown an event twice")
    return found + _out_of_order(dict(rows), poller.seen, "/events")


def _missed_by_the_webhook(connection: psycopg.Connection[Any], hook: Receiver) -> list[str]:
    """Report deliveries that are not `delivered`, and events that were missed or out of order."""
    rows = connection.execute(
        "SELECT delivery.id::text, event.id::text, event.booking_id::text, delivery.status"
        " FROM bookings_delivery AS delivery"
        " JOIN bookings_bookingevent AS event"
        " ON (event.calendar_id, event.id) = (delivery.calendar_id, delivery.event_id)"
        " ORDER BY event.id"
    ).fetchall()
    events = {delivery: event for delivery, event, _, _ in rows}
    headers = (
        {name.lower(): text for name, text in each.headers.items()} for each in hook.messages
    )
    arrived = [events.get(each["webhook-id"], "") for each in headers]
    first_seen = [*dict.fromkeys(each for each in arrived if each)]
    found = [
        f"{number} deliveries are {status}"
        for status, number in Counter(status for *_, status in rows).items()
        if status != "delivered"
    ]
    missing = {*events.values()} - {*first_seen}
    if missing:
        found.append(f"the webhook was not sent {len(missing)} events: {sorted(missing)[:3]} ...")
    return found + _out_of_order({e: b for _, e, b, _ in rows}, first_seen, "the webhook")


def _out_of_order(booking_of: dict[str, str], seen: list[str], where: str) -> list[str]:
    """Return a sentence for each event that was seen out of order."""
    # Each event of a booking has a higher id than the events before it.
    latest: dict[str, str] = {}
    found = []
    for event in seen:
        booking = booking_of.get(event, "")
        if event < latest.get(booking, ""):
            found.append(f"{where} has shown the events of booking {booking} out of order")
        latest[booking] = event
    return found


def _tracebacks(output: Path, *, calm: bool) -> list[str]:
    """Return the log lines with exceptions that no fault explains. A calm day has no faults."""
    found = []
    for line in output.read_text(errors="replace").splitlines():
        if '"exc_info"' not in line and "Traceback" not in line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"message": line}
        causes = "; ".join(re.findall(r"^\S*psycopg\S*: .*", str(entry.get("exc_info")), re.M))
        text = f"{entry.get('message')}: {str(entry.get('exc_info', '')).strip()[-300:]} ({causes})"
        if calm or not is_caused_by_a_fault(str(entry)):
            found.append(f"in the log: {text}")
    return found


def is_caused_by_a_fault(traceback: str) -> bool:
    """Return whether a traceback contains one of the errors that faults cause.

    Other errors of PostgreSQL, for example deadlocks, have other classes.
    """
    return bool(ERRORS_OF_FAULTS.search(traceback))


def _count(connection: psycopg.Connection[Any], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(row[0]) if row else 0
