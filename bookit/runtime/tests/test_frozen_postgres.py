"""Requests and workers while PostgreSQL is frozen: it sends nothing, and closes no connection.

The last tests are about the time limit of requests.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import psycopg
import pytest

from accounts.tests.factories import PASSWORD, UserFactory
from bookit import deadlines
from bookit.database.postgresql import base
from bookit.database.postgresql.connections import Connection
from bookit.jobs.queues import SILENCE, WorkerConnection
from bookit.runtime.embedded_postgres import running
from bookit.runtime.servers import BOOKIT, Server, connected_to, production, serving
from bookit.tests.expect import problem
from bookit.tests.plugin import THROWAWAY
from bookit.tests.processes import servers
from catalog.tests.factories import ServiceFactory

SERVICE = "0199d3a0-6a3b-7c55-8f0d-1f6f2b7c9d42"
STATEMENT_TIMEOUT_MS = "3000"
# Seconds within which every request gets a response. A statement is given up, and its connection is
# closed, after 3 seconds plus GRACE. Before that, a request may wait up to 2 seconds for the
# connection. A busy machine may need 2 more seconds.
LIMIT = 3 + deadlines.GRACE + 2 + 2


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    content: Any
    seconds: float


@contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Suspend every process of the server in `directory` until the end of a `with` block."""
    [postmaster] = servers(directory)
    processes = [postmaster, *postmaster.children(recursive=True)]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # A backend may have ended meanwhile.
                process.suspend()
        yield
    finally:
        for process in reversed(processes):
            with suppress(psutil.NoSuchProcess):
                process.resume()


def send_request(
    port: int, method: str, path: str, body: Any = None, *, patience: float = 30, **headers: str
) -> Response:
    client = HTTPConnection("127.0.0.1", port, timeout=patience)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    began = time.monotonic()
    try:
        content = json.dumps(body) if body is not None else None
        if content is not None:
            given["Content-Type"] = "application/json"
        client.request(method, path, content, {"Host": "localhost", **given})
        response = client.getresponse()
        text = response.read()
    finally:
        client.close()
    parsed = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
    return Response(response.status, dict(response.headers), parsed, time.monotonic() - began)


@pytest.fixture(scope="module")
def postgres(
    tmp_path_factory: pytest.TempPathFactory,
    django_db_blocker: Any,
    migrate: Callable[[str], None],
) -> Iterator[tuple[Path, str]]:
    """The directory and the URL of a PostgreSQL that only these tests use, and freeze."""
    directory = tmp_path_factory.mktemp("frozen") / "postgres"
    with running(directory, settings=THROWAWAY) as url:
        migrate(url)
        with django_db_blocker.unblock(), connected_to(url):
            UserFactory(email="customer@example.com")
            ServiceFactory(id=SERVICE)
        yield directory, url


@contextmanager
def web(url: str, **environment: str) -> Iterator[Server]:
    with serving(BOOKIT, {**production(url), **environment}) as server:
        server.wait("/health/ready")
        yield server


# The statuses that the requests below may get while PostgreSQL runs.
USUAL_STATUSES = {200, 201, 302, 409}


def requests_of_each_kind(port: int) -> list[Callable[..., Response]]:
    """Return functions that each send one request: reads, writes, a sign-in and an admin page."""
    credentials = {"email": "customer@example.com", "password": PASSWORD}
    session = send_request(port, "POST", "/auth/login", credentials)
    assert session.status == 200, session
    bearer = f"Bearer {session.content['access_token']}"
    booking = {"service_id": SERVICE, "start_time": "2036-05-05T10:00:00Z"}

    def request(*what: Any, **headers: str) -> Callable[..., Response]:
        return lambda **more: send_request(port, *what, **{**headers, **more})

    return [
        request("GET", "/services"),
        request("GET", f"/services/{SERVICE}"),
        request("GET", "/bookings", Authorization=bearer),
        request("POST", "/bookings", booking, Authorization=bearer),
        request("PATCH", "/me", {"name": "Somebody Else"}, Authorization=bearer),
        request("POST", "/auth/login", credentials),
        request("GET", "/health/ready"),
        request("GET", "/admin/", Cookie="sessionid=0123456789abcdefghijklmnopqrstuv"),
    ]


@pytest.mark.parametrize("pool", ["", "2"], ids=["a connection per thread", "a pool"])
def test_every_request_gets_a_503_in_time_and_works_after_the_freeze(
    postgres: tuple[Path, str], pool: str
) -> None:
    directory, url = postgres
    with web(url, STATEMENT_TIMEOUT_MS=STATEMENT_TIMEOUT_MS, DATABASE_POOL_SIZE=pool) as server:
        requests = requests_of_each_kind(server.port)
        # Open connections before PostgreSQL freezes. Send only four requests at once, so that no
        # request waits too long for a connection of the pool.
        with ThreadPoolExecutor(4) as threads:
            for _ in range(5):  # On a busy machine, a request may still wait too long.
                before = [*threads.map(lambda request: request(), requests * 3)]
                if {response.status for response in before} <= USUAL_STATUSES:
                    break
        assert {response.status for response in before} <= USUAL_STATUSES, before
        with ThreadPoolExecutor(24) as threads, frozen(directory):
            responses = [*threads.map(lambda request: request(), requests * 3)]
            later = [*threads.map(lambda request: request(), requests * 3)]
        for response in responses + later:
            assert response.status == 503, response
            if isinstance(response.content, dict):  # The admin site responds with HTML.
                assert response.content["code"] == "service_unavailable"
            assert int(response.headers["Retry-After"]) > 0
            assert response.seconds < LIMIT, response
        # PostgreSQL runs again. After an attempt to connect timed out, a process makes no attempt
        # for PAUSE seconds. After that, all requests must work.
        deadline = time.monotonic() + 10
        while send_request(server.port, "GET", "/health/ready").status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(base.PAUSE)
        after = [request() for request in requests * 3]
        assert {response.status for response in after} <= USUAL_STATUSES, after


def test_requests_hang_without_time_limits(postgres: tuple[Path, str]) -> None:
    """Control for the test above: without time limits, a request gets no response in time."""
    directory, url = postgres
    # The only thread already has a connection. A thread without a connection would not hang,
    # because connecting has its own time limit.
    alone = {"WEB_CONCURRENCY": "1", "WEB_THREADS": "1"}
    with web(url, STATEMENT_TIMEOUT_MS="0", ANON_TIMEOUT_MS="0", **alone) as server:
        requests = requests_of_each_kind(server.port)
        assert requests[0]().status == 200
        with frozen(directory), pytest.raises(TimeoutError):
            requests[0](patience=LIMIT)


class Impatient(Connection):
    """A connection that waits only 0.3 seconds for PostgreSQL."""

    patience = 0.3


def test_a_commit_without_a_response_closes_the_connection(postgres: tuple[Path, str]) -> None:
    directory, url = postgres
    connection = Impatient.connect(url)
    connection.execute("CREATE TEMPORARY TABLE mine (id integer)")
    with frozen(directory):
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            connection.commit()
        assert connection.closed
        # A rollback does not wait again.
        with pytest.raises(psycopg.OperationalError, match="connection is closed"):
            connection.rollback()
        connection.close()
        assert time.monotonic() - began < 3


def test_a_transaction_without_a_response_raises_the_time_limit_error(
    postgres: tuple[Path, str],
) -> None:
    directory, url = postgres
    connection = Impatient.connect(url, autocommit=True)

    def transaction() -> None:
        with connection.transaction():
            connection.execute("SELECT 1")
            with frozen(directory):
                connection.execute("SELECT 1")

    with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
        transaction()
    assert connection.closed


def test_a_worker_gives_up_when_other_workers_consider_it_dead(
    postgres: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, url = postgres
    assert WorkerConnection.patience == SILENCE
    monkeypatch.setattr(WorkerConnection, "patience", 0.3)

    async def fetch() -> None:
        async with await WorkerConnection.connect(url, autocommit=True) as connection:
            await connection.execute("SELECT 1")
            with frozen(directory):
                with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
                    await connection.execute("SELECT 1")
                assert connection.closed

    asyncio.run(asyncio.wait_for(fetch(), 10))


@pytest.mark.django_db
def test_a_request_that_waited_too_long_for_a_thread_gets_a_503(wsgi: Any) -> None:
    assert deadlines.REQUEST_LIMIT == 10
    deadlines.arrived(time.monotonic() - 9)
    assert wsgi("GET", "/health").status_code == 200
    deadlines.arrived(time.monotonic() - 11)
    problem(wsgi("GET", "/health"), 503, "service_unavailable")
    # The next request of the thread has its own time limit.
    assert wsgi("GET", "/health").status_code == 200


def test_the_statements_of_a_request_share_its_time_limit() -> None:
    assert deadlines.remaining(6) == 6
    deadlines.arrived(time.monotonic() - 8)
    assert deadlines.begin()
    try:
        assert deadlines.remaining(6) == pytest.approx(2, abs=1)
        assert deadlines.remaining(1) == 1
        assert deadlines.remaining(None) == pytest.approx(2, abs=1)
    finally:
        deadlines.end()
    assert deadlines.remaining(None) is None
