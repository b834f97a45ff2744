"""Acknowledged bookings are not lost when processes are killed at random."""

import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException

import psutil
import psycopg
import pytest

from accounts.tests.factories import PASSWORD, ProviderFactory, UserFactory
from bookings.tests.smtp import AnyPort, Mailbox
from bookings.tests.workers import Worker, until
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import connected_to
from bookit.runtime.startup import BASE_DIR
from bookit.tests.plugin import THROWAWAY
from catalog.tests.factories import ServiceFactory

CLIENTS = 3
# The pause of a client between two bookings, and the duration of the random kills, in seconds.
PAUSE, SECONDS = 0.1, 6


class Client(threading.Thread):
    """Books one time after another, and keeps the ids of the acknowledged bookings."""

    def __init__(self, port, customer, service, stop):
        super().__init__()
        self.port, self.customer, self.service, self.stop = port, customer, service, stop
        self.booked, self.unexpected = [], []

    def ask(self, path, body, token=""):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            if not token:
                del headers["Authorization"]
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def run(self):
        credentials = {"email": self.customer.email, "password": PASSWORD}
        status, session = self.ask("/auth/login", credentials)
        assert status == 200, session
        start_time = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        # These times are so far ahead that no reminder is sent during the test.
        for hours in range(24 * 400, 24 * 4000, 2):
            if self.stop.wait(PAUSE):
                return
            begins = (start_time + timedelta(hours=hours)).isoformat()
            try:
                status, content = self.ask(
                    "/bookings",
                    {"service_id": str(self.service.pk), "start_time": begins},
                    session["access_token"],
                )
            except (OSError, HTTPException, ValueError):
                continue
            if status == 201:
                self.booked.append(content["id"])
            elif status != 503:
                self.unexpected.append(content)


def processes(serve, what):
    """Return the processes of one kind that `serve` has started: queue workers or web workers."""
    name = "procrastinate" if what == "worker" else "gunicorn"
    found = []
    for each in psutil.Process(serve.process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if name in " ".join(each.cmdline()):
                found += [each] if what == "worker" else each.children()
    return found


def kill_at_random(serve, seconds):
    """Kill web workers and queue workers in turn; return how many of each were killed."""
    killed = {"web": 0, "worker": 0}
    deadline = time.monotonic() + seconds
    for what in itertools.cycle(killed):
        if time.monotonic() > deadline:
            break
        time.sleep(random.uniform(0.3, 1))
        with suppress(psutil.NoSuchProcess, IndexError):
            random.choice(processes(serve, what)).kill()
            killed[what] += 1
    return killed


def first_column(rows):
    return [row[0] for row in rows]


@pytest.mark.real_passwords
def test_acknowledged_bookings_keep_their_row_event_and_emails(
    tmp_path, django_db_blocker, migrate
):
    mailbox = Mailbox()
    smtp = AnyPort(mailbox, hostname="127.0.0.1", port=0)
    smtp.start()
    # PostgreSQL is not killed, so its data need not be safe on disk.
    with running(tmp_path / "postgres", settings=THROWAWAY) as url:
        migrate(url)
        with django_db_blocker.unblock(), connected_to(url):
            customers = UserFactory.create_batch(CLIENTS)
            providers = ProviderFactory.create_batch(CLIENTS)
            services = [ServiceFactory(calendar__provider=provider) for provider in providers]
        environment = {
            "EMAIL_URL": f"smtp://127.0.0.1:{smtp.port}",
            # Each customer makes many bookings, and no limit may suppress the emails about them.
            "MAILS_PER_ADDRESS": "10000000",
            "MAILS_PER_VERIFIED_ADDRESS": "10000000",
        }
        serve = Worker(
            tmp_path / "output",
            url=url,
            command=["serve", "--port", "0"],
            WEB_CONCURRENCY="2",
            WEB_THREADS="",
            **environment,
        )
        try:
            acknowledged = book_and_kill(serve, zip(customers, services, strict=True))
            serve.end()
            do_all_jobs(tmp_path / "output", url, environment)
        finally:
            serve.end()
            smtp.stop()
        check(url, mailbox, acknowledged)


def book_and_kill(serve, pairs):
    """Kill workers at random while customers book. Return the ids of the acknowledged bookings.

    Args:
        pairs: each customer, with the service that they book.
    """
    until(lambda: "Press Ctrl-C to stop it" in serve.output.read_text())
    found = re.search(r"API +http://127\.0\.0\.1:(\d+)", serve.output.read_text())
    stop = threading.Event()
    port = int(found[1])
    clients = [Client(port, customer, service, stop) for customer, service in pairs]
    for client in clients:
        client.start()
    until(lambda: all(client.booked for client in clients))
    killed = kill_at_random(serve, SECONDS)
    stop.set()
    for client in clients:
        client.join()
    assert [each for client in clients for each in client.unexpected] == []
    acknowledged = {booking for client in clients for booking in client.booked}
    assert min(killed.values()) > 0
    assert len(acknowledged) > 10
    return acknowledged


def do_all_jobs(output, url, environment):
    """Let a new worker do all jobs. After these kills, `serve` would pause before it starts one."""
    with psycopg.connect(url, autocommit=True) as connection:
        # All known workers are dead. Age their heartbeats, so that their jobs count as stalled.
        connection.execute(
            "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'"
        )
    retry = [sys.executable, "manage.py", "retry_stalled_jobs"]
    subprocess.run(retry, cwd=BASE_DIR, env={**os.environ, "DATABASE_URL": url}, check=True)
    worker = Worker(output, url=url, **environment)
    unfinished = (
        "SELECT count(*) FROM procrastinate_jobs WHERE task_name LIKE 'bookings.%'"
        " AND status IN ('todo', 'doing')"
    )
    try:
        until(lambda: worker.ask(unfinished) == [(0,)], seconds=90)
    finally:
        worker.end()


def check(url, mailbox, acknowledged):
    """Check that acknowledged bookings are stored, and all stored ones have an event and emails."""
    with psycopg.connect(url, autocommit=True) as connection:
        ask = connection.execute
        stored = {str(each) for each in first_column(ask("SELECT id FROM bookings_booking"))}
        events = [
            str(each)
            for each in first_column(
                ask("SELECT booking_id FROM bookings_bookingevent WHERE type = 'booking.created'")
            )
        ]
    # A booking can be stored although its client got no response.
    assert acknowledged <= stored
    assert sorted(events) == sorted(stored)
    # A Message-ID is <event.recipient.booking@host>. It is the same if an email is sent twice.
    emails = {message["Message-ID"] for _, message in mailbox.mails}
    sent = sorted(tuple(re.split(r"[.@]", email)[1:3]) for email in emails)
    assert [each for each in sent if each[1] in stored] == sorted(
        (recipient, booking) for recipient in ("attendee", "provider") for booking in stored
    )
