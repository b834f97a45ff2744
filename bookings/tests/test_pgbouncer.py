"""BookIt behind PgBouncer in transaction mode: requests, jobs and the time limit of statements."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from procrastinate.contrib.django import app

from accounts.tests.factories import PASSWORD, ProviderFactory, UserFactory
from bookings.models import Booking
from bookings.tests.factories import TUESDAY, BookingFactory, SlotFactory
from bookings.tests.test_worker import COMPLETE, LONG_AGO, status_of
from bookings.tests.workers import database_url, until
from bookit.runtime.servers import BOOKIT, production, serving
from bookit.runtime.tests.test_frozen_postgres import send_request
from bookit.tools.benchmark.pgbouncer import PREPARES_SINCE, PROGRAM, SETTINGS, pooling, version
from catalog.tests.factories import CalendarFactory, ServiceFactory


@pytest.fixture
def pgbouncer(transactional_db, tmp_path):
    """Run PgBouncer in transaction mode in front of this test's database; return its URL."""
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    # Fewer connections than clients, so that clients take turns.
    with pooling(database_url(), tmp_path, pool_size=3) as url:
        yield url


@pytest.fixture(params=["unprepared", "prepared"])
def pooled(request):
    """Return BookIt's settings behind PgBouncer, without and with prepared statements."""
    if request.param == "unprepared":
        return {**SETTINGS, "DATABASE_PREPARED_STATEMENTS": ""}
    if version() < PREPARES_SINCE:
        pytest.skip("this PgBouncer is too old for prepared statements")
    return SETTINGS


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("direct", [False, True], ids=["without a direct URL", "with a direct URL"])
def test_jobs_are_done_behind_pgbouncer(worker, pgbouncer, pooled, direct):
    running_worker = worker(
        url=pgbouncer,
        **pooled,
        DATABASE_DIRECT_URL=database_url() if direct else "",
    )
    until(lambda: running_worker.ask("SELECT id FROM procrastinate_workers"))
    bookings = [
        BookingFactory(status="confirmed", start_time=LONG_AGO.replace(day=day))
        for day in range(1, 6)
    ]
    # Each job completes all bookings that have ended. A second job with the same queueing lock
    # would be refused.
    for number in range(len(bookings)):
        app.configure_task(COMPLETE, queueing_lock=str(number)).defer(timestamp=0)
    until(lambda: running_worker.jobs(COMPLETE) == [])
    until(lambda: running_worker.jobs("bookings.follow_up") == [])
    assert {status_of(booking) for booking in bookings} == {"completed"}
    assert running_worker.end() == 0
    assert "Error" not in running_worker.output.read_text()


def sign_in(port, user):
    """Return a function that sends requests as `user`."""
    credentials = {"email": user.email, "password": PASSWORD}
    session = send_request(port, "POST", "/auth/login", credentials)
    assert session.status == 200, session

    def request(method, path, body=None, **headers):
        bearer = f"Bearer {session.content['access_token']}"
        return send_request(port, method, path, body, Authorization=bearer, **headers)

    return request


def act_as_customer(port, user, send_as_provider, service, slot, hour):
    """Book, move, confirm, cancel and search, and return the unexpected responses."""
    send = sign_in(port, user)
    start = TUESDAY + timedelta(days=7, hours=2 * hour)
    body = {"service_id": str(service.pk), "start_time": start.isoformat()}
    key = {"Idempotency-Key": str(user.pk)}
    booked = send("POST", "/bookings", body, **key)
    booking = f"/bookings/{booked.content['id']}"
    later = (start + timedelta(hours=1)).isoformat()
    seat = send("POST", "/bookings", {"slot_id": str(slot.pk)})
    again = send("POST", "/bookings", body)
    steps = [
        (booked, 201),
        (send("POST", "/bookings", body, **key), 201),
        (seat, 201),
        (again, 409),
        (send("GET", booking), 200),
        (send("PATCH", booking, {"start_time": later}), 200),
        (send_as_provider("PATCH", booking, {"status": "confirmed"}), 200),
        (send("GET", "/bookings?limit=5"), 200),
        (send_request(port, "GET", f"/services?q={service.title.split()[0]}"), 200),
        (send_request(port, "GET", f"/services/{service.pk}/availability"), 200),
        (send("PATCH", f"/bookings/{seat.content['id']}", {"status": "cancelled"}), 200),
        (send("PATCH", booking, {"status": "cancelled"}), 200),
    ]
    return [response for response, status in steps if response.status != status]


@pytest.mark.real_passwords
@pytest.mark.django_db(transaction=True)
def test_requests_behind_pgbouncer_succeed_and_statements_have_a_time_limit(
    worker, pgbouncer, pooled
):
    customers = [UserFactory() for _ in range(4)]
    provider = ProviderFactory()
    service = ServiceFactory(calendar=CalendarFactory(provider=provider))
    slot = SlotFactory(
        service=ServiceFactory(mode="slots", capacity=4, requires_confirmation=False),
        start_time=TUESDAY + timedelta(days=60),
    )
    running_worker = worker(url=pgbouncer, **pooled)
    environment = {
        **production(pgbouncer),
        **pooled,
        "STATEMENT_TIMEOUT_MS": "1500",
    }
    with serving(BOOKIT, environment) as server, ThreadPoolExecutor(len(customers)) as threads:
        server.wait("/health/ready")
        send_as_provider = sign_in(server.port, provider)
        results = [
            threads.submit(
                act_as_customer, server.port, customer, send_as_provider, service, slot, hour
            )
            for hour, customer in enumerate(customers)
        ]
        assert [unexpected for each in results for unexpected in each.result()] == []
        assert Booking.objects.filter(status="cancelled").count() == 2 * len(customers)
        until(lambda: running_worker.jobs("bookings.follow_up") == [])
        # Stop the worker, because its jobs would also wait for the lock below.
        assert running_worker.end() == 0
        assert "Error" not in running_worker.output.read_text()

        # PgBouncer drops the option that sets PostgreSQL's own time limit, so BookIt itself cancels
        # the statements that exceed the limit.
        send = sign_in(server.port, customers[0])
        body = {"slot_id": str(slot.pk)}
        with psycopg.connect(database_url()) as rival:
            rival.execute("LOCK TABLE bookings_booking")
            response = send("POST", "/bookings", body)
            assert (response.status, response.content["code"]) == (503, "service_unavailable")
            assert response.seconds < 5
            until(lambda: waiting(rival) == 0, seconds=5)
        until(lambda: send("POST", "/bookings", body).status == 201)


def waiting(session):
    """Return how many statements on the bookings table wait for a lock in this test's database."""
    # In a transaction, pg_stat_activity shows the same sessions until its snapshot is cleared.
    session.execute("SELECT pg_stat_clear_snapshot()")
    [(number,)] = session.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND wait_event_type = 'Lock' AND query LIKE '%bookings_booking%'"
    ).fetchall()
    return number
