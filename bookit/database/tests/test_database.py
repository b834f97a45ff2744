"""Problems with PostgreSQL: lost connections, slow statements, deadlocks and constraints.

Also prepared statements, which outlive rollbacks and migrations.
"""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress

import psycopg
import pytest
from django.db import (
    IntegrityError,
    NotSupportedError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import Client

from accounts.models import User
from accounts.tests.factories import AdminFactory, UserFactory
from bookings.models import Booking
from bookit import errors
from bookit.database import retries
from bookit.database.postgresql import base
from bookit.database.postgresql.connections import Connection, KeptStatements
from bookit.database.prepared import Prepared
from bookit.database.retries import MAX_PAUSE, MIN_PAUSE, TRIES, retried
from bookit.errors import database_error_facts, problems
from bookit.tests.crowd import ask, at_once
from bookit.tests.expect import page, problem
from catalog import services as catalog
from catalog.models import Calendar, Service
from catalog.serializers import CalendarSerializer
from catalog.tests.factories import CalendarFactory, ServiceFactory


@contextmanager
def separate_connection():
    """Open a connection that belongs neither to Django nor to its pool."""
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        yield other


def end_all_sessions():
    """End all sessions of this database, as a restart does, and return how many there were."""
    with separate_connection() as other:
        ended = other.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        ).fetchone()[0]
        deadline = time.monotonic() + 10  # Sessions need a moment to end.
        while time.monotonic() < deadline:
            left = other.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()[0]
            if not left:
                return ended
    raise AssertionError("sessions do not end")


# --- lost connections -------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_server_that_does_not_answer_does_not_block_connections_to_another_server():
    """The URLs of both servers name the host after the `?`, so `HOST` does not tell them apart."""
    usual = connection.get_connection_params()

    def wrapper(port):
        place = {"host": usual["host"], "port": port, "connect_timeout": 2, "pool": None}
        options = {**connection.settings_dict["OPTIONS"], **place}
        changed = {"HOST": "", "PORT": "", "OPTIONS": options}
        return base.DatabaseWrapper({**connection.settings_dict, **changed})

    with socket.create_server((usual["host"], 0)) as silent:
        for reason in ("timeout", "did not answer a moment ago"):
            with pytest.raises(OperationalError, match=reason):
                wrapper(silent.getsockname()[1]).ensure_connection()
    with closing(wrapper(usual["port"])) as other:
        other.ensure_connection()


@pytest.mark.django_db(transaction=True)
def test_a_query_that_could_not_be_prepared_is_prepared_by_the_next_thread():
    calendar = CalendarFactory()
    query = Prepared(
        lambda pk: Calendar.objects.order_by().filter(pk=pk),
        CalendarSerializer.rows,
        pk=Calendar._meta.pk,
    )

    def fail():
        def refuse_connection(params):
            raise psycopg.OperationalError("connection refused")

        connection.get_new_connection = refuse_connection
        query(pk=calendar.pk).first()

    with ThreadPoolExecutor() as pool, pytest.raises(OperationalError):
        pool.submit(fail).result()
    assert query(pk=calendar.pk).first()["id"] == calendar.pk


@pytest.mark.django_db(transaction=True)
def test_connections_that_the_server_closed_are_replaced_without_an_error(wsgi):
    # Concurrent requests leave several connections in the pool.
    at_once([lambda: Client().get("/services").status_code] * 5)
    assert wsgi("GET", "/services").status_code == 200
    connection.close()
    assert end_all_sessions() >= 5
    for _ in range(10):
        assert wsgi("GET", "/services").status_code == 200


@pytest.mark.django_db(transaction=True)
def test_a_closed_connection_causes_a_503_if_its_socket_is_not_checked(wsgi, monkeypatch):
    """Control for the test above: the check of the socket prevents the error."""
    assert wsgi("GET", "/services").status_code == 200
    monkeypatch.setattr(base, "server_has_gone", lambda connection: False)
    connection.close()
    end_all_sessions()
    problem(wsgi("GET", "/services"), 503, "service_unavailable")
    # With the check, the next request gets a working connection.
    monkeypatch.undo()
    assert wsgi("GET", "/services").status_code == 200


@pytest.fixture
def kept(transactional_db):
    """The connection that a thread keeps between requests, as in production."""
    usual = connections["default"]
    options = {name: it for name, it in usual.settings_dict["OPTIONS"].items() if name != "pool"}
    own = {"OPTIONS": options, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    connections["default"] = wrapper = base.DatabaseWrapper(
        {**usual.settings_dict, **own}, alias="default"
    )
    yield wrapper
    wrapper.close()
    connections["default"] = usual


def test_a_kept_connection_is_replaced_if_the_server_closed_it(kept, wsgi):
    assert wsgi("GET", "/services").status_code == 200
    first = kept.connection
    assert wsgi("GET", "/services").status_code == 200
    assert kept.connection is first
    end_all_sessions()
    assert wsgi("GET", "/services").status_code == 200
    assert kept.connection is not first


def test_a_kept_connection_causes_a_503_if_it_is_not_checked(kept, wsgi, monkeypatch):
    """Control for the test above: the check prevents the error."""
    assert wsgi("GET", "/services").status_code == 200
    monkeypatch.setattr(base.DatabaseWrapper, "is_usable", lambda self: True)
    end_all_sessions()
    problem(wsgi("GET", "/services"), 503, "service_unavailable")


@pytest.mark.django_db(transaction=True)
def test_a_connection_lost_during_a_request_causes_one_503(wsgi, api, monkeypatch):
    token = api.as_(AdminFactory())._credentials["HTTP_AUTHORIZATION"]
    create = catalog.create_calendar

    def interrupted(**kwargs):
        with transaction.atomic():
            create(**kwargs)
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr(catalog, "create_calendar", interrupted)
    body = b'{"name": "Chair"}'
    response = wsgi("POST", "/calendars", body, HTTP_AUTHORIZATION=token)
    problem(response, 503, "service_unavailable")
    monkeypatch.undo()
    assert not Calendar.objects.exists()
    assert wsgi("POST", "/calendars", body, HTTP_AUTHORIZATION=token).status_code == 201
    assert Calendar.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_connection_lost_in_the_admin_site_causes_one_503(wsgi, monkeypatch):
    admin = AdminFactory()
    browser = Client()
    browser.force_login(admin)
    cookie = f"sessionid={browser.cookies['sessionid'].value}"
    assert wsgi("GET", "/admin/", HTTP_COOKIE=cookie).status_code == 200
    monkeypatch.setattr(base, "server_has_gone", lambda connection: False)
    connection.close()
    end_all_sessions()
    page(wsgi("GET", "/admin/", HTTP_COOKIE=cookie), 503)
    monkeypatch.undo()
    assert wsgi("GET", "/admin/", HTTP_COOKIE=cookie).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_an_exhausted_pool_causes_a_503_until_it_has_connections_again(wsgi, monkeypatch):
    pool = connection.pool
    connection.close()
    assert pool.timeout <= 2
    monkeypatch.setattr(pool, "timeout", 0.2)
    taken = [pool.getconn(timeout=5) for _ in range(pool.max_size)]
    try:
        began = time.monotonic()
        problem(wsgi("GET", "/services"), 503, "service_unavailable")
        assert time.monotonic() - began < 2
        assert wsgi("GET", "/health").status_code == 200
    finally:
        for one in taken:
            pool.putconn(one)
    assert wsgi("GET", "/services").status_code == 200


# --- slow statements --------------------------------------------------------------------------


@pytest.mark.django_db
def test_statements_have_a_time_limit():
    assert ask("SHOW statement_timeout") == "5s"


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_takes_too_long_causes_a_503_and_writes_nothing(api):
    client = api.as_(AdminFactory())
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 150")
    with separate_connection() as other:
        other.execute("BEGIN")
        other.execute("LOCK TABLE catalog_calendar")
        problem(client.get("/calendars"), 503, "service_unavailable")
        problem(client.post("/calendars", {"name": "Chair"}), 503, "service_unavailable")
        other.execute("ROLLBACK")
    assert client.get("/calendars").json()["count"] == 0
    connection.close()
    connection.close_pool()  # Other tests must not get connections with this limit.


# --- deadlocks --------------------------------------------------------------------------------


def cross(first, second, met):
    """Change two rows. Two threads that do this in opposite orders wait for each other.

    `met` contains the barrier at which the threads meet after the first change. A retry finds `met`
    empty, so it does not wait.
    """
    User.objects.filter(pk=first.pk).update(name="first")
    if met:
        met.pop().wait(10)
    User.objects.filter(pk=second.pk).update(name="second")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_retry", [True, False])
def test_a_transaction_that_lost_a_deadlock_is_retried(has_retry):
    """Control: without a retry, one of the two transactions fails."""
    one, other = UserFactory(), UserFactory()
    gate = threading.Barrier(2)
    work = transaction.atomic(cross)
    work = retried(work) if has_retry else work
    outcomes = at_once(
        [
            lambda met=[gate]: work(one, other, met),
            lambda met=[gate]: work(other, one, met),
        ]
    )
    failed = [outcome.error for outcome in outcomes if outcome.error]
    if has_retry:
        assert failed == []
    else:
        assert [database_error_facts(error)[0] for error in failed] == ["40P01"]


def fail_with(state):
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"DO $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{state}'; END $$"
        )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("state", "tries"),
    [
        ("40P01", TRIES),  # deadlock_detected
        ("40001", TRIES),  # serialization_failure
        ("57014", 1),  # query_canceled
        ("55P03", 1),  # lock_not_available
    ],
)
def test_only_transient_errors_are_retried_and_only_a_few_times(state, tries):
    calls = []

    @retried
    def work():
        calls.append(1)
        fail_with(state)

    with pytest.raises(OperationalError) as caught:
        work()
    assert database_error_facts(caught.value)[0] == state
    assert len(calls) == tries


@pytest.mark.django_db(transaction=True)
def test_a_retry_can_succeed():
    calls = []

    @retried
    def work():
        calls.append(1)
        if len(calls) == 1:
            fail_with("40001")
        return "done"

    assert work() == "done"
    assert len(calls) == 2


@pytest.mark.django_db(transaction=True)
def test_the_pause_before_a_retry_is_short_and_random(monkeypatch):
    pauses = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)

    for _ in range(3):
        with pytest.raises(OperationalError):
            retried(fail_with)("40P01")

    assert len(pauses) == 3 * (TRIES - 1)
    assert all(MIN_PAUSE <= pause <= MAX_PAUSE for pause in pauses)
    assert len(set(pauses)) > 1


@pytest.mark.django_db(transaction=True)
def test_nothing_is_retried_within_a_transaction():
    calls = []

    @retried
    def work():
        calls.append(1)
        fail_with("40P01")

    with pytest.raises(OperationalError), transaction.atomic():
        work()
    assert len(calls) == 1


@pytest.mark.django_db(transaction=True)
def test_a_persistent_deadlock_causes_a_503(api, monkeypatch):
    monkeypatch.setattr(catalog, "create_calendar", lambda **kwargs: fail_with("40P01"))
    response = api.as_(AdminFactory()).post("/calendars", {"name": "Chair"})
    problem(response, 503, "service_unavailable")


# --- constraints ------------------------------------------------------------------------------


@pytest.mark.django_db
def test_every_constraint_that_has_an_error_exists():
    with connection.cursor() as cursor:
        # Triggers report names that are not real constraints, so search their functions, too.
        cursor.execute(
            "SELECT conname FROM pg_constraint UNION"
            " SELECT (regexp_matches(prosrc, $$CONSTRAINT = '(\\w+)'$$, 'g'))[1] FROM pg_proc"
        )
        existing = {name for (name,) in cursor.fetchall()}
    assert errors.CONSTRAINT_ERRORS.keys() <= existing


@pytest.mark.django_db
def test_every_exclusion_constraint_of_bookings_has_an_error():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'x'"
            f" AND conrelid = '{Booking._meta.db_table}'::regclass"
        )
        exclusions = {name for (name,) in cursor.fetchall()}
    assert len(exclusions) == 2
    for name in exclusions:
        assert errors.CONSTRAINT_ERRORS[name].code == "booking_conflict"


@pytest.mark.django_db
def test_constraints_of_users_calendars_and_bookings_have_no_generated_names():
    """A search of the code would not find a generated name."""
    tables = [model._meta.db_table for model in (User, Calendar, Booking)]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE contype IN ('x', 'u')"
            " AND conrelid = ANY(%s::regclass[])",
            [tables],
        )
        for (name,) in cursor.fetchall():
            assert not name.endswith(("_uniq", "_key", "_excl")), name


def test_every_error_of_a_constraint_has_a_page():
    for known in errors.CONSTRAINT_ERRORS.values():
        assert known.code in problems.catalogue()


@pytest.mark.django_db
def test_only_database_errors_have_facts():
    assert database_error_facts(ValueError()) == (None, None)
    calendar = CalendarFactory()
    with pytest.raises(IntegrityError) as caught, transaction.atomic():
        CalendarFactory(pk=calendar.pk)
    state, name = database_error_facts(caught.value)
    assert (state, name) == ("23505", "catalog_calendar_pkey")


# --- prepared statements ----------------------------------------------------------------------


@pytest.fixture
def widen():
    """Return a function that widens a column of services, as a migration could."""
    definition = "ALTER TABLE catalog_service ALTER COLUMN category TYPE varchar({})"

    def widen(length=120):
        with separate_connection() as other:
            other.execute(definition.format(length))

    yield widen
    widen(100)


def prepared(column="name"):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {column} FROM pg_prepared_statements")
        return {value for (value,) in cursor.fetchall()}


def roll_back(*, savepoint):
    around = transaction.atomic() if savepoint else nullcontext()
    with around, suppress(IntegrityError), transaction.atomic():
        UserFactory(email="ana@example.com")
        UserFactory(email="ana@example.com")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("savepoint", [False, True])
def test_prepared_statements_outlive_a_rollback(api, savepoint, monkeypatch):
    path = f"/services/{ServiceFactory().pk}"
    for _ in range(5):
        assert api.get(path).status_code == 200
    before = prepared()

    roll_back(savepoint=savepoint)

    assert not User.objects.filter(email="ana@example.com").exists()
    assert set() < before <= prepared()
    # Control: without these two methods, psycopg drops the statements.
    monkeypatch.delattr(KeptStatements, "_should_discard")
    monkeypatch.delattr(Connection, "rollback")
    roll_back(savepoint=savepoint)
    assert not before & prepared()


@pytest.mark.django_db(transaction=True)
def test_a_statement_that_outlives_its_table_reads_the_next_table_of_that_name():
    with connection.cursor() as cursor:
        for value in (7, 8):
            with transaction.atomic():
                cursor.execute(f"CREATE TABLE passing AS SELECT {value} AS value")
                for _ in range(6):
                    cursor.execute("SELECT value FROM passing WHERE value < %s", [10])
                    assert cursor.fetchall() == [(value,)]
                transaction.set_rollback(True)
        assert any("passing" in text for text in prepared("statement"))


@pytest.mark.django_db(transaction=True)
def test_reads_succeed_after_the_type_of_a_column_has_changed(api, widen):
    service = ServiceFactory()
    path = f"/services/{service.pk}"
    query = Service.objects.filter(pk=service.pk).values("category")

    @retried
    @transaction.atomic
    def read():
        return query.get()

    for _ in range(5):
        assert api.get(path).status_code == 200
        assert read() == query.get()
    assert len(prepared()) > 1
    widen()
    assert read() == {"category": service.category}
    for _ in range(5):  # The rollback has dropped the statements.
        assert api.get(path).status_code == 200
        query.get()
    widen(121)
    assert query.get() == {"category": service.category}
    assert api.get(path).status_code == 200
    for _ in range(5):
        query.get()
    widen(122)
    # Control: the transaction fails if nothing repeats it.
    with pytest.raises(NotSupportedError, match="cached plan"), transaction.atomic():
        query.get()
    with transaction.atomic():
        query.get()


@pytest.mark.django_db(transaction=True)
def test_a_profile_can_be_changed_after_the_type_of_a_column_has_changed(api):
    """Nothing reads the profile before the transaction, so the outdated statement fails in it."""
    definition = "ALTER TABLE catalog_profile ALTER COLUMN picture_url TYPE varchar({})"
    client = api.as_(AdminFactory())
    for number in range(6):
        assert client.patch("/me/provider", {"biography": f"{number}"}).status_code == 200
    with separate_connection() as other:
        other.execute(definition.format(600))
    try:
        assert client.patch("/me/provider", {"biography": "last"}).status_code == 200
    finally:
        with separate_connection() as other:
            other.execute(definition.format(500))
