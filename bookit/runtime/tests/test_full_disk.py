"""A full disk of PostgreSQL: what clients see, what is stored, and how BookIt recovers.

The data of PostgreSQL is on a small file system in memory, which the test fills and empties.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import call_command

from accounts.tests.factories import PASSWORD, UserFactory
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import BOOKIT, connected_to, production, serving
from bookit.runtime.tests.test_frozen_postgres import SERVICE, Response, send_request
from bookit.tests.plugin import THROWAWAY
from catalog.tests.factories import ServiceFactory

SIZE = "200m"
SETTINGS = {
    **THROWAWAY,
    "synchronous_commit": "on",
    "shared_buffers": "16MB",
    "max_wal_size": "32MB",
    "min_wal_size": "32MB",
}
FIRST = datetime(2036, 5, 5, 10, tzinfo=UTC)
# A test that waits longer than this many seconds has failed.
PATIENCE = 30


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small file system as root; CI uses sudo. Skip the test if this is not possible."""
    folder = tmp_path / "disk"
    folder.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if as_root and "CI" not in os.environ:
        pytest.skip("only root can mount a small file system")
    options = f"size={SIZE},mode=755,uid={os.geteuid()},gid={os.getegid()}"
    mount = [*as_root, "mount", "-t", "tmpfs", "-o", options, "bookit", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"a small file system cannot be mounted: {result.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run([*as_root, "umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk to the last byte, and free the space at the end of a `with` block."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        try:
            for size in (2**20, 2**12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
            yield
        finally:
            filler.unlink()


class Customer:
    """Books hour after hour, and remembers which bookings were acknowledged."""

    def __init__(self, port: int, service: str) -> None:
        self.port, self.service = port, service
        self.hour = 0
        self.acknowledged: set[str] = set()
        credentials = {"email": "customer@example.com", "password": PASSWORD}
        session = send_request(port, "POST", "/auth/login", credentials)
        assert session.status == 200, session
        self.bearer = f"Bearer {session.content['access_token']}"

    def book(self) -> Response:
        start = (FIRST + timedelta(hours=self.hour)).isoformat()
        self.hour += 1
        # Random text can hardly be compressed, so each booking needs new space.
        body = {"service_id": self.service, "start_time": start, "notes": os.urandom(900).hex()}
        response = send_request(self.port, "POST", "/bookings", body, Authorization=self.bearer)
        if response.status == 201:
            self.acknowledged.add(response.content["id"])
        return response

    def book_until(self, status: int) -> Response:
        """Book until a response has this status. Every other response must be a 201 or a 503."""
        deadline = time.monotonic() + PATIENCE
        while (response := self.book()).status != status:
            assert response.status in {201, 503}, response
            assert time.monotonic() < deadline, response
        return response

    def get(self, path: str) -> Response:
        return send_request(self.port, "GET", path, Authorization=self.bearer)


def stored(url: str) -> set[str]:
    """Return the ids of all bookings that are stored together with an event."""
    with psycopg.connect(url) as session:
        found = session.execute(
            "SELECT booking.id::text FROM bookings_booking AS booking JOIN bookings_bookingevent"
            " AS event ON event.booking_id = booking.id"
        )
        return {each for (each,) in found}


def assert_unavailable(response: Response) -> None:
    assert response.status == 503, response
    assert response.content["code"] == "service_unavailable"
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.real_passwords  # The web server checks passwords.
@pytest.mark.django_db(transaction=True)
def test_acknowledged_bookings_survive_a_full_disk(disk: Path, tmp_path: Path) -> None:
    home = disk / "postgres"
    backup = tmp_path / "backup"
    # This backup contains all tables, almost without rows, and the list of applied migrations. So
    # no migrations are needed below.
    call_command("backup", backup, verbosity=0)
    with running(home, settings=SETTINGS) as url:
        with connected_to(url):
            call_command("restore", backup)
            UserFactory(email="customer@example.com")
            ServiceFactory(id=SERVICE)
        environment = {**production(url, workers=1), "WEB_THREADS": "4"}
        with serving(BOOKIT, environment) as server:
            server.wait("/health/ready")
            customer = Customer(server.port, SERVICE)
            assert customer.book().status == 201

            # Tables cannot grow. PostgreSQL refuses writes that need space, but continues to run.
            with full(disk):
                assert_unavailable(customer.book_until(503))
                # Control: PostgreSQL itself reports that the disk is full.
                with psycopg.connect(url) as session, pytest.raises(psycopg.errors.DiskFull):
                    session.execute("CREATE TABLE large AS SELECT generate_series(1, 1000000)")
                assert customer.get("/bookings").status == 200
                assert customer.get(f"/services/{SERVICE}").status == 200
                assert customer.acknowledged <= stored(url)
            customer.book_until(201)
            assert customer.acknowledged <= stored(url)

            # The write-ahead log cannot grow. PostgreSQL stops, because no commit would be durable.
            with full(disk):
                exhaust_write_ahead_log(home, url)
                assert_unavailable(customer.book_until(503))
                assert customer.get("/health").status == 200
                assert_unavailable(wait_for(customer, "/health/ready", 503))
            before = set(customer.acknowledged)
            # Start PostgreSQL again, as a supervisor would.
            with running(home, settings=SETTINGS):
                wait_for(customer, "/health/ready", 200)
                customer.book_until(201)
                assert before < customer.acknowledged <= stored(url)


def wait_for(customer: Customer, path: str, status: int) -> Response:
    deadline = time.monotonic() + PATIENCE
    while (response := customer.get(path)).status != status:
        assert time.monotonic() < deadline, response
        time.sleep(0.1)
    return response


def exhaust_write_ahead_log(home: Path, url: str) -> None:
    """Make PostgreSQL need a new file for its write-ahead log."""
    parts: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(url)
    password = (home / "password").read_text().strip()
    superuser = {**parts, "user": "postgres", "password": password, "dbname": "postgres"}
    with psycopg.connect(**superuser, autocommit=True) as session:
        try:
            for _ in range(10):  # PostgreSQL may have prepared some files in advance.
                session.execute("SELECT pg_logical_emit_message(false, '', 'written')")
                session.execute("SELECT pg_switch_wal()")
        except psycopg.OperationalError:
            pass  # PostgreSQL has stopped.
