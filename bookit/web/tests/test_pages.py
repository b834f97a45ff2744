"""The documentation, and the health checks of operators' machines."""

import json
import re

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from bookit.tests.expect import problem
from bookit.web import pages

PAGES = ["/docs", "/redoc", "/errors", "/errors/throttled"]


# --- documentation ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_nothing_from_another_host(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/html; charset=utf-8"
    page = answer.content.decode()
    assert not re.findall(r"https?://[^\s\"'<)]*|[\"'(]//\w[^\s\"']*", page)


@pytest.mark.parametrize("path", PAGES)
def test_everything_that_a_page_refers_to_exists(client, path):
    page = client.get(path).content.decode()
    found = set(re.findall(r"(?:src|href|spec-url)=\"(/[^\"]*)\"|url: \"(/[^\"]*)\"", page))
    addresses = {one or other for one, other in found}
    assert addresses
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200, address
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        assert body, address


@pytest.mark.parametrize("path", ["/docs?script=", "/redoc"])
def test_the_documentation_shows_the_openapi_document(client, path):
    assert "/openapi.json" in client.get(path).content.decode()


def test_the_openapi_document_is_json_and_generated_once(client):
    first, second = client.get("/openapi.json"), client.get("/openapi.json")
    assert first["Content-Type"] == "application/json"
    assert first.content == second.content
    assert json.loads(first.content)["info"]["title"] == "BookIt"
    assert pages.schema() is pages.schema()


@pytest.mark.parametrize("path", [*PAGES, "/openapi.json", "/health"])
def test_a_head_is_a_get_without_its_body(client, path):
    get, head = client.get(path), client.head(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head["Content-Type"] == get["Content-Type"]


@pytest.mark.parametrize("path", [*PAGES, "/openapi.json", "/health", "/services?limit=0"])
def test_every_response_has_security_headers(client, path):
    answer = client.get(path)
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["Referrer-Policy"] == "same-origin"


# --- health -----------------------------------------------------------------------------------


def test_health_is_ok_while_the_process_is_alive(client):
    """It does not use the database; this test has none."""
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/json"
    assert answer.json() == {"status": "ok"}


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/health", "/health/ready"])
def test_health_checks_may_use_any_host_name(client, path):
    """An orchestrator uses the container's own address."""
    assert client.get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200


@pytest.mark.django_db
def test_ready_is_ok_when_requests_can_be_served(client):
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready"}


@pytest.mark.django_db
@pytest.mark.parametrize("app", ["bookings", "token_blacklist"])
def test_ready_answers_503_while_a_migration_is_pending(client, monkeypatch, app):
    monkeypatch.setattr(pages, "_migrated", False)
    last = MigrationRecorder.Migration.objects.filter(app=app).order_by("id").last()
    last.delete()
    content = problem(client.get("/health/ready"), 503, "service_unavailable")
    assert "manage.py migrate" in content["detail"]
    # The process is ready as soon as the migration is applied, without a restart.
    MigrationRecorder.Migration.objects.create(app=last.app, name=last.name)
    assert client.get("/health/ready").status_code == 200


@pytest.mark.django_db
def test_ready_checks_migrations_only_until_none_is_pending(client, django_assert_max_num_queries):
    assert client.get("/health/ready").status_code == 200
    with django_assert_max_num_queries(1) as queries:
        assert client.get("/health/ready").status_code == 200
    assert len(queries) == 1


@pytest.mark.django_db(databases=[])
def test_ready_answers_503_without_postgresql(client, no_database):
    content = problem(client.get("/health/ready"), 503, "service_unavailable")
    assert "PostgreSQL" in content["detail"]
    assert client.get("/health").status_code == 200


@pytest.mark.django_db(databases=[])
def test_ready_answers_503_without_postgresql_at_the_first_check(client, no_database, monkeypatch):
    monkeypatch.setattr(pages, "_migrated", False)
    problem(client.get("/health/ready"), 503, "service_unavailable")


@pytest.mark.django_db
def test_ready_answers_503_without_tables(client, monkeypatch):
    """This is the state before the first migration."""
    monkeypatch.setattr(pages, "_migrated", False)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_migrations RENAME TO elsewhere")
    problem(client.get("/health/ready"), 503, "service_unavailable")
