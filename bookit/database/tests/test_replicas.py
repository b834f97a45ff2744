"""Catalog reads on a real replica: which requests use it, and what happens if it fails."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace

import psycopg
import pytest
from django.db import DEFAULT_DB_ALIAS

from accounts.tests.factories import PASSWORD, ProviderFactory, UserFactory
from bookings.tests.factories import TUESDAY, SlotFactory
from bookings.tests.workers import until
from bookit.database import replicas
from bookit.database.tests.standby import SERVER_SETTINGS, Standby
from bookit.metrics.tests.scraping import samples
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import BOOKIT, connected_to, production, serving
from bookit.runtime.tests.test_frozen_postgres import frozen, send_request
from catalog.tests.factories import CalendarFactory, ServiceFactory

# A bound that no lag of these tests exceeds, so that a stale replica stays in use.
ANY_LAG = "600000"
# Seconds within which a replica that fails or lags is left out.
SOON = 1.0


class Town:
    """A primary, its replica, and the rows that the tests use."""

    def __init__(self, folder, url, standby):
        self.folder, self.url, self.standby = folder, url, standby

    def environment(self, **variables):
        return {**production(self.url), "DATABASE_REPLICA_URL": self.standby.url, **variables}

    def settle(self):
        """Wait until the replica has replayed everything."""
        with psycopg.connect(self.url, autocommit=True) as session:
            [(position,)] = session.execute("SELECT pg_current_wal_flush_lsn()").fetchall()
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{position}'"
        until(lambda: self.standby.ask(replayed) == [(True,)])


@pytest.fixture(scope="module")
def town(tmp_path_factory, django_db_blocker, migrate):
    folder = tmp_path_factory.mktemp("replica")
    with running(folder / "primary", settings=SERVER_SETTINGS) as url:
        migrate(url)
        with django_db_blocker.unblock(), connected_to(url):
            provider = ProviderFactory(email="provider@example.com")
            for number in range(4):
                UserFactory(email=f"customer{number}@example.com")
            mode = {"mode": "slots", "requires_confirmation": False}
            town = Town(folder, url, Standby(folder / "standby", folder / "primary", url))
            town.service = ServiceFactory(calendar=CalendarFactory(provider=provider), **mode)
            # Each slot has one seat, so each test that books uses slots of its own.
            town.slots = [
                str(SlotFactory(service=town.service, start_time=TUESDAY + timedelta(days=n)).pk)
                for n in range(60)
            ]
        town.standby.start()
        try:
            yield town
        finally:
            town.standby.kill()


@pytest.fixture
def replica(town):
    """The running replica, which has replayed everything. It runs again after the test."""
    town.settle()
    yield town.standby
    if town.standby.process.poll() is not None:
        town.standby.start()
    town.standby.resume()
    town.settle()


def in_use(server, alias="replica1"):
    """Return whether the web process that answers uses a replica, or None if it gives a 503."""
    response = send_request(server.port, "GET", "/metrics")
    if response.status == 503:
        return None
    return samples(response.content.decode())["bookit_replica_in_use", alias] == 1


@contextmanager
def web(town, *, workers="1", **variables):
    """Run a web server, and wait until it uses the replica."""
    environment = town.environment(WEB_CONCURRENCY=workers, **variables)
    with serving(BOOKIT, environment) as server:
        server.wait("/health/ready")
        until(lambda: in_use(server))
        yield server


def sign_in(server, email):
    credentials = {"email": email, "password": PASSWORD}
    session = send_request(server.port, "POST", "/auth/login", credentials)
    return {"Authorization": f"Bearer {session.content['access_token']}"}


def seats_left(server, slot, **headers):
    response = send_request(server.port, "GET", f"/slots/{slot}", **headers)
    assert response.status == 200, response
    return response.content["seats_left"]


def book(server, slot, headers):
    return send_request(server.port, "POST", "/bookings", {"slot_id": slot}, **headers)


class Traffic:
    """Anonymous readers who request the list of slots all the time, until the `with` block ends."""

    def __init__(self, server, *, readers=4):
        self.server = server
        self.responses = []
        self.ended = threading.Event()
        self.threads = ThreadPoolExecutor(readers)
        self.readers = readers

    def read(self):
        while not self.ended.is_set():
            found = send_request(self.server.port, "GET", "/slots?limit=5")
            self.responses.append((time.monotonic(), found))

    def __enter__(self):
        self.reading = [self.threads.submit(self.read) for _ in range(self.readers)]
        until(lambda: len(self.responses) > 20)
        return self

    def __exit__(self, *error):
        self.ended.set()
        self.threads.shutdown()
        for each in self.reading:
            each.result()  # Raise the exception of a request that got no response.

    @property
    def failed(self):
        return [found for _, found in self.responses if found.status != 200]


# --- which server answers which request -------------------------------------------------------

CATALOG = [
    "/services",
    "/services?q=haircut",
    "/services/{service}",
    "/services/{service}/reviews",
    "/services/{service}/availability?from=2036-05-05&to=2036-05-06",
    "/availability?service_id={service}&from=2036-05-05&to=2036-05-06",
    "/slots?available=true",
    "/slots/{slot}",
    "/calendars",
    "/calendars/{calendar}",
    "/categories",
    "/providers",
    "/reviews?rating=5",
]


def statements(log, position):
    """Return the statements in the log since `position`, except those that watch the replica."""
    with log.open() as file:
        file.seek(position)
        entries = re.split(r"^(?=\d{4}-\d\d-\d\d )", file.read(), flags=re.MULTILINE)
    found = [each for each in entries if "statement: " in each or "execute " in each]
    return [each for each in found if "pg_control_system" not in each]


def test_catalog_reads_run_on_the_replica_and_not_on_the_primary(town, replica):
    primary_log = town.folder / "primary" / "server.log"
    names = {"service": town.service.pk, "slot": town.slots[0]}
    names["calendar"] = town.service.calendar_id
    with web(town) as server:
        for path in CATALOG:
            at_primary, at_replica = primary_log.stat().st_size, replica.log.stat().st_size
            found = send_request(server.port, "GET", path.format(**names))
            assert found.status == 200, found
            assert statements(primary_log, at_primary) == [], path
            assert statements(replica.log, at_replica), path
        counted = send_request(server.port, "GET", "/metrics").content.decode()
        assert f'bookit_catalog_reads_total{{source="replica"}} {len(CATALOG)}.0' in counted
        assert 'bookit_catalog_reads_total{source="primary"}' not in counted


def test_changes_and_private_reads_never_reach_the_replica(town, replica):
    slot, given_up = town.slots[1:3]
    with web(town, DATABASE_REPLICA_MAX_LAG_MS=ANY_LAG) as server:
        customer, rival = (sign_in(server, f"customer{n}@example.com") for n in (0, 1))
        provider = sign_in(server, "provider@example.com")
        taken = book(server, given_up, customer)
        assert taken.status == 201
        town.settle()
        # From now on, the replica shows that `slot` is free and that `given_up` is full.
        replica.pause()
        before = replica.log.stat().st_size
        booked = book(server, slot, customer)
        assert booked.status == 201
        refused = book(server, slot, rival)
        assert (refused.status, refused.content["code"]) == (409, "slot_full")
        assert len(refused.content["alternatives"]) == 3
        assert slot not in {each["slot_id"] for each in refused.content["alternatives"]}
        booking = f"/bookings/{booked.content['id']}"
        for method, path, body, headers in [
            ("GET", "/bookings", None, customer),
            ("GET", booking, None, customer),
            ("GET", f"{booking}/history", None, customer),
            ("GET", "/me", None, customer),
            ("GET", f"/calendars/{town.service.calendar_id}/time-off", None, provider),
            ("POST", f"/slots/{slot}/waitlist", {}, rival),
            ("PATCH", booking, {"notes": "Bring a towel."}, customer),
            ("PATCH", booking, {"status": "cancelled"}, customer),
            ("PATCH", f"/bookings/{taken.content['id']}", {"status": "cancelled"}, customer),
        ]:
            response = send_request(server.port, method, path, body, **headers)
            assert response.status < 300, response
        assert statements(replica.log, before) == []
        # Control: an anonymous reader gets the stale row.
        assert seats_left(server, given_up) == 0
        # Only the primary knows that this seat is free again. A rival can book the seat.
        assert book(server, given_up, rival).status == 201


# --- readers who have just written ------------------------------------------------------------


def test_readers_see_their_own_writes_however_far_the_replica_lags(town, replica):
    """Two web servers that share only PostgreSQL, and a replica that has stopped replaying."""
    shared = town.environment(DATABASE_REPLICA_MAX_LAG_MS=ANY_LAG, WEB_CONCURRENCY="1")
    with serving(BOOKIT, shared) as one, serving(BOOKIT, shared) as other:
        for server in (one, other):
            server.wait("/health/ready")
            until(lambda server=server: in_use(server))
        customer = sign_in(one, "customer2@example.com")
        created = send_request(one.port, "POST", "/me/api-keys", {"name": "Mine"}, **customer)
        key = {"Authorization": f"Bearer {created.content['key']}"}
        replica.pause()
        for slot in town.slots[10:15]:
            assert book(one, slot, customer).status == 201
            for reader in (customer, key):
                assert [seats_left(each, slot, **reader) for each in (one, other)] == [0, 0]
            # Control: an anonymous reader, who has written nothing, gets the stale row.
            assert [seats_left(each, slot) for each in (one, other)] == [1, 1]


def test_readers_see_their_own_writes_while_the_replica_applies_them_late(town, replica):
    replica.kill()
    replica.start(recovery_min_apply_delay="400ms")
    with web(town, workers="2", DATABASE_REPLICA_MAX_LAG_MS=ANY_LAG) as server:
        shown_to_strangers = []

        def act(number):
            customer = sign_in(server, f"customer{number}@example.com")
            for slot in town.slots[20 + number * 5 : 25 + number * 5]:
                assert book(server, slot, customer).status == 201
                shown_to_strangers.append(seats_left(server, slot))
                for _ in range(5):
                    assert seats_left(server, slot, **customer) == 0

        with ThreadPoolExecutor(2) as threads:
            assert [*threads.map(act, range(2))] == [None, None]
        assert 1 in shown_to_strangers  # Control: anonymous readers saw old rows.
        # Once the replica has caught up, it answers readers with tokens, too.
        replica.kill()
        replica.start()
        town.settle()
        until(lambda: in_use(server))
        customer = sign_in(server, "customer3@example.com")

        def replica_answers():
            before = replica.log.stat().st_size
            assert seats_left(server, town.slots[20], **customer) == 0
            return statements(replica.log, before)

        until(replica_answers)


# --- replicas that fail -----------------------------------------------------------------------


def test_a_replica_that_lags_is_left_out_and_comes_back(town, replica):
    slot = town.slots[40]
    with web(town) as server:
        customer = sign_in(server, "customer0@example.com")
        replica.pause()
        assert book(server, slot, customer).status == 201
        began = time.monotonic()
        until(lambda: seats_left(server, slot) == 0, seconds=SOON)
        assert time.monotonic() - began < SOON
        assert in_use(server) is False
        replica.resume()
        until(lambda: in_use(server))


@pytest.mark.parametrize("pool", ["", "2"], ids=["a connection per thread", "a pool"])
def test_no_request_fails_while_a_replica_is_killed_and_started(town, replica, pool):
    with web(town, workers="2", DATABASE_POOL_SIZE=pool) as server, Traffic(server) as traffic:
        replica.kill()
        killed = time.monotonic()
        until(lambda: in_use(server) is False, seconds=SOON)
        time.sleep(max(0, killed + 2 - time.monotonic()))
        replica.start()
        until(lambda: in_use(server))
        began = replica.log.stat().st_size
        until(lambda: statements(replica.log, began))
    assert traffic.failed == []


@pytest.mark.parametrize("pool", ["", "2"], ids=["a connection per thread", "a pool"])
def test_no_request_fails_while_a_replica_is_frozen(town, replica, pool):
    with web(town, workers="2", DATABASE_POOL_SIZE=pool) as server, Traffic(server) as traffic:
        replica.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        thawed = stopped + 3
        try:
            until(lambda: in_use(server) is False, seconds=SOON)
            time.sleep(max(0, thawed - time.monotonic()))
        finally:
            replica.signal(signal.SIGCONT)
        until(lambda: in_use(server))
    assert traffic.failed == []
    # A second after the freeze begins, no request waits for the replica any more.
    late = [
        found.seconds
        for at, found in traffic.responses
        if stopped + SOON < at - found.seconds < thawed
    ]
    assert late
    assert max(late) < SOON


def test_no_request_fails_while_the_replica_ends_its_sessions(town, replica):
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE usename = 'bookit' AND backend_type = 'client backend'"
    )
    ended = []
    with web(town) as server, Traffic(server) as traffic:
        for _ in range(40):
            ended.append(len(replica.ask(end)))
            time.sleep(0.05)
    assert traffic.failed == []
    # One of the sessions belonged to the thread that watches the replica, the others to readers.
    assert max(ended) > 1


def test_the_primary_answers_if_the_replica_lacks_a_new_column(town, replica):
    """After a migration, the new code may read a column that the replica does not have yet."""
    with web(town, DATABASE_REPLICA_MAX_LAG_MS=ANY_LAG) as server:
        with psycopg.connect(town.url, autocommit=True) as session:
            session.execute("ALTER TABLE bookings_slot RENAME COLUMN capacity TO gone")
            town.settle()
            replica.pause()
            session.execute("ALTER TABLE bookings_slot RENAME COLUMN gone TO capacity")
        before = replica.log.stat().st_size
        assert seats_left(server, town.slots[49]) == 1
        # The replica was asked first.
        assert b"capacity does not exist" in replica.log.read_bytes()[before:]


def test_the_catalog_can_be_read_while_the_primary_does_not_answer(town, replica):
    with web(town, STATEMENT_TIMEOUT_MS="1000") as server:
        customer = sign_in(server, "customer0@example.com")
        with frozen(town.folder / "primary"):
            for _ in range(3):
                assert seats_left(server, town.slots[50]) == 1
            assert book(server, town.slots[50], customer).status == 503
        until(lambda: book(server, town.slots[50], customer).status == 201)


@pytest.mark.parametrize("wrong", ["primary", "another server", "nothing"])
def test_a_server_that_is_no_replica_of_the_primary_is_never_used(town, replica, wrong):
    url = {
        "primary": town.url,
        # The database of the other tests is on another server.
        "another server": os.environ["BOOKIT_TEST_DATABASE_URL"],
        "nothing": "postgresql://nobody@127.0.0.1:1/nothing",
    }[wrong]
    both = f"{url}, {replica.url}"
    with serving(BOOKIT, town.environment(DATABASE_REPLICA_URL=both)) as server:
        server.wait("/health/ready")
        until(lambda: in_use(server, "replica2"))
        for _ in range(4):
            assert seats_left(server, town.slots[51]) == 1
        assert in_use(server, "replica1") is False


def test_a_replica_of_another_server_is_left_out(monkeypatch):
    replica = replicas.Replica(DEFAULT_DB_ALIAS)
    monkeypatch.setattr(replica._primary, "state", lambda: replicas._State(5, cluster=1))
    for cluster, is_in_use in ((1, True), (2, False)):
        seen = replicas._State(5, cluster=cluster)
        monkeypatch.setattr(replica._replica, "state", lambda seen=seen: seen)
        replica.look()
        assert replica.is_in_use is is_in_use


def test_the_log_says_once_why_a_replica_has_never_been_used(caplog):
    replica = replicas.Replica(DEFAULT_DB_ALIAS)
    for reason in ["it is not a replica", "it is not a replica", "it lags by 2.0 s"]:
        replica._judge(reason)
    [line] = caplog.messages
    assert line.endswith("is left out, and the primary answers: it is not a replica.")


def test_concurrent_first_calls_start_the_replicas_once(monkeypatch):
    started = []

    def start(alias):
        started.append(alias)
        time.sleep(0.1)
        return SimpleNamespace(start=lambda: None)

    monkeypatch.setattr(replicas, "ALIASES", ["replica1"])
    monkeypatch.setattr(replicas, "Replica", start)
    replicas._start.cache_clear()
    try:
        with ThreadPoolExecutor(4) as threads:
            found = {id(each) for each in threads.map(lambda _: replicas.replicas(), range(4))}
    finally:
        replicas._start.cache_clear()
    assert (len(found), started) == (1, ["replica1"])
