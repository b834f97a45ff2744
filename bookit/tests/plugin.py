"""A pytest plugin that starts a temporary PostgreSQL server before the settings are read."""

import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest

# There are enough threads and connections for forty clients at once, no rate limits, and no special
# time limit for anonymous reads. The other values are the defaults. LOG_FORMAT defaults to "json"
# unless stderr is a terminal.
ENVIRONMENT = {
    "WEB_THREADS": "60",
    "DATABASE_POOL_SIZE": "50",
    "RATE_LIMIT_AUTH": "",
    "RATE_LIMIT_PASSWORD": "",
    "RATE_LIMIT_ANON": "",
    "RATE_LIMIT_USER": "",
    "RATE_LIMIT_KEY": "",
    "REDIS_URL": "",
    "DATABASE_REPLICA_URL": "",
    "ANON_TIMEOUT_MS": "0",
    "LOG_FORMAT": "json",
    "SECRET_KEY": "",
    "APP_ENV": "development",
    "NUM_PROXIES": "0",
    "CORS_ALLOWED_ORIGINS": "",
    "ALLOWED_HOSTS": "",
    "DEFAULT_CURRENCY": "",
}
# Faster settings of PostgreSQL, because the data of a test run need not survive a power cut.
THROWAWAY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
# The value of PASSWORD_HASHERS in most tests. It hashes passwords quickly.
QUICK_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for pictures of the admin site, and for a Citus cluster."""
    parser.addoption(
        "--screenshots",
        action="store_true",
        help="store pictures of the pages of the admin site in .screenshots/",
    )
    parser.addoption(
        "--citus",
        metavar="PREFIX",
        help="run the tests on a Citus cluster; PREFIX is a PostgreSQL with the extension",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the server in pytest's main process; xdist workers inherit its URL."""
    os.environ.update(ENVIRONMENT)
    if os.environ.get("BOOKIT_TEST_DATABASE_URL"):
        os.environ["DATABASE_URL"] = os.environ["BOOKIT_TEST_DATABASE_URL"]
        return
    if prefix := early_config.known_args_namespace.citus:
        # Statements that empty all tables on all servers take longer than the default time limit.
        os.environ["STATEMENT_TIMEOUT_MS"] = "60000"
        from bookit.tests.cluster import Cluster

        cluster = Cluster.create(Path(prefix))
        os.environ["DATABASE_URL"] = os.environ["BOOKIT_TEST_DATABASE_URL"] = cluster.url()
        early_config.add_cleanup(cluster.destroy)
        return
    from bookit.runtime.embedded_postgres import acquire, release

    directory = Path(tempfile.mkdtemp(prefix="bookit-tests-"))
    os.environ["DATABASE_URL"] = acquire(directory / "postgres", settings=THROWAWAY)
    os.environ["BOOKIT_TEST_DATABASE_URL"] = os.environ["DATABASE_URL"]

    def stop() -> None:
        release(directory / "postgres")
        shutil.rmtree(directory, ignore_errors=True)

    early_config.add_cleanup(stop)


def pytest_configure() -> None:
    """Turn off Hypothesis's deadline, because the time of an example depends on the machine.

    In CI, every run tries the same examples, as Hypothesis recommends, because chance must not
    decide whether a change passes. Elsewhere, each run tries new examples.
    """
    hypothesis.settings.register_profile(
        "patient", deadline=None, derandomize="CI" in os.environ, print_blob=True
    )
    hypothesis.settings.load_profile("patient")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that cannot run on a Citus cluster."""
    from bookit.tests.cluster import Cluster

    marker = item.get_closest_marker("one_server")
    if marker and Cluster.running():
        pytest.skip(marker.args[0])


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection, because scanning them frees nothing."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def distributed_database(request: pytest.FixtureRequest) -> None:
    """Distribute the database of the tests, if they run on a Citus cluster."""
    from bookit.tests.cluster import Cluster

    if cluster := Cluster.running():
        from django.db import connection

        request.getfixturevalue("django_db_setup")
        with request.getfixturevalue("django_db_blocker").unblock():
            cluster.distribute(connection.settings_dict["NAME"])
            # An open session does not see settings of the database that are changed later.
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]


# Tables with rows that `migrate` creates and that no test changes.
CONSTANT = {"auth_permission", "bookit_server", "django_content_type"}


@pytest.fixture(scope="session", autouse=True)
def quick_flush() -> Iterator[None]:
    """After a test that commits, empty all tables except `CONSTANT`.

    Django's own `flush` also deletes the rows of `CONSTANT`, and creates them again, which takes
    longer than everything else that it does.
    """
    from django.db import connection
    from django.test import TransactionTestCase

    from bookit.database.retries import retried
    from bookit.tests.cluster import Cluster

    def constant_rows() -> Any:
        counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in CONSTANT)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {counts}")
            return cursor.fetchone()

    known: list[Any] = []

    def empty(case: TransactionTestCase) -> None:
        known[:] = known or [constant_rows()]
        assert constant_rows() == known[0], "the test has changed a table of CONSTANT"
        names = connection.introspection.django_table_names(only_existing=True, include_views=False)
        tables = map(connection.ops.quote_name, sorted({*names} - CONSTANT))
        truncate(f"TRUNCATE {', '.join(tables)}")

    # A browser may still load a part of its last page. That request and this statement can lock
    # tables in different orders, and PostgreSQL then ends one of them.
    @retried
    def truncate(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    with pytest.MonkeyPatch.context() as patch:
        if not Cluster.running():
            patch.setattr(TransactionTestCase, "_fixture_teardown", empty)
        yield


@pytest.fixture(scope="session", autouse=True)
def static_files() -> Iterator[None]:
    """Look for static files only once.

    Each test has its own client, and WhiteNoise would read the folders again for each of them.
    """
    from whitenoise.middleware import WhiteNoiseMiddleware

    look = WhiteNoiseMiddleware.add_files_from_finders
    found: dict[str, Any] = {}

    def add_files_from_finders(middleware: WhiteNoiseMiddleware) -> None:
        if not found:
            others, middleware.files = middleware.files, found
            look(middleware)
            middleware.files = others
        middleware.files.update(found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", add_files_from_finders)
        yield


@pytest.fixture(scope="session")
def migrate(django_db_setup: None, django_db_blocker: Any) -> Callable[[str], None]:
    """Return a function that creates the tables in the empty database at a URL.

    The result is that of `manage.py migrate`, which takes several seconds. The function copies the
    schema of the test database, and the list of its migrations.
    """
    from django.core.management.sql import emit_post_migrate_signal
    from django.db import DEFAULT_DB_ALIAS, connection
    from django.db.backends.base.creation import TEST_DATABASE_PREFIX

    from bookings.tests.workers import database_url
    from bookit.runtime import servers
    from bookit.runtime.embedded_postgres import binary
    from bookit.tests.cluster import Cluster

    # pytest-django creates the test database only if a test of this run uses it. A copy from a
    # Citus cluster would need the extension of the cluster, which other servers lack.
    is_created = connection.settings_dict["NAME"].startswith(TEST_DATABASE_PREFIX)
    if not is_created or Cluster.running():
        return servers.migrate

    def dump(*options: str) -> bytes:
        command = [binary("pg_dump"), "--no-owner", "--no-privileges", "--no-comments", *options]
        return subprocess.run([*command, database_url()], capture_output=True, check=True).stdout

    tables = dump("--schema-only") + dump("--data-only", "--table=django_migrations")

    def migrate(url: str) -> None:
        psql = [binary("psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url]
        subprocess.run(psql, input=tables, stdout=subprocess.DEVNULL, check=True)
        with django_db_blocker.unblock(), servers.connected_to(url):
            emit_post_migrate_signal(verbosity=0, interactive=False, db=DEFAULT_DB_ALIAS)

    return migrate


@pytest.fixture(autouse=True)
def quick_password_hashes(request: pytest.FixtureRequest, settings: object) -> None:
    """Hash passwords quickly, except in tests that are marked `real_passwords`."""
    if "real_passwords" not in request.keywords:
        settings.PASSWORD_HASHERS = QUICK_HASHERS  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def forget_estimates() -> None:
    """Forget the estimated lengths of lists, so that each test counts its own rows."""
    from bookit.database.counts import estimates

    estimates.clear()


@pytest.fixture(autouse=True)
def reset_rate_limits() -> None:
    """Start every test with fresh rate limits."""
    from bookit.ratelimits import counting

    counting.reset()


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delete the jobs of a test that commits, because Django empties only tables that it manages.

    pytest-xdist may run any other test in the same database afterwards.
    """
    yield
    marker = request.node.get_closest_marker("django_db")
    if (marker and marker.kwargs.get("transaction")) or "transactional_db" in request.fixturenames:
        from bookings.tests.workers import database_url

        # The test may have broken its own connection.
        with psycopg.connect(database_url(), autocommit=True) as session:
            session.execute("DELETE FROM procrastinate_jobs; DELETE FROM procrastinate_workers")


@lru_cache(maxsize=1)
def shared_handler(middleware):
    """Return the handler that all clients with the same middleware share.

    The clients share a handler because each new handler first lists all static files.
    """
    from rest_framework.test import ForceAuthClientHandler

    return ForceAuthClientHandler(enforce_csrf_checks=False)


@pytest.fixture
def api(settings, request):
    """Return an API client; `api.as_(user)` returns a new client that is signed in as that user.

    For every operation in the OpenAPI document, the document must list the status and the error
    code of each response that the client gets, except in tests that are marked `made_up_errors`.
    """
    from rest_framework.test import APIClient
    from rest_framework_simplejwt.tokens import AccessToken

    from bookit.tests import contract

    made_up = "made_up_errors" in request.keywords
    # Generate the document now, and not while a test counts queries or measures time.
    contract.documented()

    class Client(APIClient):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.handler = shared_handler(tuple(settings.MIDDLEWARE))

        def request(self, **kwargs):
            response = super().request(**kwargs)
            if not made_up:
                contract.check(kwargs["REQUEST_METHOD"], response)
            return response

        def as_(self, user):
            token = AccessToken()
            token["user_id"] = str(user.pk)
            client = Client()
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
            return client

    return Client()
