"""Servers for tests and measurements ignore a developer's databases, Redis and other settings."""

import runpy

import pytest

from bookit.runtime.servers import production
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
