"""Servers for tests and measurements, which ignore a developer's databases and many settings."""

import runpy

import pytest
from django.db import connection

from bookings.tests.workers import database_url
from bookit.runtime.servers import connected_to, production
from bookit.runtime.startup import BASE_DIR

URL = "postgresql://bookit@localhost/measured"
OTHER = "postgresql://bookit@localhost/developed"


@pytest.mark.parametrize("name", ["DATABASE_DIRECT_URL", "DATABASE_REPLICA_URL", "REDIS_URL"])
@pytest.mark.parametrize("is_in_a_file", [False, True])
def test_a_server_ignores_the_databases_and_the_redis_of_a_developer(
    monkeypatch, tmp_path, name, is_in_a_file
):
    """Otherwise, queue workers, for example, would take jobs from the developer's own database."""
    other = OTHER.replace("postgresql", "redis") if name == "REDIS_URL" else OTHER
    (tmp_path / "secret").write_text(other)
    if is_in_a_file:
        monkeypatch.setenv(name, "")
        monkeypatch.setenv(f"{name}_FILE", str(tmp_path / "secret"))
    else:
        monkeypatch.setenv(name, other)
    for variable, value in production(URL).items():
        monkeypatch.setenv(variable, value)
    settings = runpy.run_path(str(BASE_DIR / "bookit" / "settings.py"))
    assert settings["DATABASES"]["default"]["NAME"] == "measured"
    assert [*settings["DATABASES"]] == ["default"]
    assert settings["DATABASE_DIRECT_URL"] == settings["REDIS_URL"] == ""


def test_a_server_ignores_other_variables_that_a_developer_has_set(monkeypatch):
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318",
        "COMPOSE_PROXIES": "1",
        "WEBHOOK_ALLOW_PRIVATE": "true",
        "WORKER_CONCURRENCY": "1",
        "MAIL_PAUSE_SECONDS": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    environment = production(URL)
    assert {environment[name] for name in variables} == {""}


@pytest.mark.django_db(transaction=True)
def test_another_database_is_used_with_prepared_statements_and_without_a_time_limit():
    """Web servers prepare statements, too. Filling a database takes longer than their limit."""
    with connected_to(database_url()), connection.cursor() as cursor:
        for _ in range(10):
            cursor.execute("SELECT %s::int", [1])
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        assert ("SELECT $1::int",) in cursor.fetchall()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
        # This client, too, waits without a limit.
        assert connection.connection.patience is None
